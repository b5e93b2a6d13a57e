"""The .npz format: .npy files in a zip archive, read in order, their checksums verified."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

from crossent.evaluation.array_file import ArrayFile, check_size
from crossent.evaluation.errors import BadFile
from crossent.evaluation.npy_file import parse_npy_header
from crossent.evaluation.plain_file import PlainFile

SKIPPED = 1 << 20  # bytes that are passed over at once
HEADER = 16_384  # enough for any .npy header that is accepted

T = TypeVar("T")


def guarded(path: Path, action: Callable[[], T]) -> T:
    """The action's result. What zipfile and zlib raise for damaged archives is open-ended."""
    try:
        return action()
    except (BadFile, MemoryError):
        raise
    except Exception as error:
        reason = "is encrypted" if "encrypted" in str(error) else f"is damaged ({error})"
        raise BadFile(f"{path}: {reason}; save it again with np.savez") from None


class ZipBytes:
    """The bytes of an archive's member behind its .npy header, in order.

    Going back means beginning anew. With the last byte zipfile checks the member's checksum.
    """

    def __init__(self, path: Path, file: PlainFile, member: str, start: int) -> None:
        self.path, self.file, self.member, self.start = path, file, member, start
        self.check_unchanged = file.check_unchanged
        self._lock = threading.Lock()
        self._archive: zipfile.ZipFile | None = None
        self._stream: IO[bytes] | None = None
        self._place = 0

    def read_into(self, buffer: Any, offset: int) -> None:
        """See ``Numbers``."""
        with self._lock:
            guarded(self.path, lambda: self._read(memoryview(buffer).cast("B"), offset))

    def _read(self, view: memoryview, offset: int) -> None:
        wanted = self.start + offset
        if self._stream is None or wanted < self._place:
            self._reopen()
        assert self._stream is not None
        while self._place < wanted:
            self._place += len(self._next(min(SKIPPED, wanted - self._place)))
        while view:
            data = self._next(len(view))
            view[: len(data)] = data
            view, self._place = view[len(data) :], self._place + len(data)

    def _next(self, count: int) -> bytes:
        assert self._stream is not None
        data = self._stream.read(count)
        if not data:
            raise EOFError("it ends early")
        return data

    def _reopen(self) -> None:
        if self._archive is None:
            self._archive = zipfile.ZipFile(self.path)
        if self._stream is not None:
            self._stream.close()
        self._stream = self._archive.open(self.member)
        self._place = 0

    def close(self) -> None:
        """Closes the archive."""
        if self._stream is not None:
            self._stream.close()
        if self._archive is not None:
            self._archive.close()
        self._stream = self._archive = None
        self.file.close()


def open_npz(path: Path, file: PlainFile) -> dict[str, Callable[[], ArrayFile]]:
    """What opens each array of a .npz file, by its name."""
    with guarded(path, lambda: zipfile.ZipFile(path)) as archive:
        members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
    if len({info.filename for info in members}) != len(members):
        raise BadFile(f"{path}: has two arrays of one name; save it again with np.savez")
    return {
        info.filename.removesuffix(".npy"): partial(open_member, path, file, info)
        for info in members
    }


def open_member(path: Path, file: PlainFile, info: zipfile.ZipInfo) -> ArrayFile:
    """One array of an archive."""
    name = f"{path}:{info.filename.removesuffix('.npy')}"

    def first_bytes() -> bytes:
        with zipfile.ZipFile(path) as archive, archive.open(info.filename) as stream:
            return stream.read(HEADER)

    start = guarded(path, first_bytes)
    header = parse_npy_header(name, lambda offset, count: start[offset : offset + count])
    check_size(name, header.shape, header.dtype.itemsize, info.file_size - header.start)
    return ArrayFile(
        name, ZipBytes(path, file, info.filename, header.start), header.shape, header.dtype,
        is_bfloat16=header.is_bfloat16, is_fortran=header.is_fortran, is_sequential=True,
    )  # fmt: skip

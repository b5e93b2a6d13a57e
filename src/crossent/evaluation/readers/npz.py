"""The .npz format: .npy files in a zip archive, read in order, their checksums verified."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from crossent.evaluation.errors import BadFile
from crossent.evaluation.readers.array_file import ArrayFile, PlainFile
from crossent.evaluation.readers.npy import BEGINNING, npy_array

SKIPPED = 1 << 20  # bytes that are passed over at once


@contextmanager
def refusing_damage(path: Path) -> Iterator[None]:
    """Damage as BadFile. What zipfile and zlib raise for damaged archives is open-ended."""
    try:
        yield
    except (BadFile, MemoryError):
        raise
    except Exception as error:
        reason = "is encrypted" if "encrypted" in str(error) else f"is damaged ({error})"
        raise BadFile(f"{path}: {reason}; save it again with np.savez") from None


class Member:
    """The bytes of an archive's member, in order.

    Going back means beginning anew: zipfile's own ``seek`` gives up the checksum, which it verifies
    with the last byte.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        self.path, self.archive, self.info = path, archive, info
        self._stream: IO[bytes] | None = None

    def read_into(self, buffer: NDArray[np.uint8], offset: int) -> None:
        """See ``Bytes``."""
        with refusing_damage(self.path):
            stream = self._stream_at(offset)
            filled = 0
            while filled < len(buffer):
                data = some_of(stream, len(buffer) - filled)
                buffer[filled : filled + len(data)] = np.frombuffer(data, np.uint8)
                filled += len(data)

    def _stream_at(self, place: int) -> IO[bytes]:
        if self._stream is None or self._stream.tell() > place:
            self._stream = self.archive.open(self.info)
        while (left := place - self._stream.tell()) > 0:
            some_of(self._stream, min(SKIPPED, left))
        return self._stream


def some_of(stream: IO[bytes], count: int) -> bytes:
    """The next bytes of a member, at most ``count`` of them and at least one."""
    data = stream.read(count)
    if not data:
        raise EOFError("it ends early")
    return data


def read_members(path: Path, file: PlainFile) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    """A .npz file as an archive, and what it holds by the arrays' names."""
    with refusing_damage(path):
        archive = zipfile.ZipFile(file.stream())
    members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
    by_name = {info.filename.removesuffix(".npy"): info for info in members}
    if len(by_name) != len(members):
        raise BadFile(f"{path}: has two arrays of one name; save it again with np.savez")
    return archive, by_name


def open_member(
    path: Path, file: PlainFile, archive: zipfile.ZipFile, info: zipfile.ZipInfo
) -> ArrayFile:
    """One array of an archive."""
    with refusing_damage(path), archive.open(info) as stream:
        beginning = stream.read(BEGINNING)
    name = f"{path}:{info.filename.removesuffix('.npy')}"
    array = npy_array(name, beginning, info.file_size, Member(path, archive, info), file)
    return replace(array, is_sequential=True)

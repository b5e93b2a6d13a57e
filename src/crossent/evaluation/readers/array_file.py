"""One array in a file: its shape, its type, and its numbers by position.

Files are never mapped: one that shrinks under a map kills the process.
"""

from __future__ import annotations

import io
import math
import os
import stat
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from crossent import _arguments as arguments
from crossent.evaluation.errors import BadFile

O_BINARY = getattr(os, "O_BINARY", 0)  # Windows
BFLOAT16 = np.dtype(np.uint16)  # how its bits are read: NumPy itself has no such type


class PlainFile:
    """An open file that knows when it is not what it was: shorter, or changed, since it was opened.

    Raises:
        BadFile: there is no such file, it may not be read, or it is not a regular file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # O_NONBLOCK: opening a pipe must not wait for a writer.
            self._handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | O_BINARY)
        except FileNotFoundError:
            raise BadFile(f"{path}: there is no such file; is the path right?") from None
        except PermissionError:
            raise BadFile(f"{path}: may not be read; chmod +r it, or copy it") from None
        except OSError as error:
            raise BadFile(f"{path}: cannot be opened: {error.strerror}") from None
        status = os.fstat(self._handle)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise BadFile(f"{path}: is {kind}; give a .npy, .npz or .safetensors file")
        self.size = status.st_size
        self._stamp = (status.st_size, status.st_mtime_ns)
        self._lock = threading.Lock()

    def read_into(self, buffer: Any, offset: int) -> None:
        """Fills a writable buffer with the bytes from ``offset``.

        Raises:
            BadFile: the file ends before the buffer is full, or the disk fails.
        """
        view = memoryview(buffer).cast("B")
        while view:
            try:
                count = self._read_some(view, offset)
            except OSError as error:
                raise BadFile(
                    f"{self.path}: cannot be read at byte {offset:,}: {error.strerror}; copy it "
                    "from where it is whole"
                ) from None
            if count == 0:
                raise BadFile(
                    f"{self.path}: ended at byte {offset:,} of {self.size:,}: it shrank while it "
                    "was read; run again when it is no longer written to"
                )
            view, offset = view[count:], offset + count

    def _read_some(self, view: memoryview, offset: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._handle, [view], offset)
        with self._lock:  # pragma: no cover (Windows)
            os.lseek(self._handle, offset, os.SEEK_SET)
            data = os.read(self._handle, len(view))
            view[: len(data)] = data
            return len(data)

    def bytes_at(self, offset: int, count: int) -> bytes:
        """``count`` bytes, or fewer at the file's end."""
        data = bytearray(max(0, min(count, self.size - offset)))
        self.read_into(data, offset)
        return bytes(data)

    def stream(self) -> io.FileIO:
        """The file as an object with a position; it must not outlive this one."""
        return io.FileIO(self._handle, closefd=False)

    def check_unchanged(self) -> None:
        """Raises BadFile where the file has been written to since it was opened."""
        status = os.fstat(self._handle)
        if (status.st_size, status.st_mtime_ns) != self._stamp:
            raise BadFile(
                f"{self.path}: changed while it was read; run again when it is no longer written to"
            )

    def close(self) -> None:
        """Closes the file; once is enough."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


class Bytes(Protocol):
    """Where an array's bytes are: a file, a member of an archive, memory."""

    def read_into(self, buffer: NDArray[np.uint8], offset: int) -> None:
        """Fills the buffer with the bytes from ``offset``."""


class ArrayBytes:
    """The bytes of an array in memory, in C order whatever its strides."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array
        self.flat = array.reshape(-1).view(np.uint8) if array.flags.c_contiguous else None

    def read_into(self, buffer: NDArray[np.uint8], offset: int) -> None:
        """See ``Bytes``."""
        if self.flat is not None:
            buffer[...] = self.flat[offset : offset + len(buffer)]
            return
        item = self.array[:1].nbytes
        first = offset // item
        some = self.array[first : -(-(offset + len(buffer)) // item)]
        flat = np.ascontiguousarray(some).reshape(-1).view(np.uint8)
        buffer[...] = flat[offset - first * item :][: len(buffer)]


@dataclass
class ArrayFile:
    """An array on disk, or one in memory that passes for one."""

    name: str  # what messages call it
    source: Bytes
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int = 0  # of its numbers in the source
    file: PlainFile | None = None  # that it was read from
    is_bfloat16: bool = False
    is_fortran: bool = False
    is_sequential: bool = False  # its bytes come in order only, as from a compressed archive

    @property
    def type_name(self) -> str:
        """The dtype as people call it."""
        return "bfloat16" if self.is_bfloat16 else self.dtype.name

    @property
    def nbytes(self) -> int:
        """The size of its numbers."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read_into(self, out: NDArray[Any], first: int) -> None:
        """Fills a contiguous array of the file's dtype from its ``first`` number on."""
        place = self.start + first * self.dtype.itemsize
        self.source.read_into(out.reshape(-1).view(np.uint8), place)

    def close(self) -> None:
        """Closes the file; once is enough."""
        if self.file is not None:
            self.file.close()


def in_memory(array: NDArray[Any], name: str) -> ArrayFile:
    """An array in memory, as if it were on disk."""
    is_bfloat16 = arguments.is_bfloat16(array.dtype)
    if is_bfloat16:
        array = array.view(BFLOAT16)
    return ArrayFile(name, ArrayBytes(array), array.shape, array.dtype, is_bfloat16=is_bfloat16)


def loaded(part: ArrayFile) -> ArrayFile:
    """A file's array, read whole into memory. The file stays open, to be known as an input."""
    array = np.empty(part.nbytes // part.dtype.itemsize, part.dtype)
    part.read_into(array, 0)
    return replace(part, source=ArrayBytes(array), start=0, is_sequential=False)

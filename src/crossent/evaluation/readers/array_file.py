"""One array in a file: its shape, its type, and its numbers by position."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossent import _arguments as arguments
from crossent.evaluation.errors import BadFile
from crossent.evaluation.readers.plain_file import PlainFile

BFLOAT16 = np.dtype(np.uint16)  # how its bits are read: NumPy itself has no such type


class Numbers:
    """Where an array's bytes come from."""

    file: PlainFile | None = None  # that they are read from

    def read_into(self, buffer: NDArray[np.uint8], offset: int) -> None:
        """Fills the buffer with the array's bytes from ``offset``, its first being at 0."""
        raise NotImplementedError

    def check_unchanged(self) -> None:
        """Raises BadFile where the file is no longer what it was."""
        if self.file is not None:
            self.file.check_unchanged()

    def close(self) -> None:
        """Closes the file."""
        if self.file is not None:
            self.file.close()


class FileBytes(Numbers):
    """The array's bytes lie in the file as they are, from ``start``."""

    file: PlainFile

    def __init__(self, file: PlainFile, start: int) -> None:
        self.file, self.start = file, start

    def read_into(self, buffer: NDArray[np.uint8], offset: int) -> None:
        """See ``Numbers``."""
        self.file.read_into(buffer, self.start + offset)


class ArrayBytes(Numbers):
    """The bytes of an array in memory, in C order whatever its strides."""

    def __init__(self, array: NDArray[Any], file: PlainFile | None = None) -> None:
        self.array, self.file = array, file
        self.flat = array.reshape(-1).view(np.uint8) if array.flags.c_contiguous else None

    def read_into(self, buffer: NDArray[np.uint8], offset: int) -> None:
        """See ``Numbers``."""
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
    numbers: Numbers
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_bfloat16: bool = False
    is_fortran: bool = False
    is_sequential: bool = False  # its bytes come in order only, as from a compressed archive

    @property
    def type_name(self) -> str:
        """The dtype as people call it."""
        return "bfloat16" if self.is_bfloat16 else self.dtype.name

    @property
    def is_floating(self) -> bool:
        """Whether it holds floating-point numbers."""
        return self.is_bfloat16 or self.dtype.kind == "f"

    @property
    def nbytes(self) -> int:
        """The size of its numbers."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read_into(self, out: NDArray[Any], first: int) -> None:
        """Fills a contiguous array of the file's dtype from its ``first`` number on."""
        self.numbers.read_into(out.reshape(-1).view(np.uint8), first * self.dtype.itemsize)


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
    return replace(part, numbers=ArrayBytes(array, part.numbers.file), is_sequential=False)


def check_size(name: str, shape: tuple[int, ...], itemsize: int, held: int) -> None:
    """Raises BadFile where the header promises another number of bytes than there are."""
    promised = math.prod(shape) * itemsize
    if promised != held:
        verb = "is truncated" if held < promised else "has bytes that no header explains"
        raise BadFile(
            f"{name}: {verb}: its header promises shape {shape} of {itemsize} bytes each, "
            f"{promised:,} bytes, and {held:,} are there; save or copy it again"
        )


def unreadable(name: str) -> BadFile:
    """The error for a header that is none."""
    return BadFile(f"{name}: its header cannot be read; save or copy it again")

"""One array in a file: its shape, its type, and its numbers by position."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from crossent import _arguments as arguments
from crossent.evaluation.errors import BadFile
from crossent.evaluation.plain_file import PlainFile

BFLOAT16 = np.dtype(np.uint16)  # how its bits are read: NumPy itself has no such type


class Numbers(Protocol):
    """Where an array's bytes come from."""

    def read_into(self, buffer: Any, offset: int) -> None:
        """Fills the buffer with the array's bytes from ``offset``, its first being at 0."""

    def check_unchanged(self) -> None:
        """Raises BadFile where the file is no longer what it was."""

    def close(self) -> None:
        """Closes the file."""


class FileBytes:
    """The array's bytes lie in the file as they are, from ``start``."""

    def __init__(self, file: PlainFile, start: int) -> None:
        self.file, self.start = file, start
        self.check_unchanged, self.close = file.check_unchanged, file.close

    def read_into(self, buffer: Any, offset: int) -> None:
        """See ``Numbers``."""
        self.file.read_into(buffer, self.start + offset)


class ArrayBytes:
    """The bytes of an array in memory, in C order whatever its strides."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array
        self.flat = array.reshape(-1).view(np.uint8) if array.flags.c_contiguous else None

    def read_into(self, buffer: Any, offset: int) -> None:
        """See ``Numbers``."""
        if self.flat is not None:
            buffer[...] = self.flat[offset : offset + len(buffer)]
            return
        item = self.array[:1].nbytes
        first = offset // item
        some = self.array[first : -(-(offset + len(buffer)) // item)]
        flat = np.ascontiguousarray(some).reshape(-1).view(np.uint8)
        buffer[...] = flat[offset - first * item :][: len(buffer)]

    def check_unchanged(self) -> None:
        """See ``Numbers``."""

    def close(self) -> None:
        """See ``Numbers``."""


class ArrayFile:
    """An array on disk, or one in memory that passes for one. ``name`` is what messages call it.

    ``is_sequential``: its bytes come in order only, as from a compressed archive.
    """

    def __init__(
        self,
        name: str,
        numbers: Numbers,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        *,
        is_bfloat16: bool = False,
        is_fortran: bool = False,
        is_sequential: bool = False,
    ) -> None:
        self.name, self.numbers = name, numbers
        self.shape, self.dtype = shape, dtype
        self.is_bfloat16, self.is_fortran = is_bfloat16, is_fortran
        self.is_sequential = is_sequential

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
        self.numbers.read_into(out.reshape(-1).view(np.uint8), first * self.dtype.itemsize)


def in_memory(array: NDArray[Any], name: str) -> ArrayFile:
    """An array in memory, as if it were on disk."""
    is_bfloat16 = arguments.is_bfloat16(array.dtype)
    if is_bfloat16:
        array = array.view(BFLOAT16)
    return ArrayFile(name, ArrayBytes(array), array.shape, array.dtype, is_bfloat16=is_bfloat16)


def loaded(part: ArrayFile) -> ArrayFile:
    """A file's array, read whole into memory."""
    array = np.empty(part.nbytes // part.dtype.itemsize, part.dtype)
    part.read_into(array, 0)
    part.numbers.close()
    return ArrayFile(
        part.name, ArrayBytes(array), part.shape, part.dtype,
        is_bfloat16=part.is_bfloat16, is_fortran=part.is_fortran,
    )  # fmt: skip


def check_size(name: str, shape: tuple[int, ...], itemsize: int, held: int) -> None:
    """Raises BadFile where the header promises another number of bytes than there are."""
    promised = math.prod(shape) * itemsize
    if promised != held:
        verb = "is truncated" if held < promised else "has bytes that no header explains"
        raise BadFile(
            f"{name}: {verb}: its header promises shape {shape} of {itemsize} bytes each, "
            f"{promised:,} bytes, and {held:,} are there; save or copy it again"
        )

"""Rows and classes over arrays on disk or in memory: any part of the rows, read into a buffer.

N rows, C classes. An array has (outer, C, inner) numbers: all axes before the class axis, the class
axis, all axes after it. Row r is (r // inner, r % inner), which is the order of the targets.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossent.evaluation.errors import BadFile
from crossent.evaluation.readers.array_file import ArrayFile, loaded

Array = NDArray[Any]

LARGEST_LOADED = 16 << 20  # bytes of an archive's array that is read whole


class Piece(NamedTuple):
    """Numbers of rows begin .. end that lie together in an array, from number ``first`` on.

    They are of every class, or of one.
    """

    begin: int
    end: int
    of_classes: slice | int
    first: int


class Layout(NamedTuple):
    """Where the rows of an array of (outer, C, inner) numbers lie."""

    outer: int
    classes: int
    inner: int

    @property
    def rows(self) -> int:
        """N."""
        return self.outer * self.inner

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """Rows start .. stop in pieces that can be read or written."""
        if self.inner == 1:
            yield Piece(start, stop, slice(None), start * self.classes)
            return
        while start < stop:
            o, i = divmod(start, self.inner)
            end = min(stop, (o + 1) * self.inner)
            for k in range(self.classes):
                yield Piece(start, end, k, (o * self.classes + k) * self.inner + i)
            start = end


def layout_of(shape: tuple[int, ...], axis: int | None) -> Layout:
    """The layout with classes on ``axis``; None: one number a row."""
    if axis is None:
        return Layout(math.prod(shape), 1, 1)
    return Layout(math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))


class Table:
    """Parts as one table of N rows by C classes (or of N numbers), of one type.

    ``read`` fills a buffer with rows and may be called from any thread, but in order where
    ``is_sequential``.
    """

    def __init__(
        self, parts: Sequence[ArrayFile], shape: tuple[int, ...], axis: int | None
    ) -> None:
        self.parts = [readable_by_rows(part, axis) for part in parts]
        self.shape, self.axis = shape, axis
        self.dtype = parts[0].dtype.newbyteorder("=")
        self.is_bfloat16, self.type_name = parts[0].is_bfloat16, parts[0].type_name
        self.is_sequential = any(part.is_sequential for part in self.parts)
        self.layouts = [part_layout(part, axis) for part in self.parts]
        self.classes = self.layouts[0].classes
        ends = np.cumsum([layout.rows for layout in self.layouts]).tolist()
        self.rows: int = ends[-1]
        self.firsts = [0, *ends[:-1]]

    @property
    def row_bytes(self) -> int:
        """The size of a row."""
        return self.classes * self.dtype.itemsize

    def read(self, start: int, stop: int, out: Array) -> None:
        """Fills ``out`` ((stop - start, C), contiguous) with rows."""
        part = bisect.bisect_right(self.firsts, start) - 1
        while start < stop:
            first, layout = self.firsts[part], self.layouts[part]
            end = min(stop, first + layout.rows)
            for piece in layout.pieces(start - first, end - first):
                rows = out[first + piece.begin - start : first + piece.end - start]
                self._read_piece(self.parts[part], piece, rows)
            out = out[end - start :]
            start, part = end, part + 1

    def _read_piece(self, part: ArrayFile, piece: Piece, out: Array) -> None:
        together = out if isinstance(piece.of_classes, slice) else np.empty(len(out), self.dtype)
        part.read_into(together, piece.first)
        if not part.dtype.isnative:
            together.byteswap(inplace=True)
        if together is not out:
            out[:, piece.of_classes] = together

    def place(self, row: int) -> tuple[str, int]:
        """The file that holds a row, and the row's number in it."""
        part = bisect.bisect_right(self.firsts, row) - 1
        return self.parts[part].name, row - self.firsts[part]


def part_layout(part: ArrayFile, axis: int | None) -> Layout:
    """The layout of one file. In Fortran order the first axis runs fastest."""
    if not part.is_fortran or math.prod(part.shape) == max(part.shape, default=0):
        return layout_of(part.shape, axis)
    if len(part.shape) == 2 and axis is not None:
        return layout_of(part.shape[::-1], 1 - axis)
    raise BadFile(
        f"{part.name}: is in Fortran order with {len(part.shape)} axes; save "
        "np.ascontiguousarray of it"
    )


def readable_by_rows(part: ArrayFile, axis: int | None) -> ArrayFile:
    """The part itself; one in an archive whose rows are not together is read whole, if small."""
    if not part.is_sequential or part_layout(part, axis).inner == 1:
        return part
    if part.nbytes > LARGEST_LOADED:
        raise BadFile(f"{part.name}: its rows are not together in the archive; save it as .npy")
    return loaded(part)


def joined_shape(parts: Sequence[ArrayFile]) -> tuple[int, ...]:
    """The shape of parts put one behind the other along their first axis."""
    first = parts[0]
    for part in parts[1:]:
        if part.shape[1:] != first.shape[1:] or len(part.shape) != len(first.shape):
            mixed = len(part.shape) != len(first.shape)
            hint = ". Do they belong together? Patterns go in quotes" if mixed else ""
            raise BadFile(
                f"{part.name}: has shape {part.shape}, which does not go on from {first.name} of "
                f"shape {first.shape}; all but the first axis must agree{hint}"
            )
        if part.type_name != first.type_name:
            raise BadFile(
                f"{part.name}: holds {part.type_name}, {first.name} holds {first.type_name}; save "
                "all parts as one type"
            )
    if not first.shape or len(parts) == 1:
        return first.shape
    return (sum(part.shape[0] for part in parts), *first.shape[1:])

"""What an evaluation learns of each row, from one block of logits.

N rows of the block, C classes. A row's figures depend on that row and the options alone: the same
bits in any block, on any thread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossent.evaluation.exact_sum import ExactSum
from crossent.evaluation.options import LossOptions

Array = NDArray[Any]

PIECE = 1024  # products that are summed in the logits' own precision


@dataclass(frozen=True)
class HardRow:
    """A row with a large loss and what the model made of it."""

    row: int
    label: int | None
    loss: float  # -log of the probability of the truth
    classes: tuple[int, ...] = ()  # the most probable
    probs: tuple[float, ...] = ()  # theirs

    @property
    def sort_key(self) -> tuple[float, int]:
        """Hardest first; of equals the earlier row."""
        return -self.loss, self.row


@dataclass
class Answers:
    """What a model answered: arrays of one value a row."""

    label: Array
    predicted: Array
    rank: Array  # of the label: 1 is the most probable class
    confidence: Array  # the probability of the predicted class
    brier: Array  # |p - y|^2
    other_correct: Array | None = None  # whether the other model was right


@dataclass
class RowScores:
    """The kept rows of a block: arrays of one value a row; and what it says of the whole block."""

    nll: Array  # -log p of the truth
    loss: Array  # with every option; the same array as nll where there are none
    divisor: Array | None = None  # what the row adds to the divisor of the mean; None: 1
    row_weight: Array | None = None
    difference: Array | None = None  # loss less the other model's
    answers: Answers | None = None  # None where only log-probabilities are known
    # of the whole block
    ignored: int = 0
    bad_labels: int = 0
    bad_logits: int = 0
    first_bad_row: int | None = None
    target_sums: ExactSum | None = None  # of distributions, class by class
    like_logprobs: bool = True  # no row says otherwise
    like_probs: bool = True
    hardest: list[HardRow] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.nll)

    def keep(self, rows: Array) -> None:
        """Drops all rows but these (bool, one a row)."""
        if rows.all():
            return
        alike = self.loss is self.nll
        for part, names in self._parts():
            for name in names:
                array = getattr(part, name)
                setattr(part, name, None if array is None else array[rows])
        if alike:
            self.loss = self.nll

    def _parts(self) -> list[tuple[Any, tuple[str, ...]]]:
        return [(self, ROW_ARRAYS), *([(self.answers, ANSWER_ARRAYS)] if self.answers else [])]


ANSWER_ARRAYS = tuple(one.name for one in fields(Answers))
ROW_ARRAYS = ("nll", "loss", "divisor", "row_weight", "difference")


class Workspace:
    """Arrays that blocks of one thread use in turn, so that memory is asked for once."""

    def __init__(self) -> None:
        self._memory: dict[str, Array] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array of this name, uninitialised."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        memory = self._memory.get(name)
        if memory is None or memory.size < size:
            memory = self._memory[name] = np.empty(size, np.uint8)
        array: Array = memory[:size].view(dtype).reshape(shape)
        return array


def as_float(logits: Array, is_bfloat16: bool, workspace: Workspace, name: str) -> Array:
    """Contiguous float32 or float64 of this machine's byte order, as the core's bare loops take it.

    Half types become float32, which holds them exactly; bfloat16 may come as its bits in uint16.
    """
    if is_bfloat16:
        wide = workspace.array(f"wide {name}", logits.shape, np.uint32)
        np.copyto(wide, logits.view(np.dtype(np.uint16).newbyteorder(logits.dtype.byteorder)))
        np.left_shift(wide, 16, out=wide)
        return wide.view(np.float32)
    if logits.dtype.type is np.float16:
        wide = workspace.array(f"wide {name}", logits.shape, np.float32)
        np.copyto(wide, logits)
        return wide
    return np.require(logits, logits.dtype.newbyteorder("="), ["C", "ALIGNED"])


def scaled(logits: Array, options: LossOptions, workspace: Workspace, name: str) -> Array:
    """u = softcap tanh(logit_scale a / softcap), for all but the loss itself."""
    u = workspace.array(f"u {name}", logits.shape, logits.dtype)
    np.multiply(logits, options.logit_scale, out=u)
    if options.softcap is not None:
        np.divide(u, options.softcap, out=u)
        np.tanh(u, out=u)
        np.multiply(u, options.softcap, out=u)
    return u


def row_dots(a: Array, b: Array) -> Array:
    """sum_k a_k b_k of each row, float64: pieces of 1,024 in the arrays' own precision.

    Not a plain einsum: beyond 8,192 classes its order of summation depends on the row's place in
    the block (its buffer), and its float32 sums lose digits.
    """
    n, classes = a.shape
    whole = classes - classes % PIECE
    total = np.zeros(n)
    if whole:
        pieces = (n, whole // PIECE, PIECE)
        sums = np.einsum("ijk,ijk->ij", a[:, :whole].reshape(pieces), b[:, :whole].reshape(pieces))
        total += sums.astype(np.float64).sum(axis=1)
    if whole < classes:
        total += np.einsum("ij,ij->i", a[:, whole:], b[:, whole:])
    return total


def hardest_rows(nll: Array, kept: Array, floor: float, most: int) -> Array:
    """Which kept rows have the largest losses, none below ``floor``; of equals the earlier row."""
    rows = np.flatnonzero(kept & (nll >= floor))
    if len(rows) > most:
        rows = rows[np.lexsort((rows, -nll[rows]))[:most]]
    return rows


def largest(values: Array, most: int) -> list[int]:
    """The places of the largest values, largest first; of equals the first."""
    rest = values.copy()
    places = []
    for _ in range(min(most, len(rest))):
        place = int(np.argmax(rest))
        places.append(place)
        rest[place] = -np.inf
    return places


def joined(parts: list[RowScores]) -> RowScores:
    """The rows of several blocks as one."""
    answers = None
    if parts[0].answers is not None:
        answers = Answers(**joined_arrays([part.answers for part in parts], ANSWER_ARRAYS))
    arrays = joined_arrays(parts, ROW_ARRAYS)
    return RowScores(**arrays, answers=answers)


def joined_arrays(parts: Sequence[object], names: tuple[str, ...]) -> dict[str, Any]:
    """Arrays by name, each put together from all parts; None where the parts have none."""
    arrays = {name: [getattr(part, name) for part in parts] for name in names}
    return {
        name: None if of_parts[0] is None else np.concatenate(of_parts)
        for name, of_parts in arrays.items()
    }


def weighted(values: Array, row_weight: Array | None) -> Array:
    """values * row_weight; None stands for ones."""
    return values if row_weight is None else as_float64(values) * row_weight


def as_float64(array: Array) -> Array:
    """The array as the sums take it."""
    return array.astype(np.float64)

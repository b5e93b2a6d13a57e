"""Blocks of rows, the loss that is measured of them, and what is found in each row.

N rows of the block, C classes. A row's figures depend on that row and the options alone: the same
bits in any block, on any thread.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossent import options
from crossent.evaluation.exact_sum import ExactSum, Sums
from crossent.options import Options

Array = NDArray[Any]

OF_ROW = ("weight", *options.OF_ROW)
PIECE = 1024  # products that are summed in the logits' own precision


class LossOptions(NamedTuple):
    """The options of ``crossent.cross_entropy``, with the same names, meanings and defaults."""

    weight: NDArray[Any] | None
    others: Options

    @property
    def changed(self) -> set[str]:
        """The options of a row's loss that are not at their defaults."""
        given = self.others._asdict()
        changed = {name for name in options.OF_ROW if given[name] != options.DEFAULTS[name]}
        return changed if self.weight is None else {"weight", *changed}

    @property
    def is_plain(self) -> bool:
        """Whether the loss is -log p of the target and nothing else."""
        return self.changed <= set(options.OF_LOGITS)

    @property
    def is_scaled(self) -> bool:
        """Whether the logits are changed before the softmax."""
        return not self.changed.isdisjoint(options.OF_LOGITS)

    def scaling(self) -> dict[str, Any]:
        """The arguments that change the logits."""
        return {name: getattr(self.others, name) for name in options.OF_LOGITS}

    def row_arguments(self) -> dict[str, Any]:
        """The arguments that give each row's loss."""
        given = {"weight": self.weight, **self.others._asdict()}
        return {name: given[name] for name in OF_ROW}

    def as_dict(self) -> dict[str, Any]:
        """The options by name, for JSON and reports."""
        weight = None if self.weight is None else self.weight.astype(np.float64).tolist()
        return {"weight": weight, **self.others._asdict()}


def loss_options(*, weight: ArrayLike | None = None, **others: Any) -> LossOptions:
    """The options of the loss from arguments that were given by name."""
    checked = options.checked(Options(**others)._asdict())
    return LossOptions(None if weight is None else np.asarray(weight), checked)


class Block(NamedTuple):
    """Some rows of the data; what was bfloat16 is float32, everything else of the type it had."""

    first_row: int
    type_name: str  # that the logits had
    logits: Array  # (N, C), or (N,) log-probabilities of the truth
    targets: Array | None = None  # (N,) class indices or (N, C) distributions
    row_weight: Array | None = None  # (N,)
    other: Array | None = None  # another model's logits, (N, C)


@dataclass(frozen=True)
class HardRow:
    """A row with a large loss and what the model made of it."""

    row: int
    label: int | None
    loss: float  # -log of the probability of the truth
    classes: tuple[int, ...] = ()  # the most probable
    probs: tuple[float, ...] = ()  # theirs


@dataclass
class Findings(Sums):
    """What is found beside the figures of rows, in a block or in all so far."""

    ignored: int = 0  # rows left out, or of weight 0
    bad_labels: int = 0
    bad_logits: int = 0
    first_bad_row: int | None = None
    not_logprobs: int = 0  # blocks that cannot hold log-probabilities of all classes
    not_probs: int = 0
    other_not_probs: int = 0  # of another model's logits
    hardest: list[HardRow] = field(default_factory=list)
    target_sums: ExactSum | None = None  # of distributions, class by class

    def merge(self, other: Findings) -> None:
        """Adds the other's rows."""
        first_bad = [row for row in (self.first_bad_row, other.first_bad_row) if row is not None]
        super().merge(other)
        self.first_bad_row = min(first_bad, default=None)
        self.hardest.sort(key=lambda row: (-row.loss, row.row))

    def merged(self, other: Findings) -> Findings:
        """These findings and the other's; both stay as they are."""
        both = replace(self, target_sums=copy.deepcopy(self.target_sums))
        both.merge(other)
        return both


class RowScores(NamedTuple):
    """What is found in the kept rows of a block, one value a row; and what it says of the block.

    ``of_rows`` holds, each where there is such:

        nll            -log p of the truth
        loss           with every option, where these make it another number than nll
        divisor        what the row adds to the divisor of the mean, where that is not 1
        row_weight
        difference     loss less the other model's
        label, predicted
        rank           of the label: 1 is the most probable class
        confidence     the probability of the predicted class
        brier          |p - y|^2
        other_correct  whether the other model was right
    """

    of_rows: dict[str, Array]
    found: Findings


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


def widened(words: Array, wide: Array) -> Array:
    """bfloat16, given as its bits, as float32 in the memory of ``wide`` (uint32)."""
    np.copyto(wide, words)
    np.left_shift(wide, 16, out=wide)
    return wide.view(np.float32)


def as_float(logits: Array, workspace: Workspace, name: str) -> Array:
    """Contiguous float32 or float64 of this machine's byte order, as the core's bare loops take it.

    float16 becomes float32, which holds it exactly.
    """
    if logits.dtype.type is np.float16:
        wide = workspace.array(f"wide {name}", logits.shape, np.float32)
        np.copyto(wide, logits)
        return wide
    return np.require(logits, logits.dtype.newbyteorder("="), ["C", "ALIGNED"])


def scaled(logits: Array, loss: LossOptions, workspace: Workspace, name: str) -> Array:
    """u = softcap tanh(logit_scale a / softcap), for all but the loss itself."""
    if not loss.is_scaled:
        return logits
    u = workspace.array(f"u {name}", logits.shape, logits.dtype)
    np.multiply(logits, loss.others.logit_scale, out=u)
    if loss.others.softcap is not None:
        np.divide(u, loss.others.softcap, out=u)
        np.tanh(u, out=u)
        np.multiply(u, loss.others.softcap, out=u)
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


def largest(values: Array, most: int) -> list[int]:
    """The places of the largest values, largest first; of equals the first."""
    rest = values.copy()
    places = []
    for _ in range(min(most, len(rest))):
        places.append(int(np.argmax(rest)))
        rest[places[-1]] = -np.inf
    return places


def weighted(values: Array, row_weight: Array | None) -> Array:
    """values * row_weight; None stands for ones."""
    return values if row_weight is None else values.astype(np.float64) * row_weight


def ones_or(row_weight: Array | None, rows: int) -> Array:
    """The rows' weights; None stands for ones."""
    return np.ones(rows, np.bool_) if row_weight is None else row_weight

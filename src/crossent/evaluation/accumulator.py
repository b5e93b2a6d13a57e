"""The accumulator: rows in, in any blocks and any order of merging; figures out, the same bits.

N rows of a block, C classes.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from crossent import _arguments as arguments
from crossent.evaluation.errors import BadOption, whole_number
from crossent.evaluation.result import EvaluationResult, build_result
from crossent.evaluation.rows import Array, Block, RowScores, Workspace, loss_options, widened
from crossent.evaluation.scorer import RowScorer
from crossent.evaluation.tallies import Rows, RowSums

HARDEST = 10
FOLD = 1 << 15  # rows that are gathered before they are added: a call on few rows costs more
LOOKS_LIKE_PROBS = (
    "these look like probabilities, not logits: every row is >= 0 and sums to 1, and their "
    "softmax means nothing. Evaluate their logarithm"
)
LOOKS_LIKE_LOGPROBS = (
    "these look like log-probabilities, not logits: exp of every row sums to 1. The loss "
    "is right all the same, since their softmax is those probabilities"
)
ONE_CLASS = (
    f"there is 1 class, so its probability is 1 whatever its logit. {arguments.stack_scores('N')}"
)


class EvaluationAccumulator:
    """Sums and counts of an evaluation, from which ``result`` makes every figure.

    Rows come through ``update``, block by block; accumulators of parts become one through
    ``merge``. Every sum is exact and every count a whole number, so the result has the same bits
    for any split into blocks and parts and any order of merging. It can be pickled, so any engine
    that maps and reduces can drive it (examples/dask_shards.py). Its memory grows with the classes,
    not with the rows.

    Args:
        classes: C; None where only log-probabilities of the truth are to be had.
        first_row: the number of the first row, by which the hardest rows are named: for a part of
            the data, the rows before it.
        skip_bad: leave rows out, and count them, whose label is no class or whose loss is nan,
            rather than raise.
        hardest: how many rows with the largest loss are kept.
        options: those of ``crossent.cross_entropy``, by name.

    Example:
        >>> import crossent
        >>> whole = crossent.EvaluationAccumulator(3)
        >>> whole.update([[2.0, 1.0, 0.1]], [1])
        >>> part = crossent.EvaluationAccumulator(3, first_row=1)
        >>> part.update([[0.1, 2.0, 1.9]], [0])
        >>> whole.merge(part)
        >>> print("%.3f +- %.3f" % (whole.result().loss, whole.result().loss_standard_error))
        2.019 +- 0.601
    """

    def __init__(
        self,
        classes: int | None,
        *,
        first_row: int = 0,
        skip_bad: bool = False,
        hardest: int = HARDEST,
        **options: Any,
    ) -> None:
        if classes is not None:
            classes = whole_number("classes", classes, 1)
        hardest = whole_number("hardest", hardest, 0)
        self.classes = classes
        self.options = loss_options(**options)
        if classes is not None:
            arguments.class_weight(self.options.weight, classes)
        self.skip_bad, self.hardest_count = skip_bad, hardest
        self.next_row = whole_number("first_row", first_row, 0)
        self._sums = RowSums(classes, is_plain=self.options.is_plain)
        self._scorer = RowScorer(classes, self.options, skip_bad=skip_bad, hardest=hardest)
        self._waiting: list[Rows] = []
        self._rows_waiting = 0

    @property
    def sums(self) -> RowSums:
        """The sums over all rows so far."""
        self._fold()
        return self._sums

    @property
    def floor(self) -> float:
        """The loss below which a row is not among the hardest."""
        if not self.hardest_count:
            return math.inf
        hardest = self._sums.found.hardest
        return hardest[-1].loss if len(hardest) == self.hardest_count else -math.inf

    def update(
        self,
        logits: ArrayLike,
        targets: ArrayLike,
        *,
        row_weight: ArrayLike | None = None,
        other_logits: ArrayLike | None = None,
    ) -> None:
        """Adds the rows of a block.

        Args:
            logits: (N, C), of a floating type.
            targets: (N,) class indices or (N, C) distributions.
            row_weight: (N,) weights >= 0 or a mask; rows of weight 0 are left out.
            other_logits: (N, C), those of another model, for the paired difference.

        Raises:
            BadRow (a ValueError): a label is no class or a loss is nan, and ``skip_bad`` is off.
                Nothing of the block is added.
        """
        array = self._matrix(logits, "logits")
        target = arguments.target_array(targets, array, 1).array
        other = None if other_logits is None else self._matrix(other_logits, "other_logits")
        if other is not None and other.shape != array.shape:
            raise ValueError(f"other_logits have shape {other.shape}; logits {array.shape}")
        weight = None if row_weight is None else arguments.as_array("row_weight", row_weight)
        if weight is not None and weight.shape != (len(array),):
            raise ValueError(f"row_weight has shape {weight.shape}; it must have ({len(array)},)")
        self._add_block(logits=array, targets=target, row_weight=weight, other=other)

    def _matrix(self, logits: ArrayLike, name: str) -> Array:
        array = arguments.logits_array(logits, name)
        if self.classes is None:
            raise ValueError("this accumulator has no classes: use update_logprobs")
        if array.ndim != 2 or array.shape[1] != self.classes:
            hint = f". {arguments.stack_scores('N')}" if array.ndim == 1 else ""
            raise ValueError(f"{name} have shape {array.shape}, not (N, {self.classes}){hint}")
        return array

    def update_logprobs(self, logprobs: ArrayLike, *, row_weight: ArrayLike | None = None) -> None:
        """Adds rows of which only the natural log-probability of the truth is known, (N,)."""
        weight = None if row_weight is None else arguments.as_array("row_weight", row_weight)
        self._add_block(logits=arguments.as_array("logprobs", logprobs), row_weight=weight)

    def _add_block(self, *, logits: Array, **others: Array | None) -> None:
        given = {name: without_bfloat16(one) for name, one in others.items() if one is not None}
        type_name = logits.dtype.name
        block = Block(self.next_row, type_name, without_bfloat16(logits), **given)
        self.add(self.score(block, Workspace()), len(logits))

    def score(self, block: Block, workspace: Workspace) -> RowScores:
        """The scores of a block, for ``add``. Changes nothing: any thread may call it."""
        found = self._sums.found
        look = not (found.not_logprobs and found.not_probs and found.other_not_probs)
        with np.errstate(over="ignore", invalid="ignore"):  # infinite logits are data
            return self._scorer.score(block, workspace, self.floor, look=look)

    def add(self, scores: RowScores, rows: int) -> None:
        """Adds the scores of the next ``rows`` rows; all of them, or none where memory runs out."""
        others_wait = self._waiting and self._waiting[0].keys() != scores.of_rows.keys()
        if others_wait or self._rows_waiting >= FOLD:
            self._fold()
        found = self._sums.found.merged(scores.found)
        del found.hardest[self.hardest_count :]
        self._sums.found = found
        self.next_row += rows
        if len(scores.of_rows["nll"]):
            self._waiting.append(scores.of_rows)
            self._rows_waiting += len(scores.of_rows["nll"])

    def _fold(self) -> None:
        """Adds the figures that wait to the sums."""
        if self._waiting:
            joined = {
                name: np.concatenate([rows[name] for rows in self._waiting])
                for name in self._waiting[0]
            }
            sums = copy.deepcopy(self._sums)
            with np.errstate(over="ignore", invalid="ignore"):  # so are weights of any size
                sums.add(joined)
            self._sums, self._waiting, self._rows_waiting = sums, [], 0

    def merge(self, other: EvaluationAccumulator) -> None:
        """Adds the rows of another accumulator, made with the same options.

        Raises:
            ValueError: their classes or options differ.
        """
        if self.classes != other.classes or self.options.as_dict() != other.options.as_dict():
            raise BadOption("accumulators of different classes or options cannot be merged")
        sums = copy.deepcopy(self.sums)
        sums.merge(other.sums)
        del sums.found.hardest[self.hardest_count :]
        self._sums = sums
        self.next_row = max(self.next_row, other.next_row)

    def result(self) -> EvaluationResult:
        """Every figure of the rows so far; more may follow.

        Raises:
            ValueError: no row counts, and ``when_empty`` is "raise".
        """
        sums, warnings = self.sums, self._warnings()
        with np.errstate(all="ignore"):  # what is beyond float64 is infinite, or nan
            return build_result(sums, self.options, warnings)

    def _warnings(self) -> tuple[str, ...]:
        """What the data look like, where that is not what they were given as."""
        if self.classes == 1:
            return (ONE_CLASS,)
        if self.classes is None or self.sums.nll.rows < 5:
            return ()
        found, warnings = self.sums.found, []
        if not found.not_probs:
            warnings.append(LOOKS_LIKE_PROBS)
        elif not found.not_logprobs:
            warnings.append(LOOKS_LIKE_LOGPROBS)
        if self.sums.difference.rows and not found.other_not_probs:
            warnings.append(f"the other model's logits: {LOOKS_LIKE_PROBS}")
        return tuple(warnings)


def without_bfloat16(array: Array) -> Array:
    """bfloat16 as float32, any other array as it is."""
    if not arguments.is_bfloat16(array.dtype):
        return array
    return widened(arguments.as_words(array), np.empty(array.shape, np.uint32))

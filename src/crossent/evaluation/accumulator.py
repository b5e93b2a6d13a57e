"""The accumulator: rows in, in any blocks and any order of merging; figures out, the same bits.

N rows of a block, C classes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossent import _arguments as arguments
from crossent.evaluation.errors import BadOption
from crossent.evaluation.estimates import WeightedMean
from crossent.evaluation.exact_sum import ExactSum
from crossent.evaluation.logprobs import score_logprobs
from crossent.evaluation.options import LossOptions
from crossent.evaluation.result import EvaluationResult, build_result
from crossent.evaluation.rows import Answers, HardRow, RowScores, Workspace, joined, weighted
from crossent.evaluation.scorer import Block, RowScorer
from crossent.evaluation.tallies import (
    MOST_DENSE_CLASSES,
    Calibration,
    Confusion,
    ConfusionSketch,
    LossHistogram,
    RankLosses,
    WeightedCounts,
)

Array = NDArray[Any]

HARDEST = 10
FOLD = 1 << 15  # rows that are gathered before they are added: a call on few rows costs more
TOP = 5


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
        self.classes = classes
        self.options = LossOptions(**options)
        self.skip_bad, self.hardest_count = skip_bad, hardest
        self.next_row = first_row
        if classes is not None:
            arguments.class_weight(self.options.weight, classes)
        self.ignored = self.bad_labels = self.bad_logits = 0
        self.first_bad_row: int | None = None
        self.loss = WeightedMean()
        self.nll = self.loss if self.options.is_plain else WeightedMean()
        self.difference = WeightedMean()
        self.agreement = np.zeros((2, 2), np.int64)  # [this model right, the other right]
        self.histogram = LossHistogram()
        self.hardest: list[HardRow] = []
        self.like_logprobs = self.like_probs = True
        if classes is not None:
            self.correct, self.in_top = WeightedMean(), WeightedMean()
            self.brier = WeightedMean()
            self.calibration = Calibration()
            self.class_rows, self.class_correct = WeightedCounts(classes), WeightedCounts(classes)
            self.class_nll = ExactSum(classes)
            self.target_sums: ExactSum | None = None
            self.rank_losses = RankLosses()
            self.confusion: Confusion | ConfusionSketch = ConfusionSketch(classes)
            if classes <= MOST_DENSE_CLASSES:
                self.confusion = Confusion(classes)
        self._scorer = RowScorer(classes or 0, self.options, skip_bad=skip_bad, hardest=hardest)
        self._waiting: list[RowScores] = []
        self._rows_waiting = 0

    @property
    def floor(self) -> float:
        """The loss below which a row is not among the hardest."""
        if not self.hardest_count:
            return math.inf
        return self.hardest[-1].loss if len(self.hardest) == self.hardest_count else -math.inf

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
        weight = None if row_weight is None else np.asarray(row_weight)
        if weight is not None and weight.shape != (len(array),):
            raise ValueError(f"row_weight has shape {weight.shape}; it must have ({len(array)},)")
        block = Block(
            self.next_row, array, target, weight, other,
            arguments.is_bfloat16(array.dtype),
            other is not None and arguments.is_bfloat16(other.dtype),
        )  # fmt: skip
        self.add(self.score(block, Workspace()), len(array))

    def _matrix(self, logits: ArrayLike, name: str) -> Array:
        array = arguments.logits_array(logits, name)
        if self.classes is None:
            raise ValueError("this accumulator has no classes: use update_logprobs")
        if array.ndim != 2 or array.shape[1] != self.classes:
            raise ValueError(f"{name} have shape {array.shape}, not (N, {self.classes})")
        return array

    def update_logprobs(self, logprobs: ArrayLike, *, row_weight: ArrayLike | None = None) -> None:
        """Adds rows of which only the natural log-probability of the truth is known, (N,)."""
        array = np.asarray(logprobs)
        weight = None if row_weight is None else np.asarray(row_weight)
        none = np.zeros(0, np.int64)
        self.add(self.score(Block(self.next_row, array, none, weight), Workspace()), len(array))

    def score(self, block: Block, workspace: Workspace) -> RowScores:
        """The scores of a block, for ``add``. Changes nothing: any thread may call it."""
        with np.errstate(over="ignore", invalid="ignore"):  # infinite logits are data
            if self.classes is not None:
                return self._scorer.score(
                    block, workspace, self.floor, look=self.like_logprobs or self.like_probs
                )
            return score_logprobs(
                block, workspace,
                skip_bad=self.skip_bad, hardest=self.hardest_count, floor=self.floor,
            )  # fmt: skip

    def add(self, scores: RowScores, rows: int) -> None:
        """Adds the scores of the next ``rows`` rows."""
        self.next_row += rows
        self.ignored += scores.ignored
        self.bad_labels += scores.bad_labels
        self.bad_logits += scores.bad_logits
        if self.first_bad_row is None:
            self.first_bad_row = scores.first_bad_row
        self.like_logprobs &= scores.like_logprobs
        self.like_probs &= scores.like_probs
        if scores.hardest:
            self._keep_hardest(scores.hardest)
        if scores.target_sums is not None:
            if self.target_sums is None:
                self.target_sums = ExactSum(self.classes or 0)
            self.target_sums.merge(scores.target_sums)
        if len(scores):
            self._waiting.append(scores)
            self._rows_waiting += len(scores)
        if self._rows_waiting >= FOLD:
            self._fold()

    def _keep_hardest(self, found: list[HardRow]) -> None:
        self.hardest = sorted([*self.hardest, *found], key=lambda row: row.sort_key)
        del self.hardest[self.hardest_count :]

    def _fold(self) -> None:
        """Adds the scores that wait to the sums."""
        if not self._waiting:
            return
        scores = joined(self._waiting)
        self._waiting, self._rows_waiting = [], 0
        weight = scores.row_weight
        divisor = weight if scores.divisor is None else weighted(scores.divisor, weight)
        self.loss.add(weighted(scores.loss, weight), divisor)
        if self.nll is not self.loss:
            self.nll.add(weighted(scores.nll, weight), weight)
        self.histogram.add(scores.nll)
        if scores.difference is not None:
            self.difference.add(weighted(scores.difference, weight), divisor)
        if scores.answers is not None:
            self._fold_answers(scores.answers, scores.nll, weight)

    def _fold_answers(self, answers: Answers, nll: Array, weight: Array | None) -> None:
        label, predicted = answers.label, answers.predicted
        correct: Array = predicted == label
        if answers.other_correct is not None:
            cell = 2 * correct + answers.other_correct
            self.agreement += np.bincount(cell, minlength=4).reshape(2, 2)
        self.correct.add(weighted(correct, weight), weight)
        self.in_top.add(weighted(answers.rank <= TOP, weight), weight)
        self.brier.add(weighted(answers.brier, weight), weight)
        self.calibration.add(answers.confidence, correct, weight)
        self.class_rows.add(label, weight)
        self.class_correct.add(label[correct], None if weight is None else weight[correct])
        self.class_nll.add(weighted(nll, weight), label)
        self.rank_losses.add(answers.rank, nll)
        self.confusion.add(label, predicted)

    def merge(self, other: EvaluationAccumulator) -> None:
        """Adds the rows of another accumulator, made with the same options.

        Raises:
            ValueError: their classes or options differ.
        """
        if self.classes != other.classes or not self.options.same_as(other.options):
            raise BadOption("accumulators of different classes or options cannot be merged")
        self._fold()
        other._fold()
        for name in ("ignored", "bad_labels", "bad_logits"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        firsts = [row for row in (self.first_bad_row, other.first_bad_row) if row is not None]
        self.first_bad_row = min(firsts, default=None)
        self.next_row = max(self.next_row, other.next_row)
        self.like_logprobs &= other.like_logprobs
        self.like_probs &= other.like_probs
        self.agreement += other.agreement
        self._keep_hardest(other.hardest)
        parts = ["loss", "difference", "histogram"]
        if self.nll is not self.loss:
            parts.append("nll")
        if self.classes is not None:
            parts += ["correct", "in_top", "brier", "calibration", "class_rows"]
            parts += ["class_correct", "class_nll", "rank_losses", "confusion"]
            if other.target_sums is not None:
                if self.target_sums is None:
                    self.target_sums = ExactSum(self.classes)
                self.target_sums.merge(other.target_sums)
        for part in parts:
            getattr(self, part).merge(getattr(other, part))

    def result(self) -> EvaluationResult:
        """Every figure of the rows so far; more may follow.

        Raises:
            ValueError: no row counts, and ``when_empty`` is "raise".
        """
        self._fold()
        return build_result(self)

"""What an evaluation adds up over rows, block by block, part by part.

C classes. Every sum is exact and every count a whole number: no order or split can show in them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossent.evaluation.estimates import WeightedMean
from crossent.evaluation.exact_sum import ExactSum, Sums
from crossent.evaluation.rows import RowScores, weighted
from crossent.evaluation.tallies import (
    MOST_DENSE_CLASSES,
    Calibration,
    Confusion,
    ConfusionSketch,
    LossHistogram,
    RankLosses,
    WeightedCounts,
)

Rows = dict[str, NDArray[Any]]  # as in RowScores

TOP = 5


class RowSums(Sums):
    """Sums over rows. ``of_classes`` is None where only log-probabilities are known."""

    def __init__(self, classes: int | None, *, is_plain: bool) -> None:
        self.ignored = self.bad_labels = self.bad_logits = 0
        self.loss = WeightedMean()
        self.nll_beside_loss = None if is_plain else WeightedMean()
        self.difference = WeightedMean()
        self.agreement = np.zeros((2, 2), np.int64)  # [this model right, the other right]
        self.histogram = LossHistogram()
        self.of_classes = None if classes is None else ClassSums(classes)

    @property
    def nll(self) -> WeightedMean:
        """-log p of the truth, which is the loss where no option changes it."""
        return self.loss if self.nll_beside_loss is None else self.nll_beside_loss

    def count(self, scores: RowScores) -> None:
        """Adds what a block says beside its rows' figures."""
        self.ignored += scores.ignored
        self.bad_labels += scores.bad_labels
        self.bad_logits += scores.bad_logits
        if self.of_classes is not None and scores.target_sums is not None:
            self.of_classes.add_targets(scores.target_sums)

    def add(self, rows: Rows) -> None:
        """Adds the figures of rows."""
        nll, weight = rows["nll"], rows.get("row_weight")
        divisor = weighted(rows["divisor"], weight) if "divisor" in rows else weight
        self.loss.add(weighted(rows.get("loss", nll), weight), divisor)
        if self.nll_beside_loss is not None:
            self.nll_beside_loss.add(weighted(nll, weight), weight)
        self.histogram.add(nll)
        if "difference" in rows:
            self.difference.add(weighted(rows["difference"], weight), divisor)
        if "other_correct" in rows:
            cell = 2 * (rows["predicted"] == rows["label"]) + rows["other_correct"]
            self.agreement += np.bincount(cell, minlength=4).reshape(2, 2)
        if self.of_classes is not None:
            self.of_classes.add(rows)


class ClassSums(Sums):
    """Sums over rows that have labels and answers."""

    def __init__(self, classes: int) -> None:
        self.correct, self.in_top = WeightedMean(), WeightedMean()
        self.brier = WeightedMean()
        self.calibration = Calibration()
        self.rows, self.right = WeightedCounts(classes), WeightedCounts(classes)
        self.nll = ExactSum(classes)
        self.target_sums: ExactSum | None = None  # of distributions
        self.ranks = RankLosses()
        self.confusion: Confusion | ConfusionSketch = ConfusionSketch(classes)
        if classes <= MOST_DENSE_CLASSES:
            self.confusion = Confusion(classes)

    def add_targets(self, sums: ExactSum) -> None:
        """Adds distributions, summed class by class."""
        if self.target_sums is None:
            self.target_sums = ExactSum(sums.groups)
        self.target_sums.merge(sums)

    def add(self, rows: Rows) -> None:
        """Adds the figures of rows."""
        label, predicted, weight = rows["label"], rows["predicted"], rows.get("row_weight")
        correct = predicted == label
        self.correct.add(weighted(correct, weight), weight)
        self.in_top.add(weighted(rows["rank"] <= TOP, weight), weight)
        self.brier.add(weighted(rows["brier"], weight), weight)
        self.calibration.add(rows["confidence"], correct, weight)
        self.rows.add(label, weight)
        self.right.add(label[correct], None if weight is None else weight[correct])
        self.nll.add(weighted(rows["nll"], weight), label)
        self.ranks.add(rows["rank"], rows["nll"])
        self.confusion.add(label, predicted)

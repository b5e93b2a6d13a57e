"""What an evaluation adds up over rows: exact sums and whole numbers.

No order and no split into blocks or parts can show in them.

C classes. The memory of a tally does not grow with the rows.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossent.evaluation.exact_sum import ExactSum, Sums, WeightedMean, sum_rounded_once
from crossent.evaluation.rows import Array, Findings, ones_or, weighted

Rows = dict[str, Array]  # as in RowScores

CALIBRATION_BINS = 15
TOP = 5  # classes among which the truth is looked for
RANK_BINS = 34  # rank 1, 2, 3-4, 5-8, ... up to 2^32
MOST_DENSE_CLASSES = 1024  # above that, confusion is counted in a sketch


class CalibrationBin(NamedTuple):
    """Rows whose predicted class was given a probability from ``low`` to ``high``."""

    low: float
    high: float
    weight: float  # rows, or their weight
    confidence: float  # mean
    accuracy: float


class Calibration(Sums):
    """Rows, confidence and right answers in bins of equal width."""

    def __init__(self, bins: int = CALIBRATION_BINS) -> None:
        self.weight, self.correct, self.confidence = (ExactSum(bins) for _ in range(3))

    def add(self, confidence: Array, correct: Array, row_weight: Array | None = None) -> None:
        """Adds rows by the probability of the predicted class, from 0 to 1."""
        count = self.confidence.groups
        bins = np.minimum((confidence * count).astype(np.intp), count - 1)
        self.weight.add(ones_or(row_weight, len(bins)), bins)
        self.correct.add(weighted(correct, row_weight), bins)
        self.confidence.add(weighted(confidence, row_weight), bins)

    def bins(self) -> list[CalibrationBin]:
        """The bins that hold rows."""
        count, weight = self.weight.groups, self.weight.values()
        correct, confidence = self.correct.values(), self.confidence.values()
        return [
            CalibrationBin(
                k / count, (k + 1) / count, float(weight[k]),
                float(confidence[k] / weight[k]), float(correct[k] / weight[k]),
            )
            for k in range(count) if weight[k] > 0
        ]  # fmt: skip

    def mean_confidence(self) -> float:
        """How sure the answers are; nan where there is none."""
        return self._mean(self.confidence.values())

    def error(self) -> float:
        """The mean gap between confidence and accuracy; see ``calibration_error``."""
        # The counts cancel: n_b |mean confidence - share right| = |sum of (confidence - right)|.
        return self._mean(abs(self.confidence.values() - self.correct.values()))

    def _mean(self, of_bins: NDArray[np.float64]) -> float:
        total = sum_rounded_once(self.weight.values())
        return sum_rounded_once(of_bins) / total if total else math.nan


def calibration_error(
    confidence: ArrayLike, correct: ArrayLike, *, bins: int = CALIBRATION_BINS
) -> float:
    """The expected calibration error: the mean gap between confidence and accuracy.

        ECE = sum_b (n_b / N) |mean confidence in bin b - share of right answers in bin b|

    over ``bins`` bins of equal width; 0 is perfect. Source: Guo, Pleiss, Sun, Weinberger,
    "On Calibration of Modern Neural Networks" (2017), equation 3.

    Args:
        confidence: (N,), the probability that was given to each predicted class.
        correct: (N,), whether that class was the right one.
        bins: the number of bins.

    Returns:
        A number from 0 to 1; nan when there are no rows.

    Example: three answers given at 0.9 of which two were right.

    >>> round(calibration_error([0.9, 0.9, 0.9], [True, True, False]), 3)
    0.233
    """
    rows = Calibration(bins)
    rows.add(np.asarray(confidence, np.float64), np.asarray(correct, np.bool_))
    return rows.error()


class LossHistogram(Sums):
    """Rows by loss, in bins of which 32 make a doubling: the leading bits of a float32.

    So a bin is about 2 % wide anywhere from 1e-38 to 1e38, and quantiles are right to that; what
    rounds to less than the first bin's end, 4e-40, counts as 0.
    """

    BITS = 14  # sign, 8 of the exponent, 5 of the significand

    def __init__(self) -> None:
        self.counts = np.zeros(1 << self.BITS, np.int64)

    def add(self, loss: Array) -> None:
        """Adds rows."""
        with np.errstate(over="ignore"):
            bits = (loss + 0.0).astype(np.float32).view(np.uint32)  # + 0.0: -0 becomes 0
        self.counts += np.bincount(bits >> (32 - self.BITS), minlength=len(self.counts))

    def edges_and_counts(self) -> tuple[NDArray[np.float64], NDArray[np.float64], Array]:
        """Lower edges, upper edges and counts of the bins that hold rows, by rising loss."""
        shift = 32 - self.BITS
        taken = np.flatnonzero(self.counts).astype(np.uint32)
        near = (taken << shift).view(np.float32).astype(np.float64)
        with np.errstate(invalid="ignore"):
            far = ((taken + 1) << shift).view(np.float32).astype(np.float64)
        far = np.where(np.isnan(far) | (np.abs(near) == np.inf), near, far)
        low, high = np.minimum(near, far), np.maximum(near, far)
        order = np.argsort(low, kind="stable")
        return low[order], high[order], self.counts[taken][order]

    def quantiles(self, shares: tuple[float, ...]) -> list[float]:
        """The losses that these shares of the rows do not exceed, to about 2 %."""
        low, high, counts = self.edges_and_counts()
        if not len(counts):
            return [float("nan")] * len(shares)
        reached = np.cumsum(counts)
        places = [int(np.searchsorted(reached, share * reached[-1])) for share in shares]
        middle = np.where(
            (low == 0) | np.isinf(low), low, 0.5 * (low + np.where(np.isinf(high), low, high))
        )
        return [float(middle[min(place, len(middle) - 1)]) for place in places]


class RankBin(NamedTuple):
    """Rows whose label was the ``low``-th to ``high``-th most probable class."""

    low: int
    high: int
    rows: int
    loss: float  # mean


class RankLosses(Sums):
    """Rows and their loss by the rank of the true class: 1, 2, 3-4, 5-8, ..."""

    def __init__(self) -> None:
        self.counts = np.zeros(RANK_BINS, np.int64)
        self.loss = ExactSum(RANK_BINS)

    def add(self, rank: Array, loss: Array) -> None:
        """Adds rows; the bin of rank r is the number of bits of r - 1."""
        bins = np.frexp((rank - 1).astype(np.float64))[1]
        self.counts += np.bincount(bins, minlength=RANK_BINS)
        self.loss.add(loss, bins)

    def bins(self) -> list[RankBin]:
        """The bins that hold rows."""
        counts, loss = self.counts, self.loss.values()
        return [
            RankBin((1 << k) // 2 + 1, 1 << k, int(counts[k]), float(loss[k] / counts[k]))
            for k in np.flatnonzero(counts).tolist()
        ]


class ConfusedPair(NamedTuple):
    """How often one class was taken for another."""

    label: int
    predicted: int
    times: int


class Confusion(Sums):
    """Counts of label by answer: exact up to 1,024 classes."""

    def __init__(self, classes: int) -> None:
        self.matrix = np.zeros((classes, classes), np.int64)

    def add(self, label: Array, predicted: Array) -> None:
        """Adds rows."""
        classes = len(self.matrix)
        cells = np.bincount(label * classes + predicted, minlength=classes * classes)
        self.matrix += cells.reshape(classes, classes)

    def top_pairs(self, most: int) -> list[ConfusedPair]:
        """The most frequent mistakes; of equals the smaller label, then the smaller answer."""
        classes, cells = len(self.matrix), self.matrix.ravel()
        taken = np.flatnonzero(cells)
        taken = taken[taken // classes != taken % classes]
        order = taken[np.argsort(-cells[taken], kind="stable")[:most]]
        return [
            ConfusedPair(int(cell) // classes, int(cell) % classes, int(cells[cell]))
            for cell in order
        ]


class ConfusionSketch(Sums):
    """The most frequent mistakes among many classes, in memory that does not grow.

    A count-min sketch: each pair adds 1 to one cell of each of DEPTH rows, and the smallest of its
    cells is its count or a little more, never less (on average by under 1 / 2^16 of all mistakes).
    Only pairs of a label that is often mistaken and an answer that is often mistaken can be
    frequent, so those are looked up. Source: Cormode and Muthukrishnan, Journal of Algorithms 55,
    2005.
    """

    matrix = None  # a sketch does not hold it
    DEPTH, WIDTH_BITS, CANDIDATES = 4, 17, 512
    MULTIPLIERS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93)

    def __init__(self, classes: int) -> None:
        self.cells = np.zeros((self.DEPTH, 1 << self.WIDTH_BITS), np.int64)
        self.labels = np.zeros(classes, np.int64)
        self.answers = np.zeros(classes, np.int64)

    def add(self, label: Array, predicted: Array) -> None:
        """Adds rows; right answers are left out."""
        wrong = label != predicted
        label, predicted = label[wrong], predicted[wrong]
        self.labels += np.bincount(label, minlength=len(self.labels))
        self.answers += np.bincount(predicted, minlength=len(self.labels))
        for cells, places in zip(self.cells, self._places(label, predicted), strict=True):
            cells += np.bincount(places, minlength=len(cells))

    def _places(self, label: Array, predicted: Array) -> list[Array]:
        pair = (label * len(self.labels) + predicted).astype(np.uint64)
        pair = pair ^ (pair >> np.uint64(29))
        shift = np.uint64(64 - self.WIDTH_BITS)
        return [((pair * np.uint64(m)) >> shift).astype(np.intp) for m in self.MULTIPLIERS]

    def _most(self, counts: NDArray[np.int64]) -> Array:
        """The classes that are mistaken most often, in order of their numbers."""
        classes = np.sort(np.argsort(-counts, kind="stable")[: self.CANDIDATES])
        return classes[counts[classes] > 0]

    def top_pairs(self, most: int) -> list[ConfusedPair]:
        """The most frequent mistakes; the counts are estimates, never too low."""
        often = [self._most(self.labels), self._most(self.answers)]
        label, answer = (grid.ravel() for grid in np.meshgrid(*often, indexing="ij"))
        places = self._places(label, answer)
        counts = np.min(
            [cells[place] for cells, place in zip(self.cells, places, strict=True)], axis=0
        )
        counts = np.minimum(counts, np.minimum(self.labels[label], self.answers[answer]))
        counts[label == answer] = 0
        order = np.argsort(-counts, kind="stable")[:most]
        return [
            ConfusedPair(int(label[i]), int(answer[i]), int(counts[i])) for i in order if counts[i]
        ]


class RowSums(Sums):
    """Sums over rows. ``of_classes`` is None where only log-probabilities are known."""

    def __init__(self, classes: int | None, *, is_plain: bool) -> None:
        self.found = Findings()
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
        self.rows = np.zeros(classes, np.int64)
        self.weight, self.right, self.nll = (ExactSum(classes) for _ in range(3))
        self.ranks = RankLosses()
        self.confusion: Confusion | ConfusionSketch = ConfusionSketch(classes)
        if classes <= MOST_DENSE_CLASSES:
            self.confusion = Confusion(classes)

    def add(self, rows: Rows) -> None:
        """Adds the figures of rows."""
        label, predicted, weight = rows["label"], rows["predicted"], rows.get("row_weight")
        correct = predicted == label
        self.correct.add(weighted(correct, weight), weight)
        self.in_top.add(weighted(rows["rank"] <= TOP, weight), weight)
        self.brier.add(weighted(rows["brier"], weight), weight)
        self.calibration.add(rows["confidence"], correct, weight)
        self.rows += np.bincount(label, minlength=len(self.rows))
        self.weight.add(ones_or(weight, len(label)), label)
        self.right.add(weighted(correct, weight), label)
        self.nll.add(weighted(rows["nll"], weight), label)
        self.ranks.add(rows["rank"], rows["nll"])
        self.confusion.add(label, predicted)

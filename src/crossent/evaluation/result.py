"""The figures of an evaluation, made from an accumulator's exact sums.

N kept rows, C classes. All losses are in nats.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossent import _arguments as arguments
from crossent.evaluation.estimates import Estimate, WeightedMean
from crossent.evaluation.rows import HardRow
from crossent.evaluation.tallies import CALIBRATION_BINS, RANK_BINS, ConfusedPair

if TYPE_CHECKING:
    from crossent.evaluation.accumulator import EvaluationAccumulator

TOP_PAIRS = 20
ENOUGH_ROWS = 10  # of a class, for its mean loss to tell something
QUANTILES = (0.5, 0.9, 0.99)


class CalibrationBin(NamedTuple):
    """Rows whose predicted class was given a probability from ``low`` to ``high``."""

    low: float
    high: float
    weight: float  # rows, or their weight
    confidence: float  # mean
    accuracy: float


class RankBin(NamedTuple):
    """Rows whose label was the ``low``-th to ``high``-th most probable class."""

    low: int
    high: int
    rows: int
    loss: float  # mean


class Comparison(NamedTuple):
    """Two models on the same rows: this one's loss less the other's, row by row."""

    difference: float
    standard_error: float
    other_loss: float
    both_right: int
    only_this_right: int
    only_other_right: int
    both_wrong: int


class TemperatureFit(NamedTuple):
    """The temperature T that would minimise the mean of -log softmax(logits / T)."""

    temperature: float
    nll: float  # at that temperature
    passes: int  # over the files, to find it
    at_limit: bool  # the loss still falls beyond the temperatures that were tried


@dataclass(frozen=True)
class Classes:
    """What an evaluation that has logits knows beyond one that has log-probabilities."""

    count: int
    uniform_loss: float  # ln C: every class the same probability
    prior_loss: float  # the entropy of the classes' own frequencies: knowing nothing else
    accuracy: float
    accuracy_standard_error: float
    top5: float
    brier: float  # mean of |p - y|^2, from 0 to 2
    brier_standard_error: float
    confidence: float  # mean
    calibration_error: float
    calibration: list[CalibrationBin]
    rows_of_class: NDArray[np.int64]
    loss_of_class: NDArray[np.float64]  # nan where a class has no row
    accuracy_of_class: NDArray[np.float64]
    ranks: list[RankBin]
    confusion: NDArray[np.int64] | None  # (C, C) rows by label and answer; None for many classes
    top_pairs: list[ConfusedPair]
    top_pairs_are_exact: bool

    def hardest(self, most: int) -> list[int]:
        """The classes of largest loss, of those with ENOUGH_ROWS rows if there are such."""
        enough = np.flatnonzero(self.rows_of_class >= ENOUGH_ROWS)
        taken = enough if len(enough) else np.flatnonzero(self.rows_of_class)
        order = np.argsort(-self.loss_of_class[taken], kind="stable")[:most]
        return [int(k) for k in taken[order]]


@dataclass(frozen=True)
class EvaluationResult:
    """What the outputs of a model are worth, and how sure that is."""

    rows: int
    ignored: int
    bad_labels: int  # left out under skip_bad
    bad_logits: int
    first_bad_row: int | None
    loss: float  # reduced as ``reduction`` says
    loss_standard_error: float
    loss_sum: float
    divisor: float  # of the mean
    nll: float  # mean of -log p of the truth: the loss without weight, smoothing and z-loss
    nll_standard_error: float
    perplexity: float  # exp(nll)
    bits: float  # nll / ln 2
    infinite_rows: int  # in which the truth has probability 0
    quantiles: dict[str, float]  # of the rows' nll, to about 2 %
    hardest: list[HardRow]
    options: dict[str, Any]
    classes: Classes | None = None
    comparison: Comparison | None = None
    temperature: TemperatureFit | None = None
    bytes: int | None = None
    bits_per_byte: float | None = None
    warnings: tuple[str, ...] = ()
    files: dict[str, list[str]] = field(default_factory=dict)
    histogram: tuple[Any, Any, Any] = field(default=((), (), ()), repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Everything but the histogram as plain numbers, lists and dicts, for JSON."""
        document = asdict(self)
        del document["histogram"]
        document["hardest"] = [asdict(row) for row in self.hardest]
        for name in ("comparison", "temperature"):
            part = getattr(self, name)
            document[name] = None if part is None else part._asdict()
        if self.classes is not None:
            document["classes"] = classes_as_dict(self.classes)
        return document


def classes_as_dict(classes: Classes) -> dict[str, Any]:
    """The figures of the classes as plain numbers, lists and dicts."""
    document = dict(vars(classes))
    for name in ("calibration", "ranks", "top_pairs"):
        document[name] = [item._asdict() for item in document[name]]
    for name in ("rows_of_class", "loss_of_class", "accuracy_of_class"):
        document[name] = document[name].tolist()
    document["calibration_bins"] = CALIBRATION_BINS
    if classes.confusion is not None:
        document["confusion"] = classes.confusion.tolist()
    return document


def build_result(sums: EvaluationAccumulator) -> EvaluationResult:
    """The figures of what an accumulator has added so far."""
    loss = reduced_loss(sums)
    nll = sums.nll.estimate()
    return EvaluationResult(
        rows=sums.nll.rows,
        ignored=sums.ignored,
        bad_labels=sums.bad_labels,
        bad_logits=sums.bad_logits,
        first_bad_row=sums.first_bad_row,
        loss=loss.value,
        loss_standard_error=loss.standard_error,
        loss_sum=sums.loss.total,
        divisor=sums.options.normalizer or sums.loss.divisor,
        nll=nll.value,
        nll_standard_error=nll.standard_error,
        perplexity=exponential(nll.value),
        bits=nll.value / math.log(2),
        infinite_rows=sums.nll.infinities,
        quantiles=dict(
            zip(("median", "p90", "p99"), sums.histogram.quantiles(QUANTILES), strict=True)
        ),
        hardest=list(sums.hardest),
        options=sums.options.as_dict(),
        classes=None if sums.classes is None else class_figures(sums, sums.classes),
        comparison=comparison(sums),
        warnings=warnings_of(sums),
        histogram=sums.histogram.edges_and_counts(),
    )


def reduced_loss(sums: EvaluationAccumulator) -> Estimate:
    """The loss as ``reduction``, ``normalizer`` and ``when_empty`` say, with its standard error."""
    options, mean = sums.options, sums.loss.estimate()
    if options.reduction == "sum":
        return Estimate(sums.loss.total, mean.standard_error * sums.loss.divisor)
    if options.normalizer is not None:
        scale = sums.loss.divisor / options.normalizer
        return Estimate(sums.loss.total / options.normalizer, mean.standard_error * scale)
    if sums.loss.divisor == 0:
        if options.when_empty == "raise":
            arguments.raise_empty()
        return Estimate(0.0 if options.when_empty == "zero" else math.nan, math.nan)
    return mean


def exponential(power: float) -> float:
    """exp, with infinity where it overflows."""
    try:
        return math.exp(power)
    except OverflowError:
        return math.inf


def class_figures(sums: EvaluationAccumulator, classes: int) -> Classes:
    """The figures that need answers and labels."""
    weight = sums.class_rows.weight()
    share = weight if sums.target_sums is None else sums.target_sums.values()
    with np.errstate(invalid="ignore", divide="ignore"):
        loss_of_class = sums.class_nll.values() / weight
        accuracy_of_class = sums.class_correct.weight() / weight
    accuracy, brier = sums.correct.estimate(), sums.brier.estimate()
    bins, confidence, calibration_error = calibration_figures(sums)
    return Classes(
        count=classes,
        uniform_loss=math.log(classes),
        prior_loss=entropy(share),
        accuracy=accuracy.value,
        accuracy_standard_error=accuracy.standard_error,
        top5=mean(sums.in_top),
        brier=brier.value,
        brier_standard_error=brier.standard_error,
        confidence=confidence,
        calibration_error=calibration_error,
        calibration=bins,
        rows_of_class=sums.class_rows.rows.copy(),
        loss_of_class=loss_of_class,
        accuracy_of_class=accuracy_of_class,
        ranks=rank_figures(sums),
        confusion=sums.confusion.counts(),
        top_pairs=sums.confusion.top_pairs(TOP_PAIRS),
        top_pairs_are_exact=sums.confusion.exact,
    )


def mean(of: WeightedMean) -> float:
    """The mean alone."""
    return of.estimate().value


def entropy(share: NDArray[np.float64]) -> float:
    """-sum q log q of the distribution proportional to ``share``; the sum is rounded once."""
    total = math.fsum(share)
    if not 0 < total < math.inf:
        return math.nan
    return abs(math.fsum(-q * math.log(q) for q in (share[share > 0] / total).tolist()))


def calibration_figures(sums: EvaluationAccumulator) -> tuple[list[CalibrationBin], float, float]:
    """The reliability diagram's bins that hold rows, mean confidence, and calibration error."""
    weight = sums.calibration.counts.weight()
    correct, confidence = sums.calibration.correct.weight(), sums.calibration.confidence.values()
    bins = [
        CalibrationBin(
            k / CALIBRATION_BINS, (k + 1) / CALIBRATION_BINS, float(weight[k]),
            float(confidence[k] / weight[k]), float(correct[k] / weight[k]),
        )
        for k in range(CALIBRATION_BINS) if weight[k] > 0
    ]  # fmt: skip
    total = math.fsum(weight)
    if not total:
        return bins, math.nan, math.nan
    return bins, math.fsum(confidence) / total, math.fsum(abs(confidence - correct)) / total


def rank_figures(sums: EvaluationAccumulator) -> list[RankBin]:
    """Rows and loss by rank, bins 1, 2, 3-4, 5-8, ... that hold rows."""
    counts, loss = sums.rank_losses.counts, sums.rank_losses.loss.values()
    return [
        RankBin((1 << (k - 1)) + 1 if k else 1, 1 << k, int(counts[k]), float(loss[k] / counts[k]))
        for k in range(RANK_BINS) if counts[k]
    ]  # fmt: skip


def comparison(sums: EvaluationAccumulator) -> Comparison | None:
    """The paired difference, where there is another model."""
    if not sums.difference.rows:
        return None
    difference = sums.difference.estimate()
    wrong, right = sums.agreement.tolist()
    return Comparison(
        difference.value, difference.standard_error,
        sums.loss.estimate().value - difference.value,
        both_right=right[1], only_this_right=right[0],
        only_other_right=wrong[1], both_wrong=wrong[0],
    )  # fmt: skip


def warnings_of(sums: EvaluationAccumulator) -> tuple[str, ...]:
    """What the data look like, where that is not what they were given as."""
    if sums.classes is None or sums.classes < 2 or sums.nll.rows < 5:
        return ()
    if sums.like_probs:
        return (
            "these look like probabilities, not logits: every row is >= 0 and sums to 1, and their "
            "softmax means nothing. Evaluate their logarithm",
        )
    if sums.like_logprobs:
        return (
            "these look like log-probabilities, not logits: exp of every row sums to 1. The loss "
            "is right all the same, since their softmax is those probabilities",
        )
    return ()

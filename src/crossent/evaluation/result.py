"""The figures of an evaluation, made from exact sums.

N kept rows, C classes. All losses are in nats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossent import _arguments as arguments
from crossent.evaluation.exact_sum import Estimate, WeightedMean, sum_rounded_once
from crossent.evaluation.interval import LEVEL, Interval, wilson_interval
from crossent.evaluation.rows import Findings, HardRow, LossOptions
from crossent.evaluation.tallies import (
    CALIBRATION_BINS,
    CalibrationBin,
    ClassSums,
    ConfusedPair,
    RankBin,
    RowSums,
)
from crossent.options import Options

TOP_PAIRS = 20
ENOUGH_ROWS = 10  # of a class, for its mean loss to tell something
QUANTILES = (0.5, 0.9, 0.99)


class Comparison(NamedTuple):
    """Two models on the same rows: this one's loss less the other's, row by row."""

    difference: float
    standard_error: float
    other_loss: float
    both_right: int
    only_this_right: int
    only_other_right: int
    both_wrong: int
    only_this_share: float  # of the rows that just one of the two has right
    only_this_interval: Interval


class TemperatureFit(NamedTuple):
    """The temperature T that would minimise the mean of -log softmax(logits / T)."""

    temperature: float
    nll: float  # at that temperature
    passes: int  # over the files, to find it
    at_limit: bool  # the loss still falls beyond the temperatures that were tried


@dataclass(frozen=True, repr=False)
class Classes:
    """What an evaluation that has logits knows beyond one that has log-probabilities."""

    count: int
    uniform_loss: float  # ln C: every class the same probability
    prior_loss: float  # the entropy of the classes' own frequencies: knowing nothing else
    accuracy: float
    accuracy_standard_error: float
    accuracy_interval: Interval
    top5: float
    top5_interval: Interval
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

    def __repr__(self) -> str:
        return shown(self, "count", "accuracy", "brier", "calibration_error")

    def hardest(self, most: int) -> list[int]:
        """The classes of largest loss, of those with ENOUGH_ROWS rows if there are such."""
        enough = np.flatnonzero(self.rows_of_class >= ENOUGH_ROWS)
        taken = enough if len(enough) else np.flatnonzero(self.rows_of_class)
        order = np.argsort(-self.loss_of_class[taken], kind="stable")[:most]
        return [int(k) for k in taken[order]]


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        return shown(self, "rows", "loss", "loss_standard_error", "perplexity", "classes")

    def as_dict(self) -> dict[str, Any]:
        """Everything but the histogram as plain numbers, lists and dicts, for JSON."""
        document: dict[str, Any] = as_json(self)
        del document["histogram"]
        if self.classes is not None:
            document["classes"]["calibration_bins"] = CALIBRATION_BINS
            document["classes"]["interval_level"] = LEVEL
        return document


def shown(value: Any, *names: str) -> str:
    """A result, or a part of one, by the few figures that fit a line."""
    figures = ", ".join(f"{name}={getattr(value, name)!r}" for name in names)
    return f"{type(value).__name__}({figures}, ...)"


def as_json(value: Any) -> Any:
    """A result, or a part of one, as plain numbers, lists and dicts."""
    if is_dataclass(value):
        value = {part.name: getattr(value, part.name) for part in fields(value)}
    elif hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {name: as_json(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [as_json(item) for item in value] if isinstance(value, list) else value


def build_result(
    sums: RowSums, options: LossOptions, warnings: tuple[str, ...]
) -> EvaluationResult:
    """The figures of what an accumulator has added so far."""
    found, loss = sums.found, reduced_loss(sums.loss, options.others)
    if options.weight is not None and (options.weight < 0).any():
        loss = loss._replace(standard_error=math.nan)
        warnings = (*warnings, "class weights below 0: the loss has no standard error")
    nll, (median, p90, p99) = sums.nll.estimate(), sums.histogram.quantiles(QUANTILES)
    return EvaluationResult(
        rows=sums.nll.rows,
        ignored=found.ignored,
        bad_labels=found.bad_labels,
        bad_logits=found.bad_logits,
        first_bad_row=found.first_bad_row,
        loss=loss.value,
        loss_standard_error=loss.standard_error,
        loss_sum=sums.loss.total,
        divisor=options.others.normalizer or sums.loss.divisor,
        nll=nll.value,
        nll_standard_error=nll.standard_error,
        perplexity=exponential(nll.value),
        bits=nll.value / math.log(2),
        infinite_rows=sums.nll.of_a.infinities,
        quantiles={"median": median, "p90": p90, "p99": p99},
        hardest=list(found.hardest),
        options=options.as_dict(),
        classes=None if sums.of_classes is None else class_figures(sums.of_classes, found),
        comparison=comparison(sums),
        warnings=warnings,
        histogram=sums.histogram.edges_and_counts(),
    )


def reduced_loss(of: WeightedMean, options: Options) -> Estimate:
    """The loss as ``reduction``, ``normalizer`` and ``when_empty`` say, with its standard error."""
    mean = of.estimate()
    if options.reduction == "sum":
        return Estimate(of.total, mean.standard_error * of.divisor)
    if options.normalizer is not None:
        scale = of.divisor / options.normalizer
        return Estimate(of.total / options.normalizer, mean.standard_error * scale)
    if of.divisor == 0:
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


def class_figures(sums: ClassSums, found: Findings) -> Classes:
    """The figures that need answers and labels."""
    weight, matrix = sums.weight.values(), sums.confusion.matrix
    with np.errstate(invalid="ignore", divide="ignore"):
        loss_of_class = sums.nll.values() / weight
        accuracy_of_class = sums.right.values() / weight
    accuracy, top5, brier = (mean.estimate() for mean in (sums.correct, sums.in_top, sums.brier))
    return Classes(
        count=len(weight),
        uniform_loss=math.log(len(weight)),
        prior_loss=entropy(weight if found.target_sums is None else found.target_sums.values()),
        accuracy=accuracy.value,
        accuracy_standard_error=accuracy.standard_error,
        accuracy_interval=wilson_interval(accuracy.value, sums.correct.equal_rows),
        top5=top5.value,
        top5_interval=wilson_interval(top5.value, sums.in_top.equal_rows),
        brier=brier.value,
        brier_standard_error=brier.standard_error,
        confidence=sums.calibration.mean_confidence(),
        calibration_error=sums.calibration.error(),
        calibration=sums.calibration.bins(),
        rows_of_class=sums.rows.copy(),
        loss_of_class=loss_of_class,
        accuracy_of_class=accuracy_of_class,
        ranks=sums.ranks.bins(),
        confusion=None if matrix is None else matrix.copy(),
        top_pairs=sums.confusion.top_pairs(TOP_PAIRS),
        top_pairs_are_exact=matrix is not None,
    )


def entropy(share: NDArray[np.float64]) -> float:
    """-sum q log q of the distribution proportional to ``share``; the sum is rounded once."""
    total = sum_rounded_once(share)
    if not 0 < total < math.inf:
        return math.nan
    return abs(math.fsum(-q * math.log(q) for q in (share / total).tolist() if q > 0))


def comparison(sums: RowSums) -> Comparison | None:
    """The paired difference, where there is another model."""
    if not sums.difference.rows:
        return None
    difference = sums.difference.estimate()
    (both_wrong, only_other_right), (only_this_right, both_right) = sums.agreement.tolist()
    only_one = only_this_right + only_other_right
    share = only_this_right / only_one if only_one else math.nan
    return Comparison(
        difference.value, difference.standard_error,
        sums.loss.estimate().value - difference.value,
        both_right, only_this_right, only_other_right, both_wrong,
        share, wilson_interval(share, only_one),
    )  # fmt: skip

"""The temperature that would minimise the loss.

With beta = 1 / T the mean loss of softmax(beta a) is a convex function of beta:

    dL/dbeta   = mean of sum_k (p_k - y_k) a_k             p = softmax(beta a)
    d2L/dbeta2 = mean of the variance of a under p         never negative

so Newton's method on log beta, kept within a bracket, finds its one minimum in a few passes over
the data. Source: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks" (2017).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import crossent
from crossent.evaluation.data import Data
from crossent.evaluation.estimates import WeightedMean
from crossent.evaluation.passes import Plan, Progress, run_pass
from crossent.evaluation.result import TemperatureFit
from crossent.evaluation.rows import Workspace, as_float, as_float64, row_dots, weighted
from crossent.evaluation.scorer import read_labels

if TYPE_CHECKING:
    from crossent.evaluation.accumulator import EvaluationAccumulator

Array = NDArray[Any]

LIMIT = math.log(1024)  # temperatures are sought from 1 / 1024 to 1024
PRECISION = 1e-5  # of the temperature, relative
NO_GAIN = 1e-11  # nats that no further pass is worth
MOST_PASSES = 30


class Slope(NamedTuple):
    """The mean loss at a beta and its derivatives with respect to log beta."""

    loss: float
    first: float
    second: float


def fit_temperature(
    data: Data, plan: Plan, sums: EvaluationAccumulator, progress: Progress
) -> TemperatureFit:
    """The temperature that minimises the loss, found in further passes over the data."""
    total = data.logits.rows * data.row_bytes
    passes = 0

    def slope_at(log_beta: float) -> Slope:
        nonlocal passes
        passes += 1
        with progress(f"fitting the temperature, pass {passes}", total) as advance:
            return measure_slope(data, plan, sums, math.exp(log_beta), advance)

    log_beta, slope, is_minimum = minimum(slope_at)
    return TemperatureFit(math.exp(-log_beta), slope.loss, passes, not is_minimum)


def minimum(slope_at: Callable[[float], Slope]) -> tuple[float, Slope, bool]:
    """Where a function with one minimum has it, the function there, and whether it has one.

    Newton's steps, except where they leave the bracket (halve it) or go on in one direction without
    getting much shorter, as where there is no minimum (double them).
    """
    low, high = -LIMIT, LIMIT
    place = step = 0.0
    for _ in range(MOST_PASSES):
        slope = slope_at(place)
        if not math.isfinite(slope.first):
            break
        low, high = (low, place) if slope.first > 0 else (place, high)
        before = step
        step = -slope.first / slope.second if slope.second > 0 else -math.copysign(1, slope.first)
        if step * before > 0 and abs(step) > 0.4 * abs(before):
            step = 2 * before
        wanted = min(max(place + max(-2.0, min(2.0, step)), -LIMIT), LIMIT)
        if not low <= wanted <= high:
            wanted = 0.5 * (low + high)
        step = wanted - place
        if abs(step) < PRECISION:
            return place, slope, abs(place) < LIMIT
        if abs(slope.first * step) < NO_GAIN:  # at a minimum, or on a tail that goes to 0
            return place, slope, abs(slope.first) < 1e-3 * slope.loss
        place = wanted
    return place, slope, False


def measure_slope(
    data: Data, plan: Plan, sums: EvaluationAccumulator, beta: float, advance: Callable[[int], None]
) -> Slope:
    """One pass: the loss at a beta and its derivatives."""
    scale = beta * sums.options.logit_scale
    loss, first, second = WeightedMean(), WeightedMean(), WeightedMean()

    def compute(start: int, stop: int, workspace: Workspace) -> tuple[Array | None, ...]:
        block = data.read(start, stop, workspace)
        labels = read_labels(block, sums.classes or 0, sums.options.ignore_index)
        logits = as_float(block.logits, block.is_bfloat16, workspace, "logits")
        out = workspace.array("residual", logits.shape, logits.dtype)
        arguments: dict[str, Any] = {"reduction": "none", "logit_scale": scale, "out": out}
        nll, grad = crossent.cross_entropy_and_grad(logits, labels.targets, **arguments)
        # Classes of logit -inf have p = 0 whatever the temperature, so they count as 0 here.
        along = logits if np.isfinite(logits).all() else np.where(np.isfinite(logits), logits, 0)
        slope = row_dots(grad, along)  # scale (p - y) . a, the derivative with log beta
        grad = crossent.cross_entropy_hvp(logits, labels.targets, along, **arguments)
        bend = row_dots(grad, along) + slope
        kept = labels.kept & ~labels.bad & ~np.isnan(nll)
        weight = None if block.row_weight is None else as_float64(block.row_weight)
        return tuple(
            None if values is None else values[kept] for values in (nll, slope, bend, weight)
        )

    def consume(parts: tuple[Array | None, ...], rows: int) -> None:
        nll, slope, bend, weight = parts
        for mean, values in ((loss, nll), (first, slope), (second, bend)):
            assert values is not None
            mean.add(weighted(values, weight), weight)
        advance(rows * data.row_bytes)

    run_pass(data, plan, compute, consume)
    return Slope(*(mean.estimate().value for mean in (loss, first, second)))

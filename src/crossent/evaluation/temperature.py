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
from typing import Any, NamedTuple

import numpy as np

from crossent.evaluation.accumulator import EvaluationAccumulator
from crossent.evaluation.exact_sum import WeightedMean
from crossent.evaluation.passes import Passes
from crossent.evaluation.result import TemperatureFit
from crossent.evaluation.rows import Array, Block, Workspace, as_float, row_dots, weighted
from crossent.evaluation.scorer import read_labels
from crossent.loss import cross_entropy_and_grad, cross_entropy_hvp

LIMIT = math.log(1024)  # temperatures are sought from 1 / 1024 to 1024
PRECISION = 1e-5  # of the temperature, relative
NO_GAIN = 1e-11  # nats that no further pass is worth
MOST_PASSES = 30


class Slope(NamedTuple):
    """The mean loss at a beta and its derivatives with respect to log beta."""

    loss: float
    first: float
    second: float


def fit_temperature(passes: Passes, sums: EvaluationAccumulator) -> TemperatureFit:
    """The temperature that minimises the loss, found in further passes over the data."""
    taken: list[Slope] = []

    def slope_at(log_beta: float) -> Slope:
        name = f"fitting the temperature, pass {len(taken) + 1}"
        taken.append(measure_slope(passes, sums, math.exp(log_beta), name))
        return taken[-1]

    log_beta, slope, is_minimum = minimum(slope_at)
    return TemperatureFit(math.exp(-log_beta), slope.loss, len(taken), not is_minimum)


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
    passes: Passes, sums: EvaluationAccumulator, beta: float, description: str
) -> Slope:
    """One pass: the loss at a beta and its derivatives."""
    loss, first, second = WeightedMean(), WeightedMean(), WeightedMean()
    options = sums.options.others
    scale = beta * options.logit_scale

    def compute(block: Block, workspace: Workspace) -> tuple[list[Array], Array | None]:
        labels = read_labels(block, block.logits.shape[1], options)
        logits = as_float(block.logits, workspace, "logits")
        out = workspace.array("residual", logits.shape, logits.dtype)
        arguments: dict[str, Any] = {"reduction": "none", "logit_scale": scale, "out": out}
        nll, grad = cross_entropy_and_grad(logits, labels.targets, **arguments)
        # Classes of logit -inf have p = 0 whatever the temperature, so they count as 0 here.
        along = logits if np.isfinite(logits).all() else np.where(np.isfinite(logits), logits, 0)
        with np.errstate(over="ignore", invalid="ignore"):  # logits may be of any size
            slope = row_dots(grad, along)  # scale (p - y) . a, the derivative with log beta
            grad = cross_entropy_hvp(logits, labels.targets, along, **arguments)
            bend = row_dots(grad, along) + slope
        kept = labels.kept & ~labels.bad & ~np.isnan(nll)
        weight = None if block.row_weight is None else block.row_weight[kept].astype(np.float64)
        return [nll[kept], slope[kept], bend[kept]], weight

    def consume(parts: tuple[list[Array], Array | None], rows: int) -> None:
        values, weight = parts
        with np.errstate(over="ignore", invalid="ignore"):  # weights may be of any size
            for mean, value in zip((loss, first, second), values, strict=True):
                mean.add(weighted(value, weight), weight)

    passes.run(description, compute, consume)
    return Slope(*(mean.estimate().value for mean in (loss, first, second)))

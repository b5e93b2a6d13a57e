"""Errors of losses and gradients against the truth, in units of the last place (ULP).

The truth is computed in extended precision (np.longdouble). N rows, C classes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from crossent.commands.bench.arrays import SEED, Array, as_stored, dtype_of, from_stored
from crossent.commands.bench.contender import Contender


class Regime(NamedTuple):
    """Logits that are hard in one way."""

    rows: int = 64
    classes: int = 1000
    scale: float = 1.0
    offset: float = 0.0
    margin: float | None = None  # the target's lead over the largest other logit


REGIMES = {
    "scale 1": Regime(),
    "scale 10": Regime(scale=10.0),
    "target 20 ahead": Regime(margin=20.0),
    "offset 1,000": Regime(offset=1000.0),
    "256,000 classes": Regime(rows=4, classes=256_000),
}

_PRECISION = {  # bits, and the least exponent of a normal number
    "float64": (53, -1022),
    "float32": (24, -126),
    "bfloat16": (8, -126),
}


@dataclass(frozen=True)
class Errors:
    """The largest errors of a contender in one regime; nan where a result is nan."""

    loss_ulp: float
    loss_relative: float
    grad_ulp: float
    grad_relative: float


def make_logits(regime: Regime, dtype: str) -> tuple[Array, Array]:
    """Stored logits (N, C) and targets (N,)."""
    random = np.random.default_rng(SEED)
    logits = random.standard_normal((regime.rows, regime.classes)) * regime.scale + regime.offset
    targets = random.integers(regime.classes, size=regime.rows)
    if regime.margin is not None:
        np.put_along_axis(logits, targets[:, None], -np.inf, axis=1)
        lead = logits.max(axis=1, keepdims=True) + regime.margin
        np.put_along_axis(logits, targets[:, None], lead, axis=1)
    return as_stored(logits, dtype), targets


def truth(stored: Array, targets: Array) -> tuple[Array, Array]:
    """Losses (N,) and the gradient of their sum (N, C), in extended precision.

    loss = log1p(S), S = sum over j != t of exp(a_j - a_t); the gradient is exp(a_j - a_t) / (1 + S)
    and for the target -S / (1 + S): nothing cancels.
    """
    logits = from_stored(stored).astype(np.longdouble)
    column = targets[:, None]
    exps = np.exp(logits - np.take_along_axis(logits, column, axis=1))
    np.put_along_axis(exps, column, 0, axis=1)
    others = exps.sum(axis=1, keepdims=True)
    grad = exps / (1 + others)
    np.put_along_axis(grad, column, -others / (1 + others), axis=1)
    return np.log1p(others[:, 0]), grad


def can_judge(dtype: str) -> bool:
    """Whether this machine's np.longdouble is more precise than the type."""
    return bool(np.finfo(np.longdouble).nmant > _PRECISION[dtype][0])


def largest_errors(got: Array, dtype: str, true: Array) -> tuple[float, float]:
    """The largest |got - true|, in ULP of `true` in the type, and relative to it.

    >>> largest_errors(np.array([1 + 2.0**-22]), "float32", np.array([1], np.longdouble))[0]
    2.0
    """
    precision, least_exponent = _PRECISION[dtype]
    error = np.abs(got.astype(np.longdouble) - true)
    _, exponent = np.frexp(true)
    unit = np.ldexp(np.longdouble(1), np.maximum(exponent - 1, least_exponent) - precision + 1)
    size = np.maximum(np.abs(true), unit)  # relative to less than a unit says nothing
    return float((error / unit).max()), float((error / size).max())


def errors_of(contender: Contender, regime: Regime, dtype: str) -> Errors:
    """A contender's largest errors in a regime; its logits have the type."""
    logits, targets = make_logits(regime, dtype)
    found = zip(contender.rows(logits, targets), truth(logits, targets), strict=True)
    loss, grad = (largest_errors(from_stored(got), dtype_of(got), true) for got, true in found)
    return Errors(*loss, *grad)

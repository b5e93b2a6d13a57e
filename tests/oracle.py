"""The truth in 80-bit numbers, so written that nothing cancels; and errors counted in ULP.

It shares no code and no order of summation with crossent or its reference, and is itself compared
with mpmath in test_oracle.py. N rows, C classes, the class axis last. A number in two parts is
their sum: the second holds what rounding took from the first.
"""

from typing import NamedTuple

import numpy as np
import pytest

Long = np.longdouble
HAS_80_BITS = np.finfo(Long).nmant >= 63
needs_80_bits = pytest.mark.skipif(
    not HAS_80_BITS, reason="np.longdouble is no wider than float64 on this machine"
)


def two_sum(a, b):
    """a + b in two parts."""
    total = a + b
    back = total - a
    return total, (a - (total - back)) + (b - back)


def two_product(a, b):
    """a * b in two parts."""
    product = a * b
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    rest = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, rest


def _halves(a):
    scaled = a * Long(2**32 + 1)
    high = scaled - (scaled - a)
    return high, a - high


class Logits(NamedTuple):
    """u = softcap tanh(logit_scale a / softcap) in two parts, and its derivatives by a."""

    u: np.ndarray
    tail: np.ndarray
    slope: np.ndarray
    curvature: np.ndarray


def scaled_logits(a, logit_scale=1.0, softcap=None):
    """The logits that the loss sees."""
    a, scale = np.asarray(a).astype(Long), Long(logit_scale)
    if softcap is None and scale == 1:
        one = np.ones((1, 1), Long)
        return Logits(a, 0 * one, one, 0 * one)
    u, tail = two_product(a, scale)
    if softcap is None:
        return Logits(u, tail, np.full_like(a, scale), np.zeros_like(a))
    cap = Long(softcap)
    x = u / cap
    product, lost = two_product(x, cap)
    x_tail = ((u - product) - lost + tail) / cap
    e = np.exp(-2 * abs(x)) * (1 - 2 * np.sign(x) * x_tail)
    tanh, sech2 = np.tanh(x), 4 * e / (1 + e) ** 2
    u, tail = two_product(cap, tanh)
    slope = scale * sech2
    return Logits(u, tail + cap * sech2 * x_tail, slope, -2 * scale / cap * tanh * slope)


class Truth(NamedTuple):
    """Of every row; `grad_scale` and its like are what errors are measured against."""

    loss: np.ndarray
    loss_scale: np.ndarray
    grad: np.ndarray
    grad_scale: np.ndarray
    lse: np.ndarray
    lse_scale: np.ndarray
    prob: np.ndarray
    log_prob: np.ndarray
    entropy: np.ndarray
    hvp: np.ndarray | None = None
    hvp_scale: np.ndarray | None = None

    def first(self, rows):
        """The same of the first rows alone."""
        return Truth(*(None if field is None else field[:rows] for field in self))


def masses(targets, classes, weight=None, label_smoothing=0.0):
    """weight_k q_k of index targets (N,) or distributions (N, C)."""
    targets = np.asarray(targets)
    if targets.ndim == 1:
        targets = targets[:, None] == np.arange(classes)
    smoothing = Long(label_smoothing)
    q = (1 - smoothing) * targets.astype(Long) + smoothing / classes
    return q if weight is None else q * np.asarray(weight).astype(Long)


def truth(
    logits,
    targets,
    v=None,
    *,
    z_loss=0.0,
    logit_scale=1.0,
    softcap=None,
    lse_floor=0.0,
    **mass_options,
):
    """Everything that crossent computes of rows of finite logits; without v no Hessian product.

    lse_floor: the size below which z-loss need not know lse to more digits.
    """
    u, tail, slope, curvature = scaled_logits(logits, logit_scale, softcap)
    N, C = u.shape
    mass, z = masses(targets, C, **mass_options), Long(z_loss)
    total, total_scale = mass.sum(1, keepdims=True), abs(mass).sum(1, keepdims=True)
    # 1. Exponentials relative to the maximum, and their sum without it.
    top = (np.arange(N), u.argmax(1))
    row_max, max_tail = u[top][:, None], np.broadcast_to(tail, u.shape)[top][:, None]
    below, lost = two_sum(u, -row_max)
    lost += tail - max_tail
    exps = np.exp(below) * (1 + lost)
    is_top = np.zeros(u.shape, bool)
    is_top[top] = True
    rest = np.where(is_top, 0, exps).sum(1, keepdims=True)
    # 2. 1 - p_k as the share of the others, lse - u_k as two numbers of one sign.
    prob = exps / (1 + rest)
    others = np.where(is_top, rest, 1 + (rest - exps)) / (1 + rest)
    minus_log = np.log1p(rest) - (below + lost)
    lse = row_max + (np.log1p(rest) + max_tail)
    # 3. Loss and gradient. lse, and so what z-loss adds to W, is known to the last place of its
    # own terms.
    curve = total + 2 * z * lse
    grad_u = prob * (total - mass) - mass * others + 2 * z * lse * prob
    lse_scale = np.maximum(abs(row_max), np.log1p(rest))
    curve_scale = total_scale + 2 * z * np.maximum(np.maximum(abs(lse), lse_scale), lse_floor)
    grad_scale = np.maximum(prob * curve_scale, abs(mass))
    # 4. The product with the Hessian.
    hvp = hvp_scale = None
    if v is not None:
        v = np.asarray(v).astype(Long)
        sv = slope * v
        mean = (prob * sv).sum(1, keepdims=True)
        straight = curve * prob * (sv - mean) + 2 * z * prob * mean
        hvp = slope * straight + grad_u * curvature * v
        size = curve_scale * prob * (abs(sv) + (prob * abs(sv)).sum(1, keepdims=True))
        hvp_scale = abs(slope) * (size + 2 * z * prob * abs(mean))
        hvp_scale += grad_scale * abs(curvature * v)
    return Truth(
        loss=(mass * minus_log).sum(1) + (z * lse * lse)[:, 0],
        # The loss needs lse to the last place of 1 at best: it is the logarithm of a sum.
        loss_scale=np.maximum(
            (abs(mass) * minus_log).sum(1) + (z * lse * lse)[:, 0],
            (2 * z * abs(lse) * np.maximum(lse_scale, 1))[:, 0],
        ),
        grad=slope * grad_u,
        grad_scale=abs(slope) * grad_scale,
        lse=lse[:, 0],
        lse_scale=lse_scale[:, 0],
        prob=prob,
        log_prob=-minus_log,
        entropy=(prob * minus_log).sum(1),
        hvp=hvp,
        hvp_scale=hvp_scale,
    )


def ulp(size, dtype):
    """The distance between neighbours of `dtype` near |size|, subnormal numbers included."""
    info = _float_info(dtype)
    size = abs(np.asarray(size).astype(Long))
    exponent = np.frexp(np.where(size == 0, info.smallest_normal.astype(Long), size))[1] - 1
    return np.ldexp(Long(1), np.maximum(exponent, info.minexp) - info.nmant)


def _float_info(dtype):
    if np.dtype(dtype).kind != "V":
        return np.finfo(dtype)
    import ml_dtypes

    return ml_dtypes.finfo(dtype)


def ulp_errors(computed, true, scale=None, dtype=None):
    """|computed - true| in ULP of the truth, or of `scale` where terms cancel."""
    computed = np.asarray(computed)
    error = abs(computed.astype(Long) - true)
    return error / ulp(true if scale is None else scale, dtype or computed.dtype)


def worst(errors):
    """The largest error, and where; nan counts as infinite."""
    errors = np.where(np.isnan(errors), np.inf, errors)
    at = np.unravel_index(errors.argmax(), errors.shape)
    return float(errors[at]), tuple(map(int, at))

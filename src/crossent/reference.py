"""The equations of softmax cross-entropy in plain float64 NumPy: what every option means.

Logits a have N rows (any number of axes) and C classes; inside, the class axis is the last. With
class weights w (C,) and a target distribution y (C,) a row gives

    u = softcap * tanh(logit_scale * a / softcap)          (logit_scale * a without a softcap)
    p = softmax(u),   lse = log sum_k exp(u_k)
    q = (1 - label_smoothing) * y + label_smoothing / C,   g = w o q,   W = sum_k g_k
    loss         = sum_k g_k (lse - u_k) + z_loss * lse^2
    gradient     = s o d,   s = du/da,   d = p (W + 2 z_loss lse) - g
    Hessian on v = s o [(W + 2 z_loss lse) (p o sv - p (p . sv)) + 2 z_loss p (p . sv)] + d o s' o v

What would cancel is kept as a sum, so that a loss of 1e-40 is not 0: 1 - p_k as that of the other
probabilities; lse - u_k as (m - u_k) + log1p(R), with m the maximum and R the sum of exp(u_j - m)
over all classes but the one that holds it (Blanchard, Higham and Higham, IMA J. Numer. Anal. 41,
2021). Derivation: docs/derivation.md.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def loss_and_gradient(A: ArrayLike, Y: ArrayLike) -> tuple[np.float64, Array]:
    """The mean loss of logits A (N, C) against rows Y of probabilities, and its gradient by A.

    This is all of it, without options and for logits whose losses are not tiny. The rest of this
    module says the same with every option, and so that nothing cancels.

    >>> loss, grad = loss_and_gradient([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]], [[0, 1, 0], [1, 0, 0]])
    >>> print("%.3f" % loss, grad[0].round(3))
    2.019 [ 0.33  -0.379  0.049]
    """
    a, y = np.asarray(A, np.float64), np.asarray(Y, np.float64)
    shifted = a - a.max(axis=1, keepdims=True)
    sum_exp = np.exp(shifted).sum(axis=1, keepdims=True)
    log_p = shifted - np.log(sum_exp)
    loss = -(y * log_p).sum(axis=1).mean()
    p = np.exp(shifted) / sum_exp
    return loss, (p - y) / len(a)


class Options(NamedTuple):
    """The options of every loss here: names, defaults, meanings."""

    weight: ArrayLike | None = None  # (C,) class weights w; None is all ones
    ignore_index: int = -100  # rows with this label: loss 0, gradient 0, whatever they hold
    reduction: Literal["none", "sum", "mean"] = "mean"  # a loss a row, their sum, sum / divisor
    label_smoothing: float = 0.0  # the share of y that is spread evenly over the classes
    z_loss: float = 0.0  # times lse^2, added to each row's loss
    softcap: float | None = None  # bounds the logits to +-softcap, smoothly
    logit_scale: float = 1.0  # multiplies the logits, before the softcap
    normalizer: float | None = None  # the divisor; None: sum of w[target], or N for distributions
    when_empty: Literal["nan", "zero", "raise"] = "nan"  # the mean when that divisor is 0
    axis: int = -1  # where the classes are


def _class_last(array: ArrayLike, axis: int) -> Array:
    return np.moveaxis(np.asarray(array).astype(np.float64), axis, -1)


@np.errstate(all="ignore")
def _softmax(u: Array) -> tuple[Array, Array, Array, Array]:
    """(p, 1 - p, lse - u, lse) of the rows of u; nan in rows with nan or +inf, or all -inf."""
    if u.shape[-1] == 0:
        raise ValueError(f"logits of shape {u.shape} have no classes; C is at least 1")
    row_max = u.max(-1, keepdims=True)
    row_max = np.where(np.isfinite(row_max), row_max, np.nan)
    holds_max = np.arange(u.shape[-1]) == u.argmax(-1)[..., None]
    exps = np.exp(u - row_max)
    rest = np.where(holds_max, 0.0, exps).sum(-1, keepdims=True)
    sum_exp = 1 + rest
    sum_others = np.where(holds_max, rest, sum_exp - exps)
    nll = (row_max - u) + np.log1p(rest)
    return exps / sum_exp, sum_others / sum_exp, nll, row_max + np.log1p(rest)


def softmax(logits: ArrayLike, axis: int = -1) -> Array:
    """Probabilities p_k = exp(a_k - m) / sum_j exp(a_j - m), m = max_j a_j: shape of the logits.

    >>> softmax([[2.0, 1.0, 0.1]]).round(3)
    array([[0.659, 0.242, 0.099]])
    """
    p, *_ = _softmax(_class_last(logits, axis))
    return np.moveaxis(p, -1, axis)


def log_softmax(logits: ArrayLike, axis: int = -1) -> Array:
    """Logarithms of the probabilities, a_k - lse: shape of the logits.

    >>> print("%.3g %.3g" % tuple(log_softmax([0.0, 100.0])))
    -100 -3.72e-44
    """
    _, _, nll, _ = _softmax(_class_last(logits, axis))
    return np.moveaxis(-nll, -1, axis)


def logsumexp(logits: ArrayLike, axis: int = -1) -> Array:
    """lse = log sum_k exp(a_k) of every row; -inf if all are -inf, +inf beside a +inf.

    >>> print("%.6f" % logsumexp([1000.0, 1000.0]))
    1000.693147
    """
    a = _class_last(logits, axis)
    row_max, (*_, lse) = a.max(-1), _softmax(a)
    return np.where(np.isfinite(row_max), lse[..., 0], row_max)


def log_softmax_jacobian(logits: ArrayLike, axis: int = -1) -> Array:
    """Jacobian d(log p_i)/da_j = delta_ij - p_j of every row: (..., C, C), i before j.

    >>> log_softmax_jacobian([0.0, 0.0]).tolist()
    [[0.5, -0.5], [-0.5, 0.5]]
    """
    p, others, _, _ = _softmax(_class_last(logits, axis))
    same = np.eye(p.shape[-1], dtype=bool)
    return np.where(same, others[..., None, :], -p[..., None, :])


def softmax_jacobian(logits: ArrayLike, axis: int = -1) -> Array:
    """Jacobian dp_i/da_j = p_i (delta_ij - p_j) of every row, diag(p) - p p^T: (..., C, C).

    >>> softmax_jacobian([0.0, 0.0]).tolist()
    [[0.25, -0.25], [-0.25, 0.25]]
    """
    p, *_ = _softmax(_class_last(logits, axis))
    return p[..., :, None] * log_softmax_jacobian(logits, axis)


@np.errstate(all="ignore")
def softmax_jvp(logits: ArrayLike, v: ArrayLike, axis: int = -1) -> Array:
    """Change of the probabilities along v, p o v - p (p . v): shape of the logits.

    >>> softmax_jvp([0.0, 0.0], [1.0, 0.0]).tolist()
    [0.25, -0.25]
    """
    (p, *_), v = _softmax(_class_last(logits, axis)), _class_last(v, axis)
    return np.moveaxis(p * (v - (p * v).sum(-1, keepdims=True)), -1, axis)


@np.errstate(all="ignore")
def grad_wrt_probabilities(probs: ArrayLike, targets: ArrayLike, axis: int = -1) -> Array:
    """Gradient -y_k / p_k of -sum_k y_k log p_k: -inf where p_k is 0 and y_k is not."""
    p = _class_last(probs, axis)
    y, _ = _distributions(targets, p, Options(axis=axis))
    return np.moveaxis(np.where(y == 0, 0.0, -y / p), -1, axis)


def _distributions(targets: ArrayLike, a: Array, o: Options) -> tuple[Array, NDArray[np.bool_]]:
    """(y, kept): each row's distribution, one-hot for a label; and which rows are not ignored."""
    given, classes = np.asarray(targets), a.shape[-1]
    if given.ndim == a.ndim:
        return _class_last(given, o.axis), np.ones(a.shape[:-1], dtype=bool)
    kept = np.asarray(given != o.ignore_index)
    outside = kept & ((given < 0) | (given >= classes))
    if outside.any():
        i = int(outside.argmax())
        raise IndexError(f"targets: label {given.flat[i]} of row {i} is not in 0 .. {classes - 1}")
    return 1.0 * (given[..., None] == np.arange(classes)), kept


def _scale_and_cap(a: Array, o: Options) -> tuple[Array, Array, Array]:
    """(u, s = du/da, s' = ds/da); sech^2 x = 4 e / (1 + e)^2 with e = exp(-2 |x|)."""
    if o.softcap is None:
        return o.logit_scale * a, np.full_like(a, o.logit_scale), np.zeros_like(a)
    x = o.logit_scale * a / o.softcap
    tanh, e = np.tanh(x), np.exp(-2 * abs(x))
    s = o.logit_scale * 4 * e / (1 + e) ** 2
    return o.softcap * tanh, s, -2 * o.logit_scale / o.softcap * tanh * s


class _Terms(NamedTuple):
    """The symbols of the module's docstring for every row; class axis last."""

    p: Array
    s: Array
    ds: Array  # s'
    d: Array
    total: Array  # W + 2 z_loss lse, (..., 1)
    loss: Array  # (...), 0 where ignored
    kept: NDArray[np.bool_]  # (...), not ignored
    divisor: float  # of the mean, else 1


def _terms(logits: ArrayLike, targets: ArrayLike, o: Options) -> _Terms:
    a = _class_last(logits, o.axis)
    u, s, ds = _scale_and_cap(a, o)
    p, others, nll, lse = _softmax(u)
    y, kept = _distributions(targets, a, o)
    w = np.ones(a.shape[-1]) if o.weight is None else np.asarray(o.weight).astype(np.float64)
    g = w * ((1 - o.label_smoothing) * y + o.label_smoothing / a.shape[-1])
    total = g.sum(-1, keepdims=True) + 2 * o.z_loss * lse
    d = p * (total - g) - g * others  # p total - g, so written that nothing cancels
    g_nll = np.where((g == 0) & np.isinf(nll), 0.0, g * nll)  # no mass, no loss: 0 inf = 0
    loss = np.where(kept, g_nll.sum(-1) + (o.z_loss * lse * lse)[..., 0], 0.0)
    counts = np.ones(kept.shape) if np.ndim(targets) == a.ndim else (w * y).sum(-1)
    divisor = (o.normalizer or float(counts.sum(where=kept))) if o.reduction == "mean" else 1.0
    if divisor == 0 and o.when_empty == "raise":
        raise ValueError('targets: no row counts in the mean, and when_empty is "raise"')
    return _Terms(p, s, ds, d, total, loss, kept, divisor)


def _pull_back(terms: _Terms, row_grads: Array, grad_loss: ArrayLike | None, axis: int) -> Array:
    """grad_loss / divisor times each row's gradient; exactly 0 where no loss comes from the row."""
    counts = (terms.kept & (terms.divisor != 0))[..., None]
    grad_loss = np.broadcast_to(1.0 if grad_loss is None else grad_loss, terms.kept.shape)
    factor = grad_loss[..., None] / np.float64(terms.divisor)
    return np.moveaxis(np.where(counts, factor * row_grads, 0.0), -1, axis)


@np.errstate(all="ignore")
def cross_entropy_and_grad(
    logits: ArrayLike, targets: ArrayLike, *, grad_loss: ArrayLike | None = None, **options: Any
) -> tuple[Any, Array]:
    """(loss, gradient by the logits times the incoming `grad_loss`, one a row under "none").

    >>> cross_entropy_and_grad([[2.0, 1.0, 0.1]], [1])[1].round(3)
    array([[ 0.659, -0.758,  0.099]])
    """
    o = Options(**options)
    terms = _terms(logits, targets, o)
    grad = _pull_back(terms, terms.s * terms.d, grad_loss, o.axis)
    if o.reduction == "none":
        return terms.loss, grad
    empty = np.float64(0.0 if o.when_empty == "zero" else np.nan)
    return terms.loss.sum() / terms.divisor if terms.divisor else empty, grad


def cross_entropy(logits: ArrayLike, targets: ArrayLike, **options: Any) -> Any:
    """Loss of logits against labels (the logits' shape less the class axis) or distributions.

    Options, all by keyword, are the fields of `Options`. Returns float64, an array under "none".
    Raises IndexError for a label outside 0 .. C - 1 that is not `ignore_index`.

    >>> A, Y = [[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]], [1, 0]
    >>> print("%.3f" % cross_entropy(A, Y), cross_entropy(A, Y, reduction="none").round(3))
    2.019 [1.417 2.62 ]
    """
    return cross_entropy_and_grad(logits, targets, **options)[0]


@np.errstate(all="ignore")
def cross_entropy_hvp(logits: ArrayLike, targets: ArrayLike, v: ArrayLike, **options: Any) -> Array:
    """Product of the loss's Hessian by the logits with v (the logits' shape).

    >>> cross_entropy_hvp([0.0, 0.0], 0, [1.0, 0.0]).tolist()
    [0.25, -0.25]
    """
    o = Options(**options)
    p, s, ds, d, total, *_ = terms = _terms(logits, targets, o)
    v = _class_last(v, o.axis)
    p_sv = (p * s * v).sum(-1, keepdims=True)
    hvp_u = total * p * (s * v - p_sv) + 2 * o.z_loss * p * p_sv
    return _pull_back(terms, s * hvp_u + d * ds * v, None, o.axis)


@np.errstate(all="ignore")
def hessian(logits: ArrayLike, target: ArrayLike, **options: Any) -> Array:
    """Hessian of one row's loss, (C, C): diag(p) - p p^T times sum_k y_k without options.

    >>> hessian([0.0, 0.0], 0).tolist()
    [[0.25, -0.25], [-0.25, 0.25]]
    """
    p, s, ds, d, total, *_ = _terms(logits, target, o := Options(**options))
    hessian_u = total * (np.diag(p) - np.outer(p, p)) + 2 * o.z_loss * np.outer(p, p)
    return np.outer(s, s) * hessian_u + np.diag(d * ds)


class TokenScores(NamedTuple):
    """Of every row: lse - u_target (0 where ignored), lse, -sum_k p_k log p_k, first maximum."""

    nll: Array
    lse: Array
    entropy: Array
    argmax: NDArray[np.intp]


@np.errstate(all="ignore")
def token_scores(logits: ArrayLike, targets: ArrayLike, **options: Any) -> TokenScores:
    """Scores of every row; takes ignore_index, softcap, logit_scale and axis."""
    o = Options(**options)
    a = _class_last(logits, o.axis)
    u, _, _ = _scale_and_cap(a, o)
    p, _, nll, _ = _softmax(u)
    entropy = np.where(p == 0, 0.0, p * nll).sum(-1)
    loss = cross_entropy(logits, targets, **options, reduction="none")
    return TokenScores(loss, logsumexp(u), entropy, (o.logit_scale * a).argmax(-1))


@np.errstate(all="ignore")
def linear_cross_entropy_and_grad(
    inputs: ArrayLike,
    linear_weight: ArrayLike,
    targets: ArrayLike,
    *,
    linear_bias: ArrayLike | None = None,
    **options: Any,
) -> tuple[Any, tuple[Array, Array, Array | None]]:
    """(loss, gradients by inputs (..., D), linear_weight (C, D) and linear_bias (C,) if given)."""
    x, w = _class_last(inputs, -1), _class_last(linear_weight, -1)
    logits = x @ w.T + (0.0 if linear_bias is None else _class_last(linear_bias, -1))
    loss, grad = cross_entropy_and_grad(logits, targets, **options)
    rows = tuple(range(grad.ndim - 1))
    counts = (grad != 0).any(-1, keepdims=True)  # nan in an ignored row stays there
    grad_inputs = np.where(counts, grad @ w, 0.0)
    grad_weight = np.tensordot(grad, np.where(counts, x, 0.0), (rows, rows))
    return loss, (grad_inputs, grad_weight, None if linear_bias is None else grad.sum(rows))


def linear_cross_entropy(
    inputs: ArrayLike, linear_weight: ArrayLike, targets: ArrayLike, **options: Any
) -> Any:
    """Loss of the logits inputs @ linear_weight.T + linear_bias, with every option."""
    return linear_cross_entropy_and_grad(inputs, linear_weight, targets, **options)[0]

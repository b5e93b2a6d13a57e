"""The loss, its gradient and their relatives, from NumPy arrays.

N rows (any number of axes), C classes on `axis`. The formulas are spelled out, with every option
and edge case, in `crossent.reference`; this module checks arguments and hands buffers to the core.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossent import _arguments as arguments
from crossent import _core
from crossent import _outputs as outputs

Array = NDArray[Any]

_NOTHING_COUNTS = -2  # the core's word for a divisor of 0
LOSS, _SOFTMAX, _LOG_SOFTMAX, SCORES, _PRODUCT = range(5)


class TokenScores(NamedTuple):
    """What one pass says of every row: arrays of the logits' shape less the class axis."""

    nll: Array
    """lse - u_t of the target t: its negative log-probability; 0 where the row is ignored."""
    lse: Array
    """log sum_k exp u_k."""
    entropy: Array
    """-sum_k p_k log p_k, in nats."""
    argmax: NDArray[np.int64]
    """The most probable class; of several, the first."""


def compute(
    output: int,
    logits: Array,
    axis: int,
    *,
    targets: Array | None = None,
    form: int = arguments.NO_TARGETS,
    weight: Array | None = None,
    grad_loss: Array | None = None,
    vector: Array | None = None,
    loss: Array | None = None,
    grad: Array | None = None,
    lse: Array | None = None,
    entropy: Array | None = None,
    argmax: Array | None = None,
    ignore_index: int | None = None,
    reduced: bool = False,
    mean: bool = False,
    normalizer: float = 0.0,
    scale: float = 1.0,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float = 0.0,
    logit_scale: float = 1.0,
) -> tuple[float, float, int]:
    """One call of the core: (sum of losses, divisor, first bad row or -1)."""
    bits = 0
    if logits.dtype.kind == "V":
        logits, bits = arguments.as_words(logits), 1
        grad = None if grad is None else arguments.as_words(grad)
    if targets is not None and targets.dtype.kind == "V":
        targets, bits = arguments.as_words(targets), bits | 2
    if vector is not None and vector.dtype.kind == "V":
        vector, bits = arguments.as_words(vector), bits | 4
    return _core.compute(
        output, form, axis, bits, logits, targets, weight, grad_loss, vector, loss, grad, lse,
        entropy, argmax, ignore_index, reduced, mean, normalizer, scale, label_smoothing, z_loss,
        softcap, logit_scale,
    )  # fmt: skip


def _loss(
    output: int,
    logits: Array,
    targets: ArrayLike,
    axis: int,
    *,
    weight: ArrayLike | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    z_loss: float,
    softcap: float | None,
    logit_scale: float,
    normalizer: float | None,
    when_empty: str,
    grad_loss: ArrayLike | None = None,
    vector: Array | None = None,
    wants_grad: bool = False,
    out: Array | None = None,
) -> tuple[Any, Array | None]:
    """The loss and, if wanted, what goes into the gradient's array: every loss function's core."""
    target, form = arguments.target_array(targets, logits, axis)
    rule = arguments.reduction_rule(reduction, normalizer, when_empty)
    scaling = arguments.scaling(softcap, logit_scale)
    weights = arguments.class_weight(weight, logits.shape[axis])
    ignored = arguments.ignored(ignore_index, form)
    label_smoothing = arguments.smoothing(label_smoothing)
    z_loss = arguments.z_loss_factor(z_loss)
    rows = arguments.row_shape(logits, axis)
    incoming = arguments.grad_loss_array(grad_loss, rows, reduction)
    per_row = type(incoming) is not float
    grad = None
    if wants_grad:
        inputs = (logits, target, weights, incoming if per_row else None, vector)
        grad = outputs.output_array(out, logits, inputs)
    reduced = reduction != "none"
    losses = np.empty(() if reduced else rows, arguments.loss_type(logits))
    _, _, bad_row = compute(
        output, logits, axis, targets=target, form=form, weight=weights,
        grad_loss=incoming if per_row else None, vector=vector, loss=losses, grad=grad,
        ignore_index=ignored, reduced=reduced, mean=reduction == "mean",
        normalizer=rule.normalizer, scale=1.0 if per_row else incoming,
        label_smoothing=label_smoothing, z_loss=z_loss, softcap=scaling.softcap,
        logit_scale=scaling.logit_scale,
    )  # fmt: skip
    if bad_row >= 0:
        arguments.raise_bad_target(bad_row, target, logits, axis)
    if bad_row == _NOTHING_COUNTS:
        if rule.when_empty == "raise":
            arguments.raise_empty()
        losses[...] = 0 if rule.when_empty == "zero" else np.nan
        if grad is not None:
            grad[...] = 0
    return (losses[()] if reduced else losses), grad


def cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    normalizer: float | None = None,
    when_empty: str = "nan",
    axis: int = -1,
) -> Any:
    """Softmax cross-entropy of logits against targets.

    For a row of logits a with C classes::

        u_k  = softcap * tanh(logit_scale * a_k / softcap)     (logit_scale * a_k without a softcap)
        lse  = log sum_k exp u_k
        q    = (1 - label_smoothing) * target + label_smoothing / C
        loss = sum_k weight_k q_k (lse - u_k) + z_loss * lse^2

    so that plainly, for a row whose target is class t, loss = lse - a_t = -log softmax(a)_t. The
    value is right to the last digits however small it is: a confident right answer does not give 0.

    Args:
        logits: (..., C, ...) float64, float32, float16 or ml_dtypes bfloat16, with any strides;
            lists become float64. Not changed.
        targets: class indices, of any integer dtype and the logits' shape without the class axis;
            or distributions (one-hot or soft), of any real dtype and the logits' shape. The values
            of distributions are not checked.
        weight: (C,) class weights, finite and >= 0; None: all 1.
        ignore_index: rows whose index target has this value give loss 0 and gradient 0.
        reduction: "none" (a loss a row), "sum", or "mean": the sum divided by `normalizer`, else
            by the sum of weight[target] over the rows that are not ignored (index targets), else by
            the number of rows (distributions). With class weights the two kinds of target
            therefore differ under "mean", as in PyTorch.
        label_smoothing: the share of each target that is spread evenly over the classes, 0 to 1.
        z_loss: factor of lse^2, which keeps logits from drifting; >= 0, not weighted by class.
        softcap: bounds the logits smoothly to +-softcap, > 0; None: no bound.
        logit_scale: multiplies the logits (an inverse temperature).
        normalizer: the divisor of the mean, > 0, e.g. the tokens of all accumulated batches.
        when_empty: what the mean over nothing (N = 0, all rows ignored, kept weights all 0) gives:
            "nan", "zero" or "raise". Its gradient is 0.
        axis: the class axis of the logits.

    Returns:
        The loss in nats: float64 for float64 logits, else float32. Under "none" an array of the
        logits' shape without the class axis, else a NumPy scalar.

    Raises:
        TypeError: logits are not floating, or targets of index shape are not integers.
        ValueError: shapes or options do not fit.
        IndexError: an index target is neither in 0 .. C - 1 nor ignore_index.

    Example:
        >>> import crossent
        >>> logits = [[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]]
        >>> print("%.3f" % crossent.cross_entropy(logits, [1, 0]))
        2.019
        >>> print("%.3g" % crossent.cross_entropy([[100.0, 0.0]], [0]))
        3.72e-44

    Source: Goodfellow, Bengio and Courville, Deep Learning, 2016, section 6.2.2.3; label smoothing:
    Szegedy et al., 2016, section 7; z-loss: Chowdhery et al., PaLM, 2022, section 5.
    """
    array = arguments.logits_array(logits)
    return _loss(
        LOSS, array, targets, arguments.class_axis(array, axis), weight=weight,
        ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing,
        z_loss=z_loss, softcap=softcap, logit_scale=logit_scale, normalizer=normalizer,
        when_empty=when_empty,
    )[0]  # fmt: skip


def cross_entropy_and_grad(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    normalizer: float | None = None,
    when_empty: str = "nan",
    axis: int = -1,
    grad_loss: ArrayLike | None = None,
    out: Array | None = None,
) -> tuple[Any, Array]:
    """The loss and its gradient with respect to the logits, from one pass.

    With the symbols of `cross_entropy`, p = softmax(u), W = sum_k weight_k q_k and s = du/da::

        dloss/da_k = s_k (p_k (W + 2 z_loss lse) - weight_k q_k) * grad_loss / divisor

    so that plainly, under "mean", the gradient is (softmax(logits) - one_hot(targets)) / N.

    Args:
        logits, targets, weight, ignore_index, reduction, label_smoothing, z_loss, softcap,
            logit_scale, normalizer, when_empty, axis: as for `cross_entropy`.
        grad_loss: the incoming gradient, a number, or one a row under "none"; None: 1.
        out: where the gradient is written: the logits themselves (in place) or an array of their
            shape and dtype that shares no memory with an input; None: fresh memory, laid out as
            the logits are. Not touched when the call raises.

    Returns:
        (loss, gradient): the loss as from `cross_entropy`; the gradient with the logits' shape and
        dtype.

    Raises:
        TypeError, ValueError, IndexError: as `cross_entropy`; ValueError also for an `out` that
            does not fit, is read-only or overlaps an input.

    Example:
        >>> import crossent
        >>> loss, grad = crossent.cross_entropy_and_grad([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]], [1, 0])
        >>> grad.round(3)
        array([[ 0.33 , -0.379,  0.049],
               [-0.464,  0.243,  0.22 ]])

    Source: as `cross_entropy`; the derivation is in docs/derivation.md.
    """
    array = arguments.logits_array(logits)
    loss, grad = _loss(
        LOSS, array, targets, arguments.class_axis(array, axis), weight=weight,
        ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing,
        z_loss=z_loss, softcap=softcap, logit_scale=logit_scale, normalizer=normalizer,
        when_empty=when_empty, grad_loss=grad_loss, wants_grad=True, out=out,
    )  # fmt: skip
    assert grad is not None
    return loss, grad


def cross_entropy_hvp(
    logits: ArrayLike,
    targets: ArrayLike,
    v: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    normalizer: float | None = None,
    when_empty: str = "nan",
    axis: int = -1,
    grad_loss: ArrayLike | None = None,
    out: Array | None = None,
) -> Array:
    """The product of the loss's Hessian with a vector, never forming the Hessian.

    With the symbols of `cross_entropy_and_grad` and o for the product of elements::

        H v = s o [(W + 2 z_loss lse) (p o sv - p (p . sv)) + 2 z_loss p (p . sv)]
              + (dloss/du) o (d2u/da2) o v

    Args:
        logits, targets and options: as for `cross_entropy_and_grad`.
        v: the vector, of the logits' shape and any floating dtype.

    Returns:
        H v with the logits' shape and dtype.

    Raises:
        As `cross_entropy_and_grad`; ValueError if v has another shape.

    Example:
        >>> import crossent
        >>> crossent.cross_entropy_hvp([[0.0, 0.0]], [0], [[1.0, 0.0]])
        array([[ 0.25, -0.25]])

    Source: the Hessian of one row is diag(p) - p p^T; docs/derivation.md.
    """
    array = arguments.logits_array(logits)
    _, product = _loss(
        _PRODUCT, array, targets, arguments.class_axis(array, axis), weight=weight,
        ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing,
        z_loss=z_loss, softcap=softcap, logit_scale=logit_scale, normalizer=normalizer,
        when_empty=when_empty, grad_loss=grad_loss,
        vector=arguments.like_logits(v, array, "v"), wants_grad=True, out=out,
    )  # fmt: skip
    assert product is not None
    return product


def token_scores(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    ignore_index: int = -100,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    axis: int = -1,
) -> TokenScores:
    """What an evaluation asks of every row, from one pass over the logits.

    nll = lse - u_t (the target's negative log-probability), lse = log sum_k exp u_k,
    entropy = lse - sum_k p_k u_k, argmax = the first class with the largest logit.

    Args:
        logits, ignore_index, softcap, logit_scale, axis: as for `cross_entropy`.
        targets: class indices, as for `cross_entropy`.

    Returns:
        TokenScores(nll, lse, entropy, argmax), each of the logits' shape without the class axis;
        nll is 0 where a row is ignored, the others are given there too. argmax is int64, the rest
        have the loss's dtype.

    Raises:
        TypeError, ValueError, IndexError: as `cross_entropy`.

    Example:
        >>> import crossent
        >>> scores = crossent.token_scores([[2.0, 1.0, 0.1]], [1])
        >>> print("%.3f %.3f %.3f" % (scores.nll[0], scores.lse[0], scores.entropy[0]))
        1.417 2.417 0.847
        >>> scores.argmax
        array([0])

    Source: entropy as in Cover and Thomas, Elements of Information Theory, 2006, section 2.1.
    """
    array = arguments.logits_array(logits)
    axis = arguments.class_axis(array, axis)
    target, form = arguments.target_array(targets, array, axis)
    if form != arguments.INDICES:
        arguments.raise_not_for_scores(target, arguments.row_shape(array, axis))
    scaling = arguments.scaling(softcap, logit_scale)
    rows, dtype = arguments.row_shape(array, axis), arguments.loss_type(array)
    nll, lse, entropy = np.empty(rows, dtype), np.empty(rows, dtype), np.empty(rows, dtype)
    argmax = np.empty(rows, np.int64)
    _, _, bad_row = compute(
        SCORES, array, axis, targets=target, form=form, loss=nll, lse=lse, entropy=entropy,
        argmax=argmax, ignore_index=arguments.ignored(ignore_index, form),
        softcap=scaling.softcap, logit_scale=scaling.logit_scale,
    )  # fmt: skip
    if bad_row >= 0:
        arguments.raise_bad_target(bad_row, target, array, axis)
    return TokenScores(nll, lse, entropy, argmax)


def _of_logits(
    output: int, logits: ArrayLike, axis: int, out: Array | None, vector: Array | None = None
) -> Array:
    array = arguments.logits_array(logits)
    axis = arguments.class_axis(array, axis)
    result = outputs.output_array(out, array, (array, vector))
    compute(output, array, axis, vector=vector, grad=result)
    return result


def softmax(logits: ArrayLike, *, axis: int = -1, out: Array | None = None) -> Array:
    """Probabilities p_k = exp(a_k - m) / sum_j exp(a_j - m), m = max_j a_j, safe for any logits.

    Args:
        logits: (..., C, ...) as for `cross_entropy`.
        axis: the class axis.
        out: as for `cross_entropy_and_grad`; the logits themselves work in place.

    Returns:
        Probabilities of the logits' shape and dtype; nan in rows with a nan or +inf, or all -inf.

    Raises:
        TypeError, ValueError: as `cross_entropy`.

    Example:
        >>> import crossent
        >>> crossent.softmax([2.0, 1.0, 0.1]).round(3)
        array([0.659, 0.242, 0.099])

    Source: Bridle, Neurocomputing, 1990.
    """
    return _of_logits(_SOFTMAX, logits, axis, out)


def log_softmax(logits: ArrayLike, *, axis: int = -1, out: Array | None = None) -> Array:
    """Log-probabilities a_k - log sum_j exp a_j, exact also where p_k is nearly 1.

    Args:
        logits, axis, out: as for `softmax`.

    Returns:
        Log-probabilities of the logits' shape and dtype.

    Raises:
        TypeError, ValueError: as `cross_entropy`.

    Example:
        >>> import crossent
        >>> print("%.3g %.3g" % tuple(crossent.log_softmax([0.0, 100.0])))
        -100 -3.72e-44

    Source: Blanchard, Higham and Higham, IMA Journal of Numerical Analysis 41, 2021.
    """
    return _of_logits(_LOG_SOFTMAX, logits, axis, out)


def softmax_jvp(
    logits: ArrayLike, v: ArrayLike, *, axis: int = -1, out: Array | None = None
) -> Array:
    """The change of the probabilities as the logits move along v: p o v - p (p . v).

    Args:
        logits, axis, out: as for `softmax`.
        v: the direction, of the logits' shape and any floating dtype.

    Returns:
        (diag(p) - p p^T) v with the logits' shape and dtype; no matrix is formed.

    Raises:
        TypeError, ValueError: as `cross_entropy`; ValueError if v has another shape.

    Example:
        >>> import crossent
        >>> crossent.softmax_jvp([0.0, 0.0], [1.0, 0.0])
        array([ 0.25, -0.25])

    Source: docs/derivation.md, on the Jacobian.
    """
    array = arguments.logits_array(logits)
    return _of_logits(_PRODUCT, array, axis, out, arguments.like_logits(v, array, "v"))


def logsumexp(logits: ArrayLike, *, axis: int = -1) -> Any:
    """log sum_k exp a_k of every row, without overflow.

    Args:
        logits, axis: as for `softmax`.

    Returns:
        The logits' shape without the class axis, float64 for float64 logits, else float32; -inf for
        a row of -inf, +inf beside a +inf.

    Raises:
        TypeError, ValueError: as `cross_entropy`.

    Example:
        >>> import crossent
        >>> print("%.3f" % crossent.logsumexp([1000.0, 1000.0]))
        1000.693

    Source: Blanchard, Higham and Higham, IMA Journal of Numerical Analysis 41, 2021.
    """
    array = arguments.logits_array(logits)
    axis = arguments.class_axis(array, axis)
    lse = np.empty(arguments.row_shape(array, axis), arguments.loss_type(array))
    compute(SCORES, array, axis, lse=lse)
    return lse if lse.ndim else lse[()]

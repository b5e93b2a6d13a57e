"""The loss, its gradient, its Hessian's product and per-row scores, from NumPy arrays.

N rows (any number of axes), C classes on `axis`. The formulas are spelled out, with every option
and edge case, in `crossent.reference`; this module checks arguments and hands arrays to the core.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Unpack, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossent import _arguments as arguments
from crossent import _outputs as outputs
from crossent import options
from crossent._core import Output
from crossent._solve import Array, solve
from crossent.options import Given, Reduced, Reduction, WhenEmpty

Loss = np.floating[Any]
Losses = NDArray[np.floating[Any]]


class Others(Given, total=False):
    """What `cross_entropy` takes beside logits, targets and reduction, for its overloads."""

    weight: ArrayLike | None
    axis: int


class ForGrad(Others, total=False):
    """The same of `cross_entropy_and_grad`."""

    grad_loss: ArrayLike | None
    out: Array | None


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


def _loss_and_grad(
    output: Output,
    logits: Array,
    given: Mapping[str, Any],
    *,
    wants_grad: bool = True,
    vector: Array | None = None,
) -> tuple[Loss | Losses, Array | None]:
    """The loss and, where it is wanted, what goes into the gradient's array.

    given: the arguments of a public function, by name.
    """
    axis = arguments.class_axis(logits, given["axis"])
    classes, rows = logits.shape[axis], arguments.row_shape(logits, axis)
    target, form = arguments.target_array(given["targets"], logits, axis)
    chosen = options.checked(given)
    if form == arguments.DISTRIBUTIONS:
        options.check_for_distributions(chosen)
    weight = arguments.class_weight(given["weight"], classes)
    factor = arguments.grad_loss_array(given.get("grad_loss"), rows, chosen.reduction)
    loss_shape = rows if chosen.reduction == "none" else ()
    loss = np.empty(loss_shape, arguments.loss_type(logits))
    operands: dict[str, Any] = {"weight": weight, "grad_loss": factor, "loss": loss}
    grad = None
    if vector is not None:
        operands["vector"] = vector
    if wants_grad:
        inputs = (logits, target, weight, None if type(factor) is float else factor, vector)
        grad = operands["grad"] = outputs.output_array(given["out"], logits, inputs)
    solve(output, chosen, logits, axis, target, operands)
    return (loss if chosen.reduction == "none" else loss[()]), grad


@overload
def cross_entropy(
    logits: ArrayLike, targets: ArrayLike, *, reduction: Literal["none"], **given: Unpack[Others]
) -> Losses: ...
@overload
def cross_entropy(
    logits: ArrayLike, targets: ArrayLike, *, reduction: Reduced = "mean", **given: Unpack[Others]
) -> Loss: ...
def cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    normalizer: float | None = None,
    when_empty: WhenEmpty = "nan",
    axis: int = -1,
) -> Loss | Losses:
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
        weight: (C,) class weights, finite; None: all 1.
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
        when_empty: what the mean over nothing (N = 0, all rows ignored, kept weights that add up to
            0) gives: "nan", "zero" or "raise". Its gradient is 0.
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
    given = locals()
    return _loss_and_grad(Output.LOSS, arguments.logits_array(logits), given, wants_grad=False)[0]


@overload
def cross_entropy_and_grad(
    logits: ArrayLike, targets: ArrayLike, *, reduction: Literal["none"], **given: Unpack[ForGrad]
) -> tuple[Losses, Array]: ...
@overload
def cross_entropy_and_grad(
    logits: ArrayLike, targets: ArrayLike, *, reduction: Reduced = "mean", **given: Unpack[ForGrad]
) -> tuple[Loss, Array]: ...
def cross_entropy_and_grad(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    normalizer: float | None = None,
    when_empty: WhenEmpty = "nan",
    axis: int = -1,
    grad_loss: ArrayLike | None = None,
    out: Array | None = None,
) -> tuple[Loss | Losses, Array]:
    """The loss and its gradient with respect to the logits, from one pass.

    With the symbols of `cross_entropy`, p = softmax(u), W = sum_k weight_k q_k and s = du/da::

        dloss/da_k = s_k (p_k (W + 2 z_loss lse) - weight_k q_k) * grad_loss / divisor

    so that plainly, under "mean", the gradient is (softmax(logits) - one_hot(targets)) / N.

    Args:
        logits, targets, weight, axis and options: as for `cross_entropy`.
        grad_loss: the incoming gradient, a number, or one a row under "none"; None: 1.
        out: where the gradient is written: the logits themselves (in place) or an array of their
            shape and dtype that shares no memory with an input; None: fresh memory, laid out as
            the logits are. Not touched when the call raises. Threads that write to one at the same
            time race, as with any array: that is for the caller to prevent.

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
    loss, grad = _loss_and_grad(Output.LOSS, arguments.logits_array(logits), locals())
    assert grad is not None
    return loss, grad


def cross_entropy_hvp(
    logits: ArrayLike,
    targets: ArrayLike,
    v: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    normalizer: float | None = None,
    when_empty: WhenEmpty = "nan",
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
    vector = arguments.like_logits(v, array, "v")
    _, product = _loss_and_grad(Output.PRODUCT, array, locals(), vector=vector)
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
    chosen = options.checked_of_scores(locals())
    array = arguments.logits_array(logits)
    axis = arguments.class_axis(array, axis)
    target, form = arguments.target_array(targets, array, axis)
    rows, dtype = arguments.row_shape(array, axis), arguments.loss_type(array)
    if form != arguments.INDICES:
        arguments.raise_not_for_scores(target, rows)
    nll, lse, entropy = np.empty(rows, dtype), np.empty(rows, dtype), np.empty(rows, dtype)
    argmax = np.empty(rows, np.int64)
    operands = {"loss": nll, "lse": lse, "entropy": entropy, "argmax": argmax}
    solve(Output.SCORES, chosen, array, axis, target, operands)
    return TokenScores(nll, lse, entropy, argmax)

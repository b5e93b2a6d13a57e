"""Softmax, its logarithm and its Jacobians, and what the chain rule meets on its way through them.

For one row with probabilities p: dp_i/da_j = p_i (delta_ij - p_j), that is diag(p) - p p^T, and
dlog p_i/da_j = delta_ij - p_j. Where i = j, 1 - p_i is the sum of the other probabilities, so that
nothing cancels when one of them is nearly 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossent import _arguments as arguments
from crossent import _outputs as outputs
from crossent._core import Output
from crossent._solve import Array, judge, solve


def _of_rows(
    output: Output, logits: ArrayLike, axis: int, out: Array | None, vector: Array | None = None
) -> Array:
    array = arguments.logits_array(logits)
    axis = arguments.class_axis(array, axis)
    result = outputs.output_array(out, array, (array, vector))
    operands = {"grad": result} if vector is None else {"grad": result, "vector": vector}
    solve(output, None, array, axis, None, operands)
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
    return _of_rows(Output.SOFTMAX, logits, axis, out)


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
    return _of_rows(Output.LOG_SOFTMAX, logits, axis, out)


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
    return _of_rows(Output.PRODUCT, array, axis, out, arguments.like_logits(v, array, "v"))


def logsumexp(logits: ArrayLike, *, axis: int = -1) -> np.floating[Any] | Array:
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
    solve(Output.SCORES, None, array, axis, None, {"lse": lse})
    return lse if lse.ndim else lse[()]


# Jacobians


def _probabilities(logits: ArrayLike, axis: int) -> tuple[Array, Array]:
    """Softmax in float64 with the class axis last; and the logits."""
    array = arguments.logits_array(logits)
    axis = arguments.class_axis(array, axis)
    wide = array.astype(np.float64, copy=False)
    return np.moveaxis(softmax(wide, axis=axis), axis, -1), array


def _with_zero_row_sums(left: Array, p: Array, logits: Array) -> Array:
    """-left_i p_j, and on the diagonal minus the sum of its row's others: no 1 - p is taken."""
    shape = (*p.shape, p.shape[-1])
    matrix = np.empty(shape, arguments.loss_type(logits))
    np.multiply(-left[..., :, None], p[..., None, :], out=matrix, casting="same_kind")
    classes = np.arange(p.shape[-1])
    matrix[..., classes, classes] = 0
    matrix[..., classes, classes] = -matrix.sum(-1, dtype=np.float64)
    return matrix.astype(logits.dtype, copy=False)


def softmax_jacobian(logits: ArrayLike, *, axis: int = -1) -> Array:
    """The Jacobian of softmax of every row, diag(p) - p p^T.

    Args:
        logits: (..., C, ...) as for `cross_entropy`.
        axis: the class axis.

    Returns:
        (..., C, C) with the class axes last, of the logits' dtype: [i, j] is dp_i/da_j, which is
        p_i (1 - p_i) for i = j and -p_i p_j otherwise.

    Raises:
        TypeError, ValueError: as `cross_entropy`.

    Example:
        >>> import crossent
        >>> crossent.softmax_jacobian([0.0, 0.0])
        array([[ 0.25, -0.25],
               [-0.25,  0.25]])

    Source: docs/derivation.md, "The Jacobian of softmax".
    """
    p, array = _probabilities(logits, axis)
    return _with_zero_row_sums(p, p, array)


def log_softmax_jacobian(logits: ArrayLike, *, axis: int = -1) -> Array:
    """The Jacobian of log-softmax of every row, delta_ij - p_j.

    Args:
        logits, axis: as for `softmax_jacobian`.

    Returns:
        (..., C, C) with the class axes last: [i, j] is d log p_i/da_j.

    Raises:
        TypeError, ValueError: as `cross_entropy`.

    Example:
        >>> import crossent
        >>> crossent.log_softmax_jacobian([0.0, 0.0])
        array([[ 0.5, -0.5],
               [-0.5,  0.5]])

    Source: docs/derivation.md, "The two cases".
    """
    p, array = _probabilities(logits, axis)
    return _with_zero_row_sums(np.ones_like(p), p, array)


def grad_wrt_probabilities(probs: ArrayLike, targets: ArrayLike, *, axis: int = -1) -> Array:
    """The gradient of -sum_k y_k log a_k with respect to the probabilities a: -y / a.

    Args:
        probs: (..., C, ...) probabilities, of a floating dtype; lists become float64.
        targets: class indices or distributions, as for `cross_entropy`.
        axis: the class axis.

    Returns:
        -y_k / a_k with the shape and dtype of probs: one entry a row for an index target; -inf
        where a_k is 0 and y_k is not, 0 where y_k is 0.

    Raises:
        TypeError, ValueError, IndexError: as `cross_entropy`.

    Example:
        >>> import crossent
        >>> crossent.grad_wrt_probabilities([[0.5, 0.25, 0.25]], [1]) + 0.0
        array([[ 0., -4.,  0.]])

    Source: docs/derivation.md, "The derivative through the probabilities".
    """
    a = arguments.logits_array(probs, "probs")
    axis = arguments.class_axis(a, axis, "probs")
    target, form = arguments.target_array(targets, a, axis)
    y = _one_hot(target, a, axis) if form == arguments.INDICES else target
    grad = np.zeros_like(a, subok=False)
    held = np.asarray(y != 0)
    with np.errstate(divide="ignore", over="ignore"):
        np.divide(y, a, out=grad, where=held, casting="unsafe")
    np.negative(grad, out=grad, where=held)
    return grad


def _one_hot(target: Array, probs: Array, axis: int) -> NDArray[np.bool_]:
    judge(None, target, probs, axis)
    steps = np.arange(probs.shape[axis]).reshape(
        [-1 if k == axis else 1 for k in range(probs.ndim)]
    )
    return np.asarray(np.expand_dims(target, axis) == steps)

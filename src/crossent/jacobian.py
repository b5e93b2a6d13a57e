"""Jacobians of softmax and log-softmax, and what the chain rule meets on its way through them.

For one row with probabilities p: dp_i/da_j = p_i (delta_ij - p_j), that is diag(p) - p p^T, and
dlog p_i/da_j = delta_ij - p_j. Where i = j, 1 - p_i is the sum of the other probabilities, so that
nothing cancels when one of them is nearly 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossent import _arguments as arguments
from crossent import functional

Array = NDArray[Any]


def _probabilities(logits: ArrayLike, axis: int) -> tuple[Array, Array]:
    """Softmax in float64 with the class axis last; and the logits."""
    array = arguments.logits_array(logits)
    axis = arguments.class_axis(array, axis)
    wide = array.astype(np.float64, copy=False)
    return np.moveaxis(functional.softmax(wide, axis=axis), axis, -1), array


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
        logits: (..., C, ...) as for `crossent.cross_entropy`.
        axis: the class axis.

    Returns:
        (..., C, C) with the class axes last, of the logits' dtype: [i, j] is dp_i/da_j, which is
        p_i (1 - p_i) for i = j and -p_i p_j otherwise.

    Raises:
        TypeError, ValueError: as `crossent.cross_entropy`.

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
        TypeError, ValueError: as `crossent.cross_entropy`.

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
        targets: class indices or distributions, as for `crossent.cross_entropy`.
        axis: the class axis.

    Returns:
        -y_k / a_k with the shape and dtype of probs: one entry a row for an index target; -inf
        where a_k is 0 and y_k is not, 0 where y_k is 0.

    Raises:
        TypeError, ValueError, IndexError: as `crossent.cross_entropy`.

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
    classes = probs.shape[axis]
    outside = (target < 0) | (target >= classes)
    if outside.any():
        arguments.raise_bad_target(int(outside.argmax()), target, probs, axis)
    steps = np.arange(classes).reshape([-1 if k == axis else 1 for k in range(probs.ndim)])
    return np.asarray(np.expand_dims(target, axis) == steps)

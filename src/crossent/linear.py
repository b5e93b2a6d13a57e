"""The loss of a linear layer's logits, its gradients and its scores, without the logits.

N rows (any number of axes), D features, V classes. `crossent._blocks` multiplies block by block;
this module checks arguments and says what the core is to do with a block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossent import _arguments as arguments
from crossent import _blocks
from crossent import _outputs as outputs
from crossent.functional import LOSS, SCORES, TokenScores, compute

Array = NDArray[Any]


class LinearGradients(NamedTuple):
    """The gradients of a linear layer under the loss; None where one was not asked for."""

    inputs: Array | None = None
    """G linear_weight, of the inputs' shape and dtype, G the gradient by the logits."""
    linear_weight: Array | None = None
    """G^T inputs, (V, D)."""
    linear_bias: Array | None = None
    """The sum of G's rows, (V,)."""


class _Rows:
    """Targets of a call, flat and checked, and which rows count."""

    def __init__(self, layer: arguments.Linear, targets: ArrayLike, ignore_index: int) -> None:
        *shape, self.classes = layer.logits.shape
        self.shape, self.count = tuple(shape), math.prod(shape)
        target, self.form = arguments.target_array(targets, layer.logits, len(shape))
        self.ignored = arguments.ignored(ignore_index, self.form)
        self.kept: NDArray[np.intp] | None = None
        self.targets: Array
        if self.form == arguments.DISTRIBUTIONS:
            self.targets = target.reshape(self.count, self.classes)
            return
        self.targets = target.reshape(self.count)
        counts = np.asarray(self.targets != self.ignored)
        bad_row = arguments.bad_label(self.targets, counts, self.classes)
        if bad_row >= 0:
            arguments.raise_bad_target(bad_row, target, layer.logits, len(shape))
        self.kept = _blocks.kept_rows(counts)

    def divisor(self, rule: arguments.Reduction, weight: Array | None) -> float:
        """What the sum of the losses is divided by: 1 unless it is a mean."""
        if rule.name != "mean":
            return 1.0
        if rule.normalizer:
            return rule.normalizer
        if self.form == arguments.DISTRIBUTIONS or weight is None:
            return float(self.count if self.kept is None else len(self.kept))
        counted = self.targets if self.kept is None else self.targets[self.kept]
        return float(weight[counted.astype(np.intp)].sum())


def _head(layer: arguments.Linear, rows: _Rows, grads: LinearGradients, adds: bool) -> _blocks.Head:
    """The layer of a call; gradients of the inputs are written flat."""
    flat = layer.inputs.reshape(rows.count, layer.inputs.shape[-1])
    grad_inputs = None if grads.inputs is None else grads.inputs.reshape(flat.shape)
    flat_grads = _blocks.Gradients(grad_inputs, grads.linear_weight, grads.linear_bias)
    return _blocks.Head(flat, layer.linear_weight, layer.linear_bias, flat_grads, adds)


def _outputs(
    layer: arguments.Linear,
    targets: Array,
    wrt: Sequence[str] | str | None,
    out: LinearGradients | None,
    adds: bool,
) -> LinearGradients:
    """An array for each gradient that is wanted, disjoint from all else."""
    taken: list[Array | None] = [*layer[:3], targets]
    arrays: dict[str, Array] = {}
    for name in arguments.wanted_gradients(wrt, layer.linear_bias is not None):
        given = None if out is None else getattr(out, name)
        if adds and given is None and name != "inputs":
            outputs.raise_nothing_to_add_to(name)
        arrays[name] = outputs.gradient_array(given, getattr(layer, name), name, tuple(taken))
        taken.append(arrays[name])
    return LinearGradients(**arrays)


def _loss(
    layer: arguments.Linear,
    targets: ArrayLike,
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
    differentiates: bool = False,
    wrt: Sequence[str] | str | None = None,
    out: LinearGradients | None = None,
    accumulate: bool = False,
) -> tuple[Any, LinearGradients]:
    """The loss and, if wanted, the gradients: what both loss functions do."""
    rows = _Rows(layer, targets, ignore_index)
    rule = arguments.reduction_rule(reduction, normalizer, when_empty)
    scaling = arguments.scaling(softcap, logit_scale)
    weights = arguments.class_weight(weight, rows.classes)
    options: dict[str, Any] = {
        "label_smoothing": arguments.smoothing(label_smoothing),
        "z_loss": arguments.z_loss_factor(z_loss),
        "softcap": scaling.softcap,
        "logit_scale": scaling.logit_scale,
    }
    incoming = arguments.grad_loss_array(grad_loss, rows.shape, reduction)
    row_factors = None if type(incoming) is float else incoming.reshape(rows.count)
    dtype: np.dtype[Any] = np.dtype(arguments.loss_type(layer.inputs))
    losses = np.zeros(rows.count if reduction == "none" else 0, dtype)
    divisor = rows.divisor(rule, weights)
    if divisor == 0 and rule.when_empty == "raise":
        arguments.raise_empty()
    grads = LinearGradients()
    if differentiates:
        grads = _outputs(layer, rows.targets, wrt, out, accumulate)

    def kernel(logits: Array, part: _blocks.Rows) -> float:
        loss = np.empty(len(logits), dtype) if reduction == "none" else None
        total, _, _ = compute(
            LOSS, logits, 1, targets=rows.targets[part], form=rows.form, weight=weights, loss=loss,
            grad_loss=None if row_factors is None else row_factors[part],
            grad=logits if differentiates else None, ignore_index=rows.ignored, mean=True,
            normalizer=divisor, scale=1.0 if row_factors is not None else incoming, **options,
        )  # fmt: skip
        if loss is not None:
            losses[part] = loss
        return total

    kept = rows.kept if divisor else np.empty(0, np.intp)
    total = _blocks.run(_head(layer, rows, grads, accumulate), kernel, kept, differentiates)
    if reduction == "none":
        return losses.reshape(rows.shape), grads
    if divisor == 0:
        return dtype.type(0 if rule.when_empty == "zero" else np.nan), grads
    return dtype.type(total / divisor), grads


def linear_cross_entropy(
    inputs: ArrayLike,
    linear_weight: ArrayLike,
    targets: ArrayLike,
    *,
    linear_bias: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    normalizer: float | None = None,
    when_empty: str = "nan",
) -> Any:
    """Softmax cross-entropy of a linear layer's logits, which are never held as a whole::

        logits = inputs linear_weight^T + linear_bias
        loss   = cross_entropy(logits, targets, ...)

    A block of rows at a time goes through a matrix product and the loss; the working memory is
    `crossent.get_working_memory()` however large N, D and V are.

    Args:
        inputs: (..., D), float64, float32, float16 or ml_dtypes bfloat16; lists become float64.
        linear_weight: (V, D), of the inputs' dtype.
        targets: class indices, of the inputs' shape without D; or distributions, with V for D.
        linear_bias: (V,), of the inputs' dtype; None: none.
        weight, ignore_index, reduction, label_smoothing, z_loss, softcap, logit_scale, normalizer,
            when_empty: as for `cross_entropy`. Rows that are ignored are not multiplied.

    Returns:
        The loss as from `cross_entropy`. Products and logits are float64 for float64 inputs, else
        float32, also for half types.

    Raises:
        TypeError, ValueError, IndexError: as `cross_entropy`; also where shapes or dtypes of
            inputs, linear_weight and linear_bias do not go together.

    Example:
        >>> import crossent
        >>> hidden, head = [[1.0, 2.0], [0.5, -1.0]], [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
        >>> print("%.3f" % crossent.linear_cross_entropy(hidden, head, [2, 0]))
        0.436

    Source: Wijmans et al., Cut Your Losses in Large-Vocabulary Language Models, ICLR 2025.
    """
    return _loss(
        arguments.linear_arrays(inputs, linear_weight, linear_bias), targets, weight=weight,
        ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing,
        z_loss=z_loss, softcap=softcap, logit_scale=logit_scale, normalizer=normalizer,
        when_empty=when_empty,
    )[0]  # fmt: skip


def linear_cross_entropy_and_grad(
    inputs: ArrayLike,
    linear_weight: ArrayLike,
    targets: ArrayLike,
    *,
    linear_bias: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    normalizer: float | None = None,
    when_empty: str = "nan",
    grad_loss: ArrayLike | None = None,
    wrt: Sequence[str] | str | None = None,
    out: LinearGradients | None = None,
    accumulate: bool = False,
) -> tuple[Any, LinearGradients]:
    """The loss of a linear layer's logits and its gradients, with G = dloss / dlogits::

        dinputs = G linear_weight    dlinear_weight = G^T inputs    dlinear_bias = G^T 1

    Args:
        inputs, linear_weight, targets, linear_bias and options: as for `linear_cross_entropy`.
        grad_loss: as for `cross_entropy_and_grad`.
        wrt: the gradients that are wanted, any of "inputs", "linear_weight" and "linear_bias";
            None: all there are. What is left out costs neither its product nor its memory.
        out: `LinearGradients` of arrays to write to, each C-contiguous, of its argument's shape
            and dtype, and disjoint from everything else; None in it, or for it: fresh memory. Not
            touched when the call raises.
        accumulate: add the gradients of linear_weight and linear_bias to what `out` holds, as a
            batch that is worked through in parts needs it (then give `normalizer`, too).

    Returns:
        (loss, LinearGradients): each gradient of its argument's shape and dtype, None where it was
        not wanted.

    Raises:
        TypeError, ValueError, IndexError: as `linear_cross_entropy`; ValueError also for outputs
            that do not fit.

    Example:
        >>> import crossent
        >>> hidden, head = [[1.0, 2.0], [0.5, -1.0]], [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
        >>> loss, grads = crossent.linear_cross_entropy_and_grad(hidden, head, [2, 0])
        >>> grads.inputs.round(3)
        array([[-0.122, -0.045],
               [-0.07 ,  0.186]])

    Source: as `linear_cross_entropy`.
    """
    return _loss(
        arguments.linear_arrays(inputs, linear_weight, linear_bias), targets, weight=weight,
        ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing,
        z_loss=z_loss, softcap=softcap, logit_scale=logit_scale, normalizer=normalizer,
        when_empty=when_empty, grad_loss=grad_loss, differentiates=True, wrt=wrt, out=out,
        accumulate=accumulate,
    )  # fmt: skip


def linear_token_scores(
    inputs: ArrayLike,
    linear_weight: ArrayLike,
    targets: ArrayLike,
    *,
    linear_bias: ArrayLike | None = None,
    ignore_index: int = -100,
    softcap: float | None = None,
    logit_scale: float = 1.0,
) -> TokenScores:
    """What an evaluation asks of every row, from a linear layer's inputs, without its logits.

    Args:
        inputs, linear_weight, linear_bias: as for `linear_cross_entropy`.
        targets, ignore_index, softcap, logit_scale: as for `token_scores`. Ignored rows are
            multiplied, since all but their nll is given.

    Returns:
        TokenScores(nll, lse, entropy, argmax) as from `token_scores`.

    Raises:
        TypeError, ValueError, IndexError: as `linear_cross_entropy`.

    Example:
        >>> import crossent
        >>> scores = crossent.linear_token_scores([[1.0, 2.0]], [[1.0, 0.0], [0.0, 1.0]], [0])
        >>> print("%.3f" % scores.nll[0], scores.argmax)
        1.313 [1]

    Source: as `token_scores`.
    """
    layer = arguments.linear_arrays(inputs, linear_weight, linear_bias)
    rows = _Rows(layer, targets, ignore_index)
    if rows.form != arguments.INDICES:
        arguments.raise_not_for_scores(np.asarray(targets), rows.shape)
    scaling = arguments.scaling(softcap, logit_scale)
    dtype = arguments.loss_type(layer.inputs)
    nll, lse, entropy = (np.empty(rows.count, dtype) for _ in range(3))
    argmax = np.empty(rows.count, np.int64)

    def kernel(logits: Array, part: _blocks.Rows) -> float:
        return compute(
            SCORES, logits, 1, targets=rows.targets[part], form=rows.form, loss=nll[part],
            lse=lse[part], entropy=entropy[part], argmax=argmax[part], ignore_index=rows.ignored,
            softcap=scaling.softcap, logit_scale=scaling.logit_scale,
        )[0]  # fmt: skip

    _blocks.run(_head(layer, rows, LinearGradients(), False), kernel, None, False)
    return TokenScores(*(array.reshape(rows.shape) for array in (nll, lse, entropy, argmax)))

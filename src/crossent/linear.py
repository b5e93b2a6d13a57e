"""The loss of a linear layer's logits, its gradients and its scores, without the logits.

N rows (any number of axes), D features, V classes. `crossent._blocks` multiplies block by block;
this module checks arguments and says what the core is to do with a block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Unpack, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossent import _arguments as arguments
from crossent import _blocks, options
from crossent import _outputs as outputs
from crossent._core import Output, Verdict
from crossent._solve import Array, judge, mean, solve
from crossent.loss import Loss, Losses, TokenScores
from crossent.options import Given, Options, Reduced, Reduction, WhenEmpty


class Others(Given, total=False):
    """What `linear_cross_entropy` takes beside its arrays and reduction, for its overloads."""

    linear_bias: ArrayLike | None
    weight: ArrayLike | None


class ForGrad(Others, total=False):
    """The same of `linear_cross_entropy_and_grad`."""

    grad_loss: ArrayLike | None
    wrt: Sequence[str] | str | None
    out: LinearGradients | None
    accumulate: bool


class LinearGradients(NamedTuple):
    """The gradients of a linear layer under the loss; None where one was not asked for."""

    inputs: Array | None = None
    """G linear_weight, of the inputs' shape and dtype, G the gradient by the logits."""
    linear_weight: Array | None = None
    """G^T inputs, (V, D)."""
    linear_bias: Array | None = None
    """The sum of G's rows, (V,)."""


class _JudgedTargets:
    """Targets of a call, flat and judged, and which rows count."""

    def __init__(
        self, layer: arguments.Linear, targets: ArrayLike, chosen: Options, weight: Array | None
    ) -> None:
        *shape, classes = layer.logits.shape
        self.shape, self.count = tuple(shape), math.prod(shape)
        target, form = arguments.target_array(targets, layer.logits, len(shape))
        self.has_indices = form == arguments.INDICES
        self.kept: NDArray[np.intp] | None = None
        if self.has_indices:
            verdict = np.empty(target.shape, np.uint8)
            judgement = judge(chosen, target, layer.logits, len(shape), weight, verdict)
            self.targets: Array = target.reshape(self.count)
            self.kept = _blocks.kept_rows(verdict.reshape(-1) == Verdict.KEPT)
        else:
            options.check_for_distributions(chosen)
            judgement = judge(chosen, target, layer.logits, len(shape))
            self.targets = target.reshape(self.count, classes)
        self.divisor = judgement.divisor


def _head(
    layer: arguments.Linear, rows: _JudgedTargets, grads: LinearGradients, adds: bool
) -> _blocks.Head:
    """The layer of a call; gradients of the inputs are written flat."""
    flat = layer.inputs.reshape(rows.count, layer.inputs.shape[-1])
    grad_inputs = None if grads.inputs is None else grads.inputs.reshape(flat.shape)
    flat_grads = _blocks.Gradients(grad_inputs, grads.linear_weight, grads.linear_bias)
    return _blocks.Head(flat, layer.linear_weight, layer.linear_bias, flat_grads, adds)


def _wanted_gradients(wrt: Any, has_bias: bool) -> tuple[str, ...]:
    """The names of the arguments whose gradients are wanted; None is all there are."""
    there = LinearGradients._fields if has_bias else LinearGradients._fields[:2]
    if wrt is None:
        return there
    names = (wrt,) if isinstance(wrt, str) else tuple(wrt)
    for name in names:
        if name not in there:
            listed = ", ".join(f'"{each}"' for each in there)
            raise ValueError(f"wrt holds {name!r}; it must name arguments of the call: {listed}")
    return names


def _gradient_arrays(
    layer: arguments.Linear,
    targets: Array,
    wrt: Sequence[str] | str | None,
    out: LinearGradients | None,
    adds: bool,
) -> LinearGradients:
    """An array for each gradient that is wanted, disjoint from all else."""
    taken: list[Array | None] = [*layer[:3], targets]
    arrays: dict[str, Array] = {}
    for name in _wanted_gradients(wrt, layer.linear_bias is not None):
        given = None if out is None else getattr(out, name)
        if adds and given is None and name != "inputs":
            outputs.raise_nothing_to_add_to(name)
        arrays[name] = outputs.gradient_array(given, getattr(layer, name), name, tuple(taken))
        taken.append(arrays[name])
    return LinearGradients(**arrays)


def _loss(
    layer: arguments.Linear, given: Mapping[str, Any], *, wants_grad: bool
) -> tuple[Loss | Losses, LinearGradients]:
    """The loss and, where they are wanted, the gradients; given: of a public function, by name."""
    chosen = options.checked(given)
    weight = arguments.class_weight(given["weight"], layer.logits.shape[-1])
    judged = _JudgedTargets(layer, given["targets"], chosen, weight)
    factor = arguments.grad_loss_array(given.get("grad_loss"), judged.shape, chosen.reduction)
    if type(factor) is not float:
        factor = factor.reshape(judged.count)
    if judged.divisor == 0 and chosen.when_empty == "raise":
        arguments.raise_empty()
    adds = wants_grad and given["accumulate"]
    grads = LinearGradients()
    if wants_grad:
        grads = _gradient_arrays(layer, judged.targets, given["wrt"], given["out"], adds)
    dtype: np.dtype[Any] = np.dtype(arguments.loss_type(layer.inputs))
    losses = np.zeros(judged.count if chosen.reduction == "none" else 0, dtype)

    def kernel(logits: Array, part: _blocks.Selection) -> float:
        loss = np.empty(len(logits), dtype) if chosen.reduction == "none" else None
        operands: dict[str, Any] = {
            "weight": weight,
            "grad_loss": factor if type(factor) is float else factor[part],
            "loss": loss,
        }
        if wants_grad:
            operands["grad"] = logits
        target, divisor = judged.targets[part], judged.divisor
        outcome = solve(Output.LOSS, chosen, logits, 1, target, operands, divisor)
        if loss is not None:
            losses[part] = loss
        return outcome.sum

    kept = judged.kept if judged.divisor else np.empty(0, np.intp)
    total = _blocks.run(_head(layer, judged, grads, adds), kernel, kept, wants_grad)
    if chosen.reduction == "none":
        return losses.reshape(judged.shape), grads
    with np.errstate(over="ignore"):  # what is beyond float32 is infinite
        return dtype.type(mean(total, judged.divisor, chosen)), grads


@overload
def linear_cross_entropy(
    inputs: ArrayLike,
    linear_weight: ArrayLike,
    targets: ArrayLike,
    *,
    reduction: Literal["none"],
    **given: Unpack[Others],
) -> Losses: ...
@overload
def linear_cross_entropy(
    inputs: ArrayLike,
    linear_weight: ArrayLike,
    targets: ArrayLike,
    *,
    reduction: Reduced = "mean",
    **given: Unpack[Others],
) -> Loss: ...
def linear_cross_entropy(
    inputs: ArrayLike,
    linear_weight: ArrayLike,
    targets: ArrayLike,
    *,
    linear_bias: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    normalizer: float | None = None,
    when_empty: WhenEmpty = "nan",
) -> Loss | Losses:
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
        weight and options: as for `cross_entropy`. Rows that are ignored are not multiplied.

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
        arguments.linear_arrays(inputs, linear_weight, linear_bias), locals(), wants_grad=False
    )[0]


@overload
def linear_cross_entropy_and_grad(
    inputs: ArrayLike,
    linear_weight: ArrayLike,
    targets: ArrayLike,
    *,
    reduction: Literal["none"],
    **given: Unpack[ForGrad],
) -> tuple[Losses, LinearGradients]: ...
@overload
def linear_cross_entropy_and_grad(
    inputs: ArrayLike,
    linear_weight: ArrayLike,
    targets: ArrayLike,
    *,
    reduction: Reduced = "mean",
    **given: Unpack[ForGrad],
) -> tuple[Loss, LinearGradients]: ...
def linear_cross_entropy_and_grad(
    inputs: ArrayLike,
    linear_weight: ArrayLike,
    targets: ArrayLike,
    *,
    linear_bias: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    normalizer: float | None = None,
    when_empty: WhenEmpty = "nan",
    grad_loss: ArrayLike | None = None,
    wrt: Sequence[str] | str | None = None,
    out: LinearGradients | None = None,
    accumulate: bool = False,
) -> tuple[Loss | Losses, LinearGradients]:
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
        arguments.linear_arrays(inputs, linear_weight, linear_bias), locals(), wants_grad=True
    )


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
    chosen = options.checked_of_scores(locals())
    layer = arguments.linear_arrays(inputs, linear_weight, linear_bias)
    judged = _JudgedTargets(layer, targets, chosen, None)
    if not judged.has_indices:
        arguments.raise_not_for_scores(np.asarray(targets), judged.shape)
    dtype = arguments.loss_type(layer.inputs)
    nll, lse, entropy = (np.empty(judged.count, dtype) for _ in range(3))
    argmax = np.empty(judged.count, np.int64)

    def kernel(logits: Array, part: _blocks.Selection) -> float:
        into = {"loss": nll, "lse": lse, "entropy": entropy, "argmax": argmax}
        operands = {name: array[part] for name, array in into.items()}
        return solve(Output.SCORES, chosen, logits, 1, judged.targets[part], operands, 1.0).sum

    _blocks.run(_head(layer, judged, LinearGradients(), False), kernel, None, False)
    return TokenScores(*(array.reshape(judged.shape) for array in (nll, lse, entropy, argmax)))

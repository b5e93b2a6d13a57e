"""Loss, scores and linear form as operators of PyTorch, for what traces, fakes or compiles.

`torch.ops.crossent.*`: shapes and dtypes are known without data; every backward is an operator
again; nothing aliases an input. The results have the bits of eager mode. An operator takes its
options one by one, after everything else, in the order of `crossent.options.Options`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_type_hints

import torch

from crossent.options import Options
from crossent.torch import _autograd, _compute
from crossent.torch._compute import Layer, class_weight

Tensor = torch.Tensor

_SCHEMA_TYPES: dict[Any, str] = {
    int: "SymInt", float: "float", float | None: "float?",
}  # fmt: skip
_OPTIONS = ", ".join(
    f"{_SCHEMA_TYPES.get(kind, 'str')} {name}" for name, kind in get_type_hints(Options).items()
)
_COUNT = len(Options._fields)
_NOTHING = (None,) * _COUNT  # gradients of the options

library = torch.library.Library("crossent", "DEF")


def _packed(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose last argument is Options, as a function that takes them one by one."""

    def of_values(*given: Any) -> Any:
        return function(*given[:-_COUNT], Options(*given[-_COUNT:]))

    return of_values


def _define(
    name: str, arguments: str, result: str, compute: Callable[..., Any], like: Callable[..., Any]
) -> None:
    """An operator: what it computes on the CPU, and what that is like where there is no data."""
    library.define(f"{name}({arguments}, {_OPTIONS}) -> {result}")
    library.impl(name, _packed(compute), "CPU")
    torch.library.register_fake(f"crossent::{name}", _packed(like), lib=library)


# The loss: of logits and of the incoming gradient


def _loss(logits: Tensor, target: Tensor, weight: Tensor | None, options: Options) -> Tensor:
    return _compute.loss(logits, target, class_weight(weight), options)


def _loss_like(logits: Tensor, target: Tensor, weight: Tensor | None, options: Options) -> Tensor:
    return _compute.loss_like(logits, options.reduction)


def _grad(
    grad_loss: Tensor, logits: Tensor, target: Tensor, weight: Tensor | None, options: Options
) -> Tensor:
    weight = class_weight(weight)
    return _compute.gradient(_compute.LOSS, logits, target, weight, options, grad_loss)


def _grad_like(grad_loss: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(logits)


def _hvp(
    vector: Tensor,
    grad_loss: Tensor,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    options: Options,
) -> Tensor:
    weight = class_weight(weight)
    return _compute.gradient(_compute.PRODUCT, logits, target, weight, options, grad_loss, vector)


def _hvp_like(vector: Tensor, grad_loss: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(logits)


def _along(
    vector: Tensor, logits: Tensor, target: Tensor, weight: Tensor | None, options: Options
) -> Tensor:
    return _autograd.along(vector, logits, target, class_weight(weight), options)


def _along_like(vector: Tensor, *problem: Any) -> Tensor:
    return _loss_like(*problem)


_PROBLEM = "Tensor logits, Tensor target, Tensor? weight"
_define("cross_entropy", _PROBLEM, "Tensor", _loss, _loss_like)
_define("cross_entropy_grad", f"Tensor grad_loss, {_PROBLEM}", "Tensor", _grad, _grad_like)
_define(
    "cross_entropy_hvp", f"Tensor vector, Tensor grad_loss, {_PROBLEM}", "Tensor", _hvp, _hvp_like
)
_define("cross_entropy_along", f"Tensor vector, {_PROBLEM}", "Tensor", _along, _along_like)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:-_COUNT])
    ctx.options = inputs[-_COUNT:]


def _loss_backward(ctx: Any, grad_loss: Tensor) -> Any:
    grad = torch.ops.crossent.cross_entropy_grad(grad_loss, *ctx.saved_tensors, *ctx.options)
    return grad, None, None, *_NOTHING


def _grad_backward(ctx: Any, vector: Tensor) -> Any:
    grad_loss, *problem = ctx.saved_tensors
    product = torch.ops.crossent.cross_entropy_hvp(vector, grad_loss, *problem, *ctx.options)
    change = torch.ops.crossent.cross_entropy_along(vector, *problem, *ctx.options)
    return change, product, None, None, *_NOTHING


torch.library.register_autograd(
    "crossent::cross_entropy", _loss_backward, setup_context=_keep, lib=library
)
torch.library.register_autograd(
    "crossent::cross_entropy_grad", _grad_backward, setup_context=_keep, lib=library
)


# Scores


def _scores_like(logits: Tensor, target: Tensor, options: Options) -> tuple[Tensor, ...]:
    nll, lse, entropy = (_compute.loss_like(logits, "none") for _ in range(3))
    return nll, lse, entropy, nll.long()


def _scores_grad(
    grad_nll: Tensor | None,
    grad_lse: Tensor | None,
    grad_entropy: Tensor | None,
    logits: Tensor,
    target: Tensor,
    options: Options,
) -> Tensor:
    grads = (grad_nll, grad_lse, grad_entropy)
    return _autograd.scores_gradient(grads, logits, target, options)


def _scores_grad_like(nll: Any, lse: Any, entropy: Any, logits: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(logits)


_FOUR = "(Tensor, Tensor, Tensor, Tensor)"
_ROWS = "Tensor logits, Tensor target"
_GRADS = "Tensor? grad_nll, Tensor? grad_lse, Tensor? grad_entropy"
_define("token_scores", _ROWS, _FOUR, _compute.scores, _scores_like)
_define("token_scores_grad", f"{_GRADS}, {_ROWS}", "Tensor", _scores_grad, _scores_grad_like)


def _keep_scored(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _keep(ctx, inputs, output)
    ctx.mark_non_differentiable(output[3])
    ctx.set_materialize_grads(False)


def _scores_backward(ctx: Any, *grads: Tensor | None) -> Any:
    grad = torch.ops.crossent.token_scores_grad(*grads[:3], *ctx.saved_tensors, *ctx.options)
    return grad, None, *_NOTHING


torch.library.register_autograd(
    "crossent::token_scores", _scores_backward, setup_context=_keep_scored, lib=library
)


# The linear form. An operator gives tensors: an empty one stands for a gradient that is not wanted.


def _filled(grads: Any, input: Tensor) -> tuple[Tensor, ...]:
    return tuple(input.new_empty(0) if grad is None else grad for grad in grads)


def _linear_loss(
    input: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    wants: Any,
    options: Options,
) -> tuple[Tensor, ...]:
    layer = Layer(input, linear_weight, linear_bias)
    grads = _compute.fresh_gradients(layer, wants)
    loss = _compute.linear_loss(layer, target, class_weight(weight), options, grads)
    return loss, *_filled(grads, input)


def _linear_loss_like(*given: Any) -> tuple[Tensor, ...]:
    *layer, _, _, wants, options = given
    return Layer(*layer).loss_like(options.reduction), *_gradients_like(Layer(*layer), wants)


def _gradients_like(layer: Layer, wants: Any) -> tuple[Tensor, ...]:
    grads = (
        torch.empty_like(tensor, memory_format=torch.contiguous_format)
        if wanted and tensor is not None
        else None
        for tensor, wanted in zip(layer, wants, strict=True)
    )
    return _filled(grads, layer.input)


def _linear_grad(
    grad_loss: Tensor,
    ready: list[Tensor],
    input: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    wants: Any,
    options: Options,
) -> tuple[Tensor, ...]:
    if ready:
        return tuple(grad * grad_loss.item() for grad in ready)
    layer = Layer(input, linear_weight, linear_bias)
    grads = _compute.fresh_gradients(layer, wants)
    _compute.linear_loss(layer, target, class_weight(weight), options, grads, grad_loss)
    return _filled(grads, input)


def _linear_grad_like(grad_loss: Tensor, ready: list[Tensor], *given: Any) -> tuple[Tensor, ...]:
    *layer, _, _, wants, _ = given
    return _gradients_like(Layer(*layer), wants)


def _linear_scores(
    input: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    target: Tensor,
    options: Options,
) -> tuple[Tensor, ...]:
    return _compute.linear_scores(Layer(input, linear_weight, linear_bias), target, options)


def _linear_scores_like(*given: Any) -> tuple[Tensor, ...]:
    *layer, _, _ = given
    nll, lse, entropy = (Layer(*layer).loss_like("none") for _ in range(3))
    return nll, lse, entropy, nll.long()


_LAYER = "Tensor input, Tensor linear_weight, Tensor? linear_bias, Tensor target"
_LINEAR = f"{_LAYER}, Tensor? weight, bool[3] wants"
_define("linear_cross_entropy", _LINEAR, _FOUR, _linear_loss, _linear_loss_like)
_define(
    "linear_cross_entropy_grad",
    f"Tensor grad_loss, Tensor[] ready, {_LINEAR}",
    "(Tensor, Tensor, Tensor)",
    _linear_grad,
    _linear_grad_like,
)
_define("linear_token_scores", _LAYER, _FOUR, _linear_scores, _linear_scores_like)


def _keep_linear(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *problem, wants = inputs[:-_COUNT]
    ctx.options = inputs[-_COUNT:]
    ctx.ready = any(wants) and _autograd.made_in_forward(inputs[0], Options(*ctx.options))
    ctx.save_for_backward(*problem, *(output[1:] if ctx.ready else ()))
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _linear_backward(ctx: Any, grad_loss: Tensor, *_: Any) -> Any:
    problem, ready = ctx.saved_tensors[:5], list(ctx.saved_tensors[5:])
    wants = [bool(needed) for needed in ctx.needs_input_grad[:3]]
    grads = torch.ops.crossent.linear_cross_entropy_grad(
        grad_loss, ready, *problem, wants, *ctx.options
    )
    chosen = (grad if wanted else None for grad, wanted in zip(grads, wants, strict=True))
    return *chosen, None, None, None, *_NOTHING


def _refuse(ctx: Any, *_: Any) -> Any:
    raise RuntimeError(
        "where it is compiled or traced, linear_cross_entropy has no second derivatives, and "
        "linear_token_scores has none: call them in eager mode for those"
    )


torch.library.register_autograd(
    "crossent::linear_cross_entropy", _linear_backward, setup_context=_keep_linear, lib=library
)
torch.library.register_autograd("crossent::linear_cross_entropy_grad", _refuse, lib=library)
torch.library.register_autograd("crossent::linear_token_scores", _refuse, lib=library)

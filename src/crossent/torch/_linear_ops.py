"""The linear form as operators of PyTorch, for what traces, fakes or compiles."""

from __future__ import annotations

from typing import Any

import torch

from crossent.torch import _call, _linear
from crossent.torch._call import Options, loss_dtype
from crossent.torch._linear import Layer
from crossent.torch._linear_autograd import made_in_forward
from crossent.torch._ops import OPTIONS, library

Tensor = torch.Tensor

_LAYER = "Tensor input, Tensor linear_weight, Tensor? linear_bias, Tensor target"
_PROBLEM = f"{_LAYER}, Tensor? weight, bool[3] wants, {OPTIONS}"
_SCALING = "SymInt? ignore_index, float softcap, float logit_scale"

library.define(f"linear_cross_entropy({_PROBLEM}) -> (Tensor, Tensor, Tensor, Tensor)")
library.define(
    f"linear_cross_entropy_grad(Tensor grad_loss, Tensor[] ready, {_PROBLEM}) "
    "-> (Tensor, Tensor, Tensor)"
)
library.define(f"linear_token_scores({_LAYER}, {_SCALING}) -> (Tensor, Tensor, Tensor, Tensor)")


def _filled(grads: Any, input: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """An operator gives tensors: an empty one stands for a gradient that is not wanted."""
    first, second, third = (input.new_empty(0) if grad is None else grad for grad in grads)
    return first, second, third


@torch.library.impl("crossent::linear_cross_entropy", "CPU")
def _loss(
    input: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    wants: Any,
    *options: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    layer = Layer(input, linear_weight, linear_bias)
    grads = _linear.fresh_gradients(layer, wants)
    loss = _linear.loss(layer, target, _call.class_weight(weight), Options(*options), grads)
    return loss, *_filled(grads, input)


@torch.library.register_fake("crossent::linear_cross_entropy")
def _(
    input: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    wants: Any,
    *options: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    layer = Layer(input, linear_weight, linear_bias)
    shape = layer.logits_shape
    rows = shape[:1] + shape[2:] if Options(*options).reduction == "none" else ()
    loss = input.new_empty(rows, dtype=loss_dtype(input))
    return loss, *_filled(_like(layer, wants), input)


def _like(layer: Layer, wants: Any) -> list[Tensor | None]:
    return [
        torch.empty_like(tensor, memory_format=torch.contiguous_format)
        if wanted and tensor is not None
        else None
        for tensor, wanted in zip(layer, wants, strict=True)
    ]


@torch.library.impl("crossent::linear_cross_entropy_grad", "CPU")
def _grad(
    grad_loss: Tensor,
    ready: list[Tensor],
    input: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    wants: Any,
    *options: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    if ready:
        first, second, third = (grad * grad_loss.item() for grad in ready)
        return first, second, third
    layer = Layer(input, linear_weight, linear_bias)
    grads = _linear.fresh_gradients(layer, wants)
    weight = _call.class_weight(weight)
    _linear.loss(layer, target, weight, Options(*options), grads, grad_loss)
    return _filled(grads, input)


@torch.library.register_fake("crossent::linear_cross_entropy_grad")
def _(
    grad_loss: Tensor,
    ready: list[Tensor],
    input: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    wants: Any,
    *options: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    return _filled(_like(Layer(input, linear_weight, linear_bias), wants), input)


@torch.library.impl("crossent::linear_token_scores", "CPU")
def _scores(
    input: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    target: Tensor,
    ignore_index: int | None,
    softcap: float,
    logit_scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    options = Options(ignore_index, softcap=softcap, logit_scale=logit_scale)
    return _linear.scores(Layer(input, linear_weight, linear_bias), target, options)


@torch.library.register_fake("crossent::linear_token_scores")
def _(
    input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None, target: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    nll, lse, entropy = (input.new_empty(target.shape, dtype=loss_dtype(input)) for _ in range(3))
    return nll, lse, entropy, nll.long()


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *problem, ctx.wants = inputs[:6]
    ctx.options = inputs[6:]
    ctx.ready = made_in_forward(inputs[0], Options(*ctx.options)) and any(ctx.wants)
    ctx.save_for_backward(*problem, *(output[1:] if ctx.ready else ()))
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_loss: Tensor, *_: Any) -> Any:
    problem, ready = ctx.saved_tensors[:5], list(ctx.saved_tensors[5:])
    wants = [bool(needed) for needed in ctx.needs_input_grad[:3]]
    grads = torch.ops.crossent.linear_cross_entropy_grad(
        grad_loss, ready, *problem, wants, *ctx.options
    )
    chosen = (grad if wanted else None for grad, wanted in zip(grads, wants, strict=True))
    return *chosen, None, None, None, *(None for _ in ctx.options)


def _refuse(ctx: Any, *_: Any) -> Any:
    raise RuntimeError(
        "where it is compiled or traced, linear_cross_entropy has no second derivatives, and "
        "linear_token_scores has none: call them in eager mode for those"
    )


torch.library.register_autograd(
    "crossent::linear_cross_entropy", _backward, setup_context=_keep, lib=library
)
torch.library.register_autograd("crossent::linear_cross_entropy_grad", _refuse, lib=library)
torch.library.register_autograd("crossent::linear_token_scores", _refuse, lib=library)

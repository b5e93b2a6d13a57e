"""The linear form for eager autograd on the CPU.

Under "mean" and "sum" the gradients are made in forward, while a block's logits are there: three
products in all. Backward hands them out, multiplied by the incoming gradient. A second backward,
hooks on saved tensors (checkpointing, offloading), reduction "none" and float16, whose gradients
would be rounded before a loss scale reaches them, make the logits again in backward: four products.
"""

from __future__ import annotations

from typing import Any

import torch

from crossent.torch import _linear, _plain, _recomputed
from crossent.torch._autograd import is_transformed
from crossent.torch._call import Options
from crossent.torch._linear import Grads, Layer

Tensor = torch.Tensor

_top_hooks = torch._C._autograd._top_saved_tensors_default_hooks


def made_in_forward(input: Tensor, options: Options) -> bool:
    """Whether the gradients wait ready for backward."""
    return options.reduction != "none" and input.dtype is not torch.float16


class LinearLoss(torch.autograd.Function):
    """loss = f(input, linear_weight, linear_bias); target and weight are constants."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        linear_weight: Tensor,
        linear_bias: Tensor | None,
        target: Tensor,
        weight: Tensor | None,
        options: Options,
    ) -> Tensor:
        layer = Layer(input, linear_weight, linear_bias)
        ctx.grads = _linear.NO_GRADS
        if made_in_forward(input, options) and _top_hooks(False) is None:
            ctx.grads = _linear.fresh_gradients(layer, ctx.needs_input_grad[:3])
        ctx.save_for_backward(*layer, target, weight)
        ctx.options = options
        return _linear.loss(layer, target, weight, options, ctx.grads)

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        *layer, target, weight = ctx.saved_tensors
        wants = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled() or is_transformed(grad_loss):
            grads = _differentiable(Layer(*layer), target, weight, ctx.options, grad_loss, wants)
            return *grads, None, None, None
        ready, ctx.grads = ctx.grads, _linear.NO_GRADS
        if any(grad is not None for grad in ready):
            return *scaled(ready, grad_loss), None, None, None
        fresh = _linear.fresh_gradients(Layer(*layer), wants)
        _linear.loss(Layer(*layer), target, weight, ctx.options, fresh, grad_loss)
        return *fresh, None, None, None


def scaled(grads: Grads, grad_loss: Tensor) -> Grads:
    """Gradients for an incoming gradient, from those for 1, in their memory."""
    factor = grad_loss.item()
    if factor != 1.0:
        for grad in grads:
            if grad is not None:
                grad.mul_(factor)
    return grads


def _differentiable(
    layer: Layer,
    target: Tensor,
    weight: Tensor | None,
    options: Options,
    grad_loss: Tensor,
    wants: tuple[bool, bool, bool],
) -> list[Tensor | None]:
    """The gradients as functions of layer and grad_loss that can be derived again."""
    return _pulled(
        lambda x, w, b: _recomputed.loss(x, w, b, target, weight, options),
        layer,
        wants,
        grad_loss,
    )


def _pulled(
    function: Any, layer: Layer, wants: tuple[bool, bool, bool], grads: Any
) -> list[Tensor | None]:
    """The gradients of a function of the layer, by the parts of it that want one."""
    places = [k for k, wanted in enumerate(wants) if wanted]

    def of_wanted(*chosen: Tensor) -> Any:
        changed: list[Tensor | None] = list(layer)
        for place, tensor in zip(places, chosen, strict=True):
            changed[place] = tensor
        return function(*changed)

    found: list[Tensor | None] = [None, None, None]
    at: Any = [layer[k] for k in places]
    for place, grad in zip(places, _plain.vjp(of_wanted, *at)(grads), strict=True):
        found[place] = grad
    return found


class LinearScores(torch.autograd.Function):
    """nll, lse and entropy as functions of the layer; argmax beside them."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        linear_weight: Tensor,
        linear_bias: Tensor | None,
        target: Tensor,
        options: Options,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ctx.save_for_backward(input, linear_weight, linear_bias, target)
        ctx.options = options
        result = _linear.scores(Layer(input, linear_weight, linear_bias), target, options)
        ctx.mark_non_differentiable(result[3])
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        *layer, target = ctx.saved_tensors
        found = _pulled(
            lambda x, w, b: _recomputed.scores(x, w, b, target, ctx.options)[:3],
            Layer(*layer),
            ctx.needs_input_grad[:3],
            grads[:3],
        )
        return *found, None, None

"""The loss for eager autograd on the CPU: as few Python steps as it takes.

Under "mean" and "sum" the gradient is made in forward, in the same pass as the loss, for an
incoming gradient of 1; backward then hands it out. Any other incoming gradient, and a second
backward, is computed anew from the saved logits, so that it is rounded once. Under "none" the
incoming gradient is rarely all ones: everything waits for backward. So it does while hooks on saved
tensors are active (checkpointing, offloading), which would not see the gradient.
"""

from __future__ import annotations

from typing import Any

import torch

from crossent.torch import _call, _plain
from crossent.torch._call import Options

Tensor = torch.Tensor


def is_transformed(tensor: Tensor) -> bool:
    """Whether its values are out of the core's reach: batched by vmap, also by autograd's own."""
    return (
        torch._C._are_functorch_transforms_active()
        or torch._C._functorch.is_legacy_batchedtensor(tensor)
    )  # fmt: skip


_top_hooks = torch._C._autograd._top_saved_tensors_default_hooks


class Loss(torch.autograd.Function):
    """loss = f(logits); target and weight are constants."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None,
        options: Options,
        in_place: bool,
    ) -> Tensor:
        grad = None
        if options.reduction != "none" and not in_place and _top_hooks(False) is None:
            grad = _call.fresh_like(logits)
        ctx.save_for_backward(logits, target, weight)
        ctx.options, ctx.in_place, ctx.grad = options, in_place, grad
        return _call.loss(logits, target, weight, options, grad)

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        if is_transformed(grad_loss):
            return _batched(ctx, grad_loss), None, None, None, None
        if torch.is_grad_enabled():
            logits, target, weight = ctx.saved_tensors
            grad = Gradient.apply(logits, grad_loss, target, weight, ctx.options)
            return grad, None, None, None, None
        ready, ctx.grad = ctx.grad, None
        if ready is not None and grad_loss.item() == 1.0:
            return ready, None, None, None, None
        logits, target, weight = ctx.saved_tensors
        if ctx.in_place:
            ready = logits.detach()  # shares its version counter
        grad = _call.gradient(_call.LOSS, logits, target, weight, ctx.options, grad_loss, out=ready)
        if ctx.in_place:
            torch.autograd.graph.increment_version(logits)
        return grad, None, None, None, None


def _batched(ctx: Any, grad_loss: Tensor) -> Tensor:
    """The gradient for incoming gradients that a transform has batched."""
    logits, target, weight = ctx.saved_tensors
    options = ctx.options
    return _plain.vjp(lambda a: _plain.loss(a, target, weight, options), logits)(grad_loss)[0]


class Gradient(torch.autograd.Function):
    """The gradient as a function of (logits, grad_loss), for second derivatives."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        grad_loss: Tensor,
        target: Tensor,
        weight: Tensor | None,
        options: Options,
    ) -> Tensor:
        ctx.save_for_backward(logits, grad_loss, target, weight)
        ctx.options = options
        return _call.gradient(_call.LOSS, logits, target, weight, options, grad_loss)

    @staticmethod
    def backward(ctx: Any, vector: Tensor) -> Any:
        logits, grad_loss, target, weight = ctx.saved_tensors
        if torch.is_grad_enabled() or is_transformed(vector):
            pair = _plain.product(logits, grad_loss, target, weight, ctx.options, vector)
            return *pair, None, None, None
        by_logits = by_grad_loss = None
        if ctx.needs_input_grad[0]:
            by_logits = _call.gradient(
                _call.PRODUCT, logits, target, weight, ctx.options, grad_loss, vector
            )
        if ctx.needs_input_grad[1]:
            by_grad_loss = along(vector, logits, target, weight, ctx.options)
        return by_logits, by_grad_loss, None, None, None


def along(
    vector: Tensor, logits: Tensor, target: Tensor, weight: Tensor | None, options: Options
) -> Tensor:
    """The change of the loss as the logits move along `vector`: of the loss's shape and dtype."""
    dtype = _call.loss_dtype(logits)
    wide = logits.to(dtype)
    none = options.reduction == "none"
    ones = _call.row_losses_like(logits).fill_(1) if none else logits.new_ones((), dtype=dtype)
    grad = _call.gradient(_call.LOSS, wide, target, weight, options, ones)
    product = grad.mul_(vector)
    return product.sum(_call.class_axis(logits)) if none else product.sum()


class Scores(torch.autograd.Function):
    """nll, lse and entropy as functions of the logits; argmax beside them."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, options: Options
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ctx.save_for_backward(logits, target)
        ctx.options = options
        ctx.set_materialize_grads(False)
        result = _call.scores(logits, target, options)
        ctx.mark_non_differentiable(result[3])
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        logits, target = ctx.saved_tensors
        if torch.is_grad_enabled() or any(g is not None and is_transformed(g) for g in grads):
            return _plain.scores_gradient(grads[:3], logits, target, ctx.options), None, None
        return scores_gradient(grads[:3], logits, target, ctx.options), None, None


def scores_gradient(
    grads: tuple[Tensor | None, ...], logits: Tensor, target: Tensor, options: Options
) -> Tensor:
    """The gradient for the incoming ones of nll, lse and entropy: nll's from the core."""
    grad_nll, grad_lse, grad_entropy = grads
    grad = None
    if grad_nll is not None:
        options = options._replace(reduction="none")
        grad = _call.gradient(_call.LOSS, logits, target, None, options, grad_nll)
    if grad_lse is None and grad_entropy is None:
        return torch.zeros_like(logits) if grad is None else grad
    beside = _plain.lse_and_entropy_gradient(grad_lse, grad_entropy, logits, options)
    return beside if grad is None else beside.add_(grad)

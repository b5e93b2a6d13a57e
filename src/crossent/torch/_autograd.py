"""Loss, scores and linear form for eager autograd on the CPU: as few Python steps as it takes.

Under "mean" and "sum" the gradient is made in forward, in the same pass as the loss, for an
incoming gradient of 1; backward then hands it out. Any other incoming gradient, and a second
backward, is computed anew from the saved logits, so that it is rounded once. Under "none" the
incoming gradient is rarely all ones: everything waits for backward. So it does while hooks on saved
tensors are active (checkpointing, offloading), which would not see the gradient.

The linear form makes its gradients in forward while a block's logits are there, three products in
all, and backward multiplies them by the incoming gradient. Where they wait for backward (as above,
and in float16, whose gradients would be rounded before a loss scale reaches them), it makes the
logits again: four products.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from crossent._core import Output
from crossent.options import Options
from crossent.torch import _compute, _fallback, _internals, _memory
from crossent.torch._compute import Layer

Tensor = torch.Tensor
Wants = tuple[bool, bool, bool]


def _keep(ctx: Any, *tensors: Tensor | None) -> None:
    """Saves tensors for backward; what hooks may give back in their place is known."""
    ctx.save_for_backward(*tensors)
    ctx.kinds = _kinds(tensors) if _internals.has_saved_tensor_hooks() else None


def _kept(ctx: Any) -> tuple[Any, ...]:
    """The tensors that were saved.

    Raises:
        ValueError: a hook gave back others: the core would read out of bounds.
    """
    tensors: tuple[Any, ...] = ctx.saved_tensors
    if ctx.kinds is None:
        return tensors
    for kind, expected in zip(_kinds(tensors), ctx.kinds, strict=True):
        if kind != expected:
            raise ValueError(
                f"a hook on saved tensors gave back {kind} (shape, dtype, layout, device) for "
                f"{expected}: its unpack_hook must undo what its pack_hook did"
            )
    return tuple(None if t is None else _memory.plain("a saved tensor", t) for t in tensors)


def _kinds(tensors: Sequence[Any]) -> list[Any]:
    return [None if t is None else (tuple(t.shape), t.dtype, t.layout, t.device) for t in tensors]


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
        if options.reduction != "none" and not in_place and not _internals.has_saved_tensor_hooks():
            grad = _memory.fresh_like(logits)
        _keep(ctx, logits, target, weight)
        ctx.options, ctx.in_place, ctx.grad = options, in_place, grad
        return _compute.loss(logits, target, weight, options, grad)

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        if _internals.is_batched(grad_loss):
            problem = (*_kept(ctx), ctx.options)
            return _fallback.loss_gradient(grad_loss, *problem), None, None, None, None
        if torch.is_grad_enabled():
            logits, target, weight = _kept(ctx)
            grad = Gradient.apply(logits, grad_loss, target, weight, ctx.options)
            return grad, None, None, None, None
        ready, ctx.grad = ctx.grad, None
        if ready is not None and _memory.number(_memory.INCOMING, grad_loss) == 1.0:
            return ready, None, None, None, None
        logits, target, weight = _kept(ctx)
        if ctx.in_place:
            ready = logits.detach()  # shares its version counter
        grad = _compute.gradient(
            Output.LOSS, logits, target, weight, ctx.options, grad_loss, out=ready
        )
        if ctx.in_place:
            torch.autograd.graph.increment_version(logits)
        return grad, None, None, None, None


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
        _keep(ctx, logits, grad_loss, target, weight)
        ctx.options = options
        return _compute.gradient(Output.LOSS, logits, target, weight, options, grad_loss)

    @staticmethod
    def backward(ctx: Any, vector: Tensor) -> Any:
        logits, grad_loss, target, weight = _kept(ctx)
        if torch.is_grad_enabled() or _internals.is_batched(vector):
            pair = _fallback.product(logits, grad_loss, target, weight, ctx.options, vector)
            return *pair, None, None, None
        by_logits = by_grad_loss = None
        if ctx.needs_input_grad[0]:
            by_logits = _compute.gradient(
                Output.PRODUCT, logits, target, weight, ctx.options, grad_loss, vector
            )
        if ctx.needs_input_grad[1]:
            by_grad_loss = along(vector, logits, target, weight, ctx.options)
        return by_logits, by_grad_loss, None, None, None


def along(
    vector: Tensor, logits: Tensor, target: Tensor, weight: Tensor | None, options: Options
) -> Tensor:
    """The change of the loss as the logits move along `vector`: of the loss's shape and dtype."""
    _memory.check(input=logits, vector=vector)
    wide = logits.to(_compute.loss_dtype(logits))
    ones = _compute.loss_like(logits, options.reduction).fill_(1)
    grad = _compute.gradient(Output.LOSS, wide, target, weight, options, ones)
    product = grad.mul_(vector)
    none = options.reduction == "none"
    return product.sum(_compute.class_axis(logits)) if none else product.sum()


class Scores(torch.autograd.Function):
    """nll, lse and entropy as functions of the logits; argmax beside them."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, options: Options
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        _keep(ctx, logits, target)
        ctx.options = options
        ctx.set_materialize_grads(False)
        result = _compute.scores(logits, target, options)
        ctx.mark_non_differentiable(result[3])
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        logits, target = _kept(ctx)
        if torch.is_grad_enabled() or any(
            g is not None and _internals.is_batched(g) for g in grads
        ):
            return _fallback.scores_gradient(grads[:3], logits, target, ctx.options), None, None
        return scores_gradient(grads[:3], logits, target, ctx.options), None, None


def scores_gradient(
    grads: tuple[Tensor | None, ...], logits: Tensor, target: Tensor, options: Options
) -> Tensor:
    """The gradient for the incoming ones of nll, lse and entropy: nll's from the core."""
    grad_nll, grad_lse, grad_entropy = grads
    grad = None
    if grad_nll is not None:
        grad = _compute.gradient(Output.LOSS, logits, target, None, options, grad_nll)
    if grad_lse is None and grad_entropy is None:
        return torch.zeros_like(logits) if grad is None else grad
    beside = _fallback.lse_and_entropy_gradient(grad_lse, grad_entropy, logits, options)
    return beside if grad is None else beside.add_(grad)


# The linear form


def made_in_forward(input: Tensor, options: Options) -> bool:
    """Whether the gradients wait ready for backward."""
    return options.reduction != "none" and input.dtype is not torch.float16


class LinearLoss(torch.autograd.Function):
    """loss = f(input, linear_weight, linear_bias) of (these, target, weight, options)."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        *parts, target, weight, options = given
        layer = Layer(*parts)
        ctx.grads = _compute.NO_GRADS
        if made_in_forward(layer.input, options) and not _internals.has_saved_tensor_hooks():
            ctx.grads = layer.gradients(ctx.needs_input_grad[:3])
        _keep(ctx, *layer, target, weight)
        ctx.options = options
        return _compute.linear_loss(layer, target, weight, options, ctx.grads)

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor) -> Any:
        *layer, target, weight = _kept(ctx)
        wants = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled() or _internals.is_batched(grad_loss):
            grads = _pulled(
                lambda x, w, b: _fallback.linear_loss(x, w, b, target, weight, ctx.options),
                Layer(*layer), wants, grad_loss,
            )  # fmt: skip
            return *grads, None, None, None
        ready, ctx.grads = ctx.grads, _compute.NO_GRADS
        if any(grad is not None for grad in ready):
            factor = _memory.number(_memory.INCOMING, grad_loss)
            for grad in ready:
                if grad is not None and factor != 1.0:
                    grad.mul_(factor)
            return *ready, None, None, None
        fresh = Layer(*layer).gradients(wants)
        _compute.linear_loss(Layer(*layer), target, weight, ctx.options, fresh, grad_loss)
        return *fresh, None, None, None


def _pulled(function: Any, layer: Layer, wants: Wants, grads: Any) -> list[Tensor | None]:
    """The gradients of a function of the layer, by the parts of it that want one."""
    places = [k for k, wanted in enumerate(wants) if wanted]
    found = dict(zip(places, _fallback.pulled(function, layer, places, grads), strict=True))
    return [found.get(k) for k in range(3)]


class LinearScores(torch.autograd.Function):
    """nll, lse, entropy as functions of the layer, and argmax, of (its parts, target, options)."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        *parts, target, options = given
        _keep(ctx, *parts, target)
        ctx.options = options
        result = _compute.linear_scores(Layer(*parts), target, options)
        ctx.mark_non_differentiable(result[3])
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        *layer, target = _kept(ctx)
        found = _pulled(
            lambda x, w, b: _fallback.linear_scores(x, w, b, target, ctx.options)[:3],
            Layer(*layer),
            ctx.needs_input_grad[:3],
            grads[:3],
        )
        return *found, None, None

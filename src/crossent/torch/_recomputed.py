"""The linear form in plain torch operations, block by block: for transforms and every derivative.

Each block of rows is a function of tensors that keeps its arguments and nothing else; a derivative
of any order, forward or backward, computes the block again. No whole logits at any order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from crossent import _blocks
from crossent.torch import _plain
from crossent.torch._call import Options, class_axis, loss_dtype

Tensor = torch.Tensor
Tensors = tuple[Tensor, ...]
_TENSORS_A_BLOCK = 48  # of the logits' size that plain operations hold, derivatives included


class Recomputed(torch.autograd.Function):
    """function(*tensors), a tuple of tensors, whose derivatives are computed from the arguments."""

    generate_vmap_rule = True

    @staticmethod
    def forward(function: Callable[..., Tensors], *tensors: Tensor) -> Tensors:
        return function(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensors) -> None:
        ctx.function, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        function, tensors = ctx.function, ctx.saved_tensors
        needed = ctx.needs_input_grad[1:]
        places = [k for k in _differentiable(tensors) if needed[k]]

        def pulled(*both: Tensor) -> Tensors:
            at, incoming = both[: len(tensors)], both[len(tensors) :]
            return torch.func.vjp(_of(function, at, places), *(at[k] for k in places))[1](incoming)

        found = dict(zip(places, Recomputed.apply(pulled, *tensors, *grads), strict=True))
        return None, *(found.get(k) for k in range(len(tensors)))

    @staticmethod
    def jvp(ctx: Any, _: Any, *tangents: Tensor | None) -> Tensors:
        function, tensors = ctx.function, ctx.saved_tensors
        places = [k for k in _differentiable(tensors) if tangents[k] is not None]

        def pushed(*both: Tensor) -> Tensors:
            at, along = both[: len(tensors)], both[len(tensors) :]
            start = tuple(at[k] for k in places)
            return _pushed(_of(function, at, places), start, along)

        return Recomputed.apply(pushed, *tensors, *(tangents[k] for k in places))


def _pushed(function: Callable[..., Tensors], at: Tensors, along: Tensors) -> Tensors:
    """The change of a function along tangents, by reverse mode alone: forward mode does not nest.

    The pull-back of incoming gradients is linear in them; its own pull-back is the push-forward.
    """
    values, pull = torch.func.vjp(function, *at)  # type: ignore[misc]
    nothing = tuple(torch.zeros_like(value) for value in values)
    return torch.func.vjp(lambda *grads: pull(grads), *nothing)[1](along)  # type: ignore[misc]


def _differentiable(tensors: Tensors) -> list[int]:
    return [k for k, tensor in enumerate(tensors) if tensor.is_floating_point()]


def _of(function: Callable[..., Tensors], at: Tensors, places: list[int]) -> Callable[..., Tensors]:
    """The function of some of its arguments, the others held."""

    def of_some(*chosen: Tensor) -> Tensors:
        changed = dict(zip(places, chosen, strict=True))
        return function(*(changed.get(k, tensor) for k, tensor in enumerate(at)))

    return of_some


def _logits(input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None) -> Tensor:
    """The logits of some rows, (rows, C, ...), in the loss's dtype."""
    dtype = loss_dtype(input)
    flat = linear_weight.to(dtype).flatten(0, -2)
    bias = None if linear_bias is None else linear_bias.to(dtype).flatten()
    product = torch.nn.functional.linear(input.to(dtype), flat, bias)
    return product.unflatten(-1, linear_weight.shape[:-1])


def _of_blocks(
    function: Callable[..., Tensors],
    input: Tensor,
    target: Tensor,
    linear_weight: Tensor,
    *others: Tensor | None,
) -> list[Tensors]:
    """function(input, target, linear_weight, *others) of each block of rows."""
    classes = linear_weight.shape[:-1].numel()
    item = loss_dtype(input).itemsize * _TENSORS_A_BLOCK
    rows = _blocks.plan(input.shape[0], input.shape[1], classes, item).rows
    there = [k for k, tensor in enumerate(others) if tensor is not None]

    def of_tensors(x: Tensor, t: Tensor, w: Tensor, *given: Tensor) -> Tensors:
        rest = dict(zip(there, given, strict=True))
        return function(x, t, w, *(rest.get(k) for k in range(len(others))))

    given = [others[k] for k in there]
    pieces = zip(input.split(rows), target.split(rows), strict=True)
    return [Recomputed.apply(of_tensors, x, t, linear_weight, *given) for x, t in pieces]


def loss(
    input: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    options: Options,
    logit_scale: Tensor | None = None,
) -> Tensor:
    """The loss under every option, differentiable by every tensor any number of times."""
    none = options.reduction == "none"
    part = options._replace(reduction="none" if none else "sum")

    def of_block(x: Tensor, t: Tensor, w: Tensor, b: Any, of_class: Any, scale: Any) -> Tensors:
        return (_plain.loss(_logits(x, w, b), t, of_class, part, scale),)

    indexed = target.dim() < linear_weight.dim()
    if indexed and options.ignore_index is not None:
        counts = torch.ne(target.to(torch.int64), options.ignore_index)
        counts = counts.unsqueeze(-1).flatten(1).any(1, keepdim=True)
        input = torch.where(counts, input, 0.0)  # what an ignored row holds must not spread
    found = _of_blocks(of_block, input, target, linear_weight, linear_bias, weight, logit_scale)
    losses = [each for (each,) in found]
    if none:
        return torch.cat(losses)
    classes = linear_weight.shape[0]
    counted = _plain.counted(target, weight, indexed, classes, options)
    return _plain.reduced(torch.stack(losses).sum(), counted, options).to(loss_dtype(input))


def scores(
    input: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    target: Tensor,
    options: Options,
    logit_scale: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(nll, lse, entropy, argmax) of every row; the first three are differentiable."""

    def of_block(x: Tensor, t: Tensor, w: Tensor, b: Any, scale: Any) -> Tensors:
        return _plain.scores(_logits(x, w, b), t, options, scale)[:3]

    def largest(x: Tensor, t: Tensor, w: Tensor, b: Any, scale: Any) -> Tensors:
        logits = _logits(x, w, b) * (options.logit_scale if scale is None else scale)
        return (logits.argmax(class_axis(logits)),)

    given = (input, target, linear_weight, linear_bias, logit_scale)
    nll, lse, entropy = (
        torch.cat(each) for each in zip(*_of_blocks(of_block, *given), strict=True)
    )
    with torch.no_grad():
        (argmax,) = (torch.cat(each) for each in zip(*_of_blocks(largest, *given), strict=True))
    return nll, lse, entropy, argmax

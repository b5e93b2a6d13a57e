"""Loss and scores in ordinary torch operations: for other devices, transforms, every derivative.

Same meaning as `crossent.reference`; differentiable any number of times by every tensor, forward
and backward, and under vmap: no value is looked at. Not the fast path: it holds several N x C
tensors. What would cancel is kept as a sum:

    m = max u, taken as a constant     d = u - m     S = sum of exp(d) without the largest class
    lse - m = log1p(S + expm1(d_max))                        whose derivative is softmax(u)
    nll_t   = log1p(sum of the others / exp(d_t))            if t is the largest class
            = (lse - m) - d_t                                otherwise

The linear form takes a block of rows at a time. Each is a function of tensors that keeps its
arguments and nothing else; a derivative of any order, forward or backward, computes the block
again. No whole logits at any order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from crossent import _blocks
from crossent.options import Options
from crossent.torch import _memory
from crossent.torch._compute import class_axis, loss_dtype

Tensor = torch.Tensor
Tensors = tuple[Tensor, ...]
_TENSORS_A_BLOCK = 48  # of the logits' size that these operations hold, derivatives included


def _tanh(x: Tensor) -> Tensor:
    """tanh whose derivative does not cancel: from e = exp(-2 |x|), never 1 - tanh^2."""
    positive = x >= 0
    magnitude = torch.where(positive, x, -x)
    small = torch.exp(-2 * magnitude)
    value = -torch.expm1(-2 * magnitude) / (1 + small)
    return torch.where(positive, value, -value)


def _scaled(logits: Tensor, softcap: float | None, logit_scale: float | Tensor) -> Tensor:
    is_learned = isinstance(logit_scale, Tensor)  # and multiplied by what backward still needs
    u = logits.to(loss_dtype(logits), copy=is_learned)
    if is_learned or logit_scale != 1:
        u = u * logit_scale
    return softcap * _tanh(u / softcap) if softcap else u


def _rounding(u: Tensor, row_max: Tensor, d: Tensor) -> Tensor:
    """What d = u - row_max lost, exactly (Knuth's two-sum)."""
    back = d - u
    lost = (u - (d - back)) - (row_max + back)
    return torch.where(torch.isfinite(lost), lost, 0.0)


def _along(axis: int, dim: int, vector: Tensor) -> Tensor:
    """A vector as a tensor of `dim` dims that lies along one of them."""
    return vector.view([-1 if k == axis else 1 for k in range(dim)])


def _classes(u: Tensor, axis: int) -> Tensor:
    """0 .. C - 1 along the class axis."""
    return _along(axis, u.dim(), torch.arange(u.shape[axis], device=u.device))


class _Terms(NamedTuple):
    d: Tensor  # u - m
    exps: Tensor  # exp(d)
    row_max: Tensor  # m, a constant; class axis kept, of size 1
    rel_lse: Tensor  # lse - m, likewise


def _terms(u: Tensor, axis: int) -> _Terms:
    row_max = u.detach().amax(axis, keepdim=True)
    d = u - row_max
    exps = torch.exp(d) * (1 + _rounding(u.detach(), row_max, d.detach()))
    largest = u.detach().argmax(axis, keepdim=True)
    holds = _classes(u, axis) == largest
    rest = torch.where(holds, torch.expm1(d), exps).sum(axis, keepdim=True)
    return _Terms(d, exps, row_max, torch.log1p(rest))


def _target_nll(rows: _Terms, labels: Tensor, axis: int) -> Tensor:
    """lse - u_t of every row; labels keep the class axis, of size 1."""
    is_target = _classes(rows.d, axis) == labels
    d_target = rows.d.gather(axis, labels)
    on_top = d_target == 0
    others = torch.where(is_target, 0.0, rows.exps).sum(axis, keepdim=True)
    surely = torch.log1p(others * torch.exp(-torch.where(on_top, d_target, 0.0)))
    return torch.where(on_top, surely, rows.rel_lse - d_target)


def _without_mass(mass: Any, differences: Tensor) -> Tensor:
    """0 where a class without mass is infinitely far: 0 * inf counts as 0."""
    massless = torch.as_tensor(mass == 0, device=differences.device)
    return torch.where(massless & torch.isinf(differences), 0.0, differences)


def _labels(target: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """(class indices as int64, 0 where ignored; which are kept)."""
    index = target.to(torch.int64)
    kept = torch.ne(index, _as_int64(ignore_index))
    return torch.where(kept, index, 0), kept


def _as_int64(ignore_index: int) -> int:
    """What an ignored label is as int64, where the core took them in forward; -1 where none is."""
    if -(2**63) <= ignore_index < 2**63:
        return ignore_index
    return ignore_index - 2**64 if 2**63 <= ignore_index < 2**64 else -1


def loss(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    options: Options,
    logit_scale: Tensor | None = None,
) -> Tensor:
    """The loss under every option; logit_scale: a tensor that stands in for the option."""
    _memory.check(input=logits, target=target, weight=weight, logit_scale=logit_scale)
    axis, classes = class_axis(logits), logits.shape[class_axis(logits)]
    scale = options.logit_scale if logit_scale is None else logit_scale
    dtype = loss_dtype(logits)
    w = None if weight is None else _along(axis, logits.dim(), weight.to(dtype, copy=True))
    even = options.label_smoothing / classes
    kept = None
    if target.dim() < logits.dim():
        labels, kept = _labels(target.unsqueeze(axis), options.ignore_index)
        rows = _terms(_scaled(torch.where(kept, logits, 0.0), options.softcap, scale), axis)
        of_target = 1.0 if weight is None else weight.to(dtype)[labels]
        row_loss = (1 - options.label_smoothing) * of_target * _target_nll(rows, labels, axis)
        mass = even if w is None else even * w
        if even:
            all_nll = rows.rel_lse - rows.d
            row_loss = row_loss + (mass * _without_mass(mass, all_nll)).sum(axis, keepdim=True)
    else:
        rows = _terms(_scaled(logits, options.softcap, scale), axis)
        mass = (1 - options.label_smoothing) * target.to(dtype) + even
        mass = mass if w is None else mass * w
        all_nll = rows.rel_lse - rows.d
        row_loss = (mass * _without_mass(mass, all_nll)).sum(axis, keepdim=True)
    if options.z_loss:
        row_loss = row_loss + options.z_loss * (rows.row_max + rows.rel_lse) ** 2
    if kept is not None:
        row_loss = torch.where(kept, row_loss, 0.0)
    row_loss = row_loss.squeeze(axis)
    if options.reduction == "none":
        return row_loss
    return _reduced(row_loss.sum(), target, weight, kept is not None, classes, options)


def _reduced(
    total: Tensor,
    target: Tensor,
    weight: Tensor | None,
    indexed: bool,
    classes: int,
    options: Options,
) -> Tensor:
    """The sum or the mean, from the sum of the rows' losses."""
    if options.reduction == "sum":
        return total
    if options.normalizer:
        return total / options.normalizer
    if indexed:
        label, kept = _labels(target, options.ignore_index)
        of_target = kept if weight is None else weight.to(total.dtype)[label]
        counted = torch.where(kept, of_target, 0).sum()
    else:
        rows = target.numel() // classes
        counted = torch.full((), rows, dtype=total.dtype, device=total.device)
    empty = counted == 0
    value = 0.0 if options.when_empty == "zero" else float("nan")
    return torch.where(empty, value, total / torch.where(empty, 1, counted))


def scores(
    logits: Tensor, target: Tensor, options: Options, logit_scale: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(nll, lse, entropy, argmax) of every row."""
    _memory.check(input=logits, target=target, logit_scale=logit_scale)
    axis = class_axis(logits)
    scale = options.logit_scale if logit_scale is None else logit_scale
    labels, kept = _labels(target.unsqueeze(axis), options.ignore_index)
    u = _scaled(logits, options.softcap, scale)
    rows = _terms(u, axis)
    nll = torch.where(kept, _target_nll(rows, labels, axis), 0.0)
    prob = torch.exp(rows.d - rows.rel_lse)
    all_nll = rows.rel_lse - rows.d
    entropy = (prob * _without_mass(prob.detach(), all_nll)).sum(axis)
    lse = rows.row_max + rows.rel_lse
    lse = torch.where(torch.isinf(rows.row_max), rows.row_max, lse)
    largest = (logits.detach().to(u.dtype) * scale).argmax(axis)
    return nll.squeeze(axis), lse.squeeze(axis), entropy, largest


def loss_gradient(
    grad_loss: Tensor, logits: Tensor, target: Tensor, weight: Tensor | None, options: Options
) -> Tensor:
    """The gradient by the logits, differentiable."""
    return pulled(lambda a: loss(a, target, weight, options), (logits,), [0], grad_loss)[0]


def product(
    logits: Tensor,
    grad_loss: Tensor,
    target: Tensor,
    weight: Tensor | None,
    options: Options,
    vector: Tensor,
) -> Tensors:
    """(H vector, loss's change along vector), differentiable: the backward of the gradient."""

    def gradient(a: Tensor, g: Tensor) -> Tensor:
        return loss_gradient(g, a, target, weight, options)

    return pulled(gradient, (logits, grad_loss), [0, 1], vector)


def lse_and_entropy_gradient(
    grad_lse: Tensor | None, grad_entropy: Tensor | None, logits: Tensor, options: Options
) -> Tensor:
    """s o p o (grad_lse + grad_entropy ((lse - u) - entropy)), with s = du/da."""
    _memory.check(input=logits)
    axis = class_axis(logits)
    u = _scaled(logits, options.softcap, options.logit_scale)
    rows = _terms(u, axis)
    prob = torch.exp(rows.d - rows.rel_lse)
    change = torch.zeros_like(prob)
    if grad_lse is not None:
        change += grad_lse.unsqueeze(axis) * prob
    if grad_entropy is not None:
        all_nll = _without_mass(prob, rows.rel_lse - rows.d)
        entropy = (prob * all_nll).sum(axis, keepdim=True)
        change += grad_entropy.unsqueeze(axis) * prob * (all_nll - entropy)
    slope: float | Tensor = options.logit_scale
    if options.softcap:
        small = torch.exp(-2 * (logits.to(u.dtype) * (options.logit_scale / options.softcap)).abs())
        slope = slope * 4 * small / (1 + small) ** 2
    return (slope * change).to(logits.dtype)


def scores_gradient(
    grads: tuple[Tensor | None, ...], logits: Tensor, target: Tensor, options: Options
) -> Tensor:
    """The gradient for the incoming ones of nll, lse and entropy, differentiable."""
    wanted = [k for k, grad in enumerate(grads) if grad is not None]
    if not wanted:
        return torch.zeros_like(logits)

    def chosen(a: Tensor) -> tuple[Tensor, ...]:
        results = scores(a, target, options)
        return tuple(results[k] for k in wanted)

    return pulled(chosen, (logits,), [0], tuple(grads[k] for k in wanted))[0]


# Derivatives of functions of tensors


def _of(function: Callable[..., Any], at: tuple[Any, ...], places: list[int]) -> Callable[..., Any]:
    """The function of some of its arguments, the others held."""

    def of_some(*chosen: Tensor) -> Any:
        changed = dict(zip(places, chosen, strict=True))
        return function(*(changed.get(k, held) for k, held in enumerate(at)))

    return of_some


def pulled(
    function: Callable[..., Any], at: tuple[Any, ...], places: list[int], grads: Any
) -> Tensors:
    """The gradients of a function by some of its arguments, for those of its results."""
    for grad in grads if isinstance(grads, tuple) else (grads,):
        _memory.check(**{_memory.INCOMING: grad})
    return torch.func.vjp(_of(function, at, places), *(at[k] for k in places))[1](grads)


def _pushed(function: Callable[..., Tensors], at: Tensors, along: Tensors) -> Tensors:
    """The change of a function along tangents, by reverse mode alone: forward mode does not nest.

    The pull-back of incoming gradients is linear in them; its own pull-back is the push-forward.
    """
    values, pull = torch.func.vjp(function, *at)  # type: ignore[misc]
    nothing = tuple(torch.zeros_like(value) for value in values)
    return torch.func.vjp(lambda *grads: pull(grads), *nothing)[1](along)  # type: ignore[misc]


def _differentiable(tensors: Tensors) -> list[int]:
    return [k for k, tensor in enumerate(tensors) if tensor.is_floating_point()]


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

        def gradients(*both: Tensor) -> Tensors:
            return pulled(function, both[: len(tensors)], places, both[len(tensors) :])

        found = dict(zip(places, Recomputed.apply(gradients, *tensors, *grads), strict=True))
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


# The linear form, block by block


def _logits(input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None) -> Tensor:
    """The logits of some rows, (rows, C, ...), in the loss's dtype."""
    _memory.check(input=input, linear_weight=linear_weight, linear_bias=linear_bias)
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
    rows = _blocks.block_sizes(input.shape[0], input.shape[1], classes, item).rows
    given = (input, target, linear_weight, *others)
    there = [k for k, tensor in enumerate(given) if tensor is not None]
    absent = (None,) * len(given)
    of_those_there = _of(function, absent, there)  # what is recomputed takes tensors alone
    shared = [tensor for tensor in (linear_weight, *others) if tensor is not None]
    pieces = zip(input.split(rows), target.split(rows), strict=True)
    return [Recomputed.apply(of_those_there, x, t, *shared) for x, t in pieces]


def linear_loss(
    input: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    options: Options,
    logit_scale: Tensor | None = None,
) -> Tensor:
    """The loss under every option, differentiable by every tensor any number of times."""
    _memory.check(input=input, target=target)
    none = options.reduction == "none"
    part = options._replace(reduction="none" if none else "sum")

    def of_block(x: Tensor, t: Tensor, w: Tensor, b: Any, of_class: Any, scale: Any) -> Tensors:
        return (loss(_logits(x, w, b), t, of_class, part, scale),)

    indexed = target.dim() < linear_weight.dim()
    if indexed:
        counts = _labels(target, options.ignore_index)[1]
        counts = counts.unsqueeze(-1).flatten(1).any(1, keepdim=True)
        input = torch.where(counts, input, 0.0)  # what an ignored row holds must not spread
    found = _of_blocks(of_block, input, target, linear_weight, linear_bias, weight, logit_scale)
    losses = [each for (each,) in found]
    if none:
        return torch.cat(losses)
    total = torch.stack(losses).sum()
    return _reduced(total, target, weight, indexed, linear_weight.shape[0], options)


def linear_scores(
    input: Tensor,
    linear_weight: Tensor,
    linear_bias: Tensor | None,
    target: Tensor,
    options: Options,
    logit_scale: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(nll, lse, entropy, argmax) of every row; the first three are differentiable."""
    _memory.check(input=input, target=target)

    def of_block(x: Tensor, t: Tensor, w: Tensor, b: Any, scale: Any) -> Tensors:
        return scores(_logits(x, w, b), t, options, scale)[:3]

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

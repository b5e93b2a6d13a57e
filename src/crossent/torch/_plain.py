"""The loss in plain torch operations: for other devices, transforms and every derivative.

Same meaning as `crossent.reference`; differentiable any number of times by every tensor, forward
and backward, and under vmap: no value is looked at. Not the fast path: it holds several N x C
tensors. What would cancel is kept as a sum:

    m = max u, taken as a constant     d = u - m     S = sum of exp(d) without the largest class
    lse - m = log1p(S + expm1(d_max))                        whose derivative is softmax(u)
    nll_t   = log1p(sum of the others / exp(d_t))            if t is the largest class
            = (lse - m) - d_t                                otherwise
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from crossent.torch._call import Options, class_axis, loss_dtype

Tensor = torch.Tensor


def _tanh(x: Tensor) -> Tensor:
    """tanh whose derivative does not cancel: from e = exp(-2 |x|), never 1 - tanh^2."""
    positive = x >= 0
    magnitude = torch.where(positive, x, -x)
    small = torch.exp(-2 * magnitude)
    value = -torch.expm1(-2 * magnitude) / (1 + small)
    return torch.where(positive, value, -value)


def _scaled(logits: Tensor, softcap: float, logit_scale: Any) -> Tensor:
    u = logits.to(loss_dtype(logits))
    if isinstance(logit_scale, Tensor) or logit_scale != 1:
        u = u * logit_scale
    return softcap * _tanh(u / softcap) if softcap else u


def _rounding(u: Tensor, row_max: Tensor, d: Tensor) -> Tensor:
    """What d = u - row_max lost, exactly (Knuth's two-sum)."""
    back = d - u
    lost = (u - (d - back)) - (row_max + back)
    return torch.where(torch.isfinite(lost), lost, 0.0)


def vjp(function: Any, *at: Tensor) -> Any:
    """The pull-back of incoming gradients through `function` at a point."""
    return torch.func.vjp(function, *at)[1]  # type: ignore[misc]


class _Rows(NamedTuple):
    d: Tensor  # u - m
    exps: Tensor  # exp(d)
    row_max: Tensor  # m, a constant; class axis kept, of size 1
    rel_lse: Tensor  # lse - m, likewise


def _rows(u: Tensor, axis: int) -> _Rows:
    row_max = u.detach().amax(axis, keepdim=True)
    d = u - row_max
    exps = torch.exp(d) * (1 + _rounding(u.detach(), row_max, d.detach()))
    largest = u.detach().argmax(axis, keepdim=True)
    holds = torch.arange(u.shape[axis], device=u.device).view(
        [-1 if k == axis else 1 for k in range(u.dim())]
    ) == largest  # fmt: skip
    rest = torch.where(holds, torch.expm1(d), exps).sum(axis, keepdim=True)
    return _Rows(d, exps, row_max, torch.log1p(rest))


def _target_nll(rows: _Rows, labels: Tensor, axis: int) -> Tensor:
    """lse - u_t of every row; labels keep the class axis, of size 1."""
    steps = torch.arange(rows.d.shape[axis], device=labels.device)
    is_target = steps.view([-1 if k == axis else 1 for k in range(rows.d.dim())]) == labels
    d_target = rows.d.gather(axis, labels)
    on_top = d_target == 0
    others = torch.where(is_target, 0.0, rows.exps).sum(axis, keepdim=True)
    surely = torch.log1p(others * torch.exp(-torch.where(on_top, d_target, 0.0)))
    return torch.where(on_top, surely, rows.rel_lse - d_target)


def _without_mass(mass: Any, differences: Tensor) -> Tensor:
    """0 where a class without mass is infinitely far: 0 * inf counts as 0."""
    massless = torch.as_tensor(mass == 0, device=differences.device)
    return torch.where(massless & torch.isinf(differences), 0.0, differences)


def _along(axis: int, dim: int, vector: Tensor) -> Tensor:
    return vector.view([-1 if k == axis else 1 for k in range(dim)])


class _Labels(NamedTuple):
    label: Tensor  # int64, 0 where ignored; class axis kept, of size 1
    kept: Tensor


def _labels(target: Tensor, axis: int, ignore_index: int | None) -> _Labels:
    index = target.to(torch.int64).unsqueeze(axis)
    kept = torch.ne(index, ignore_index) if ignore_index is not None else index >= 0
    return _Labels(torch.where(kept, index, 0), kept)


def loss(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    options: Options,
    logit_scale: Tensor | None = None,
) -> Tensor:
    """The loss under every option; logit_scale: a tensor that stands in for the option."""
    axis, classes = class_axis(logits), logits.shape[class_axis(logits)]
    scale = options.logit_scale if logit_scale is None else logit_scale
    dtype = loss_dtype(logits)
    w = None if weight is None else _along(axis, logits.dim(), weight.to(dtype))
    spread = options.label_smoothing / classes
    kept = None
    if target.dim() < logits.dim():
        labels, kept = _labels(target, axis, options.ignore_index)
        rows = _rows(_scaled(torch.where(kept, logits, 0.0), options.softcap, scale), axis)
        of_target = 1.0 if weight is None else weight.to(dtype)[labels]
        row_loss = (1 - options.label_smoothing) * of_target * _target_nll(rows, labels, axis)
        mass = spread if w is None else spread * w
        if spread:
            all_nll = rows.rel_lse - rows.d
            row_loss = row_loss + (mass * _without_mass(mass, all_nll)).sum(axis, keepdim=True)
        counts = kept.to(dtype) if weight is None else torch.where(kept, of_target, 0.0)
    else:
        rows = _rows(_scaled(logits, options.softcap, scale), axis)
        mass = (1 - options.label_smoothing) * target.to(dtype) + spread
        mass = mass if w is None else mass * w
        all_nll = rows.rel_lse - rows.d
        row_loss = (mass * _without_mass(mass, all_nll)).sum(axis, keepdim=True)
        counts = torch.ones_like(row_loss)
    if options.z_loss:
        row_loss = row_loss + options.z_loss * (rows.row_max + rows.rel_lse) ** 2
    if kept is not None:
        row_loss = torch.where(kept, row_loss, 0.0)
    row_loss = row_loss.squeeze(axis)
    if options.reduction == "none":
        return row_loss
    return reduced(row_loss.sum(), counts.sum(), options)


def reduced(total: Tensor, counted: Tensor, options: Options) -> Tensor:
    """The sum or the mean, from the sum of the rows' losses and what counts of them."""
    if options.reduction == "sum":
        return total
    if options.normalizer:
        return total / options.normalizer
    empty = counted == 0
    value = 0.0 if options.when_empty == "zero" else float("nan")
    return torch.where(empty, value, total / torch.where(empty, 1.0, counted))


def counted(
    target: Tensor, weight: Tensor | None, indexed: bool, classes: int, options: Options
) -> Tensor:
    """What the mean divides by: rows, or the class weights of those that are not ignored."""
    if not indexed:
        return torch.tensor(float(target.numel() // classes), device=target.device)
    index = target.to(torch.int64)
    kept = torch.ne(index, options.ignore_index) if options.ignore_index is not None else index >= 0
    if weight is None:
        return kept.sum()
    return torch.where(kept, weight[torch.where(kept, index, 0)], 0.0).sum()


def scores(
    logits: Tensor, target: Tensor, options: Options, logit_scale: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(nll, lse, entropy, argmax) of every row."""
    axis = class_axis(logits)
    scale = options.logit_scale if logit_scale is None else logit_scale
    labels, kept = _labels(target, axis, options.ignore_index)
    u = _scaled(logits, options.softcap, scale)
    rows = _rows(u, axis)
    nll = torch.where(kept, _target_nll(rows, labels, axis), 0.0)
    prob = torch.exp(rows.d - rows.rel_lse)
    all_nll = rows.rel_lse - rows.d
    entropy = (prob * _without_mass(prob.detach(), all_nll)).sum(axis)
    lse = rows.row_max + rows.rel_lse
    lse = torch.where(torch.isinf(rows.row_max), rows.row_max, lse)
    largest = (logits.detach().to(u.dtype) * scale).argmax(axis)
    return nll.squeeze(axis), lse.squeeze(axis), entropy, largest


def product(
    logits: Tensor,
    grad_loss: Tensor,
    target: Tensor,
    weight: Tensor | None,
    options: Options,
    vector: Tensor,
) -> tuple[Tensor, Tensor]:
    """(H vector, loss's change along vector), differentiable: the backward of the gradient."""

    def gradient(a: Tensor, g: Tensor) -> Tensor:
        return vjp(lambda x: loss(x, target, weight, options), a)(g)[0]

    return vjp(gradient, logits, grad_loss)(vector)


def lse_and_entropy_gradient(
    grad_lse: Tensor | None, grad_entropy: Tensor | None, logits: Tensor, options: Options
) -> Tensor:
    """s o p o (grad_lse + grad_entropy ((lse - u) - entropy)), with s = du/da."""
    axis = class_axis(logits)
    u = _scaled(logits, options.softcap, options.logit_scale)
    rows = _rows(u, axis)
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

    return vjp(chosen, logits)(tuple(grads[k] for k in wanted))[0]

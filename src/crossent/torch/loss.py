"""The loss, and what an evaluation asks of every row, as PyTorch's users call them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.overrides import has_torch_function_variadic

from crossent import _arguments as rules
from crossent.options import Options, Reduction, WhenEmpty
from crossent.torch import _autograd, _compute, _fallback, _internals, _memory, _route
from crossent.torch._route import Path

Tensor = torch.Tensor


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
    *,
    z_loss: float = 0.0,
    softcap: float | None = None,
    logit_scale: float | Tensor = 1.0,
    normalizer: float | Tensor | None = None,
    when_empty: WhenEmpty = "nan",
    inplace_backward: bool = False,
) -> Tensor:
    """Softmax cross-entropy: PyTorch's `cross_entropy`, exact and fast, with more options.

    Same as `crossent.cross_entropy`, where the formulas stand; differences: PyTorch's names and
    order of arguments, tensors, classes on dim 1 (dim 0 of a single row), and autograd. On the CPU
    the value and the gradient have the bits of the NumPy front-end. Derivatives of any order, by
    `input`, by target distributions, by `weight` and by a tensor `logit_scale`; `torch.func`,
    forward mode and `torch.compile(fullgraph=True)` work. Tensors on other devices, and all
    derivatives but the first two by `input`, take a slower path in ordinary torch operations.

    Args:
        input: logits, (C), (N, C) or (N, C, d1, ...): float64, float32, float16 or bfloat16.
        target: class indices of any integer dtype, (), (N) or (N, d1, ...); or distributions of
            any real dtype and the input's shape.
        weight: (C) class weights, finite; None: all 1.
        size_average, reduce: PyTorch's deprecated spellings of reduction.
        ignore_index, reduction, label_smoothing: as in PyTorch.
        z_loss, softcap, normalizer, when_empty: as for `crossent.cross_entropy`.
        logit_scale: as there; a tensor of one element that requires grad gets its gradient.
        inplace_backward: write the gradient over the input in backward. Then a training step holds
            no second tensor of the input's size, and what else still needs the input's values in
            backward raises PyTorch's error about in-place changes. Not for a leaf or an expanded
            input. Without effect under no_grad, in compiled code, for higher derivatives and off
            the CPU.

    Returns:
        The loss: float64 for float64 input, else float32 (also for half types); of the target's
        shape under "none" with class indices, else of one element.

    Raises:
        TypeError, ValueError, IndexError: as `crossent.cross_entropy`; ValueError also for an
            option that requires grad and cannot get it.

    Example:
        >>> import torch, crossent.torch
        >>> logits = torch.tensor([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]], requires_grad=True)
        >>> loss = crossent.torch.cross_entropy(logits, torch.tensor([1, 0]))
        >>> loss.backward()
        >>> print("%.3f %.3f" % (loss.item(), logits.grad[0, 1].item()))
        2.019 -0.379

    Source: as `crossent.cross_entropy`.
    """
    given = locals()
    if has_torch_function_variadic(input, target, weight):
        return _route.overridden(cross_entropy, (input, target, weight), given)
    if size_average is not None or reduce is not None:
        given["reduction"] = _internals.reduction_of(size_average, reduce)
    form = _route.form_of(input, target)
    if weight is not None:
        _route.check_weight(weight, input, input.shape[_compute.class_axis(input)])
    compiling = torch.compiler.is_compiling()
    options, scale, divisor = _route.options_of(given, form, compiling)
    path = _route.path_of((input,), target, weight, options, scale, compiling)
    if path is Path.EAGER:
        return _eager(input, target, weight, options, inplace_backward)
    if path is Path.OPERATOR:
        loss = torch.ops.crossent.cross_entropy(input, target, weight, *options)
    else:
        _route.check_values(target, input.shape, weight, options)
        loss = _fallback.loss(input, target, weight, options, scale)
    return loss if divisor is None else (loss / divisor).to(loss.dtype)


def _eager(
    input: Tensor, target: Tensor, weight: Tensor | None, options: Options, in_place: bool
) -> Tensor:
    if weight is not None:
        weight = _compute.class_weight(weight)
    if input.is_neg() or target.is_neg():
        input, target = _memory.plain("input", input), _memory.plain("target", target)
    if input.requires_grad and torch.is_grad_enabled():
        if in_place:
            _route.check_in_place(input)
        return _autograd.Loss.apply(input, target, weight, options, in_place)
    return _compute.loss(input, target, weight, options)


class TokenScores(NamedTuple):
    """What one pass says of every row: tensors of the target's shape."""

    nll: Tensor
    """lse - u_t of the target t: its negative log-probability; 0 where the row is ignored."""
    lse: Tensor
    """log sum_k exp u_k."""
    entropy: Tensor
    """-sum_k p_k log p_k, in nats."""
    argmax: Tensor
    """The most probable class, int64; of several, the first."""


def token_scores(
    input: Tensor,
    target: Tensor,
    *,
    ignore_index: int = -100,
    softcap: float | None = None,
    logit_scale: float | Tensor = 1.0,
) -> TokenScores:
    """nll, lse, entropy and argmax of every row, from one pass over the logits.

    Same as `crossent.token_scores`; differences: PyTorch's names, classes on dim 1 (dim 0 of a
    single row), and autograd: nll, lse and entropy are differentiable. The gradient of nll alone
    is as fast as the loss's; those of lse and entropy take ordinary torch operations.

    Args:
        input, target, ignore_index, softcap, logit_scale: as for `cross_entropy`.

    Returns:
        TokenScores(nll, lse, entropy, argmax), each of the target's shape.

    Raises:
        TypeError, ValueError, IndexError: as `cross_entropy`.

    Example:
        >>> import torch, crossent.torch
        >>> scores = crossent.torch.token_scores(torch.tensor([[2.0, 1.0, 0.1]]), torch.tensor([1]))
        >>> print("%.3f %.3f %.3f" % (scores.nll, scores.lse, scores.entropy), scores.argmax.item())
        1.417 2.417 0.847 0

    Source: as `crossent.token_scores`.
    """
    given = locals()
    if has_torch_function_variadic(input, target):
        return _route.overridden(token_scores, (input, target), given)
    _route.check_labels(input, target)
    compiling = torch.compiler.is_compiling()
    options, scale, _ = _route.options_of({**_route.OF_SCORES, **given}, rules.INDICES, compiling)
    path = _route.path_of((input,), target, None, options, scale, compiling)
    if path is Path.FALLBACK:
        _route.check_values(target, input.shape, None, options)
        return TokenScores(*_fallback.scores(input, target, options, scale))
    if path is Path.OPERATOR:
        return TokenScores(*torch.ops.crossent.token_scores(input, target, *options))
    if input.is_neg() or target.is_neg():
        input, target = _memory.plain("input", input), _memory.plain("target", target)
    if input.requires_grad and torch.is_grad_enabled():
        return TokenScores(*_autograd.Scores.apply(input, target, options))
    return TokenScores(*_compute.scores(input, target, options))

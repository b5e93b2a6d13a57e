"""The loss as PyTorch's users call it."""

from __future__ import annotations

import torch
from torch.nn import _reduction as legacy
from torch.overrides import handle_torch_function, has_torch_function_variadic

from crossent.torch import _autograd, _call, _plain
from crossent.torch import _checks as checks
from crossent.torch._call import Options
from crossent.torch._checks import Path

Tensor = torch.Tensor


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    z_loss: float = 0.0,
    softcap: float | None = None,
    logit_scale: float | Tensor = 1.0,
    normalizer: float | Tensor | None = None,
    when_empty: str = "nan",
    inplace_backward: bool = False,
) -> Tensor:
    """Softmax cross-entropy: PyTorch's `cross_entropy`, exact and fast, with more options.

    Same as `crossent.cross_entropy`, where the formulas stand; differences: PyTorch's names and
    order of arguments, tensors, classes on dim 1 (dim 0 of a single row), and autograd. On the CPU
    the value and the gradient have the bits of the NumPy front-end. Derivatives of any order, by
    `input`, by target distributions, by `weight` and by a tensor `logit_scale`; `torch.func`,
    forward mode and `torch.compile(fullgraph=True)` work. Tensors on other devices, and all
    derivatives but the first two by `input`, take a slower path in plain torch operations.

    Args:
        input: logits, (C), (N, C) or (N, C, d1, ...): float64, float32, float16 or bfloat16.
        target: class indices of any integer dtype, (), (N) or (N, d1, ...); or distributions of
            any real dtype and the input's shape.
        weight: (C) class weights, finite and >= 0; None: all 1.
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
    if has_torch_function_variadic(input, target, weight):
        return handle_torch_function(
            cross_entropy, (input, target, weight), input, target, weight, size_average,
            ignore_index, reduce, reduction, label_smoothing, z_loss=z_loss, softcap=softcap,
            logit_scale=logit_scale, normalizer=normalizer, when_empty=when_empty,
            inplace_backward=inplace_backward,
        )  # fmt: skip
    if size_average is not None or reduce is not None:
        reduction = legacy.legacy_get_string(size_average, reduce)
    form = checks.form_of(input, target)
    if weight is not None:
        checks.check_weight(weight, input, input.shape[_call.class_axis(input)])
    for value in (label_smoothing, z_loss, softcap):
        if isinstance(value, Tensor):
            label_smoothing = checks.number(label_smoothing, "label_smoothing")
            z_loss, softcap = checks.number(z_loss, "z_loss"), checks.number(softcap, "softcap")
    if torch.compiler.is_compiling():
        divisor = None
        if isinstance(normalizer, Tensor) and reduction == "mean":
            divisor, normalizer, reduction = normalizer, None, "sum"
        scale = logit_scale if isinstance(logit_scale, Tensor) else None
        options = checks.check_options(
            form, ignore_index, reduction, label_smoothing, z_loss, softcap,
            1.0 if scale is not None else logit_scale, normalizer, when_empty,
        )  # fmt: skip
        loss = _traced(input, target, weight, options, scale)
        return loss if divisor is None else (loss / divisor).to(loss.dtype)
    scale = None
    if isinstance(logit_scale, Tensor):
        scale, logit_scale = checks.learned_scale(logit_scale)
    if isinstance(normalizer, Tensor):
        normalizer = checks.number(normalizer, "normalizer")
    options = checks.options(
        form, ignore_index, reduction, label_smoothing, z_loss, softcap, logit_scale, normalizer,
        when_empty,
    )  # fmt: skip
    path = checks.path_of(input, target, weight, scale)
    if path is Path.EAGER:
        return _eager(input, target, weight, options, inplace_backward)
    if path is Path.OPERATOR:
        return torch.ops.crossent.cross_entropy(input, target, weight, *options)
    return _in_torch(input, target, weight, options, scale)


def _eager(
    input: Tensor, target: Tensor, weight: Tensor | None, options: Options, in_place: bool
) -> Tensor:
    if weight is not None:
        weight = _call.class_weight(weight)
    if input.is_neg() or target.is_neg():
        input, target = input.resolve_neg(), target.resolve_neg()
    if input.requires_grad and torch.is_grad_enabled():
        if in_place:
            checks.check_in_place(input)
        return _autograd.Loss.apply(input, target, weight, options, in_place)
    return _call.loss(input, target, weight, options)


def _in_torch(
    input: Tensor, target: Tensor, weight: Tensor | None, options: Options, scale: Tensor | None
) -> Tensor:
    """In torch operations, once what values can be seen are checked."""
    if weight is not None:
        checks.check_weight_values(weight)
    if target.dim() < input.dim():
        checks.check_labels(target, input, options.ignore_index)
    loss = _plain.loss(input, target, weight, options, scale)
    if options.when_empty == "raise" and options.reduction == "mean" and not options.normalizer:
        checks.check_divisor(target, input, weight, options.ignore_index)
    return loss


def _traced(
    input: Tensor, target: Tensor, weight: Tensor | None, options: Options, scale: Tensor | None
) -> Tensor:
    """For the compiler: no value is looked at, and nothing depends on the state of autograd."""
    constants = not target.requires_grad and (weight is None or not weight.requires_grad)
    if scale is None and constants and input.device.type == "cpu":
        return torch.ops.crossent.cross_entropy(input, target, weight, *options)
    return _plain.loss(input, target, weight, options, scale)

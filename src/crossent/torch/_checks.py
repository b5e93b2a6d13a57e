"""What a tensor call asks for, checked: which path it takes, and with which options.

The rules and messages are those of `crossent._arguments`; here tensors meet them.
"""

from __future__ import annotations

import enum
from functools import lru_cache
from typing import Any

import torch
from torch.autograd import forward_ad

from crossent import _arguments as arguments
from crossent.torch._call import Options, class_axis, class_weight, raise_bad_target

Tensor = torch.Tensor

_FLOATS = frozenset((torch.float32, torch.bfloat16, torch.float64, torch.float16))
_INDICES = frozenset(
    (
        torch.int64, torch.int32, torch.int16, torch.int8,
        torch.uint8, torch.uint16, torch.uint32, torch.uint64,
    )
)  # fmt: skip
CAST_BY_AUTOCAST = _FLOATS - {torch.float64}
_REAL = _FLOATS | _INDICES | {torch.bool}
_PLAIN_TYPES = (torch.Tensor, torch.nn.Parameter)

_transforms_active = torch._C._are_functorch_transforms_active
_dispatch_modes = torch._C._len_torch_dispatch_stack


class Path(enum.Enum):
    """Who computes: the core under eager autograd, the core as an operator, torch operations."""

    EAGER = 0
    OPERATOR = 1
    PLAIN = 2


def form_of(input: Tensor, target: Tensor, shape: torch.Size | None = None) -> int:
    """INDICES or DISTRIBUTIONS; shapes, dtypes and devices fit. shape: of the logits."""
    if not isinstance(input, Tensor):
        arguments.raise_not_tensor(input, "input")
    if not isinstance(target, Tensor):
        arguments.raise_not_tensor(target, "target")
    if input.dtype not in _FLOATS:
        arguments.raise_not_float_tensor(str(input.dtype))
    shape = input.shape if shape is None else shape
    form = arguments.tensor_form(shape, target.shape)
    if form == arguments.INDICES:
        if target.dtype not in _INDICES:
            arguments.raise_not_index_tensor(str(target.dtype), target.shape, shape)
    elif target.dtype not in _REAL:
        arguments.raise_not_real_tensor(str(target.dtype))
    if target.device != input.device:
        arguments.raise_devices(str(input.device), "target", str(target.device))
    return form


def check_weight(weight: Any, input: Tensor, classes: int) -> None:
    """Class weights are a tensor of shape (C,) on the input's device; values are checked later."""
    if not isinstance(weight, Tensor):
        arguments.raise_not_tensor(weight, "weight")
    arguments.weight_shape(weight.shape, weight.dtype in _REAL, str(weight.dtype), classes)
    if weight.device != input.device:
        arguments.raise_devices(str(input.device), "weight", str(weight.device))


def check_layer(input: Any, linear_weight: Any, linear_bias: Any) -> None:
    """input (D) or (N, D), linear_weight (C, ..., D) and linear_bias (C, ...) go together."""
    named = {"input": input, "linear_weight": linear_weight, "linear_bias": linear_bias}
    for name, tensor in named.items():
        if tensor is None and name == "linear_bias":
            continue
        if not isinstance(tensor, Tensor):
            arguments.raise_not_tensor(tensor, name)
        if tensor.dtype not in _FLOATS:
            arguments.raise_not_float_tensor(str(tensor.dtype), name)
        if tensor.dtype != input.dtype:
            arguments.raise_other_dtype(str(input.dtype), name, str(tensor.dtype))
        if tensor.device != input.device:
            arguments.raise_devices(str(input.device), name, str(tensor.device))
    bias_shape = None if linear_bias is None else tuple(linear_bias.shape)
    arguments.tensor_layer(tuple(input.shape), tuple(linear_weight.shape), bias_shape)


def number(value: Any, name: str) -> Any:
    """A tensor of one element as a number; what requires grad would lose its gradient."""
    if isinstance(value, Tensor):
        if value.requires_grad and torch.is_grad_enabled():
            arguments.raise_detached(name)
        return value.item()
    return value


def check_options(
    form: int,
    ignore_index: Any,
    reduction: Any,
    label_smoothing: Any,
    z_loss: Any,
    softcap: Any,
    logit_scale: Any,
    normalizer: Any,
    when_empty: Any,
) -> Options:
    """Options as the core takes them."""
    ignored = arguments.ignored(ignore_index, form)
    rule = arguments.reduction_rule(reduction, normalizer, when_empty)
    scaling = arguments.scaling(softcap, logit_scale)
    return Options(
        ignored,
        rule.name,
        rule.normalizer,
        rule.when_empty,
        arguments.smoothing(label_smoothing),
        arguments.z_loss_factor(z_loss),
        scaling.softcap,
        scaling.logit_scale,
    )


_known_options = lru_cache(maxsize=256, typed=True)(check_options)


def options(*given: Any) -> Options:
    """The same, remembered."""
    try:
        return _known_options(*given)
    except TypeError:  # not hashable, or wrong
        return check_options(*given)


def learned_scale(scale: Tensor) -> tuple[Tensor | None, Any]:
    """(a logit_scale that may get a gradient, else None; the number that the core takes)."""
    if scale.numel() != 1:
        arguments.raise_not_one_number("logit_scale", tuple(scale.shape))
    scale = scale.reshape(())
    if _transforms_active() or forward_ad._current_level >= 0:
        return scale, 1.0
    if scale.requires_grad and torch.is_grad_enabled():
        return scale, 1.0
    return None, scale.item()


def path_of(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    scale: Any,
    others: tuple[Tensor | None, ...] = (),
) -> Path:
    """Who computes the loss of these tensors. others: may have gradients, as the input has."""
    if _transforms_active() or forward_ad._current_level >= 0:
        return Path.PLAIN
    if torch.is_grad_enabled() and (
        target.requires_grad
        or (weight is not None and weight.requires_grad)
        or (scale is not None and scale.requires_grad)
    ):
        return Path.PLAIN
    if not input.is_cpu:
        return Path.OPERATOR if input.is_meta else Path.PLAIN
    if (
        type(input) in _PLAIN_TYPES
        and type(target) in _PLAIN_TYPES
        and all(other is None or type(other) in _PLAIN_TYPES for other in others)
        and not _dispatch_modes()
        and torch._C._get_tracing_state() is None
    ):
        return Path.EAGER
    return Path.OPERATOR


def check_in_place(input: Tensor) -> None:
    """Whether a gradient may be written over the input."""
    if input.is_leaf:
        arguments.raise_in_place("is a leaf, whose values the optimizer still needs")
    if any(step == 0 and n > 1 for step, n in zip(input.stride(), input.shape, strict=True)):
        arguments.raise_in_place("has elements that share memory (an expanded tensor)")


def _values(tensor: Tensor) -> Tensor | None:
    """What a tensor holds under the wrappers of transforms, where it holds anything."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    seen = not tensor.is_meta and type(tensor) in _PLAIN_TYPES and not _dispatch_modes()
    return tensor.detach() if seen else None


def check_labels(target: Tensor, input: Any, ignore_index: int | None) -> None:
    """Raises IndexError for a label that is neither a class nor ignored, where values are known.

    input: the logits, or what has their shape and `dim`.
    """
    known = _values(target)
    if known is None:
        return
    labels = known.to(torch.int64)
    classes = input.shape[class_axis(input)]
    bad = (labels != ignore_index) & ((labels < 0) | (labels >= classes))
    if bad.any().item():
        row = int(bad.flatten().to(torch.uint8).argmax().item())
        raise_bad_target(row, known, input)


def check_weight_values(weight: Tensor) -> None:
    """Raises ValueError for class weights that are not finite and >= 0, where values are known."""
    known = _values(weight)
    if known is not None:
        class_weight(known.cpu())


def check_divisor(
    target: Tensor, input: Tensor, weight: Tensor | None, ignore_index: int | None
) -> None:
    """Raises ValueError for a mean over nothing, where values are known."""
    known = _values(target)
    if known is None or target.dim() == input.dim():
        empty = target.numel() == 0
    else:
        kept = known.to(torch.int64)
        kept = kept[kept != ignore_index]
        known_weight = None if weight is None else _values(weight)
        divisor = kept.numel() if known_weight is None else known_weight[kept].sum().item()
        empty = divisor == 0
    if empty:
        arguments.raise_empty()

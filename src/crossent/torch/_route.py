"""What a call asks for, checked, and which path it takes: for loss, scores and linear form alike.

The rules and messages are those of `crossent._arguments` and `crossent.options`; here tensors meet
them. Rules that only tensors have (devices, layouts, gradients that would be lost) stand here.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import handle_torch_function

from crossent import _arguments as rules
from crossent import options as known
from crossent._outputs import overlaps_itself
from crossent.options import Options
from crossent.torch import _compute, _internals, _memory

Tensor = torch.Tensor

_NAMES = {
    dtype: str(dtype).removeprefix("torch.")
    for dtype in vars(torch).values()
    if isinstance(dtype, torch.dtype)
}
_WORDS = rules.TENSORS
_STRIDED = torch.strided
_FLOATS = frozenset(getattr(torch, name) for name in rules.FLOATS)
CAST_BY_AUTOCAST = _FLOATS - {torch.float64}
_OWN_TYPES = (torch.Tensor, torch.nn.Parameter)  # their methods are PyTorch's own
_NUMBERS = tuple(name for name, default in known.DEFAULTS.items() if not isinstance(default, str))
OF_SCORES: Mapping[str, Any] = {**known.DEFAULTS, "reduction": "none"}


class Path(enum.Enum):
    """Who computes: the core under eager autograd, the core as an operator, torch operations."""

    EAGER = 0
    OPERATOR = 1
    FALLBACK = 2


def path_of(
    logits: Sequence[Any],
    target: Tensor,
    weight: Tensor | None,
    options: Options,
    scale: Tensor | None,
    compiling: bool,
) -> Path:
    """Who computes this call, and whether they can.

    logits: the tensors that make them, the only ones whose gradients the core computes. scale: a
    logit_scale that may need one. While a compiler traces, nothing depends on autograd's state.
    """
    path = _path_of(logits, target, weight, scale, compiling)
    if path is Path.EAGER:
        return path
    check_int64(options.ignore_index)
    if scale is not None and scale.is_meta and not logits[0].is_meta:
        raise ValueError("logit_scale is on the meta device, where it has no value: give a number")
    return path


def check_int64(ignore_index: int) -> None:
    """Raises ValueError where labels that are int64 cannot be compared with an ignore_index."""
    if not -(2**63) <= ignore_index < 2**63:
        raise ValueError(
            f"ignore_index={known.shown(ignore_index)} is not an int64, as which labels are "
            "compared here: mark rows by another value"
        )


def _path_of(
    logits: Sequence[Any],
    target: Tensor,
    weight: Tensor | None,
    scale: Tensor | None,
    compiling: bool,
) -> Path:
    if scale is not None or (not compiling and _internals.is_transforming()):
        return Path.FALLBACK
    others_learn = target.requires_grad or (weight is not None and weight.requires_grad)
    if others_learn and (compiling or torch.is_grad_enabled()):
        return Path.FALLBACK
    if not logits[0].is_cpu:
        return Path.OPERATOR if logits[0].is_meta else Path.FALLBACK
    if compiling or type(target) not in _OWN_TYPES or _internals.is_traced():
        return Path.OPERATOR
    if weight is not None and type(weight) not in _OWN_TYPES:
        return Path.OPERATOR
    for part in logits:
        if part is not None and type(part) not in _OWN_TYPES:
            return Path.OPERATOR
    return Path.EAGER


def overridden(function: Callable[..., Any], tensors: tuple[Any, ...], given: Any) -> Any:
    """What `__torch_function__` of one of the tensors makes of a call with arguments `given`."""
    values = list(given.items())  # in the order of the signature: locals() was taken first of all
    by_place = function.__code__.co_argcount
    places = (value for _, value in values[:by_place])
    return handle_torch_function(function, tensors, *places, **dict(values[by_place:]))


# Tensors


def check_tensor(name: str, value: Any) -> None:
    """A tensor whose elements have strides."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, not {type(value).__name__}")
    if value.layout is not _STRIDED or value.is_nested:
        kind = "nested" if value.is_nested else str(value.layout)
        raise TypeError(
            f"{name} is a {kind} tensor; it must be an ordinary (strided) one: convert it, "
            f"e.g. {name}.{'to_padded_tensor(0)' if value.is_nested else 'to_dense()'}"
        )


def _check_device(name: str, tensor: Tensor, input: Tensor) -> None:
    if tensor.device != input.device:
        raise ValueError(
            f"input is on {input.device} and {name} on {tensor.device}; move one, e.g. "
            f"{name}.to(input.device)"
        )


def form_of(input: Tensor, target: Tensor, shape: torch.Size | None = None) -> int:
    """INDICES or DISTRIBUTIONS; shapes, dtypes and devices fit. shape: of the logits."""
    if not isinstance(input, Tensor) or input.layout is not _STRIDED or input.is_nested:
        check_tensor("input", input)
    if not isinstance(target, Tensor) or target.layout is not _STRIDED or target.is_nested:
        check_tensor("target", target)
    if input.dtype not in _FLOATS:
        rules.check_float("input", _NAMES[input.dtype], _WORDS)
    shape = input.shape if shape is None else shape
    axis = 1 if len(shape) > 1 else 0
    if not shape or shape[axis] == 0:
        rules.axis_of_classes(shape, axis, "input", _WORDS)
    form = rules.target_form(target.shape, _NAMES[target.dtype], shape, axis, _WORDS)
    if target.device != input.device:
        _check_device("target", target, input)
    if form == rules.DISTRIBUTIONS and len(shape) == 1 and target.dtype not in _FLOATS:
        values = None if torch.compiler.is_compiling() else _visible(target)
        if values is not None:
            _memory.check(target=values)
            rules.check_single_row(values.numpy(), _WORDS)
    return form


def check_labels(input: Tensor, target: Tensor) -> None:
    """Raises ValueError where scores are asked for targets that are not class indices."""
    if form_of(input, target) != rules.INDICES:
        rows = rules.row_shape(input, _compute.class_axis(input))
        rules.raise_not_for_scores(target, rows, _WORDS)


def check_weight(weight: Tensor, input: Tensor, classes: int) -> None:
    """Class weights are a tensor of shape (C,) on the input's device; values are checked later."""
    check_tensor("weight", weight)
    rules.check_class_weight(weight.shape, _NAMES[weight.dtype], classes, _WORDS)
    _check_device("weight", weight, input)


def check_layer(input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None) -> None:
    """input (D) or (N, D), linear_weight (C, ..., D) and linear_bias (C, ...) go together."""
    named = {"input": input, "linear_weight": linear_weight}
    if linear_bias is not None:
        named["linear_bias"] = linear_bias
    for name, tensor in named.items():
        check_tensor(name, tensor)
        rules.check_float(name, _NAMES[tensor.dtype], _WORDS)
        rules.check_same_dtype(name, _NAMES[tensor.dtype], _NAMES[input.dtype], _WORDS)
        _check_device(name, tensor, input)
    _check_layer_shapes(*(tuple(tensor.shape) for tensor in named.values()))


def _check_layer_shapes(
    input: rules.Shape, linear_weight: rules.Shape, linear_bias: rules.Shape | None = None
) -> None:
    """Raises ValueError where the shapes of a layer of tensors do not go together."""
    if len(input) not in (1, 2):
        raise ValueError(
            f"input has shape {input}; it must have shape (D) or (N, D). Flatten the "
            "dims before the last: input.flatten(0, -2), and the target likewise"
        )
    if len(linear_weight) < 2:
        raise ValueError(
            f"linear_weight has shape {linear_weight}; it must have shape (C, D) or (C, d1, ..., D)"
        )
    if input[-1] != linear_weight[-1]:
        raise ValueError(
            f"input has shape {input} and linear_weight {linear_weight}; their last dims, the "
            f"features, must be equal, not {input[-1]} and {linear_weight[-1]}"
        )
    if linear_bias is not None and linear_bias != linear_weight[:-1]:
        raise ValueError(
            f"linear_bias has shape {linear_bias}; it must have that of linear_weight without its "
            f"last dim, {linear_weight[:-1]}"
        )
    if len(linear_weight) > 2 and len(input) == 1:
        raise ValueError(
            f"linear_weight of shape {linear_weight} needs an input with a batch, "
            f"(N, {input[-1]}), not {input}: give input.unsqueeze(0)"
        )


def check_in_place(input: Tensor) -> None:
    """Whether a gradient may be written over the input."""
    reason = None
    if input.is_leaf:
        reason = "is a leaf, whose values the optimizer still needs"
    elif overlaps_itself(input.shape, input.stride(), 1):
        reason = "has elements that share memory (an expanded tensor)"
    if reason is not None:
        raise ValueError(
            "inplace_backward=True writes the gradient over the input, but the input "
            f"{reason}: leave the option out, or give the result of an operation that nothing "
            "else needs"
        )


# Options


def options_of(
    given: Mapping[str, Any], form: int, compiling: bool
) -> tuple[Options, Tensor | None, Tensor | None]:
    """The options among a call's arguments, checked, and two that may stay tensors.

    These are a logit_scale that may get a gradient, and a divisor of the sum of the losses, where a
    compiler cannot know the normalizer's value.
    """
    options = scale = divisor = None
    if not compiling:
        values = known.values_of(given)
        # A compiler that resumes here, after a break at a tensor, would trace into the memory.
        options = None if Tensor in map(type, values) else known.recalled(values)
    if options is None:
        numbers, scale, divisor = _without_tensors(dict(given), compiling)
        options = known.checked_anew(numbers)
    if form != rules.INDICES:
        known.check_for_distributions(options)
    return options, scale, divisor


def _without_tensors(
    given: dict[str, Any], compiling: bool
) -> tuple[dict[str, Any], Tensor | None, Tensor | None]:
    """Options with numbers for tensors, and the scale and the divisor that stay tensors."""
    scale = divisor = None
    if compiling and given["reduction"] == "mean" and isinstance(given["normalizer"], Tensor):
        divisor = _one_number("normalizer", given["normalizer"])
        given["normalizer"], given["reduction"] = None, "sum"
    if isinstance(given["logit_scale"], Tensor):
        value = _one_number("logit_scale", given["logit_scale"])
        is_learned = value.requires_grad and torch.is_grad_enabled()
        if compiling or is_learned or _internals.is_transforming():
            scale, given["logit_scale"] = value, 1.0
    for name in _NUMBERS:
        if isinstance(given[name], Tensor):
            given[name] = number(name, given[name])
    return given, scale, divisor


def _one_number(name: str, value: Tensor) -> Tensor:
    """A tensor of one element as one without dims."""
    check_tensor(name, value)
    if value.numel() != 1:
        raise ValueError(f"{name} has shape {tuple(value.shape)}; it must be one number")
    if value.is_complex() or value.dtype is torch.bool:
        raise TypeError(f"{name} has dtype {value.dtype}; it must be a real number")
    return value.reshape(())


def number(name: str, value: Tensor) -> float:
    """A tensor of one element as a number; what requires grad would lose its gradient."""
    value = _one_number(name, value)
    if value.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            f"{name} requires grad, but it is taken as a constant, so that its gradient would be "
            f"lost: give {name}.detach() or a number. Gradients flow to input, target "
            "distributions, weight and logit_scale"
        )
    if value.is_meta:
        raise ValueError(f"{name} is on the meta device, where it has no value: give a number")
    if not torch.compiler.is_compiling() and _internals.is_mapped(value):
        raise ValueError(
            f"{name} is one of many that vmap goes through, but it is taken as a constant: give a "
            "number, or call the loss once for each"
        )
    _memory.check(**{name: value})
    return value.item()


def smoothing(value: Any) -> float:
    """The option label_smoothing alone, checked."""
    if isinstance(value, Tensor):
        value = number("label_smoothing", value)
    return float(known.OPTIONS["label_smoothing"].rule("label_smoothing", value))


# Values, before torch operations use them


def _visible(tensor: Tensor) -> Tensor | None:
    """What a tensor holds under the wrappers of transforms, on the CPU; None where nothing is."""
    tensor = _internals.unwrapped(tensor)
    if tensor.is_meta or type(tensor) not in _OWN_TYPES or _internals.is_traced():
        return None
    return _internals.unwrapped(tensor.detach().cpu())  # transforms wrap every result


def check_values(
    target: Tensor, shape: torch.Size, weight: Tensor | None, options: Options
) -> None:
    """Raises for what the core would refuse, as far as values can be seen. shape: of the logits."""
    if torch.compiler.is_compiling():
        return
    weights = None if weight is None else _compute.class_weight(_visible(weight))
    labels = _visible(target) if target.dim() < len(shape) else None
    is_mean = options.reduction == "mean" and options.normalizer is None
    is_empty = is_mean and target.numel() == 0
    if labels is not None:
        is_empty = _compute.judge(options, labels, shape, None, weights).divisor == 0
    if is_empty and options.when_empty == "raise":
        rules.raise_empty()

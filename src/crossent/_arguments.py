"""Every argument rule and every error message, once, for all front-ends.

N rows, C classes. Each check names the argument, says what came, what is needed and, where there is
one likely fix, the fix. The usual path does little: a type test and a few comparisons.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

Array = NDArray[Any]

NO_TARGETS, INDICES, DISTRIBUTIONS = 0, 1, 2
REDUCTIONS = ("none", "sum", "mean")
WHEN_EMPTY = ("nan", "zero", "raise")
DEFAULT_IGNORE_INDEX = -100

_FLOAT_TYPES = "float64, float32, float16 or bfloat16"
_INTEGER_KINDS = "iu"


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is ml_dtypes' bfloat16, recognised by name: the package is not imported."""
    return dtype.kind == "V" and dtype.name == "bfloat16"


def as_words(array: Array) -> Array:
    """bfloat16 as uint16 of the same byte order: the buffer protocol knows no bfloat16."""
    return array.view(np.dtype(np.uint16).newbyteorder(array.dtype.byteorder))


def _is_float(dtype: np.dtype[Any]) -> bool:
    return dtype.char in "fde" or is_bfloat16(dtype)


def _is_real(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iub" or _is_float(dtype)


def logits_array(logits: ArrayLike, name: str = "logits") -> Array:
    """`logits` as an array of a floating type; lists and numbers become float64."""
    if type(logits) is np.ndarray and logits.dtype.char in "fd":
        return logits
    given = logits if isinstance(logits, np.ndarray) or hasattr(logits, "dtype") else None
    array = np.asarray(logits) if given is not None else _from_list(logits, name)
    if _is_float(array.dtype):
        return array
    if array.dtype.kind in "iub":
        raise TypeError(
            f"{name} have dtype {array.dtype}; they must be {_FLOAT_TYPES}. "
            f"Convert them first, e.g. {name}.astype(np.float32)"
        )
    raise TypeError(f"{name} have dtype {array.dtype}; they must be {_FLOAT_TYPES}")


def _from_list(values: Any, name: str) -> Array:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} must be an array or nested lists of real numbers: {error}"
        ) from None


def class_axis(logits: Array, axis: int, name: str = "logits") -> int:
    """The class axis, counted from the front; every row has at least one class."""
    ndim = logits.ndim
    if ndim == 0:
        raise ValueError(f"{name} are a single number; they need a class axis, e.g. shape (N, C)")
    try:
        axis = axis.__index__()
    except AttributeError:
        raise TypeError(f"axis must be an integer, not {type(axis).__name__}") from None
    if not -ndim <= axis < ndim:
        raise ValueError(
            f"axis={axis} is not an axis of {name} of shape {logits.shape}; "
            f"it must be from {-ndim} to {ndim - 1}"
        )
    axis %= ndim
    if logits.shape[axis] == 0:
        raise ValueError(
            f"{name} of shape {logits.shape} have no classes on axis {axis}; C must be at least 1"
        )
    return axis


def row_shape(logits: Any, axis: int) -> tuple[int, ...]:
    """The shape of one number a row: that of an array or tensor without its class axis."""
    shape: tuple[int, ...] = logits.shape
    return shape[:axis] + shape[axis + 1 :]


class Targets(NamedTuple):
    """Targets and what they are: INDICES or DISTRIBUTIONS."""

    array: Array
    form: int


def target_array(targets: ArrayLike, logits: Array, axis: int) -> Targets:
    """Targets as class indices (the logits' shape less the class axis) or distributions."""
    array = targets if type(targets) is np.ndarray else np.asarray(targets)
    if array.shape == row_shape(logits, axis):
        if array.dtype.kind in _INTEGER_KINDS:
            return Targets(array, INDICES)
        if array.size == 0 and not hasattr(targets, "dtype"):  # an empty list is float64 to NumPy
            return Targets(array.astype(np.int64), INDICES)
        _raise_not_indices(array, logits)
    if array.shape == logits.shape:
        if _is_real(array.dtype):
            return Targets(array, DISTRIBUTIONS)
        raise TypeError(f"targets have dtype {array.dtype}; distributions must be real numbers")
    _raise_target_shape(array, logits, axis)


def _raise_not_indices(array: Array, logits: Array) -> NoReturn:
    fix = "convert them, e.g. targets.astype(np.int64)"
    if array.dtype.kind == "b":
        fix = "for two classes use targets.astype(np.int64)"
    raise TypeError(
        f"targets of shape {array.shape} are class indices, so they must be integers, "
        f"not {array.dtype}: {fix}. Distributions have the logits' shape {logits.shape}"
    )


def _fitting_axes(array: Any, logits: Any, axis: int) -> list[int]:
    return [k for k in range(logits.ndim) if k != axis and array.shape == row_shape(logits, k)]


def _raise_target_shape(array: Array, logits: Array, axis: int) -> NoReturn:
    fitting = _fitting_axes(array, logits, axis)
    hint = f". With axis={fitting[0]} they would fit as indices" if fitting else ""
    if not hint and array.shape == (*row_shape(logits, axis), 1):
        hint = ". Drop their last axis: targets[..., 0]"
    raise ValueError(
        f"targets have shape {array.shape}; with logits of shape {logits.shape} and classes on "
        f"axis {axis} they must have shape {row_shape(logits, axis)} (class indices) or "
        f"{logits.shape} (distributions){hint}"
    )


def ignored(ignore_index: Any, form: int) -> int | None:
    """The index that marks rows to leave out; with distributions there is none."""
    try:
        value: int = ignore_index if type(ignore_index) is int else ignore_index.__index__()
    except AttributeError:
        raise TypeError(
            f"ignore_index must be an integer, not {type(ignore_index).__name__}"
        ) from None
    if form == INDICES:
        return value
    if value >= 0:
        raise ValueError(
            f"ignore_index={value} has no meaning for targets that are distributions; "
            "leave it out, or give class indices"
        )
    return None


def class_weight(weight: ArrayLike | None, classes: int) -> Array | None:
    """Class weights as C contiguous float64 numbers."""
    if weight is None:
        return None
    array = np.asarray(weight)
    if not _is_real(array.dtype):
        raise TypeError(f"weight has dtype {array.dtype}; it must hold real numbers")
    if array.shape != (classes,):
        raise ValueError(
            f"weight has shape {array.shape}; it must hold one number for each of the "
            f"{classes} classes, shape ({classes},)"
        )
    array = np.require(array, np.float64, ["C", "ALIGNED"])
    bad = ~(np.isfinite(array) & (array >= 0))
    if bad.any():
        k = int(bad.argmax())
        raise ValueError(f"weight[{k}] is {array[k]}; class weights must be finite and >= 0")
    return array


def _number(value: Any, name: str) -> float:
    if type(value) is float:
        return value
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}") from None


def _raise_choice(name: str, value: Any, choices: tuple[str, ...]) -> NoReturn:
    listed = ", ".join(f'"{choice}"' for choice in choices[:-1]) + f' or "{choices[-1]}"'
    raise ValueError(f"{name} must be {listed}, not {value!r}")


class Scaling(NamedTuple):
    """What turns logits a into u = softcap tanh(logit_scale a / softcap); softcap 0 is none."""

    softcap: float
    logit_scale: float


_NO_SCALING = Scaling(0.0, 1.0)


def scaling(softcap: float | None, logit_scale: float) -> Scaling:
    """softcap and logit_scale, checked."""
    if softcap is None and type(logit_scale) is float and logit_scale == 1.0:
        return _NO_SCALING
    if softcap is None:
        cap = 0.0
    else:
        cap = _number(softcap, "softcap")
        if not (0 < cap < math.inf):
            raise ValueError(f"softcap must be finite and > 0, or None for no cap; not {softcap}")
    scale = _number(logit_scale, "logit_scale")
    if not (-math.inf < scale < math.inf):
        raise ValueError(f"logit_scale must be finite, not {logit_scale}")
    return Scaling(cap, scale)


class Reduction(NamedTuple):
    """How rows' losses become one: normalizer 0 means that the divisor is computed."""

    name: str
    normalizer: float
    when_empty: str


_PLAIN_MEAN = Reduction("mean", 0.0, "nan")


def reduction_rule(reduction: str, normalizer: float | None, when_empty: str) -> Reduction:
    """reduction, normalizer and when_empty, checked together."""
    if reduction == "mean" and normalizer is None and when_empty == "nan":
        return _PLAIN_MEAN
    if reduction not in REDUCTIONS:
        _raise_choice("reduction", reduction, REDUCTIONS)
    if when_empty not in WHEN_EMPTY:
        _raise_choice("when_empty", when_empty, WHEN_EMPTY)
    if normalizer is None:
        return Reduction(reduction, 0.0, when_empty)
    value = _number(normalizer, "normalizer")
    if reduction != "mean":
        raise ValueError(
            f'normalizer divides the mean; with reduction="{reduction}" it has no meaning: '
            'leave it out or use reduction="mean"'
        )
    if not 0 < value < math.inf:
        raise ValueError(f"normalizer must be finite and > 0, not {normalizer}")
    return Reduction(reduction, value, when_empty)


def smoothing(label_smoothing: float) -> float:
    """label_smoothing, from 0 to 1."""
    value = _number(label_smoothing, "label_smoothing")
    if not 0 <= value <= 1:
        raise ValueError(f"label_smoothing must be from 0 to 1, not {label_smoothing}")
    return value


def z_loss_factor(z_loss: float) -> float:
    """z_loss, finite and not negative."""
    value = _number(z_loss, "z_loss")
    if not 0 <= value < math.inf:
        raise ValueError(f"z_loss must be finite and >= 0, not {z_loss}")
    return value


def grad_loss_array(grad_loss: ArrayLike | None, rows: tuple[int, ...], reduction: str) -> Any:
    """The incoming gradient: a float, or under "none" one float64 a row; None is 1."""
    if grad_loss is None:
        return 1.0
    if reduction != "none":
        if np.ndim(grad_loss) != 0:
            raise ValueError(
                f'grad_loss has shape {np.shape(grad_loss)}; with reduction="{reduction}" the loss '
                "is one number, and so is its incoming gradient"
            )
        return _number(grad_loss, "grad_loss")
    array = np.asarray(grad_loss)
    if not _is_real(array.dtype):
        raise TypeError(f"grad_loss has dtype {array.dtype}; it must hold real numbers")
    if array.shape not in (rows, ()):
        raise ValueError(
            f'grad_loss has shape {array.shape}; with reduction="none" it must hold one number '
            f"a row, shape {rows}"
        )
    return np.broadcast_to(np.asarray(array, dtype=np.float64), rows)


def like_logits(array: ArrayLike, logits: Array, name: str) -> Array:
    """A floating array of the logits' shape (the vector of a product with the Hessian)."""
    result = logits_array(array, name)
    if result.shape != logits.shape:
        raise ValueError(
            f"{name} has shape {result.shape}; it must have the logits' shape {logits.shape}"
        )
    return result


def output_array(out: Array | None, logits: Array, inputs: tuple[Array | None, ...]) -> Array:
    """Where the gradient goes: fresh memory laid out as the logits are, or a fitting `out`."""
    if out is None:
        return np.empty_like(logits, subok=False)
    if out is logits and out.flags.writeable:
        _refuse_overlap(out, tuple(a for a in inputs if a is not logits))
        return out
    if not isinstance(out, np.ndarray):
        raise ValueError(f"out must be a NumPy array, not {type(out).__name__}")
    if out.shape != logits.shape or out.dtype != logits.dtype:
        raise ValueError(
            f"out has shape {out.shape} and dtype {out.dtype}; it must have those of the logits: "
            f"{logits.shape}, {logits.dtype}"
        )
    if not out.flags.writeable:
        raise ValueError("out is read-only: give a writable array, e.g. out=np.empty_like(logits)")
    if _same_memory(out, logits):
        inputs = tuple(a for a in inputs if a is not logits)
    _refuse_overlap(out, inputs)
    return out


def _same_memory(a: Array, b: Array) -> bool:
    if a.base is None and b.base is None:
        return a is b
    return a.ctypes.data == b.ctypes.data and a.strides == b.strides


_OVERLAP = (
    "out overlaps an input without being the logits' own memory: give the logits "
    "themselves (in place) or memory that no input uses"
)


def _refuse_overlap(out: Array, inputs: tuple[Array | None, ...], message: str = _OVERLAP) -> None:
    for array in inputs:
        owners = out.base is None and array is not None and array.base is None and out is not array
        if array is None or owners or not np.may_share_memory(out, array):
            continue
        try:
            overlap = np.shares_memory(out, array, max_work=100_000)  # type: ignore[arg-type]
        except np.exceptions.TooHardError:
            overlap = True
        if overlap:
            raise ValueError(message)
    if not out.flags.c_contiguous and _overlaps_itself(out):
        raise ValueError("out has elements that share memory (a broadcast array): give a full one")


def _overlaps_itself(array: Array) -> bool:
    """Whether elements share memory, or steps interleave so that only a search could tell."""
    reach = array.itemsize
    for stride, n in sorted(
        (abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1
    ):
        if stride < reach:
            return array.size > 0
        reach += stride * (n - 1)
    return False


def raise_bad_target(
    row: int,
    targets: Array,
    logits: Any,
    axis: int,
    name: str = "targets",
    other_axis: str = "axis={k}",
) -> NoReturn:
    """The error for the first row whose index target is neither a class nor ignored.

    logits: the array, or a tensor: only its shape is read. other_axis: how a front-end's user
    would choose axis k.
    """
    classes = logits.shape[axis]
    where = np.unravel_index(row, targets.shape) if targets.ndim else ()
    value = targets[where]
    place = ", ".join(str(int(i)) for i in where)
    name = f"{name}[{place}]" if targets.ndim else name
    labels_fit = f"labels start at 0, so {classes} classes are 0 .. {classes - 1}"
    # An axis that fits the shapes too has as many classes, so the label is bad there as well; but
    # the wrong axis may be what put it there.
    fitting = _fitting_axes(targets, logits, axis)
    hint = f". {other_axis.format(k=fitting[0])} would fit the shapes too" if fitting else ""
    if value == DEFAULT_IGNORE_INDEX or (targets.dtype.kind == "u" and int(value) == 156):
        hint += ". To leave such rows out, give their value as ignore_index"
    raise IndexError(
        f"{name} is {value} (row {row}), not a class: {labels_fit}, and ignore_index marks rows "
        f"to leave out{hint}"
    )


def raise_not_for_scores(targets: Array, rows: tuple[int, ...]) -> NoReturn:
    """The error for distributions where scores need a class for each row."""
    raise ValueError(
        f"targets have shape {targets.shape}; scores are of one class a row, so targets must be "
        f"class indices of shape {rows}"
    )


def raise_empty() -> NoReturn:
    """The error for a mean over nothing, where the caller asked for one."""
    raise ValueError(
        'the mean has nothing to divide by: no row counts, and when_empty is "raise". '
        'Use when_empty="zero" for a loss of 0 with gradient 0'
    )


def thread_count(count: Any) -> int:
    """A number of threads, at least 1."""
    try:
        value: int = count.__index__()
    except AttributeError:
        raise TypeError(
            f"the number of threads must be an integer, not {type(count).__name__}"
        ) from None
    if not 1 <= value <= 1024:
        raise ValueError(f"the number of threads must be from 1 to 1024, not {value}")
    return value


def unknown_isa(name: str, available: list[str]) -> ImportError:
    """The error for a CROSSENT_ISA that this machine or build does not have."""
    return ImportError(
        f"CROSSENT_ISA={name!r} is not available here; choose one of {', '.join(available)}, "
        "or unset it"
    )


def working_memory(size: Any) -> int:
    """A number of bytes, at least 1."""
    try:
        value: int = size.__index__()
    except AttributeError:
        raise TypeError(
            f"the working memory must be an integer number of bytes, not {type(size).__name__}"
        ) from None
    if value < 1:
        raise ValueError(f"the working memory must be at least 1 byte, not {value}")
    return value


# The linear form: N rows of D features, linear_weight (V, D), linear_bias (V,).

LINEAR = ("inputs", "linear_weight", "linear_bias")


class Linear(NamedTuple):
    """What makes the logits, and an array without memory that has their shape and dtype."""

    inputs: Array
    linear_weight: Array
    linear_bias: Array | None
    logits: Array


def linear_arrays(
    inputs: ArrayLike, linear_weight: ArrayLike, linear_bias: ArrayLike | None
) -> Linear:
    """inputs (..., D), linear_weight (V, D) and linear_bias (V,), of one floating dtype."""
    x, w = logits_array(inputs, "inputs"), logits_array(linear_weight, "linear_weight")
    if x.ndim < 1 or w.ndim != 2 or x.shape[-1] != w.shape[1]:
        raise ValueError(
            f"inputs have shape {x.shape} and linear_weight {w.shape}; they must have shapes "
            "(..., D) and (V, D), the same D features in both"
        )
    if w.shape[0] == 0:
        raise ValueError(f"linear_weight of shape {w.shape} has no classes; V must be at least 1")
    _same_dtype("linear_weight", w, x)
    bias = None if linear_bias is None else logits_array(linear_bias, "linear_bias")
    if bias is not None:
        if bias.shape != w.shape[:1]:
            raise ValueError(
                f"linear_bias has shape {bias.shape}; it must hold one number for each of the "
                f"{w.shape[0]} classes, shape ({w.shape[0]},)"
            )
        _same_dtype("linear_bias", bias, x)
    logits = np.broadcast_to(np.empty((), x.dtype), (*x.shape[:-1], w.shape[0]))
    return Linear(x, w, bias, logits)


def _same_dtype(name: str, array: Array, inputs: Array) -> None:
    if array.dtype.newbyteorder("=") != inputs.dtype.newbyteorder("="):
        raise TypeError(
            f"inputs have dtype {inputs.dtype} and {name} {array.dtype}; they must be the same: "
            f"convert one, e.g. {name}.astype(inputs.dtype)"
        )


def bad_label(targets: Array, counts: Array, classes: int) -> int:
    """The first row whose index target counts and is no class, or -1."""
    bad = counts & ((targets < 0) | (targets >= classes))
    return int(bad.argmax()) if bad.any() else -1


def wanted_gradients(wrt: Any, has_bias: bool) -> tuple[str, ...]:
    """The names of the arguments whose gradients are wanted; None is all there are."""
    there = LINEAR if has_bias else LINEAR[:2]
    if wrt is None:
        return there
    names = (wrt,) if isinstance(wrt, str) else tuple(wrt)
    for name in names:
        if name not in there:
            listed = ", ".join(f'"{each}"' for each in there)
            raise ValueError(f"wrt holds {name!r}; it must name arguments of the call: {listed}")
    return names


def gradient_array(out: Any, like: Array, name: str, others: tuple[Array | None, ...]) -> Array:
    """Where a gradient goes: fresh memory, or an `out` of the argument's shape and dtype."""
    if out is None:
        return np.empty(like.shape, like.dtype)
    if not isinstance(out, np.ndarray):
        raise ValueError(f"out.{name} must be a NumPy array, not {type(out).__name__}")
    if out.shape != like.shape or out.dtype != like.dtype:
        raise ValueError(
            f"out.{name} has shape {out.shape} and dtype {out.dtype}; it must have those of "
            f"{name}: {like.shape}, {like.dtype}"
        )
    if not (out.flags.writeable and out.flags.c_contiguous):
        raise ValueError(
            f"out.{name} is {'not C-contiguous' if out.flags.writeable else 'read-only'}; "
            f"it must be writable and C-contiguous, e.g. np.empty({like.shape}, {like.dtype})"
        )
    _refuse_overlap(
        out,
        others,
        f"out.{name} overlaps an argument or another output: give memory that nothing else uses",
    )
    return out


def raise_nothing_to_add_to(name: str) -> NoReturn:
    """The error for a sum that is to go on top of an array that was not given."""
    raise ValueError(
        f"accumulate=True adds the gradient of {name} to out.{name}, which is not there: "
        f"give an array, e.g. np.zeros_like({name})"
    )


def loss_type(logits: Array) -> DTypeLike:
    """float64 for float64 logits, else float32: also for half types."""
    return np.float64 if logits.dtype.char == "d" else np.float32


# Tensors: PyTorch's names (input, target) and its class axis, 1, or 0 of a single row. Only shapes
# and the names of dtypes are read, so that no framework is imported here.

MOVE_CLASSES = "classes on dim {k}, input.movedim({k}, 1),"


def tensor_form(input_shape: tuple[int, ...], target_shape: tuple[int, ...]) -> int:
    """INDICES or DISTRIBUTIONS, by the shapes of input and target."""
    if not input_shape:
        raise ValueError("input is a single number; it needs a class axis, e.g. shape (N, C)")
    axis = 1 if len(input_shape) > 1 else 0
    if input_shape[axis] == 0:
        raise ValueError(
            f"input of shape {tuple(input_shape)} has no classes on dim {axis}; C must be "
            "at least 1"
        )
    rows = input_shape[:axis] + input_shape[axis + 1 :]
    if target_shape == rows:
        return INDICES
    if target_shape == input_shape:
        return DISTRIBUTIONS
    _raise_tensor_shape(tuple(input_shape), tuple(target_shape), axis, tuple(rows))


def _raise_tensor_shape(
    shape: tuple[int, ...], target: tuple[int, ...], axis: int, rows: tuple[int, ...]
) -> NoReturn:
    hint = ""
    for k in range(len(shape)):
        if k != axis and target == shape[:k] + shape[k + 1 :]:
            hint = f". With {MOVE_CLASSES.format(k=k)} it would fit as class indices"
            break
    if not hint and target == (*rows, 1):
        hint = ". Drop its last dim: target.squeeze(-1)"
    if not hint and axis == 1 and len(shape) == 3 and target == (shape[0] * shape[1],):
        hint = ". Where the classes are last, flatten both: input.flatten(0, 1)"
    raise ValueError(
        f"target has shape {target}; with input of shape {shape} and classes on dim {axis} it must "
        f"have shape {rows} (class indices) or {shape} (distributions){hint}"
    )


def raise_not_float_tensor(dtype: str, name: str = "input") -> NoReturn:
    """The error for logits that are not floating."""
    fix = "" if "complex" in dtype else f". Convert it first, e.g. {name}.float()"
    raise TypeError(f"{name} has dtype {dtype}; it must be {_FLOAT_TYPES}{fix}")


def tensor_layer(
    input_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    bias_shape: tuple[int, ...] | None,
) -> None:
    """Whether input, linear_weight and linear_bias go together."""
    if len(input_shape) not in (1, 2):
        raise ValueError(
            f"input has shape {input_shape}; it must have shape (D) or (N, D). Flatten the "
            "dims before the last: input.flatten(0, -2), and the target likewise"
        )
    if len(weight_shape) < 2:
        raise ValueError(
            f"linear_weight has shape {weight_shape}; it must have shape (C, D) or (C, d1, ..., D)"
        )
    if input_shape[-1] != weight_shape[-1]:
        raise ValueError(
            f"input has shape {input_shape} and linear_weight {weight_shape}; their last dims, the "
            f"features, must be equal, not {input_shape[-1]} and {weight_shape[-1]}"
        )
    if bias_shape is not None and bias_shape != weight_shape[:-1]:
        raise ValueError(
            f"linear_bias has shape {bias_shape}; it must have that of linear_weight without its "
            f"last dim, {weight_shape[:-1]}"
        )
    if len(weight_shape) > 2 and len(input_shape) == 1:
        raise ValueError(
            f"linear_weight of shape {weight_shape} needs an input with a batch, "
            f"(N, {input_shape[-1]}), not {input_shape}: give input.unsqueeze(0)"
        )


def raise_other_dtype(input_dtype: str, name: str, dtype: str) -> NoReturn:
    """The error for parts of a layer of different dtypes."""
    raise TypeError(
        f"input has dtype {input_dtype} and {name} {dtype}; they must be the same: convert one, "
        f"e.g. {name}.to(input.dtype), or use torch.autocast"
    )


def raise_not_index_tensor(dtype: str, rows: tuple[int, ...], shape: tuple[int, ...]) -> NoReturn:
    """The error for a target of index shape that does not hold integers."""
    raise TypeError(
        f"target of shape {tuple(rows)} holds class indices, so it must have an integer dtype, not "
        f"{dtype}: convert it, e.g. target.long(). Distributions have the input's shape "
        f"{tuple(shape)}"
    )


def raise_not_real_tensor(dtype: str) -> NoReturn:
    """The error for distributions that are not real numbers."""
    raise TypeError(f"target has dtype {dtype}; distributions must be real numbers")


def raise_not_tensor(value: Any, name: str) -> NoReturn:
    """The error for what should be a tensor."""
    raise TypeError(f"{name} must be a tensor, not {type(value).__name__}")


def raise_devices(input_device: str, name: str, device: str) -> NoReturn:
    """The error for tensors on different devices."""
    raise ValueError(
        f"input is on {input_device} and {name} on {device}; move one, e.g. {name}.to(input.device)"
    )


def weight_shape(shape: tuple[int, ...], dtype_is_real: bool, dtype: str, classes: int) -> None:
    """Whether a tensor of class weights has the right shape and kind."""
    if not dtype_is_real:
        raise TypeError(f"weight has dtype {dtype}; it must hold real numbers")
    if tuple(shape) != (classes,):
        raise ValueError(
            f"weight has shape {tuple(shape)}; it must hold one number for each of the {classes} "
            f"classes, shape ({classes},)"
        )


def raise_detached(name: str) -> NoReturn:
    """The error for an option that requires grad and could not get one."""
    raise ValueError(
        f"{name} requires grad, but it is taken as a constant, so that its gradient would be lost: "
        f"give {name}.detach() or a number. Gradients flow to input, target distributions, weight "
        "and logit_scale"
    )


def raise_not_one_number(name: str, shape: tuple[int, ...]) -> NoReturn:
    """The error for a tensor that should be one number."""
    raise ValueError(f"{name} has shape {shape}; it must be one number")


def raise_in_place(reason: str) -> NoReturn:
    """The error for an input over which no gradient can be written."""
    raise ValueError(
        f"inplace_backward=True writes the gradient over the input, but the input {reason}: leave "
        "the option out, or give the result of an operation that nothing else needs"
    )


def raise_tensor_not_for_scores(target: tuple[int, ...], rows: tuple[int, ...]) -> NoReturn:
    """The error for distributions where scores need a class for each row."""
    raise ValueError(
        f"target has shape {tuple(target)}; scores are of one class a row, so target must hold "
        f"class indices of shape {tuple(rows)}"
    )

"""Every rule for arrays, tensors and settings, and its message, once, for all front-ends.

N rows, C classes. A rule reads shapes and the names of dtypes; what a front-end calls its arguments
stands in its `Words`. Each message names the argument, says what came, what is needed and, where
there is one likely fix, the fix. The rules of the loss's options stand in `crossent.options`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from crossent import options

Array = NDArray[Any]
Shape = tuple[int, ...]

INDICES, DISTRIBUTIONS = 1, 2
DEFAULT_IGNORE_INDEX = options.IGNORE_INDEX

FLOATS = frozenset(("float64", "float32", "float16", "bfloat16"))
_INTEGERS = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (64, 32, 16, 8))
_REAL = FLOATS | _INTEGERS | {"bool"}
_FLOAT_TYPES = "float64, float32, float16 or bfloat16"


class Words(NamedTuple):
    """How a front-end speaks of its arguments; these are the words for arrays."""

    logits: str = "logits"
    of_logits: str = "the logits'"
    targets: str = "targets"
    axis: str = "axis"
    have: str = "have"
    are: str = "are"
    need: str = "need"
    they: str = "they"
    them: str = "them"
    dtypes: str = ""  # stands before the name of a dtype
    as_float: str = "{name}.astype(np.float32)"
    are_integers: str = "are class indices, so they must be integers"
    as_integers: str = "targets.astype(np.int64)"
    as_inputs: str = "{name}.astype(inputs.dtype)"
    with_axis: str = "axis={k}"
    without_last: str = "Drop their last axis: targets[..., 0]"
    flattened: str = ""  # where the targets of (N, T) rows are flat and the logits are not


ARRAYS = Words()
LINEAR_ARRAYS = ARRAYS._replace(logits="inputs")
TENSORS = Words(
    logits="input",
    of_logits="the input's",
    targets="target",
    axis="dim",
    have="has",
    are="is",
    need="needs",
    they="it",
    them="it",
    dtypes="torch.",
    as_float="{name}.float()",
    are_integers="holds class indices, so it must have an integer dtype",
    as_integers="target.long()",
    as_inputs="{name}.to(input.dtype), or use torch.autocast",
    with_axis="classes on dim {k}, input.movedim({k}, 1),",
    without_last="Drop its last dim: target.squeeze(-1)",
    flattened="Where the classes are last, flatten both: input.flatten(0, 1)",
)


# Logits and targets


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is ml_dtypes' bfloat16, recognised by name: the package is not imported."""
    return dtype.kind == "V" and dtype.name == "bfloat16"


def as_words(array: Array) -> Array:
    """bfloat16 as uint16 of the same byte order: the buffer protocol knows no bfloat16."""
    return array.view(np.dtype(np.uint16).newbyteorder(array.dtype.byteorder))


_TEXT = ("<U", "|S", "str", "bytes")  # how dtypes of text and their names begin
_NAMES = {np.dtype(name).char: name for name in (*FLOATS - {"bfloat16"}, *_INTEGERS, "bool")}


def _name_of(dtype: np.dtype[Any]) -> str:
    """A dtype's name, the same in either byte order."""
    return _NAMES.get(dtype.char) or str(dtype.newbyteorder("="))


def check_float(name: str, dtype: str, words: Words = ARRAYS) -> None:
    """Raises TypeError for logits, or what makes them, of a dtype that is not floating."""
    if dtype in FLOATS:
        return
    fix = ""
    if dtype.startswith(("int", "uint", "bool", "float")):
        fix = f". Convert {words.them} first, e.g. {words.as_float.format(name=name)}"
    raise TypeError(
        f"{name} {words.have} dtype {words.dtypes}{dtype}; {words.they} must be {_FLOAT_TYPES}{fix}"
    )


def as_array(name: str, given: Any) -> Array:
    """What NumPy makes of an argument, save that it would drop a mask without a word."""
    if np.ma.is_masked(given):
        raise TypeError(f"{name}: masks are not followed; fill what is masked, or leave it out")
    return np.asarray(given)


def logits_array(logits: ArrayLike, name: str = "logits") -> Array:
    """`logits` as an array of a floating type; lists and numbers become float64."""
    if type(logits) is np.ndarray and logits.dtype.char in "fd":
        return logits
    if isinstance(logits, np.ndarray) or hasattr(logits, "dtype"):
        array = as_array(name, logits)
        check_float(name, _name_of(array.dtype))
        return array
    if logits is None:  # a nan to NumPy
        raise TypeError(f"{name} must be an array or nested lists of real numbers, not None")
    try:
        return np.asarray(logits, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} must be an array or nested lists of real numbers: {error}"
        ) from None


def class_axis(logits: Array, axis: int, name: str = "logits") -> int:
    """The class axis, counted from the front; every row has at least one class."""
    return axis_of_classes(logits.shape, axis, name, ARRAYS)


def axis_of_classes(shape: Shape, axis: int, name: str, words: Words) -> int:
    """The same for logits of a shape."""
    ndim = len(shape)
    if ndim == 0:
        raise ValueError(
            f"{name} {words.are} a single number; {words.they} {words.need} a class axis, "
            "e.g. shape (N, C)"
        )
    axis = options.integer("axis", axis)
    if not -ndim <= axis < ndim:
        raise ValueError(
            f"axis={options.shown(axis)} is not an axis of {name} of shape {shape}; "
            f"it must be from {-ndim} to {ndim - 1}"
        )
    axis %= ndim
    if shape[axis] == 0:
        raise ValueError(
            f"{name} of shape {tuple(shape)} {words.have} no classes on {words.axis} {axis}; "
            "C must be at least 1"
        )
    return axis


def row_shape(logits: Any, axis: int) -> Shape:
    """The shape of one number a row: that of an array or tensor without its class axis."""
    return _without(logits.shape, axis)


def _without(shape: Shape, axis: int) -> Shape:
    return shape[:axis] + shape[axis + 1 :]


class Targets(NamedTuple):
    """Targets and what they are: INDICES or DISTRIBUTIONS."""

    array: Array
    form: int


def target_array(targets: ArrayLike, logits: Array, axis: int) -> Targets:
    """Targets as class indices (the logits' shape less the class axis) or distributions."""
    array = targets if type(targets) is np.ndarray else as_array("targets", targets)
    if array.size == 0 and not hasattr(targets, "dtype"):  # an empty list is float64 to NumPy
        array = array.astype(np.int64)
    form = target_form(array.shape, _name_of(array.dtype), logits.shape, axis)
    if form == DISTRIBUTIONS and array.ndim == 1:
        check_single_row(array)
    return Targets(array, form)


def target_form(
    shape: Shape, dtype: str, logits_shape: Shape, axis: int, words: Words = ARRAYS
) -> int:
    """INDICES or DISTRIBUTIONS, by the shapes of targets and logits; the dtype is one for it."""
    logits_shape = tuple(logits_shape)  # slices of a torch.Size are slow
    if shape == logits_shape[:axis] + logits_shape[axis + 1 :]:
        if dtype not in _INTEGERS:
            _raise_not_indices(shape, dtype, logits_shape, words)
        return INDICES
    if shape != logits_shape:
        _raise_target_shape(tuple(shape), logits_shape, axis, words)
    if dtype not in _REAL:
        raise TypeError(
            f"{words.targets} {words.have} dtype {words.dtypes}{dtype}; distributions must be "
            "real numbers"
        )
    return DISTRIBUTIONS


def check_single_row(targets: Array, words: Words = ARRAYS) -> None:
    """Raises ValueError for integer targets of a single row of logits that are not one-hot."""
    if targets.dtype.kind not in "iub" or (targets.sum() == 1 and np.isin(targets, (0, 1)).all()):
        return
    raise_not_one_row(len(targets), "one-hot", words)


def raise_not_one_row(count: int, form: str, words: Words = ARRAYS) -> NoReturn:
    """The error for targets of a single row of logits that are not of the form they must have."""
    raise ValueError(
        f"{words.targets} {words.have} shape ({count},), that of {words.logits}, and {words.are} "
        f"not {form}. {words.logits} of shape ({count},) {words.are} one row of {count} classes: "
        f"give one class, or a 1 among zeros. {stack_scores(count, words)}"
    )


def stack_scores(count: object, words: Words = ARRAYS) -> str:
    """What to do with the scores of a binary classifier."""
    return (
        f"For {count} binary scores z stack [0, z], so that {words.logits} {words.have} shape "
        f"({count}, 2)"
    )


def _raise_not_indices(shape: Shape, dtype: str, logits_shape: Shape, words: Words) -> NoReturn:
    fix = f"convert {words.them}, e.g. {words.as_integers}"
    if dtype.startswith(_TEXT):
        dtype = "text"
    if dtype == "bool":
        fix = f"for two classes use {words.as_integers}"
    elif dtype not in _REAL and not dtype.startswith("float"):
        fix = "number the classes; np.unique(targets, return_inverse=True)[1] does, in sorted order"
    raise TypeError(
        f"{words.targets} of shape {tuple(shape)} {words.are_integers}, not {words.dtypes}{dtype}: "
        f"{fix}. Distributions have {words.of_logits} shape {logits_shape}"
    )


def _fitting_axes(shape: Shape, logits_shape: Shape, axis: int) -> list[int]:
    """The other axes that would be the class axis of targets of a shape."""
    axes = (k for k in range(len(logits_shape)) if k != axis)
    return [k for k in axes if shape == _without(logits_shape, k)]


def _raise_target_shape(shape: Shape, logits_shape: Shape, axis: int, words: Words) -> NoReturn:
    rows = _without(logits_shape, axis)
    fitting = _fitting_axes(shape, logits_shape, axis)
    hint = ""
    if fitting:
        choice = words.with_axis.format(k=fitting[0])
        hint = f". With {choice} {words.they} would fit as indices"
    elif shape == (*rows, 1):
        hint = f". {words.without_last}"
    elif words.flattened and axis == 1 and len(rows) == 2 and shape == (rows[0] * logits_shape[1],):
        hint = f". {words.flattened}"
    raise ValueError(
        f"{words.targets} {words.have} shape {shape}; with {words.logits} of shape {logits_shape} "
        f"and classes on {words.axis} {axis} {words.they} must have shape {rows} (class indices) "
        f"or {logits_shape} (distributions){hint}"
    )


def raise_bad_target(
    row: int, targets: Array, logits: Any, axis: int, words: Words = ARRAYS
) -> NoReturn:
    """The error for the first row whose index target is neither a class nor ignored.

    logits: the array, or a tensor: only its shape is read.
    """
    classes = logits.shape[axis]
    where = np.unravel_index(row, targets.shape) if targets.ndim else ()
    value = targets[where]
    place = ", ".join(str(int(i)) for i in where)
    name = f"{words.targets}[{place}]" if targets.ndim else words.targets
    are = "the only class is 0" if classes == 1 else f"{classes} classes are 0 .. {classes - 1}"
    # An axis that fits the shapes too has as many classes, so the label is bad there as well; but
    # the wrong axis may be what put it there.
    fitting = _fitting_axes(targets.shape, logits.shape, axis)
    hint = f". {words.with_axis.format(k=fitting[0])} would fit the shapes too" if fitting else ""
    if value == DEFAULT_IGNORE_INDEX or (targets.dtype.kind == "u" and int(value) == 156):
        hint += ". To leave such rows out, give their value as ignore_index"
    if classes == 1:
        hint += f". {stack_scores('N', words)}"
    raise IndexError(
        f"{name} is {value} (row {row}), not a class: labels start at 0, so {are}, and "
        f"ignore_index marks rows to leave out{hint}"
    )


def raise_not_for_scores(targets: Any, rows: Shape, words: Words = ARRAYS) -> NoReturn:
    """The error for distributions where scores need a class for each row."""
    raise ValueError(
        f"{words.targets} {words.have} shape {tuple(targets.shape)}; scores are of one class a "
        f"row, so {words.targets} must hold class indices of shape {tuple(rows)}"
    )


def raise_empty() -> NoReturn:
    """The error for a mean over nothing, where the caller asked for one."""
    raise ValueError(
        'the mean has nothing to divide by: no row counts, and when_empty is "raise". '
        'Use when_empty="zero" for a loss of 0 with gradient 0'
    )


# What goes with the logits


def _check_real(name: str, dtype: str, words: Words = ARRAYS) -> None:
    if dtype not in _REAL:
        raise TypeError(f"{name} has dtype {words.dtypes}{dtype}; it must hold real numbers")


def _check_one_a_class(name: str, shape: Shape, classes: int) -> None:
    if shape != (classes,):
        raise ValueError(
            f"{name} has shape {tuple(shape)}; it must hold one number for each of the "
            f"{classes} classes, shape ({classes},)"
        )


def check_class_weight(shape: Shape, dtype: str, classes: int, words: Words = ARRAYS) -> None:
    """Raises for class weights of a wrong shape or kind; their values are looked at elsewhere."""
    _check_real("weight", dtype, words)
    _check_one_a_class("weight", shape, classes)


def class_weight(weight: ArrayLike | None, classes: int) -> Array | None:
    """Class weights as C contiguous float64 numbers, finite."""
    if weight is None:
        return None
    array = as_array("weight", weight)
    check_class_weight(array.shape, _name_of(array.dtype), classes)
    array = np.require(array, np.float64, ["C", "ALIGNED"])
    bad = ~np.isfinite(array)
    if bad.any():
        k = int(bad.argmax())
        raise ValueError(f"weight[{k}] is {array[k]}; class weights must be finite")
    return array


def grad_loss_array(grad_loss: ArrayLike | None, rows: Shape, reduction: str) -> Any:
    """The incoming gradient: a float, or under "none" one float64 a row; None is 1."""
    if grad_loss is None:
        return 1.0
    if reduction != "none":
        if np.ndim(grad_loss) != 0:
            raise ValueError(
                f'grad_loss has shape {np.shape(grad_loss)}; with reduction="{reduction}" the loss '
                "is one number, and so is its incoming gradient"
            )
        return options.number("grad_loss", grad_loss)
    array = as_array("grad_loss", grad_loss)
    _check_real("grad_loss", _name_of(array.dtype))
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


def loss_type(logits: Array) -> DTypeLike:
    """float64 for float64 logits, else float32: also for half types."""
    return np.float64 if logits.dtype.char == "d" else np.float32


# The linear form: N rows of D features, linear_weight (V, D), linear_bias (V,)


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
    dtype = _name_of(x.dtype)
    check_same_dtype("linear_weight", _name_of(w.dtype), dtype)
    bias = None if linear_bias is None else logits_array(linear_bias, "linear_bias")
    if bias is not None:
        _check_one_a_class("linear_bias", bias.shape, w.shape[0])
        check_same_dtype("linear_bias", _name_of(bias.dtype), dtype)
    logits = np.broadcast_to(np.empty((), x.dtype), (*x.shape[:-1], w.shape[0]))
    return Linear(x, w, bias, logits)


def check_same_dtype(
    name: str, dtype: str, inputs_dtype: str, words: Words = LINEAR_ARRAYS
) -> None:
    """Raises TypeError where a part of a linear layer has another dtype than its inputs."""
    if dtype != inputs_dtype:
        raise TypeError(
            f"{words.logits} {words.have} dtype {words.dtypes}{inputs_dtype} and {name} "
            f"{words.dtypes}{dtype}; they must be the same: convert one, e.g. "
            f"{words.as_inputs.format(name=name)}"
        )


# Settings


def thread_count(count: Any) -> int:
    """A number of threads, at least 1."""
    value = options.integer("the number of threads", count)
    if not 1 <= value <= 1024:
        raise ValueError(
            f"the number of threads must be from 1 to 1024, not {options.shown(value)}"
        )
    return value


def working_memory(size: Any) -> int:
    """A number of bytes, at least 1."""
    value = options.integer("the working memory in bytes", size)
    if value < 1:
        raise ValueError(f"the working memory must be at least 1 byte, not {options.shown(value)}")
    return value

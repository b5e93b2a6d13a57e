"""Where gradients go: fresh memory, or a caller's `out` that fits and shares memory with no input.

N rows, C classes. The messages are of the kind that `crossent._arguments` gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def _check_fits(name: str, out: Array, like: Array, owner: str) -> None:
    if not isinstance(out, np.ndarray):
        raise ValueError(f"{name} must be a NumPy array, not {type(out).__name__}")
    if out.shape != like.shape or out.dtype != like.dtype:
        raise ValueError(
            f"{name} has shape {out.shape} and dtype {out.dtype}; it must have those of {owner}: "
            f"{like.shape}, {like.dtype}"
        )


def output_array(out: Array | None, logits: Array, inputs: tuple[Array | None, ...]) -> Array:
    """Where the gradient goes: fresh memory laid out as the logits are, or a fitting `out`."""
    if out is None:
        return np.empty_like(logits, subok=False)
    _check_fits("out", out, logits, "the logits")
    if not out.flags.writeable:
        raise ValueError("out is read-only: give a writable array, e.g. out=np.empty_like(logits)")
    if _same_memory(out, logits):
        inputs = tuple(a for a in inputs if a is not logits)
    _refuse_overlap(out, inputs)
    return out


def _same_memory(a: Array, b: Array) -> bool:
    if a is b or (a.base is None and b.base is None):
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
    if not out.flags.c_contiguous and overlaps_itself(out.shape, out.strides, out.itemsize):
        raise ValueError("out has elements that share memory (a broadcast array): give a full one")


def overlaps_itself(shape: Sequence[int], strides: Sequence[int], item: int) -> bool:
    """Whether elements share memory, or steps interleave so that only a search could tell.

    item: what one element takes of the unit of the strides.
    """
    reach = item
    for stride, n in sorted((abs(s), n) for s, n in zip(strides, shape, strict=True) if n > 1):
        if stride < reach:
            return 0 not in shape
        reach += stride * (n - 1)
    return False


def gradient_array(
    out: Array | None, like: Array, name: str, others: tuple[Array | None, ...]
) -> Array:
    """Where a linear layer's gradient goes: fresh memory, or an `out` like the argument `name`."""
    if out is None:
        return np.empty(like.shape, like.dtype)
    _check_fits(f"out.{name}", out, like, name)
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

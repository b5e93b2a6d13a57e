"""NumPy arrays to the core and back: what the loss, softmax and the linear form share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossent import _arguments as arguments
from crossent import _core
from crossent.options import Options

Array = NDArray[Any]


def operand(array: Array | None) -> Any:
    """An array as the core takes it: bfloat16 comes as words, since buffers do not know it."""
    if array is None or array.dtype.kind != "V":
        return array
    return arguments.as_words(array), _core.Type.bfloat16


def judge(
    options: Options | None,
    targets: Array,
    logits: Array,
    axis: int,
    weight: Array | None = None,
    verdict: Array | None = None,
) -> _core.Judgement:
    """What targets mean, none of them a bad one; options None: no index is ignored.

    Raises:
        IndexError: an index target is neither a class nor ignored.
    """
    class_axis = axis if targets.ndim == logits.ndim else None
    judgement = _core.judge(
        options, logits.shape[axis], operand(targets), class_axis, weight=weight, verdict=verdict
    )
    if judgement.bad_row >= 0:
        arguments.raise_bad_target(judgement.bad_row, targets, logits, axis)
    return judgement


def solve(
    output: _core.Output,
    options: Options | None,
    logits: Array,
    axis: int,
    targets: Array | None,
    operands: dict[str, Any],
    divisor: float | None = None,
) -> _core.Outcome:
    """One problem for the core; operands: arrays by the names of `_core.Operands`.

    Raises:
        IndexError: an index target is neither a class nor ignored; nothing was written.
        ValueError: nothing counts in the mean, and when_empty is "raise"; nothing was written.
    """
    # Logits, targets, gradient and vector may be bfloat16; the others never are.
    logit, target = operand(logits), operand(targets)
    if logit is not logits and "grad" in operands:  # a gradient has the logits' type
        operands["grad"] = operand(operands["grad"])
    if "vector" in operands:
        operands["vector"] = operand(operands["vector"])
    outcome = _core.solve(output, options, axis, logit, target, operands, divisor)
    if outcome.bad_row >= 0:
        assert targets is not None
        arguments.raise_bad_target(outcome.bad_row, targets, logits, axis)
    if outcome.empty and options is not None and options.when_empty == "raise":
        arguments.raise_empty()
    return outcome


def mean(total: float, divisor: float, options: Options) -> float:
    """A sum of losses over its divisor, and over 0 what `when_empty` says."""
    if divisor != 0:
        return total / divisor
    return 0.0 if options.when_empty == "zero" else np.nan

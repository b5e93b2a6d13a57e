"""``evaluate``: files or arrays in, figures out."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import ArrayLike

import crossent
from crossent.evaluation.accumulator import HARDEST, EvaluationAccumulator
from crossent.evaluation.data import Data, opened, opened_logprobs
from crossent.evaluation.errors import BadOption, BadRow
from crossent.evaluation.outputs import (
    GRAD_SUFFIXES,
    LOSSES_SUFFIXES,
    check_output,
    is_same,
    reserved,
)  # fmt: skip
from crossent.evaluation.passes import Plan, Progress, no_progress, plan_blocks, run_pass
from crossent.evaluation.result import EvaluationResult
from crossent.evaluation.rows import RowScores, Workspace
from crossent.evaluation.temperature import fit_temperature

MEMORY = 256 << 20


def evaluate(
    logits: Any = None,
    targets: Any = None,
    *,
    logprobs: Any = None,
    row_weight: Any = None,
    compare: Any = None,
    grad: str | os.PathLike[str] | None = None,
    losses: str | os.PathLike[str] | None = None,
    temperature: bool = False,
    bytes: int | None = None,
    skip_bad: bool = False,
    hardest: int = HARDEST,
    memory: int = MEMORY,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    normalizer: float | None = None,
    when_empty: str = "nan",
    axis: int = -1,
    progress: Progress = no_progress,
) -> EvaluationResult:
    """What the saved outputs of a model are worth, and how sure that is, at any size.

    Files are read block by block, so they may be far larger than memory. The figures have the same
    bits for any block size and any number of threads.

    Args:
        logits: arrays, or files: a path to a .npy, .npz or .safetensors file, "archive.npz:name",
            a pattern such as "logits-*.npy", or a list of these, whose rows follow one another.
            None: the outputs of a softmax regression on handwritten digits that comes along.
        targets: class indices of the logits' shape without the class axis, or distributions of the
            logits' shape; arrays or files.
        logprobs: in place of logits and targets: natural log-probabilities of the truth, one a row.
        row_weight: a weight >= 0 or a mask, one a row; rows of weight 0 are left out.
        compare: the logits (or log-probabilities) of another model on the same rows.
        grad: where the gradient of the loss goes: a .npy or .safetensors file, of the logits' type;
            in .npy float32 for bfloat16, which it lacks. It appears when it is whole.
        losses: where the loss of every row goes, a .npy file; 0 where a row is left out.
        temperature: find the T that minimises the mean of -log softmax(logits / T), which takes
            further passes.
        bytes: of the text that the rows encode, for bits per byte.
        skip_bad: leave out, and count, rows whose label is no class or whose loss is nan.
        hardest: how many of the rows with the largest loss are named.
        memory: bytes that may be held beyond what the process holds already.
        weight, ignore_index, reduction, label_smoothing, z_loss, softcap, logit_scale, normalizer,
            when_empty, axis: as for ``crossent.cross_entropy``; under reduction "none" the loss is
            given as the mean, and the gradient is that of each row's own loss.
        progress: (description, bytes to read) to a context that yields ``advance(bytes)``.

    Returns:
        EvaluationResult: loss and standard error, perplexity and bits, baselines, accuracy, Brier
        score, calibration, losses by class and by rank, the hardest rows; docs/evaluation.md
        says what each means.

    Raises:
        ValueError: a file is damaged or does not fit (BadFile), a row has no loss (BadRow), options
            do not fit (BadOption). Files that exist are then as they were.

    Example:
        >>> import crossent
        >>> result = crossent.evaluate([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]], [1, 0])
        >>> print("%.3f +- %.3f" % (result.loss, result.loss_standard_error))
        2.019 +- 0.601
    """
    options: dict[str, Any] = {
        "weight": weight, "ignore_index": ignore_index, "reduction": reduction,
        "label_smoothing": label_smoothing, "z_loss": z_loss, "softcap": softcap,
        "logit_scale": logit_scale, "normalizer": normalizer, "when_empty": when_empty,
    }  # fmt: skip
    check_request(logits, targets, logprobs, compare, grad, temperature, softcap, bytes, options)
    wanted = Wanted(
        None if grad is None else Path(grad), None if losses is None else Path(losses),
        temperature, bytes, memory, progress,
    )  # fmt: skip
    if wanted.grad is not None:
        check_output("grad", wanted.grad, GRAD_SUFFIXES)
    if wanted.losses is not None:
        check_output("losses", wanted.losses, LOSSES_SUFFIXES)
        if wanted.grad is not None and is_same(wanted.grad, wanted.losses):
            raise BadOption(f"{wanted.grad}: is named for the gradient and the losses; name two")
    settings: dict[str, Any] = {"skip_bad": skip_bad, "hardest": hardest}
    if logprobs is not None:
        with opened_logprobs(logprobs, row_weight=row_weight, other=compare) as data:
            sums = EvaluationAccumulator(None, **settings, **options)
            return finished(data, sums, wanted)
    if logits is None:
        from crossent.digits import held_out_outputs  # read only where nothing else is given

        logits, targets = held_out_outputs()
    with opened(
        logits, targets, row_weight=row_weight, other=compare, axis=axis, ignore_index=ignore_index
    ) as data:
        sums = EvaluationAccumulator(data.logits.classes, **settings, **options)
        return finished(data, sums, wanted)


def check_request(
    logits: Any, targets: Any, logprobs: Any, compare: Any, grad: Any, temperature: bool,
    softcap: float | None, count: int | None, options: dict[str, Any],
) -> None:  # fmt: skip
    """Raises BadOption for arguments that do not go together."""
    if logprobs is not None:
        if logits is not None or targets is not None:
            raise BadOption("logprobs stand in place of logits and targets; give one or the other")
        if grad is not None or temperature:
            raise BadOption("the gradient and the temperature need logits, not logprobs")
        unsuitable = [
            name for name, default in (
                ("weight", None), ("label_smoothing", 0.0), ("z_loss", 0.0), ("softcap", None),
                ("logit_scale", 1.0),
            ) if options[name] is not default and options[name] != default
        ]  # fmt: skip
        if unsuitable:
            raise BadOption(f"{unsuitable[0]} needs logits, not logprobs")
    elif logits is None:
        if targets is not None or compare is not None:
            raise BadOption("targets and compare need logits beside them")
    elif targets is None:
        raise BadOption("logits need targets: class indices or distributions")
    if temperature and softcap is not None:
        raise BadOption("the temperature of capped logits is not defined; drop one of the two")
    if count is not None and count < 1:
        raise BadOption(f"bytes must be at least 1, not {count}")


class Wanted(NamedTuple):
    """What is asked for beyond the figures, and within which bounds."""

    grad: Path | None
    losses: Path | None
    temperature: bool
    bytes: int | None
    memory: int
    progress: Progress


def finished(data: Data, sums: EvaluationAccumulator, wanted: Wanted) -> EvaluationResult:
    """All passes over opened data, and the result."""
    plan = plan_for(data, sums, wanted)
    try:
        with reserved(data, wanted.grad, wanted.losses) as outputs:
            scan(data, plan, sums, wanted.progress)
            result = sums.result()
            if wanted.temperature:
                fit = fit_temperature(data, plan, sums, wanted.progress)
                result = replace(result, temperature=fit)
            outputs.write(data, plan, sums, wanted.progress)
    except BadRow as error:
        raise data.locate(error) from None
    if wanted.bytes is not None:
        bits = result.nll * sums.nll.divisor / math.log(2)
        result = replace(result, bytes=wanted.bytes, bits_per_byte=bits / wanted.bytes)
    files = {
        name: table.names
        for name, table in (
            ("logits" if data.targets else "logprobs", data.logits), ("targets", data.targets),
            ("row_weight", data.row_weight), ("compare", data.other),
        ) if table is not None
    }  # fmt: skip
    return replace(result, files=files)


def plan_for(data: Data, sums: EvaluationAccumulator, wanted: Wanted) -> Plan:
    """Blocks for scoring: what is read, what is computed from it, and the sums."""
    classes, computed = data.logits.classes, 0
    for table in (data.logits, data.other):
        if table is not None:  # made wider, and scaled
            size = table.dtype.itemsize
            computed += max(4, size) * ((size < 4) + sums.options.is_scaled)
    size = max(4, data.logits.dtype.itemsize)
    computed += size * max(wanted.grad is not None, 2 * wanted.temperature)
    of_targets = 0
    if data.targets is not None and data.targets.axis is not None:
        of_targets = 20 * classes  # their kept rows in float64, and in float32 where bfloat16
    row_bytes = data.row_bytes + computed * classes + of_targets + 256
    sum_bytes = 300 * classes + (24 * classes**2 if classes <= 1024 else 16 << 20)
    return plan_blocks(data, wanted.memory, crossent.get_num_threads(), row_bytes, sum_bytes)


def scan(data: Data, plan: Plan, sums: EvaluationAccumulator, progress: Progress) -> None:
    """The pass that finds every figure."""

    def compute(start: int, stop: int, workspace: Workspace) -> RowScores:
        return sums.score(data.read(start, stop, workspace), workspace)

    with progress("evaluating", data.logits.rows * data.row_bytes) as advance:

        def consume(scores: RowScores, rows: int) -> None:
            sums.add(scores, rows)
            advance(rows * data.row_bytes)

        run_pass(data, plan, compute, consume)

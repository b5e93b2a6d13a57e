"""``evaluate``: files or arrays in, figures out."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from crossent import options
from crossent.evaluation.accumulator import HARDEST, EvaluationAccumulator
from crossent.evaluation.data import Data, opened
from crossent.evaluation.errors import BadOption, BadRow, whole_number
from crossent.evaluation.outputs import check_outputs, reserved, write_outputs
from crossent.evaluation.passes import Passes, Progress, no_progress, plan_passes
from crossent.evaluation.readers.opening import is_archive
from crossent.evaluation.result import EvaluationResult
from crossent.evaluation.rows import OF_ROW
from crossent.evaluation.temperature import fit_temperature
from crossent.options import Reduction, WhenEmpty

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
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    normalizer: float | None = None,
    when_empty: WhenEmpty = "nan",
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
            logits' shape; arrays or files. None: they are in the archive that holds the logits.
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
    loss = {"weight": weight, **options.checked(locals())._asdict()}
    if targets is None and is_archive(logits):
        targets = logits
    check_request(logits, targets, logprobs, compare)
    memory = whole_number("memory", memory, 1)
    bytes = None if bytes is None else whole_number("bytes", bytes, 1)
    if logprobs is not None:
        check_logprobs(loss, has_others=grad is not None or temperature)
    if temperature and softcap is not None:
        raise BadOption("the temperature of capped logits is not defined; drop one of the two")
    grad, losses = output_path("grad", grad), output_path("losses", losses)
    check_outputs(grad, losses)
    if logits is None and logprobs is None:
        from crossent.digits import held_out_outputs  # read only where nothing else is given

        logits, targets = held_out_outputs()
    with opened(
        logits, targets, logprobs,
        row_weight=row_weight, other=compare, axis=axis, ignore_index=ignore_index,
    ) as data:  # fmt: skip
        sums = EvaluationAccumulator(
            None if data.targets is None else data.logits.classes,
            skip_bad=skip_bad, hardest=hardest, **loss,
        )  # fmt: skip
        passes = plan_passes(
            data, memory, progress, is_scaled=sums.options.is_scaled,
            outputs=max(grad is not None, 2 * bool(temperature)),
        )  # fmt: skip
        result = evaluated(passes, sums, grad, losses, temperature=temperature)
    if bytes is None:
        return result
    bits = result.nll * sums.sums.nll.divisor / math.log(2)
    return replace(result, bytes=bytes, bits_per_byte=bits / bytes)


def output_path(name: str, given: Any) -> Path | None:
    """The path of an output, or None."""
    try:
        return None if given is None else Path(os.fsdecode(given))
    except TypeError:
        raise TypeError(f"{name} must be a path, not {type(given).__name__}") from None


def check_request(logits: Any, targets: Any, logprobs: Any, compare: Any) -> None:
    """Raises BadOption for data that do not go together."""
    if logprobs is not None:
        if logits is not None or targets is not None:
            raise BadOption("logprobs stand in place of logits and targets; give one or the other")
    elif logits is None:
        if targets is not None or compare is not None:
            raise BadOption("targets and compare need logits beside them")
    elif targets is None:
        raise BadOption("logits need targets: class indices or distributions")


def check_logprobs(loss: dict[str, Any], *, has_others: bool) -> None:
    """Raises BadOption where log-probabilities are not enough for what is asked."""
    if has_others:
        raise BadOption("the gradient and the temperature need logits, not logprobs")
    for name in OF_ROW:
        default = options.DEFAULTS.get(name)
        if loss[name] is not default and loss[name] != default:
            raise BadOption(f"{name} needs logits, not logprobs")


def evaluated(
    passes: Passes, sums: EvaluationAccumulator, grad: Path | None, losses: Path | None, *,
    temperature: bool,
) -> EvaluationResult:  # fmt: skip
    """All passes over opened data, and the result."""
    data = passes.data
    try:
        with reserved(data, grad, losses) as outputs:
            passes.run("evaluating", sums.score, sums.add)
            result = sums.result()
            if temperature:
                result = replace(result, temperature=fit_temperature(passes, sums))
            write_outputs(passes, sums, outputs)
    except BadRow as error:
        raise data.locate(error) from None
    return replace(result, files=names_of_files(data))


def names_of_files(data: Data) -> dict[str, list[str]]:
    """The files that were read, by what they hold."""
    called = {"logits": "logits" if data.targets else "logprobs", "other": "compare"}
    return {
        called.get(name, name): [part.name for part in table.parts]
        for name, table in data.tables.items()
    }

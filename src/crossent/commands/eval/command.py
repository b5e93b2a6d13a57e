"""The ``crossent eval`` command: from its arguments to ``evaluate``, and out as text or JSON."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from crossent._safe_file import check_distinct, check_output
from crossent.commands.eval.text import format_result, verdict
from crossent.commands.terminal import (
    DataError,
    UsageError,
    prepare_matplotlib,
    print_json,
    progress,
    say,
    tell,
    tell_removed,
)
from crossent.evaluation.errors import BadFile, BadRow
from crossent.evaluation.evaluator import evaluate
from crossent.evaluation.outputs import check_outputs, named_outputs
from crossent.evaluation.readers.opening import expand, is_archive, open_array
from crossent.evaluation.result import EvaluationResult

MOST_WEIGHTS = 1 << 24  # classes


def sort_files(files: list[str], targets: list[str], *, are_logprobs: bool) -> dict[str, Any]:
    """The files on the command line by the arguments of ``evaluate`` that they are.

    >>> sort_files(["logits.npy", "targets.npy"], [], are_logprobs=False)
    {'logits': ['logits.npy'], 'targets': ['targets.npy']}
    """
    if are_logprobs:
        if targets:
            raise UsageError("--logprobs: log-probabilities are of the truth already; no --targets")
        if not files:
            raise UsageError("--logprobs: name a file of log-probabilities, one a row")
        return {"logprobs": files}
    if targets:
        if not files:
            raise UsageError("--targets: name the logits too: crossent eval LOGITS... -t TARGETS")
        return {"logits": files, "targets": targets}
    if not files:
        return {}
    if len(files) == 1:
        if is_archive(files[0]):
            return {"logits": files[0]}
        raise UsageError(f"{files[0]}: and the targets? crossent eval LOGITS TARGETS")
    if len(files) > 2:
        raise UsageError(
            f"{len(files)} files: which are targets? crossent eval LOGITS... -t TARGETS, "
            "or patterns in quotes: crossent eval 'logits-*.npy' 'targets-*.npy'"
        )
    return {"logits": files[:1], "targets": files[1:]}


def read_class_weight(path: Path) -> np.ndarray[Any, Any]:
    """The class weights in a file."""
    part = open_array(path, None, ("weight",))
    try:
        if part.nbytes > 8 * MOST_WEIGHTS:
            raise UsageError(f"--weight {path}: holds shape {part.shape}; give one number a class")
        weights = np.empty(part.shape, part.dtype)
        part.read_into(weights.reshape(-1), 0)
    finally:
        part.close()
    return weights


def check_paths(
    grad: Path | None, losses: Path | None, report: Path | None, *,
    inputs: list[str], weight: Path | None,
) -> None:  # fmt: skip
    """Raises where an output could not be written, or is read, before any work is done."""
    removed = check_outputs(grad, losses)
    if report is not None:
        if report.suffix.lower() not in (".html", ".htm"):
            raise UsageError(f"--report {report}: end its name in .html")
        removed += check_output("--report", report, "report.html")
    tell_removed(removed)
    read = [path for named in inputs for path, _ in expand(named)]
    read += [] if weight is None else [str(weight)]
    check_distinct(named_outputs(grad, losses) | {"the report": report}, read)


def eval_command(
    files: list[str],
    targets: list[str],
    *,
    are_logprobs: bool,
    report: Path | None,
    weight: Path | None,
    memory: int,
    as_json: bool,
    **settings: Any,
) -> None:
    """Evaluates files and prints the figures; ``settings`` are arguments of ``evaluate``."""
    given = sort_files(files, targets, are_logprobs=are_logprobs)
    for name in ("row_weight", "compare"):
        settings[name] = settings[name] or None
    if report is not None:
        prepare_matplotlib()
        from crossent.commands.eval.report import (
            save_report,  # before the work: matplotlib may lack
        )
    outputs = {"grad": settings["grad"], "losses": settings["losses"], "report": report}
    inputs = [*files, *targets, *(settings["row_weight"] or []), *(settings["compare"] or [])]
    try:
        check_paths(**outputs, inputs=inputs, weight=weight)
        result = evaluated(weight, memory=memory << 20, **given, **settings)
        if report is not None:
            save_report(result, report)
    except MemoryError:
        raise DataError("out of memory; hold less with --memory, or free some") from None
    except KeyboardInterrupt:
        tell("interrupted: no output was left half written")
        raise
    written = {name: str(path) for name, path in outputs.items() if path is not None}
    print_result(result, written, are_digits=not files, as_json=as_json)


def evaluated(weight: Path | None, **arguments: Any) -> EvaluationResult:
    """What ``evaluate`` says, and its errors as the command's."""
    try:
        class_weight = None if weight is None else read_class_weight(weight)
        return evaluate(weight=class_weight, progress=partial(progress, in_bytes=True), **arguments)
    except (BadFile, BadRow) as error:
        raise DataError(str(error)) from None
    except (TypeError, ValueError) as error:  # what the library says of options
        raise UsageError(str(error)) from None


def print_result(
    result: EvaluationResult, written: dict[str, str], *, are_digits: bool, as_json: bool
) -> None:
    """The figures on standard output; warnings on standard error."""
    for warning in result.warnings:
        tell(f"warning: {warning}")
    if as_json:
        print_json(result.as_dict() | {"verdict": verdict(result), "written": written})
        return
    say(format_result(result))
    if are_digits:
        say("\n  These are the digits that come along. Yours: crossent eval LOGITS TARGETS")
    for name, path in written.items():
        say(f"\n  {name}: {path}")

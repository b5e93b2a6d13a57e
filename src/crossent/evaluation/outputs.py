"""The gradient and the rows' losses, written block by block in a pass after the scoring.

After, since the gradient of the mean needs the divisor, and since by then every row is known to be
sound: a bad label in the last row is found before the first byte is written.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from crossent import _arguments as arguments
from crossent._safe_file import SafeFile, check_distinct, check_output
from crossent.evaluation.accumulator import EvaluationAccumulator
from crossent.evaluation.data import Data
from crossent.evaluation.errors import BadOption
from crossent.evaluation.passes import Passes
from crossent.evaluation.readers.array_file import BFLOAT16
from crossent.evaluation.readers.npy import npy_header
from crossent.evaluation.readers.safetensors import safetensors_header
from crossent.evaluation.readers.table import layout_of
from crossent.evaluation.rows import Array, Block, Workspace, as_float
from crossent.evaluation.scorer import losses_of_rows, read_labels
from crossent.loss import cross_entropy_and_grad
from crossent.options import IGNORE_INDEX

SUFFIXES = {"grad": (".npy", ".safetensors"), "losses": (".npy",)}


def check_outputs(grad: Path | None, losses: Path | None) -> list[Path]:
    """What killed runs had left beside the outputs, removed by now.

    Raises:
        BadOption, BadFile: an output could not be written; before any work is done.
    """
    removed = []
    for name, path in (("grad", grad), ("losses", losses)):
        if path is None:
            continue
        if path.suffix not in SUFFIXES[name] and not os.path.isdir(path):
            raise BadOption(f"{name} {path}: end its name in {' or '.join(SUFFIXES[name])}")
        removed += check_output(name, path, f"{name}.npy")
    check_distinct(named_outputs(grad, losses))
    return removed


def named_outputs(grad: Path | None, losses: Path | None) -> dict[str, Path | None]:
    """The outputs by what they hold."""
    return {"the gradient": grad, "the losses": losses}


class Output(SafeFile):
    """A file of a row of classes, or of one number, for each row of the data.

    Args:
        path: where it goes; the suffix tells the format.
        shape: of the array.
        axis: that of the classes; None: one number a row.
        dtype: of the numbers; BFLOAT16 for the bits of such.
        rows_of: gives the rows of a block, (n, C) or (n,).
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, ...],
        axis: int | None,
        dtype: np.dtype[Any],
        rows_of: Callable[[Block, EvaluationAccumulator, Workspace], Array],
    ) -> None:
        self.layout, self.dtype, self.rows_of = layout_of(shape, axis), dtype, rows_of
        nbytes = math.prod(shape) * dtype.itemsize
        if path.suffix == ".npy":
            self.header = npy_header(shape, dtype)
        else:
            type_name = "BF16" if dtype == BFLOAT16 else f"F{8 * dtype.itemsize}"
            self.header = safetensors_header("grad", shape, type_name, nbytes)
        super().__init__(path, len(self.header) + nbytes)

    def write_rows(self, first_row: int, rows: Array) -> None:
        """Writes rows to their places."""
        rows = rows.reshape(len(rows), -1)
        if self.dtype == BFLOAT16:
            rows = bfloat16_bits(rows)
        for piece in self.layout.pieces(first_row, first_row + len(rows)):
            some = rows[piece.begin - first_row : piece.end - first_row, piece.of_classes]
            place = len(self.header) + piece.first * self.dtype.itemsize
            self.write_at(place, np.ascontiguousarray(some, self.dtype))


@contextmanager
def reserved(data: Data, grad: Path | None, losses: Path | None) -> Iterator[list[Output]]:
    """What is to be written, its space reserved; what is not written whole leaves nothing."""
    check_distinct(named_outputs(grad, losses), [file.path for file in data.files])
    logits, outputs = data.logits, []
    with ExitStack() as files:
        if grad is not None:  # of the logits' type where the format has it
            dtype = logits.dtype
            if logits.is_bfloat16 and grad.suffix == ".npy":
                dtype = np.dtype(np.float32)
            output = Output(grad, logits.shape, logits.axis, dtype, gradient_of)
            outputs.append(files.enter_context(output))
        if losses is not None:
            dtype = np.dtype(np.float64 if logits.dtype.itemsize == 8 else np.float32)
            shape = logits.shape
            if logits.axis is not None:
                shape = arguments.row_shape(logits, logits.axis)
            outputs.append(files.enter_context(Output(losses, shape, None, dtype, losses_of)))
        yield outputs


def write_outputs(passes: Passes, sums: EvaluationAccumulator, outputs: list[Output]) -> None:
    """The pass that computes and writes the outputs, and gives them their names."""
    if not outputs:
        return

    def compute(block: Block, workspace: Workspace) -> None:
        for output in outputs:
            output.write_rows(block.first_row, output.rows_of(block, sums, workspace))

    for output in outputs:
        output.write_at(0, output.header)
    passes.run("writing", compute, lambda _, rows: None)
    for output in outputs:
        output.commit()


def sound_targets(block: Block, sums: EvaluationAccumulator, logits: Array) -> tuple[Array, Array]:
    """Targets as the core takes them, rows that are left out marked; and which rows are kept."""
    labels = read_labels(block, sums.classes or 0, sums.options.others)
    kept = labels.kept & ~labels.bad
    if sums.skip_bad:
        losses = losses_of_rows(logits, labels.targets, sums.options.row_arguments())
        kept = kept & ~np.isnan(losses)
    if labels.share is not None:
        return labels.targets, kept
    return np.where(kept, labels.label, IGNORE_INDEX), kept


def losses_of(block: Block, sums: EvaluationAccumulator, workspace: Workspace) -> Array:
    """The loss of every row, 0 where it is left out; row weights do not enter."""
    logits = as_float(block.logits, workspace, "logits")
    if sums.classes is None:
        losses = -logits.astype(np.float64)
        kept = np.isfinite(losses) | (losses == np.inf)
        if block.row_weight is not None:
            kept &= block.row_weight != 0
        return np.where(kept, losses, 0.0)
    targets, kept = sound_targets(block, sums, logits)
    return np.where(kept, losses_of_rows(logits, targets, sums.options.row_arguments()), 0)


def gradient_of(block: Block, sums: EvaluationAccumulator, workspace: Workspace) -> Array:
    """The gradient with respect to a block's logits, of their type (float32 for bfloat16)."""
    logits = block.logits
    targets, kept = sound_targets(block, sums, logits)
    out = workspace.array("residual", logits.shape, logits.dtype)
    options = sums.options.others
    divisor = options.normalizer or sums.sums.loss.divisor
    rule: dict[str, Any] = {"reduction": "mean", "normalizer": divisor}
    if options.reduction != "mean":
        rule, divisor = {"reduction": "sum"}, 1.0
    if block.row_weight is not None and divisor:
        rule = {"reduction": "none", "grad_loss": block.row_weight.astype(np.float64) / divisor}
    if divisor == 0:
        out[...] = 0  # nothing counts
        return out
    cross_entropy_and_grad(logits, targets, out=out, **sums.options.row_arguments(), **rule)
    if not kept.all():
        out[~kept] = 0  # of distributions, and of rows whose logits are not numbers
    return out


def bfloat16_bits(numbers: Array) -> Array:
    """The nearest bfloat16 of each float32, ties to even, as bits."""
    bits = numbers.view(np.uint32)
    return ((bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16).astype(np.uint16)

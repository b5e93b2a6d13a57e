"""The gradient and the rows' losses, written block by block in a pass after the scoring.

After, since the gradient of the mean needs the divisor, and since by then every row is known to be
sound: a bad label in the last row is found before the first byte is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import crossent
from crossent import _arguments as arguments
from crossent.evaluation.accumulator import EvaluationAccumulator
from crossent.evaluation.data import Data
from crossent.evaluation.errors import BadOption
from crossent.evaluation.passes import Passes
from crossent.evaluation.readers.array_file import BFLOAT16
from crossent.evaluation.readers.npy import npy_header
from crossent.evaluation.readers.safetensors import safetensors_header
from crossent.evaluation.readers.table import Layout, layout_of
from crossent.evaluation.rows import Block, Workspace, as_float
from crossent.evaluation.safe_file import SafeFile
from crossent.evaluation.scorer import losses_of_rows, read_labels
from crossent.options import IGNORE_INDEX

Array = NDArray[Any]

SUFFIXES = {"grad": (".npy", ".safetensors"), "losses": (".npy",)}


def check_outputs(grad: Path | None, losses: Path | None) -> None:
    """Raises BadOption where an output could not be written, before any work is done."""
    for name, path in (("grad", grad), ("losses", losses)):
        if path is None:
            continue
        folder, suffixes = path.parent, SUFFIXES[name]
        no_access = "may not be written; name a file in a folder of yours"
        for is_wrong, message in (
            (path.is_dir(), f"is a folder; name a file, such as {path / f'{name}.npy'}"),
            (path.suffix not in suffixes, f"end its name in {' or '.join(suffixes)}"),
            (path.exists() and not path.is_file(), "is not a regular file; name another"),
            (not folder.is_dir(), f"there is no folder {folder}; make it or name another"),
            (not os.access(folder, os.W_OK), no_access),
        ):
            if is_wrong:
                raise BadOption(f"{name} {path}: {message}")
    both = [os.path.realpath(path) for path in (grad, losses) if path is not None]
    if len(set(both)) < len(both):
        raise BadOption(f"{grad}: is named for the gradient and the losses; name two")


class Output(NamedTuple):
    """A file of a row of classes, or of one number, for each row of the data."""

    path: Path
    shape: tuple[int, ...]
    layout: Layout
    dtype: np.dtype[Any]  # BFLOAT16 for the bits of such numbers
    rows_of: Callable[[Block, EvaluationAccumulator, Workspace], Array]  # (n, C) or (n,) of a block

    @property
    def header(self) -> bytes:
        """What the file begins with."""
        if self.path.suffix == ".npy":
            return npy_header(self.shape, self.dtype)
        type_name = "BF16" if self.dtype == BFLOAT16 else f"F{8 * self.dtype.itemsize}"
        return safetensors_header("grad", self.shape, type_name, self.nbytes)

    @property
    def nbytes(self) -> int:
        """The size of the numbers."""
        return self.layout.rows * self.layout.classes * self.dtype.itemsize

    def write(self, file: SafeFile, first_row: int, rows: Array) -> None:
        """Writes the rows of a block to their places, counted from the file's end."""
        if self.dtype == BFLOAT16:
            rows = bfloat16_bits(rows)
        numbers_begin = file.size - self.nbytes
        rows = rows.reshape(len(rows), -1)
        for piece in self.layout.pieces(first_row, first_row + len(rows)):
            some = rows[piece.begin - first_row : piece.end - first_row, piece.of_classes]
            place = numbers_begin + piece.first * self.dtype.itemsize
            file.write_at(place, np.ascontiguousarray(some, self.dtype))


def outputs_of(data: Data, grad: Path | None, losses: Path | None) -> list[Output]:
    """What is to be written: a gradient, losses, both or nothing."""
    refuse_overwriting([grad, losses], data.files)
    logits, outputs = data.logits, []
    if grad is not None:  # of the logits' type where the format has it
        layout, dtype = layout_of(logits.shape, logits.axis), logits.dtype
        if logits.is_bfloat16 and grad.suffix == ".npy":
            dtype = np.dtype(np.float32)
        outputs.append(Output(grad, logits.shape, layout, dtype, gradient_of))
    if losses is not None:
        dtype = np.dtype(np.float64 if logits.dtype.itemsize == 8 else np.float32)
        shape = logits.shape
        if logits.axis is not None:
            shape = arguments.row_shape(logits, logits.axis)
        outputs.append(Output(losses, shape, layout_of(shape, None), dtype, losses_of))
    return outputs


def refuse_overwriting(outputs: Iterable[Path | None], inputs: Iterable[Path]) -> None:
    """Raises BadOption where an output is one of the inputs."""
    read = [path for path in inputs if path.exists()]
    for path in outputs:
        if path is not None and path.exists() and any(path.samefile(one) for one in read):
            raise BadOption(f"{path}: is one of the inputs; name another file")


@contextmanager
def reserved(outputs: list[Output]) -> Iterator[list[SafeFile]]:
    """Files of the outputs' sizes; what is not written whole leaves nothing."""
    with ExitStack() as files:
        yield [
            files.enter_context(SafeFile(output.path, len(output.header) + output.nbytes))
            for output in outputs
        ]


def write_outputs(
    passes: Passes, sums: EvaluationAccumulator, outputs: list[Output], files: list[SafeFile]
) -> None:
    """The pass that computes and writes the outputs, and gives them their names."""
    if not outputs:
        return

    def compute(block: Block, workspace: Workspace) -> None:
        for output, file in zip(outputs, files, strict=True):
            output.write(file, block.first_row, output.rows_of(block, sums, workspace))

    for output, file in zip(outputs, files, strict=True):
        file.write_at(0, output.header)
    passes.run("writing", compute, lambda _, rows: None)
    for file in files:
        file.commit()


def sound_targets(block: Block, sums: EvaluationAccumulator, logits: Array) -> tuple[Array, Array]:
    """Targets as the core takes them, rows that are left out marked; and which rows are kept."""
    labels = read_labels(block, sums.classes or 0, sums.options.others)
    kept = labels.kept & ~labels.bad
    if sums.skip_bad:
        losses = losses_of_rows(logits, labels.targets, sums.options.of_rows())
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
    return np.where(kept, losses_of_rows(logits, targets, sums.options.of_rows()), 0)


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
    crossent.cross_entropy_and_grad(logits, targets, out=out, **sums.options.of_rows(), **rule)
    if not kept.all():
        out[~kept] = 0  # of distributions, and of rows whose logits are not numbers
    return out


def bfloat16_bits(numbers: Array) -> Array:
    """The nearest bfloat16 of each float32, ties to even, as bits."""
    bits = numbers.view(np.uint32)
    return ((bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16).astype(np.uint16)

"""The gradient and the rows' losses, written block by block in a pass after the scoring.

After, since the gradient of the mean needs the divisor, and since by then every row is known to be
sound: a bad label in the last row is found before the first byte is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import crossent
from crossent import _arguments as arguments
from crossent.evaluation.accumulator import EvaluationAccumulator
from crossent.evaluation.data import Data
from crossent.evaluation.errors import BadOption
from crossent.evaluation.passes import Passes
from crossent.evaluation.readers.npy import npy_header
from crossent.evaluation.readers.safetensors import safetensors_header
from crossent.evaluation.readers.table import Table, layout_of
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
        here, folder = f"{name} {path}", path.parent
        if path.is_dir():
            raise BadOption(f"{here}: is a folder; name a file, such as {path / f'{name}.npy'}")
        if path.suffix not in SUFFIXES[name]:
            raise BadOption(f"{here}: end its name in {' or '.join(SUFFIXES[name])}")
        if path.exists() and not path.is_file():
            raise BadOption(f"{here}: is not a regular file; name another")
        if not folder.is_dir():
            raise BadOption(f"{here}: there is no folder {folder}; make it or name another")
        if not os.access(folder, os.W_OK):
            raise BadOption(f"{here}: may not be written; name a file in a folder of yours")
    both = [os.path.realpath(path) for path in (grad, losses) if path is not None]
    if len(set(both)) < len(both):
        raise BadOption(f"{grad}: is named for the gradient and the losses; name two")


class Output:
    """A file of one number a row (``axis`` None) or a row of classes, of any layout."""

    def __init__(
        self, file: SafeFile, header: bytes, shape: tuple[int, ...], axis: int | None,
        dtype: np.dtype[Any],
    ) -> None:  # fmt: skip
        self.file, self.start, self.dtype = file, len(header), dtype
        self.layout = layout_of(shape, axis)
        file.write_at(0, header)

    def write(self, first_row: int, rows: Array) -> None:
        """Writes rows, (n,) or (n, C), to their places."""
        size = self.dtype.itemsize
        for piece in self.layout.pieces(first_row, first_row + len(rows)):
            some = rows[piece.begin - first_row : piece.end - first_row]
            columns = some.T if piece.stride else [some]
            for k, column in enumerate(columns):
                place = self.start + (piece.first + k * piece.stride) * size
                self.file.write_at(place, np.ascontiguousarray(column))


class Outputs:
    """What is written beside the figures: a gradient, losses, both or neither."""

    def __init__(self, grad: Output | None, losses: Output | None) -> None:
        self.grad, self.losses = grad, losses

    def write(self, passes: Passes, sums: EvaluationAccumulator) -> None:
        """The pass that computes and writes them, and gives them their names."""
        files = [output.file for output in (self.grad, self.losses) if output is not None]
        if not files:
            return

        def compute(block: Block, workspace: Workspace) -> None:
            if self.losses is not None:
                losses = losses_of(block, sums, workspace)
                self.losses.write(block.first_row, losses.astype(self.losses.dtype))
            if self.grad is not None:
                grad = gradient_of(block, sums, workspace)
                if self.grad.dtype == np.uint16:
                    grad = bfloat16_bits(grad)
                self.grad.write(block.first_row, grad)

        passes.run("writing", compute, lambda _, rows: None)
        for file in files:
            file.commit()


@contextmanager
def reserved(data: Data, grad: Path | None, losses: Path | None) -> Iterator[Outputs]:
    """Outputs with their space reserved; what is not written whole leaves nothing."""
    for path in (grad, losses):
        if path is not None and path.exists():
            refuse_input(path, data)
    logits = data.logits
    with ExitStack() as files:

        def output(path: Path, header: bytes, axis: int | None, dtype: np.dtype[Any]) -> Output:
            count = logits.rows * (1 if axis is None else logits.classes)
            file = files.enter_context(SafeFile(path, len(header) + count * dtype.itemsize))
            return Output(file, header, logits.shape if axis is not None else (count,), axis, dtype)

        of_grad = of_losses = None
        if grad is not None:
            assert logits.axis is not None
            dtype, header = gradient_header(grad, logits)
            of_grad = output(grad, header, logits.axis, dtype)
        if losses is not None:
            dtype = np.dtype(np.float64 if logits.dtype.itemsize == 8 else np.float32)
            shape = logits.shape
            if logits.axis is not None:
                shape = arguments.row_shape(logits, logits.axis)
            of_losses = output(losses, npy_header(shape, dtype), None, dtype)
        yield Outputs(of_grad, of_losses)


def gradient_header(path: Path, logits: Table) -> tuple[np.dtype[Any], bytes]:
    """The type of the numbers of a gradient's file, and what comes before them."""
    dtype = logits.dtype
    if path.suffix == ".safetensors":
        type_name = "BF16" if logits.is_bfloat16 else f"F{8 * dtype.itemsize}"
        size = logits.rows * logits.classes * dtype.itemsize
        return dtype, safetensors_header("grad", logits.shape, type_name, size)
    if logits.is_bfloat16:
        dtype = np.dtype(np.float32)
    return dtype, npy_header(logits.shape, dtype)


def refuse_input(path: Path, data: Data) -> None:
    """Raises BadOption where an output is one of the inputs."""
    for table in data.tables:
        for part in table.parts:
            file = part.numbers.file
            if file is not None and os.path.samefile(path, file.path):
                raise BadOption(f"{path}: is one of the inputs; name another file")


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
    _, grad = crossent.cross_entropy_and_grad(
        logits, targets, out=out, **sums.options.of_rows(), **rule
    )
    if not kept.all():
        grad[~kept] = 0  # of distributions, and of rows whose logits are not numbers
    return grad


def bfloat16_bits(numbers: Array) -> Array:
    """The nearest bfloat16 of each float32, ties to even, as bits."""
    bits = numbers.view(np.uint32)
    return ((bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16).astype(np.uint16)

"""The gradient and the rows' losses, written block by block in a pass after the scoring.

After, since the gradient of the mean needs the divisor, and since by then every row is known to be
sound: a bad label in the last row is found before the first byte is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import crossent
from crossent.evaluation.data import Data
from crossent.evaluation.errors import BadOption
from crossent.evaluation.npy_file import npy_header
from crossent.evaluation.passes import Plan, Progress, run_pass
from crossent.evaluation.rows import Workspace, as_float
from crossent.evaluation.safe_file import SafeFile
from crossent.evaluation.safetensors_file import safetensors_header
from crossent.evaluation.scorer import Block, read_labels
from crossent.evaluation.table import layout_of

if TYPE_CHECKING:
    from crossent.evaluation.accumulator import EvaluationAccumulator

Array = NDArray[Any]

GRAD_SUFFIXES, LOSSES_SUFFIXES = (".npy", ".safetensors"), (".npy",)
IGNORED = -100  # marks the rows that are left out, in labels that are otherwise classes


def check_output(name: str, path: Path, suffixes: tuple[str, ...]) -> None:
    """Raises BadOption where an output could not be written, before any work is done."""
    folder = path.parent
    if path.is_dir():
        raise BadOption(f"{name} {path}: is a folder; name a file, such as {path / f'{name}.npy'}")
    if path.suffix not in suffixes:
        raise BadOption(f"{name} {path}: end its name in {' or '.join(suffixes)}")
    if path.exists() and not path.is_file():
        raise BadOption(f"{name} {path}: is not a regular file; name another")
    if not folder.is_dir():
        raise BadOption(f"{name} {path}: there is no folder {folder}; make it or name another")
    if not os.access(folder, os.W_OK):
        raise BadOption(f"{name} {path}: may not be written; name a file in a folder of yours")


def is_same(one: Path, other: Path) -> bool:
    """Whether two names, of files that need not be there, are of one file."""
    return os.path.realpath(one) == os.path.realpath(other)


class Output:
    """A file of one number a row (``classes`` None) or a row of classes, of any layout."""

    def __init__(self, file: SafeFile, header: bytes, shape: tuple[int, ...], axis: int | None,
                 dtype: np.dtype[Any]) -> None:  # fmt: skip
        self.file, self.start, self.dtype = file, len(header), dtype
        self.layout = layout_of(shape, axis)
        file.write_at(0, header)

    def write(self, first_row: int, rows: Array) -> None:
        """Writes rows, (n,) or (n, C), to their places."""
        size = self.dtype.itemsize
        for piece in self.layout.pieces(first_row, first_row + len(rows)):
            some = rows[piece.begin - first_row : piece.end - first_row]
            if piece.stride == 0:
                self.file.write_at(self.start + piece.first * size, np.ascontiguousarray(some))
                continue
            for k in range(self.layout.classes):
                place = piece.first + k * piece.stride
                self.file.write_at(self.start + place * size, np.ascontiguousarray(some[:, k]))


class Outputs:
    """What is written beside the figures: a gradient, losses, both or neither."""

    def __init__(self, grad: Output | None, losses: Output | None) -> None:
        self.grad, self.losses = grad, losses

    def write(
        self, data: Data, plan: Plan, sums: EvaluationAccumulator, progress: Progress
    ) -> None:
        """The pass that computes and writes them, and gives them their names."""
        files = [output.file for output in (self.grad, self.losses) if output is not None]
        if not files:
            return

        def compute(start: int, stop: int, workspace: Workspace) -> None:
            block = data.read(start, stop, workspace)
            if self.losses is not None:
                losses = losses_of(block, sums, workspace)
                self.losses.write(start, losses.astype(self.losses.dtype))
            if self.grad is not None:
                grad = gradient_of(block, sums, workspace)
                if data.logits.is_bfloat16 and self.grad.dtype == np.uint16:
                    grad = bfloat16_bits(grad)
                self.grad.write(start, grad)

        with progress("writing", data.logits.rows * data.row_bytes) as advance:
            run_pass(data, plan, compute, lambda _, rows: advance(rows * data.row_bytes))
        for file in files:
            file.commit()


@contextmanager
def reserved(data: Data, grad: Path | None, losses: Path | None) -> Iterator[Outputs]:
    """Outputs with their space reserved; what is not written whole leaves nothing."""
    for path in (grad, losses):
        if path is not None and path.exists():
            refuse_input(path, data)
    logits = data.logits
    axis = 0 if logits.axis is None else logits.axis
    row_shape = (
        logits.shape if logits.axis is None else logits.shape[:axis] + logits.shape[axis + 1 :]
    )
    with ExitStack() as files:
        of_grad = of_losses = None
        if grad is not None:
            dtype, name = logits.dtype, {"float64": "F64", "float32": "F32", "float16": "F16"}
            type_name = "BF16" if logits.is_bfloat16 else name[dtype.name]
            if logits.is_bfloat16 and grad.suffix == ".npy":
                dtype = np.dtype(np.float32)
            size = logits.rows * logits.classes * dtype.itemsize
            header = npy_header(logits.shape, dtype)
            if grad.suffix == ".safetensors":
                header = safetensors_header("grad", logits.shape, type_name, size)
            file = files.enter_context(SafeFile(grad, len(header) + size))
            of_grad = Output(file, header, logits.shape, axis, dtype)
        if losses is not None:
            dtype = np.dtype(np.float64 if logits.dtype.itemsize == 8 else np.float32)
            header = npy_header(row_shape, dtype)
            file = files.enter_context(SafeFile(losses, len(header) + logits.rows * dtype.itemsize))
            of_losses = Output(file, header, row_shape, None, dtype)
        yield Outputs(of_grad, of_losses)


def refuse_input(path: Path, data: Data) -> None:
    """Raises BadOption where an output is one of the inputs."""
    for table in data.tables:
        for part in table.parts:
            file = getattr(part.numbers, "file", None)
            if file is not None and os.path.samefile(path, file.path):
                raise BadOption(f"{path}: is one of the inputs; name another file")


def sound_targets(block: Block, sums: EvaluationAccumulator, logits: Array) -> tuple[Array, Array]:
    """Targets as the core takes them, rows that are left out marked; and which rows are kept."""
    labels = read_labels(block, sums.classes or 0, sums.options.ignore_index)
    kept = labels.kept & ~labels.bad
    if sums.skip_bad:
        losses = crossent.cross_entropy(
            logits, labels.targets, reduction="none", **sums.options.of_rows()
        )
        kept = kept & ~np.isnan(losses)
    targets = labels.targets if labels.share is not None else np.where(kept, labels.label, IGNORED)
    return targets, kept


def losses_of(block: Block, sums: EvaluationAccumulator, workspace: Workspace) -> Array:
    """The loss of every row, 0 where it is left out; row weights do not enter."""
    if sums.classes is None:
        losses = -as_float(block.logits, block.is_bfloat16, workspace, "logits").astype(np.float64)
        kept = np.isfinite(losses) | (losses == np.inf)
        if block.row_weight is not None:
            kept &= block.row_weight != 0
        return np.where(kept, losses, 0.0)
    logits = as_float(block.logits, block.is_bfloat16, workspace, "logits")
    targets, kept = sound_targets(block, sums, logits)
    losses = crossent.cross_entropy(logits, targets, reduction="none", **sums.options.of_rows())
    return np.where(kept, losses, 0)


def gradient_of(block: Block, sums: EvaluationAccumulator, workspace: Workspace) -> Array:
    """The gradient with respect to a block's logits, of their type (float32 for bfloat16)."""
    logits = block.logits
    if block.is_bfloat16:
        logits = as_float(logits, True, workspace, "logits")
    targets, kept = sound_targets(block, sums, logits)
    out = workspace.array("residual", logits.shape, logits.dtype)
    options, divisor = sums.options, sums.options.normalizer or sums.loss.divisor
    rule: dict[str, Any] = {"reduction": "mean", "normalizer": divisor}
    if options.reduction != "mean":
        rule, divisor = {"reduction": "sum"}, 1.0
    if block.row_weight is not None and divisor:
        rule = {"reduction": "none", "grad_loss": block.row_weight.astype(np.float64) / divisor}
    if divisor == 0:
        out[...] = 0  # nothing counts
        return out
    _, grad = crossent.cross_entropy_and_grad(logits, targets, out=out, **options.of_rows(), **rule)
    if not kept.all():
        grad[~kept] = 0  # of distributions, and of rows whose logits are not numbers
    return grad


def bfloat16_bits(numbers: Array) -> Array:
    """The nearest bfloat16 of each float32, ties to even, as bits."""
    bits = numbers.view(np.uint32)
    return ((bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16).astype(np.uint16)

"""The data of an evaluation: logits, targets and what goes with them, opened and found to fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crossent import _arguments as arguments
from crossent import options
from crossent.evaluation.errors import BadFile, BadOption, BadRow, Source
from crossent.evaluation.readers.array_file import ArrayFile, PlainFile
from crossent.evaluation.readers.opening import open_arrays
from crossent.evaluation.readers.table import Table, joined_shape
from crossent.evaluation.rows import Array, Block, Workspace, widened

LOGITS_NAMES = ("logits", "scores", "outputs")
TARGETS_NAMES = ("targets", "labels", "target", "label", "y")
LOGPROBS_NAMES = ("logprobs", "log_probs")
NEAR_ONE = 1e-2  # how far rounding may take the sum of a distribution from 1
WEIGHT_NAMES = ("row_weight", "row_weights", "mask", "weight")


@dataclass
class Data:
    """Tables of the same N rows."""

    logits: Table  # or log-probabilities, one a row
    targets: Table | None
    row_weight: Table | None
    other: Table | None

    @property
    def tables(self) -> dict[str, Table]:
        """Those that there are, by name."""
        return {name: table for name, table in vars(self).items() if table is not None}

    @property
    def row_bytes(self) -> int:
        """What is read for a row."""
        return sum(table.row_bytes for table in self.tables.values())

    def read(self, start: int, stop: int, workspace: Workspace) -> Block:
        """Rows start .. stop, in the workspace's memory."""
        rows = {
            name: rows_of(table, start, stop, workspace, name)
            for name, table in self.tables.items()
        }
        return Block(start, self.logits.type_name, **rows)

    def locate(self, error: BadRow) -> BadRow:
        """The error with the file that holds the row, and what to do."""
        tables = {
            Source.TARGETS: self.targets,
            Source.ROW_WEIGHTS: self.row_weight,
            Source.OTHER_LOGITS: self.other,
        }
        table = tables.get(error.source, self.logits)
        assert table is not None
        name, row = table.place(error.row)
        of_all = f" (row {error.row:,} of all)" if row != error.row else ""
        from_files = any(part.file for part in table.parts)
        skip_bad = "--skip-bad" if from_files else "skip_bad=True"
        ignore_index = "--ignore-index" if from_files else "ignore_index"
        remedy = "correct it"
        if error.source in (Source.LOGITS, Source.LOGPROBS, Source.TARGETS):
            remedy = f"correct it, or leave such rows out with {skip_bad}"
        if error.source == Source.TARGETS and table.axis is None:
            remedy += f", or one value of them with {ignore_index}"
        message = f"{name}: row {row:,}{of_all} {error.reason}; {remedy}"
        return BadRow(error.row, error.reason, error.source, message)

    @property
    def files(self) -> list[PlainFile]:
        """Those that are read."""
        parts = [part for table in self.tables.values() for part in table.parts]
        return [part.file for part in parts if part.file is not None]


def rows_of(table: Table, start: int, stop: int, workspace: Workspace, name: str) -> Array:
    """Rows start .. stop of a table; bfloat16 as float32."""
    shape = (stop - start,) if table.axis is None else (stop - start, table.classes)
    rows = workspace.array(name, shape, table.dtype)
    table.read(start, stop, rows)
    if not table.is_bfloat16:
        return rows
    return widened(rows, workspace.array(f"wide {name}", shape, np.uint32))


def renamed(array: ArrayFile, name: str) -> ArrayFile:
    """The same array; one in memory under the name of the argument that it is."""
    return array if array.file else replace(array, name=name)


@contextmanager
def opened(
    logits: Any, targets: Any, logprobs: Any, *,
    row_weight: Any, other: Any, axis: int, ignore_index: int,
) -> Iterator[Data]:  # fmt: skip
    """The data of an evaluation from logits or log-probabilities; files are closed at the end."""
    with ExitStack() as files:

        def arrays(given: Any, names: tuple[str, ...]) -> list[ArrayFile]:
            found = [] if given is None else open_arrays(given, names)
            for array in found:
                files.callback(array.close)
            return found

        names = LOGITS_NAMES if logprobs is None else LOGPROBS_NAMES
        main = arrays(logits if logprobs is None else logprobs, names)
        of_targets = arrays(targets, TARGETS_NAMES)
        weights = arrays(row_weight, WEIGHT_NAMES)
        others = [renamed(array, "compare") for array in arrays(other, names)]
        if logprobs is None:
            yield fitted(main, of_targets, weights, others, axis=axis, ignore_index=ignore_index)
        else:
            yield fitted_logprobs(main, weights, others)


def stand_in(parts: Sequence[ArrayFile], shape: tuple[int, ...]) -> Array:
    """An array of a file's type and shape without its memory, for the checks of arguments."""
    dtype = np.dtype(np.float32) if parts[0].is_bfloat16 else parts[0].dtype
    try:
        return np.broadcast_to(np.empty((), dtype), shape)
    except ValueError:
        raise BadFile(f"{parts[0].name}: has shape {shape}, which no array can have") from None


def fitted(
    logits: list[ArrayFile], targets: list[ArrayFile], weights: list[ArrayFile],
    others: list[ArrayFile], *, axis: int, ignore_index: int,
) -> Data:  # fmt: skip
    """Arrays as tables of the same rows; errors name the file."""
    shape, target_shape = joined_shape(logits), joined_shape(targets)
    name = logits[0].name
    try:
        like_logits = arguments.logits_array(stand_in(logits, shape))
        axis = arguments.class_axis(like_logits, axis)
        name = targets[0].name
        form = arguments.target_form(target_shape, targets[0].type_name, shape, axis)
        if form == arguments.DISTRIBUTIONS and len(shape) == 1:
            check_single_row(targets, shape)
    except (TypeError, ValueError) as error:
        if isinstance(error, BadFile):
            raise
        swapped = logits[0].dtype.kind in "iu" and targets[0].dtype.kind == "f"
        hint = ". Logits come first: are the two swapped?" if swapped else ""
        place = "" if str(error).startswith(name) else f"{name}: "  # arrays are called as arguments
        raise BadFile(f"{place}{error}{hint}") from None
    if form == arguments.DISTRIBUTIONS and ignore_index != options.IGNORE_INDEX:
        options.check_for_distributions(options.Options(ignore_index=ignore_index))
    if axis == 0 and len(logits) > 1:
        raise BadOption("axis=0 is the classes', so the rows of several files cannot be joined")
    table = Table(logits, shape, axis)
    if others:
        other_shape = joined_shape(others)
        if other_shape != shape:
            raise BadFile(
                f"{others[0].name}: has shape {other_shape}; to be compared it must have the "
                f"logits' shape {shape}"
            )
        check_floating(others[:1], "logits")
    return Data(
        table,
        Table(targets, target_shape, axis if form == arguments.DISTRIBUTIONS else None),
        row_table(weights, table, "row weights"),
        Table(others, shape, axis) if others else None,
    )


def check_single_row(targets: list[ArrayFile], shape: tuple[int, ...]) -> None:
    """Raises ValueError where a single row's targets are no distribution: they may be N labels."""
    values = rows_of(Table(targets, shape, None), 0, shape[0], Workspace(), "targets")
    arguments.check_single_row(values)
    if not ((values >= 0).all() and abs(values.sum(dtype=np.float64) - 1) <= NEAR_ONE):
        arguments.raise_not_one_row(shape[0], "a distribution, whose sum is 1")


def fitted_logprobs(
    logprobs: list[ArrayFile], weights: list[ArrayFile], others: list[ArrayFile]
) -> Data:
    """The same for log-probabilities, one a row."""
    table = Table(logprobs, joined_shape(logprobs), None)
    check_floating([*logprobs, *others], "log-probabilities")
    weight = row_table(weights, table, "row weights")
    return Data(table, None, weight, row_table(others, table, "log-probabilities"))


def check_floating(parts: list[ArrayFile], what: str) -> None:
    """Raises BadFile for the first file that does not hold floating-point numbers."""
    for part in parts:
        if part.dtype.kind != "f" and not part.is_bfloat16:
            raise BadFile(f"{part.name}: holds {part.type_name}; {what} are floats")


def row_table(parts: list[ArrayFile], logits: Table, what: str) -> Table | None:
    """One number for each row, from files of any shape that has as many."""
    if not parts:
        return None
    table = Table(parts, joined_shape(parts), None)
    if table.rows != logits.rows:
        raise BadFile(
            f"{parts[0].name}: holds {table.rows:,} {what}; each of the "
            f"{logits.rows:,} rows needs one"
        )
    if parts[0].dtype.kind not in "fiub" or parts[0].is_bfloat16:
        raise BadFile(f"{parts[0].name}: holds {parts[0].type_name}; {what} are plain numbers")
    return table

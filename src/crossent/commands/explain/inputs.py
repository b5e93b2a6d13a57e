"""What the reader gave: logits, targets and class names from the command line or from files.

N rows, C classes. Every complaint is one line that names the flag, the place and the fix: a
UsageError where the text of an option is wrong, a DataError where a file's content is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossent.commands.terminal import DataError, UsageError

EXAMPLE_LOGITS, EXAMPLE_TARGETS = "2.0, 1.0, 0.1; 0.1, 2.0, 1.9", "1, 0"
FILE_ENDINGS = (".npy", ".csv", ".txt")
HOW_TO_WRITE = {
    "--logits": 'write rows such as "2, 1, .1; .1, 2, 1.9"',
    "--targets": 'write class numbers such as "1, 0", or say with --classes what the names are',
}
LONGEST_NAME = 40
MOST_SHARES = 1.001  # what the shares of a row may add up to: 1, rounded
BLOCK = 1 << 22  # elements of a file that are looked at together

Array = NDArray[Any]


@dataclass(frozen=True)
class Problem:
    """Logits with their targets, as given: nothing of their size is copied."""

    logits: Array  # (N, C) floating, perhaps mapped from a file
    targets: Array  # (N,) class indices, or (N, C) distributions
    names: tuple[str, ...] | None = None  # of the classes

    @property
    def rows(self) -> int:
        return int(self.logits.shape[0])

    @property
    def classes(self) -> int:
        return int(self.logits.shape[1])

    def name(self, k: int) -> str:
        """What class k is called, in few enough letters to stand in a table."""
        name = self.names[k] if self.names else f"class {k}"
        return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"

    def row(self, n: int) -> tuple[Array, Array]:
        """(a, y) of row n in float64, the caller's own."""
        a = np.array(self.logits[n], dtype=np.float64)
        if self.targets.ndim == 2:
            return a, np.array(self.targets[n], dtype=np.float64)
        y = np.zeros(self.classes)
        y[self.targets[n]] = 1.0
        return a, y


def read_problem(logits: str | None, targets: str | None, classes: str | None) -> Problem:
    """The problem that the options describe; without any, the worked example."""
    if logits is not None and targets is None:
        raise UsageError(
            '--targets is missing: give the right class of each row, such as --targets "1, 0"'
        )
    table = checked_logits(EXAMPLE_LOGITS if logits is None else logits)
    names = None if classes is None else read_names(classes, table.shape[1])
    given = EXAMPLE_TARGETS if targets is None else targets
    return Problem(table, read_targets(given, table, names), names)


def is_file(text: str) -> bool:
    """Whether an option's text names a file rather than numbers."""
    return text.strip().lower().endswith(FILE_ENDINGS)


def error_for(text: str | None) -> type[Exception]:
    """A file's content is data, the text of an option is usage."""
    return DataError if text is not None and is_file(text) else UsageError


def place(flag: str, text: str) -> str:
    """How a complaint begins: the flag, and the file if there is one."""
    return f"{flag} {text.strip()}" if is_file(text) else flag


# --- Numbers --------------------------------------------------------------------------------------


def read_table(flag: str, text: str) -> Array:
    """The array of a .npy file, or the rows of numbers in a text file or the option itself."""
    if not is_file(text):
        if re.search(r"[/\\]|\.[A-Za-z]\w*\s*$", text):
            raise UsageError(
                f"{flag} {text.strip()}: neither numbers nor a {', '.join(FILE_ENDINGS)} file; "
                f"{HOW_TO_WRITE[flag]}, or save with numpy.save"
            )
        return parse_rows(flag, text, text.split(";"))
    path = Path(text.strip())
    if path.suffix.lower() == ".npy":
        return load_npy(flag, path)
    lines = [line for line in read_text(flag, path).splitlines() if line.strip()]
    return parse_rows(flag, text, lines)


def load_npy(flag: str, path: Path) -> Array:
    """A NumPy array, mapped from its file; pickles are never loaded."""
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{flag} {path}: no such file; check its path") from None
    except (ValueError, EOFError, OSError):
        raise DataError(
            f"{flag} {path}: not a .npy file with an array of numbers; save one with numpy.save"
        ) from None
    return array


def read_text(flag: str, path: Path) -> str:
    """The text of a file."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise DataError(f"{flag} {path}: {reason}; check its path") from None
    except UnicodeDecodeError:
        raise DataError(f"{flag} {path}: not a text file; save it as UTF-8") from None


def parse_rows(flag: str, text: str, lines: Sequence[str]) -> Array:
    """Rows of numbers that commas or spaces separate; whole numbers stay integers."""
    error = error_for(text)
    rows: list[list[float]] = []
    whole = True
    for line in lines:
        entries = re.split(r"[,\s]+", line.strip().strip(","))
        if entries == [""]:
            raise error(f"{place(flag, text)}: row {len(rows)} is empty; give it a number a class")
        row = []
        for column, entry in enumerate(entries):
            try:
                row.append(float(entry))
            except ValueError:
                raise error(
                    f"{place(flag, text)}: row {len(rows)}, entry {column} is {entry!r}, not a "
                    f"number; {HOW_TO_WRITE[flag]}"
                ) from None
            whole = whole and re.fullmatch(r"[+-]?\d+", entry) is not None
        if rows and len(row) != len(rows[0]):
            raise error(
                f"{place(flag, text)}: row {len(rows)} has {len(row)} entries where row 0 has "
                f"{len(rows[0])}; give every row a number a class, and "
                + ("a line" if is_file(text) else "put a semicolon between rows")
            )
        rows.append(row)
    table = np.array(rows)
    return table.astype(np.int64) if whole and np.abs(table).max(initial=0) < 2**53 else table


# --- What the numbers must be ---------------------------------------------------------------------


def checked_logits(text: str) -> Array:
    """Logits of shape (N, C), all finite; a single row may come without its first axis."""
    error, flag, table = error_for(text), place("--logits", text), read_table("--logits", text)
    if table.ndim == 1:
        table = table[None, :]
    if table.ndim != 2 or 0 in table.shape:
        raise error(f"{flag}: shape {table.shape}; give rows of logits, shape (rows, classes)")
    if not text.strip().lower().endswith(".npy"):  # written by hand: 2 is 2.0
        table = table.astype(np.float64)
    if table.dtype.kind != "f":
        raise error(
            f"{flag}: holds {table.dtype}, which logits are not; save floating numbers, such as "
            "logits.astype(float)"
        )
    step = max(1, BLOCK // table.shape[1])
    for start in range(0, len(table), step):
        bad = ~np.isfinite(table[start : start + step])
        if bad.any():
            n, k = np.argwhere(bad)[0]
            raise error(
                f"{flag}: row {start + n}, class {k} is {table[start + n, k]}; the walk needs "
                "finite logits: leave that row out"
            )
    return table


def read_targets(text: str, logits: Array, names: tuple[str, ...] | None) -> Array:
    """(N,) class indices or (N, C) distributions that fit the logits."""
    error, flag = error_for(text), place("--targets", text)
    rows, classes = logits.shape
    if names and not is_file(text):
        text = with_indices(text, names)
    table = read_table("--targets", text)
    if table.ndim == 2 and table.shape != (rows, classes) and 1 in table.shape:
        table = table.reshape(-1)
    one_column = classes == 1 and table.ndim == 2 and text.strip().lower().endswith(".npy")
    if table.size == rows and not one_column:
        return checked_labels(flag, table.reshape(-1), classes, error)
    if table.shape == (classes,) and rows == 1:
        table = table[None, :]
    if table.shape != (rows, classes):
        raise error(
            f"{flag}: shape {table.shape}; {rows} rows of {classes} classes need {rows} class "
            f"numbers, or {rows} rows of {classes} shares"
        )
    return checked_shares(flag, table, error)


def with_indices(text: str, names: tuple[str, ...]) -> str:
    """Class names in the text of --targets replaced by their numbers."""
    numbers = {name: str(k) for k, name in enumerate(names)}
    entries = re.split(r"([,;])", text)
    for entry in map(str.strip, entries):
        if entry not in numbers and re.search(r"[^\W\d]", entry) and not is_number(entry):
            raise UsageError(
                f"--targets: {entry!r} is not among --classes; they are {', '.join(names[:8])}"
                + (" ..." if len(names) > 8 else "")
            )
    return "".join(numbers.get(entry.strip(), entry) for entry in entries)


def is_number(text: str) -> bool:
    """Whether the text is one number, or several with spaces between."""
    try:
        return [float(part) for part in text.split()] != []
    except ValueError:
        return False


def checked_labels(flag: str, labels: Array, classes: int, error: type[Exception]) -> Array:
    if labels.dtype.kind not in "iu":
        raise error(
            f"{flag}: holds {labels.dtype}, one a row; class numbers are whole, 0 to {classes - 1}"
        )
    bad = (labels < 0) | (labels >= classes)
    if bad.any():
        n = int(bad.argmax())
        raise error(
            f"{flag}: row {n} has class {labels[n]}; labels start at 0, so {classes} classes are "
            f"0 to {classes - 1}: correct it or leave that row out"
        )
    return labels.astype(np.int64)


def checked_shares(flag: str, table: Array, error: type[Exception]) -> Array:
    if table.dtype.kind not in "fiub":
        raise error(f"{flag}: holds {table.dtype}; shares are real numbers")
    step = max(1, BLOCK // table.shape[1])
    for start in range(0, len(table), step):
        block = np.asarray(table[start : start + step], dtype=np.float64)
        bad = ~(np.isfinite(block) & (block >= 0))
        if bad.any():
            n, k = np.argwhere(bad)[0]
            raise error(
                f"{flag}: row {start + n}, class {k} is {block[n, k]}; a share is finite and not "
                "negative: correct it"
            )
        sums = block.sum(axis=1)
        if (sums > MOST_SHARES).any():
            n = int((sums > MOST_SHARES).argmax())
            raise error(
                f"{flag}: the shares of row {start + n} add up to {sums[n]:g}, and a whole is 1: "
                "divide the row by its sum"
            )
    return table


def read_names(text: str, classes: int) -> tuple[str, ...]:
    """The names of the classes: separated by commas, or a text file with a line each."""
    if is_file(text):
        lines = read_text("--classes", Path(text.strip())).splitlines()
    else:
        lines = text.split(",")
    names = tuple(" ".join(line.split()) for line in lines if line.strip())
    error, flag = error_for(text), place("--classes", text)
    if len(names) != classes:
        raise error(
            f"{flag}: {len(names)} names for {classes} classes; give one for each, "
            + ("a line each" if is_file(text) else "with commas between")
        )
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise error(f"{flag}: {twice!r} names two classes; give each a name of its own")
    return names

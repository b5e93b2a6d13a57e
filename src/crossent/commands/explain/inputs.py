"""What the reader gave: logits, targets and class names from the command line or from files.

N rows, C classes. Every complaint is one line that names the flag, the place and the fix: a
UsageError where the text of an option is wrong, a DataError where a file's content is.
"""

import errno
import os
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from crossent.commands.terminal import DataError, UsageError

EXAMPLE_LOGITS, EXAMPLE_TARGETS = "2.0, 1.0, 0.1; 0.1, 2.0, 1.9", "1, 0"
FILE_ENDINGS = (".npy", ".csv", ".txt")
HOW_TO_WRITE = {
    "--logits": 'write rows such as "2, 1, .1; .1, 2, 1.9"',
    "--targets": 'write class numbers such as "1, 0", or say with --classes what the names are',
}
TWO_CLASSES = 'For one score z a row, of two classes, give the logits as rows "0, z"'
LONGEST_NAME = 40
LARGEST_READ = 256 << 20  # bytes of a file that is read whole
MOST_SHARES = 1.001  # what the shares of a row may add up to: 1, rounded
BLOCK = 1 << 22  # elements of a file that are looked at together

Array = NDArray[Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """Logits with their targets, as given: nothing of their size is copied again."""

    logits: Array  # (N, C) floating, mapped from a file where it is large
    targets: Array  # (N,) class indices, or (N, C) distributions
    names: tuple[str, ...] | None = None  # of the classes

    @property
    def N(self) -> int:
        return int(self.logits.shape[0])

    @property
    def C(self) -> int:
        return int(self.logits.shape[1])

    def name(self, k: int) -> str:
        """What class k is called, in few enough letters to stand in a table."""
        return shortened(self.names[k] if self.names else f"class {k}")

    def row(self, n: int) -> tuple[Array, Array]:
        """(a, y) of row n in float64, the caller's own."""
        a = np.array(self.logits[n], dtype=np.float64)
        if self.targets.ndim == 2:
            return a, np.array(self.targets[n], dtype=np.float64)
        y = np.zeros(self.C)
        y[self.targets[n]] = 1.0
        return a, y


@dataclass(frozen=True)
class Given:
    """What an option was given: numbers or names, or a file that holds them."""

    flag: str
    text: str

    @classmethod
    def of(cls, flag: str, text: str) -> Self:
        """What was given, without space around it, unless a file's name has some."""
        return cls(flag, text if os.path.exists(text) else text.strip())

    @property
    def is_file(self) -> bool:
        return self.text.lower().endswith(FILE_ENDINGS)

    @property
    def is_array(self) -> bool:
        return self.text.lower().endswith(".npy")

    def wrong(self, complaint: str) -> Exception:
        """The error to raise: a file's content is data, the text of an option is usage."""
        if self.is_file:
            return DataError(f"{self.flag} {self.text}: {complaint}")
        return UsageError(f"{self.flag}: {complaint}")


def files_among(*texts: str | None) -> list[str]:
    """Those of the options' texts that name files."""
    given = [Given.of("", text) for text in texts if text is not None]
    return [each.text for each in given if each.is_file]


def read_problem(logits: str | None, targets: str | None, classes: str | None) -> Problem:
    """The problem that the options describe; without any, the worked example."""
    if logits is not None and targets is None:
        raise UsageError(
            '--targets is missing: give the right class of each row, such as --targets "1, 0"'
        )
    table = read_logits(Given.of("--logits", EXAMPLE_LOGITS if logits is None else logits))
    names = None
    if classes is not None:
        names = read_names(Given.of("--classes", classes), table.shape[1])
    given = Given.of("--targets", EXAMPLE_TARGETS if targets is None else targets)
    return Problem(table, read_targets(given, table, names), names)


# --- Numbers --------------------------------------------------------------------------------------


def read_table(given: Given) -> Array:
    """The array of a .npy file, or the rows of numbers in a text file or the option itself."""
    if given.is_array:
        return load_npy(given)
    if given.is_file:
        return parse_rows(given, [line for line in read_lines(given) if line.strip()])
    if re.search(r"[/\\]|\.[A-Za-z]\w*$", given.text):
        raise UsageError(
            f"{given.flag} {given.text}: neither numbers nor a {', '.join(FILE_ENDINGS)} file; "
            f"{HOW_TO_WRITE[given.flag]}, or save with numpy.save"
        )
    return parse_rows(given, given.text.split(";"))


def load_npy(given: Given) -> Array:
    """A NumPy array, mapped from its file where it is large; pickles are never loaded."""
    try:
        with open(given.text, "rb") as file:  # of an archive NumPy would leave a file open
            np.lib.format.read_magic(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote
            array: Array = np.load(given.text, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise given.wrong("no such file; check its path") from None
    except Exception as error:  # what NumPy raises for damaged headers is open-ended
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            raise MemoryError from error
        raise given.wrong(
            "not a .npy file with an array of numbers; save one with numpy.save"
        ) from None
    if isinstance(array, np.memmap) and array.nbytes <= LARGEST_READ:
        return read_mapped(given, array)
    return array


def read_mapped(given: Given, array: "np.memmap[Any, Any]") -> Array:
    """An array in memory: a file that shrinks under a map kills the process."""
    try:
        flat = np.fromfile(given.text, array.dtype, array.size, offset=array.offset)
    except OSError as error:
        raise given.wrong(f"cannot be read: {error.strerror}; copy it") from None
    if flat.size != array.size:
        raise given.wrong("changed while it was read; run again when it is no longer written to")
    return flat.reshape(array.shape, order="C" if array.flags.c_contiguous else "F")


def read_lines(given: Given) -> list[str]:
    """The lines of a text file."""
    try:
        return Path(given.text).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise given.wrong(f"{reason}; check its path") from None
    except UnicodeDecodeError:
        raise given.wrong("not a text file; save it as UTF-8") from None


def parse_rows(given: Given, lines: Sequence[str]) -> Array:
    """Rows of numbers that commas or spaces separate; whole numbers stay integers."""
    rows = [re.split(r"[,\s]+", line.strip().strip(",")) for line in lines]
    for n, row in enumerate(rows):
        if row == [""]:
            raise given.wrong(f"row {n} is empty; give it a number a class")
        for column, entry in enumerate(row):
            if not is_number(entry):
                raise given.wrong(
                    f"row {n}, entry {column} is {shortened(entry)!r}, not a number; "
                    f"{HOW_TO_WRITE[given.flag]}"
                )
        if len(row) != len(rows[0]):
            apart = "a line" if given.is_file else "put a semicolon between rows"
            raise given.wrong(
                f"row {n} has {len(row)} entries where row 0 has {len(rows[0])}; give every row "
                f"a number a class, and {apart}"
            )
    table = np.array([list(map(float, row)) for row in rows])
    whole = all(re.fullmatch(r"[+-]?\d+", entry) for row in rows for entry in row)
    return table.astype(np.int64) if whole and np.abs(table).max(initial=0) < 2**53 else table


def shortened(name: str) -> str:
    """A name in few enough letters to stand in a table or a line."""
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def is_number(text: str) -> bool:
    """Whether the text is one number, or several with spaces between."""
    try:
        return [float(part) for part in text.split()] != []
    except ValueError:
        return False


# --- What the numbers must be ---------------------------------------------------------------------


def first_bad(table: Array, is_bad: Callable[[Array], Any]) -> tuple[int, int] | None:
    """(row, column) of the first entry that is bad, looked for a block of rows at a time."""
    step = max(1, BLOCK // table.shape[1])
    for start in range(0, len(table), step):
        for row, column in np.argwhere(is_bad(table[start : start + step])):
            return start + int(row), int(column)
    return None


def read_logits(given: Given) -> Array:
    """Logits of shape (N, C), all finite; a single row may come without its first axis."""
    table = read_table(given)
    if table.ndim == 1:
        table = table[None, :]
    if table.ndim != 2 or 0 in table.shape:
        raise given.wrong(f"shape {table.shape}; give rows of logits, shape (rows, classes)")
    if not given.is_array:  # written by hand: 2 is 2.0
        table = table.astype(np.float64)
    if table.dtype.kind != "f":
        raise given.wrong(
            f"holds {table.dtype}, which logits are not; save floating numbers, such as "
            "logits.astype(float)"
        )
    if bad := first_bad(table, lambda block: ~np.isfinite(block)):
        raise given.wrong(
            f"row {bad[0]}, class {bad[1]} is {table[bad]}; the walk needs finite logits: leave "
            "that row out"
        )
    return table


def read_targets(given: Given, logits: Array, names: tuple[str, ...] | None) -> Array:
    """(N,) class indices or (N, C) distributions that fit the logits."""
    rows, classes = logits.shape
    if names and not given.is_file:
        given = Given(given.flag, with_indices(given.text, names))
    table = read_table(given)
    if table.ndim == 2 and table.shape != (rows, classes) and 1 in table.shape:
        table = table.reshape(-1)
    one_column = classes == 1 and table.ndim == 2 and given.is_array
    if table.size == rows and not one_column:
        return checked_labels(given, table.reshape(-1), classes)
    if table.shape == (classes,) and rows == 1:
        table = table[None, :]
    if table.shape != (rows, classes):
        raise given.wrong(
            f"shape {table.shape}; {rows} rows of {classes} classes need {rows} class numbers, or "
            f"{rows} rows of {classes} shares"
        )
    return checked_shares(given, table)


def with_indices(text: str, names: tuple[str, ...]) -> str:
    """Class names in the text of --targets replaced by their numbers."""
    numbers = {name: str(k) for k, name in enumerate(names)}
    entries = re.split(r"([,;])", text)
    for entry in map(str.strip, entries):
        if entry not in numbers and re.search(r"[^\W\d]", entry) and not is_number(entry):
            raise UsageError(
                f"--targets: {shortened(entry)!r} is not among --classes; they are "
                + ", ".join(map(shortened, names[:8]))
                + (" ..." if len(names) > 8 else "")
            )
    return "".join(numbers.get(entry.strip(), entry) for entry in entries)


def checked_labels(given: Given, labels: Array, classes: int) -> Array:
    if labels.dtype.kind not in "iu":
        raise given.wrong(
            f"holds {labels.dtype}, one a row; class numbers are whole, 0 to {classes - 1}"
        )
    if bad := first_bad(labels[:, None], lambda block: (block < 0) | (block >= classes)):
        are = f"{classes} classes are 0 to {classes - 1}: correct it or leave that row out"
        if classes == 1:
            are = f"the only class is 0. {TWO_CLASSES}"
        raise given.wrong(f"row {bad[0]} has class {labels[bad[0]]}; labels start at 0, so {are}")
    return labels.astype(np.int64)


def checked_shares(given: Given, table: Array) -> Array:
    if table.dtype.kind not in "fiub":
        raise given.wrong(f"holds {table.dtype}; shares are real numbers")
    if bad := first_bad(table, lambda block: ~(np.isfinite(block) & (block >= 0))):
        raise given.wrong(
            f"row {bad[0]}, class {bad[1]} is {float(table[bad])}; a share is finite and not "
            "negative: correct it"
        )
    sums = table.sum(axis=1, dtype=np.float64, keepdims=True)
    if bad := first_bad(sums, lambda block: block > MOST_SHARES):
        fix = "divide the row by its sum"
        if len(table) == 1:  # of N scores rather, with as many labels
            fix += f". {TWO_CLASSES}"
        raise given.wrong(
            f"the shares of row {bad[0]} add up to {sums[bad]:g}, and a whole is 1: {fix}"
        )
    return table


def read_names(given: Given, classes: int) -> tuple[str, ...]:
    """The names of the classes: separated by commas, or a text file with a line each."""
    lines = read_lines(given) if given.is_file else given.text.split(",")
    names = tuple(" ".join(line.split()) for line in lines if line.strip())
    if len(names) != classes:
        apart = "a line each" if given.is_file else "with commas between"
        raise given.wrong(f"{len(names)} names for {classes} classes; give one for each, {apart}")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise given.wrong(f"{shortened(twice)!r} names two classes; give each a name of its own")
    return names

"""What every command shares: errors in one line, JSON, and a progress bar on a terminal only."""

import errno
import io
import json
import logging
import math
import os
import re
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from crossent._safe_file import (
    FULL,
    BadFile,
    BadOption,
    check_distinct,
    check_output,
    is_removed,
    locked,
    write_file,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = ("COLUMNS", "LINES", "TERMINAL_WIDTH")
CANNOT_BE_WRITTEN = (*FULL, errno.EBADF, errno.EIO)
DONE, BAD_DATA, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130
PICTURE_TYPES = (".png", ".svg", ".pdf")
# What pip install 'crossent[cli]' brings.
EXTRA = ("typer", "rich", "matplotlib", "jinja2", "latex2mathml")


class DataError(Exception):
    """A file that a command cannot use. The message names the file, the row and the fix."""

    exit_code = BAD_DATA


class UsageError(Exception):
    """Arguments that a command cannot use. The message names the argument and the fix."""

    exit_code = BAD_USAGE


def printable(text: str) -> str:
    """The text with Python's escapes for what would steer a terminal or cannot be seen."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else ascii(letter)[1:-1]
        for letter in text
    )


def say(text: str, end: str = "\n") -> None:
    """A text on standard output."""
    print(printable(text), end=end)


def tell(message: str) -> None:
    """One line on standard error, where anyone listens there."""
    with suppress(OSError):
        print(f"crossent: {printable(' '.join(message.split()))}", file=sys.stderr, flush=True)


def report_error(error: Exception) -> int:
    """The exit code of a failed command, after the one line on standard error that says why."""
    code, message = describe_error(error)
    tell(message)
    return code


def describe_error(error: Exception) -> tuple[int, str]:
    """The exit code and the one line that a failed command ends with."""
    usual = BAD_USAGE if isinstance(error, BadOption) else BAD_DATA
    code, message = getattr(error, "exit_code", usual), str(error)
    if isinstance(error, OSError) and error.filename is not None:
        message = f"{error.filename}: {error.strerror}"
    elif isinstance(error, OSError) and error.errno in CANNOT_BE_WRITTEN:
        message = f"standard output: {error.strerror}"  # of the files only this has no name
    elif isinstance(error, MemoryError):
        message = "out of memory; free some, or give smaller data"
    elif isinstance(error, ModuleNotFoundError) and error.name in EXTRA:
        code, message = BAD_USAGE, f"{error.name} is not installed: pip install 'crossent[cli]'"
    elif hasattr(error, "format_message"):  # an option or argument that Typer refused
        command = getattr(getattr(error, "ctx", None), "command_path", "crossent")
        message = f"{error.format_message().rstrip('.')}; see {command} --help"
    elif not hasattr(error, "exit_code") and not isinstance(error, BadFile | BadOption):
        # Not foreseen: say what it is and how to see where.
        message = f"{type(error).__name__}: {message} (CROSSENT_TRACEBACK=1 shows where)"
    return code, message


def wants_traceback() -> bool:
    """Whether the user asked for Python's own report of an error."""
    return os.environ.get("CROSSENT_TRACEBACK", "") not in ("", "0")


def print_json(document: dict[str, Any]) -> None:
    """One JSON document on standard output."""
    say(json_text(document))


def json_text(document: dict[str, Any]) -> str:
    """One JSON document; nan and infinities, which JSON lacks, become null."""
    return json.dumps(without_nonfinite(document), indent=2, allow_nan=False)


def without_nonfinite(value: Any) -> Any:
    """The value with every nan and infinity in it replaced by None."""
    if isinstance(value, dict):
        return {key: without_nonfinite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nonfinite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def check_picture_path(path: Path, option: str, inputs: Iterable[str | Path] = ()) -> None:
    """Raise UsageError where the picture could not be written, before any work is done."""
    if path.suffix not in PICTURE_TYPES and not os.path.isdir(path):
        raise UsageError(
            f"{option} {path}: not a picture's name; end it in {', '.join(PICTURE_TYPES)}"
        )
    check_output_path(path, option, "a.png", inputs)
    prepare_matplotlib()


def prepare_matplotlib() -> None:
    """Before it is imported: it needs no window, whatever it is told, and tells of no cache."""
    os.environ["MPLBACKEND"] = "agg"
    logging.getLogger("matplotlib").setLevel(logging.CRITICAL)


def check_output_path(
    path: Path, option: str, such_as: str | Path, inputs: Iterable[str | Path] = ()
) -> None:
    """Raise BadOption where a file could not be written; `such_as` is a name that could."""
    tell_removed(check_output(option, path, such_as, may_be_device=True))
    check_distinct({option: path}, inputs)


def tell_removed(leftovers: Iterable[Path]) -> None:
    """A line on standard error for each file that a killed run had left."""
    for path in leftovers:
        tell(f"removed {path}, which a run that was killed had left")


@contextmanager
def own_folder(parent: Path, ending: str) -> Iterator[Path]:
    """A new folder for large files, removed at the end; of runs that were killed by the next one.

    As with hidden files its owner holds a lock on it, so that the next one knows.
    """
    tell_removed(path for path in parent.glob(f"*{ending}") if is_removed(path))
    while True:
        with tempfile.TemporaryDirectory(ending, dir=parent, ignore_cleanup_errors=True) as name:
            path = Path(name)
            with locked(path) as is_ours:
                if is_ours:
                    yield path
                    return


def save_text(text: str, path: Path) -> None:
    """Write a text as UTF-8; of names that are none, such as files may have, the bytes escaped."""
    write_file(path, text.encode("utf-8", "backslashreplace"))


def save_picture(figure: "Figure", path: Path) -> None:
    """Write a figure of matplotlib's as what its name ends in."""
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix.removeprefix("."))
    write_file(path, picture.getvalue())


@contextmanager
def progress(
    description: str, total: int, *, in_bytes: bool = False
) -> Iterator[Callable[[float], None]]:
    """A progress bar on standard error; yields ``advance(steps)``. Draws nothing off a terminal.

    Steps that are bytes are shown with their rate and the time left.
    """
    if not sys.stderr.isatty():
        yield lambda steps: None
        return
    from rich import progress as parts
    from rich.console import Console

    pace: list[parts.ProgressColumn] = [parts.TimeElapsedColumn()]
    if in_bytes:
        pace = [parts.TransferSpeedColumn(), parts.TimeRemainingColumn()]
    head = parts.TextColumn("{task.description}"), parts.BarColumn(), parts.TaskProgressColumn()
    with parts.Progress(*head, *pace, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda steps: bar.advance(task, steps)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Standard streams that are there and take every character, without libraries' warnings.

    Where standard output is closed, writing to it fails, as it does in other programs.
    """
    for name in SIZES:
        if not re.fullmatch(r"[1-9]\d{0,3}", os.environ.get(name, "1")):
            del os.environ[name]  # no size of a terminal, and not all that read it are careful
    for handle in range(3):  # else a file that is opened would take the place of a closed stream
        try:
            os.fstat(handle)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    streams = [each for each in (sys.stdout, sys.stderr) if isinstance(each, io.TextIOWrapper)]
    errors = [stream.errors for stream in streams]
    for stream in streams:
        stream.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda *warning, **more: None
            yield
    finally:
        for stream, before in zip(streams, errors, strict=True):
            try:
                stream.reconfigure(errors=before)
            except OSError:  # what could not be written has been told: Python need not try again
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """The interrupts that come, in a list: libraries lose the KeyboardInterrupt that one raises.

    matplotlib makes another error of it; in a finalizer Python prints it and goes on.
    """
    seen: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.default_int_handler(number, frame)

    def ignored(lost: Any) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            hook(lost)

    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield seen
        return
    hook, sys.unraisablehook = sys.unraisablehook, ignored
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = hook


@contextmanager
def quiet_broken_pipe() -> Iterator[None]:
    """End without a word when the reader of our output has gone (``crossent demo | head -1``).

    As every Unix filter does: by the signal, which Python ignores by default.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not hasattr(signal, "SIGPIPE") or not in_main_thread:  # Windows has none
        yield
        return
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        yield
        sys.stdout.flush()
    finally:
        signal.signal(signal.SIGPIPE, before)

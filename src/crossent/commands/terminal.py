"""What every command shares: errors in one line, JSON, and a progress bar on a terminal only."""

import errno
import json
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
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


def report_error(error: Exception) -> int:
    """The exit code of a failed command, after the one line on standard error that says why."""
    code, message = describe_error(error)
    print(f"crossent: {message}", file=sys.stderr)
    return code


def describe_error(error: Exception) -> tuple[int, str]:
    """The exit code and the one line that a failed command ends with."""
    code, message = getattr(error, "exit_code", BAD_DATA), str(error)
    if isinstance(error, OSError) and error.filename is not None:
        message = f"{error.filename}: {error.strerror}"
    elif isinstance(error, OSError) and error.errno in FULL:  # of the files only this has no name
        message = f"standard output: {error.strerror}"
    elif isinstance(error, ModuleNotFoundError) and error.name in EXTRA:
        code, message = BAD_USAGE, f"{error.name} is not installed: pip install 'crossent[cli]'"
    elif hasattr(error, "format_message"):  # an option or argument that Typer refused
        command = getattr(getattr(error, "ctx", None), "command_path", "crossent")
        message = f"{error.format_message().rstrip('.')}; see {command} --help"
    elif not hasattr(error, "exit_code"):  # not foreseen: say what it is and how to see where
        message = f"{type(error).__name__}: {message} (CROSSENT_TRACEBACK=1 shows where)"
    return code, " ".join(message.split())


def wants_traceback() -> bool:
    """Whether the user asked for Python's own report of an error."""
    return os.environ.get("CROSSENT_TRACEBACK", "") not in ("", "0")


def print_json(document: dict[str, Any]) -> None:
    """One JSON document on standard output."""
    print(json_text(document))


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


def check_picture_path(path: Path, option: str) -> None:
    """Raise UsageError where the picture could not be written, before any work is done."""
    if path.suffix not in PICTURE_TYPES and not path.is_dir():
        raise UsageError(
            f"{option} {path}: not a picture's name; end it in {', '.join(PICTURE_TYPES)}"
        )
    check_output_path(path, option, "a.png")


def check_output_path(path: Path, option: str, such_as: str | Path) -> None:
    """Raise UsageError where a file could not be written; `such_as` is a name that could."""
    folder = path.parent
    if path.is_dir():
        raise UsageError(f"{option} {path}: is a folder; name a file, such as {path / such_as}")
    if not folder.is_dir():
        raise UsageError(f"{option} {path}: there is no folder {folder}; make it or name another")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise UsageError(f"{option} {path}: may not be written; name a file in a folder of yours")


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

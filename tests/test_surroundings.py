"""Whatever the environment, the terminal and the names of files: an exit code, at most one line of error, right outputs."""

import json
import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from covering import covering

pytest.importorskip("typer")
pytest.importorskip("matplotlib")

PROGRAM = [sys.executable, "-m", "crossent"]
UNSET = None

# What each command prints, or writes, at least.
COMMANDS = {
    "info": (["info"], "instructions"),
    "help": (["eval", "--help"], "--grad"),
    "eval": (["eval", "logits.npy", "targets.npy", "--grad", "grad.npy"], "perplexity"),
    "report": (["eval", "logits.npy", "targets.npy", "--report", "page.html"], "perplexity"),
    "explain": (["explain", "--classes", "Ä, b, c"], "crossent-explain.html"),
    "text": (["explain", "--text", "--logits", "1e308,-1e308", "--targets", "0"], "softmax"),
    "demo": (["demo"], "accuracy"),
    "chart": (["bench", "--from", "run.json", "--plot", "bench.png"], "the machine itself"),
    "wrong": (["eval", "missing.npy", "targets.npy"], ""),
}
WRITTEN = ("grad.npy", "page.html", "crossent-explain.html", "crossent-demo.png", "bench.png")
TERMINALS = {
    "none": {"TERM": UNSET},
    "empty": {"TERM": "", "COLUMNS": "0", "LINES": "0"},
    "dumb": {"TERM": "dumb", "COLUMNS": "1", "LINES": "1"},
    "unknown": {"TERM": "\x1b[31m", "COLUMNS": "-1", "LINES": "-1"},
    "words": {"TERM": "xterm", "COLUMNS": "abc", "LINES": "abc"},
    "huge": {"TERM": "xterm-256color", "COLUMNS": "10000", "LINES": "9" * 30},
}
COLOURS = {
    "none": {},
    "NO_COLOR": {"NO_COLOR": "1"},
    "FORCE_COLOR": {"FORCE_COLOR": "1", "TERMINAL_WIDTH": "abc"},
    "both": {"NO_COLOR": "", "FORCE_COLOR": "3", "CLICOLOR_FORCE": "1", "_TYPER_FORCE_DISABLE_TERMINAL": "x"},
}
ENCODINGS = {
    "utf-8": {},
    "C": {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "ascii": {"LANG": "no_SUCH.locale", "PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1:strict"},
}
FOLDERS = {
    "usual": {},
    "unset": {"HOME": UNSET, "TMPDIR": "/no/such/folder", "XDG_CACHE_HOME": UNSET},
    "unwritable": {"HOME": "/proc", "MPLCONFIGDIR": "/proc/x", "XDG_CACHE_HOME": "/proc/x"},
    "PATH": {"PATH": "", "MPLBACKEND": "no such backend", "BROWSER": "no-such-browser"},
}
PYTHON = {
    "usual": {},
    "warnings": {"PYTHONWARNINGS": "error"},
    "odd": {"CROSSENT_TRACEBACK": "0", "PYTHONWARNINGS": "default", "PYTHONHASHSEED": "1"},
    "develop": {"PYTHONDEVMODE": "1", "BROWSER": "%s %s\n"},
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with logits.npy, targets.npy and run.json."""
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    np.save(folder / "logits.npy", rng.standard_normal((60, 5)).astype(np.float32))
    np.save(folder / "targets.npy", rng.integers(0, 5, 60))
    (folder / "run.json").write_text(json.dumps(saved_run()))
    return folder


def saved_run() -> dict:
    """A run of the bench as --json prints it, with words that would steer a terminal."""
    from crossent.commands.bench.cases import Case
    from crossent.commands.bench.report import CaseResult, Participant, Report, Timing
    from crossent.commands.bench.settings import Settings

    settings = Settings(threads=1, rounds=1, command="crossent \x1b[31mbench", load_average=0.1)
    contender = Participant("crossent", "crossent \x1b]0;title\x07", True, 1)
    timings = tuple(Timing("crossent", task, (1e-3,), 1, 0) for task in ("loss", "fresh"))
    result = CaseResult(Case((32, 10), "float32"), (), timings, {"torch": "\x9b2J"}, ())
    return Report(settings, (contender,), (result,), ()).as_dict()


def environment(*changes: dict[str, str | None]) -> dict[str, str]:
    wanted = {"PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1", "CROSSENT_NUM_THREADS": "1"}
    merged = dict(os.environ) | wanted
    for change in changes:
        merged |= change
    return {name: value for name, value in merged.items() if value is not None}


def link(inputs: Path, folder: Path) -> None:
    for path in inputs.iterdir():
        (folder / path.name).symlink_to(path)


def check_end(command: str, code: int, out: str, err: str, folder: Path) -> None:
    """Done as it should be, or one line of error; no traceback, nothing that steers a terminal."""
    arguments, said = COMMANDS[command]
    assert code == (1 if command == "wrong" else 0), err
    assert "Traceback" not in err
    assert err.count("\n") == (command == "wrong"), err
    assert said.casefold() in " ".join(out.split()).casefold()
    assert "\x1b]" not in out
    assert "\x07" not in out
    for name in WRITTEN:
        if name in arguments:
            assert (folder / name).stat().st_size > 100
    assert not list(folder.glob(".*"))


@covering(command=COMMANDS, terminal=TERMINALS, colour=COLOURS, encoding=ENCODINGS, home=FOLDERS, python=PYTHON)
def test_no_environment_harms_a_command(
    command, terminal, colour, encoding, home, python, inputs, tmp_path
) -> None:
    name = next(name for name, value in COMMANDS.items() if value is command)
    link(inputs, tmp_path)
    done = subprocess.run(
        [*PROGRAM, *command[0]], cwd=tmp_path, capture_output=True, timeout=60, check=False,
        env=environment(terminal, colour, encoding, home, python), stdin=subprocess.DEVNULL,
    )  # fmt: skip
    out, err = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
    check_end(name, done.returncode, out, err, tmp_path)

"""Whatever the environment, the terminal and the names of files: an exit code, at most one line of error, right outputs."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest
from covering import FULL, covering_rows

from crossent.commands import cli

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
    "chart": (["bench", "--from", "run.json", "--plot", "bench.png"], "crossent bench"),
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
    "both": {
        "NO_COLOR": "",
        "FORCE_COLOR": "3",
        "CLICOLOR_FORCE": "1",
        "_TYPER_FORCE_DISABLE_TERMINAL": "x",
    },
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


def check_end(
    command: str, code: int, out: str, err: str, folder: Path, *, is_narrow: bool
) -> None:
    """Done as it should be, or one line of error; no traceback, nothing that steers a terminal."""
    arguments, said = COMMANDS[command]
    assert code == (1 if command == "wrong" else 0), err
    assert "Traceback" not in err
    assert err.count("\n") == (command == "wrong"), err
    assert_harmless(out)
    plain = re.sub(r"\x1b\[[\d;]*m|\s", "", out)  # what Rich writes to colour a text
    assert is_narrow or said.replace(" ", "").casefold() in plain.casefold()
    for name in WRITTEN:
        if name in arguments:
            assert (folder / name).stat().st_size > 100
    assert not list(folder.glob(".*"))


DIMENSIONS = {"command": COMMANDS, "terminal": TERMINALS, "colour": COLOURS, "encoding": ENCODINGS,
              "home": FOLDERS, "python": PYTHON}  # fmt: skip
ROWS = covering_rows({name: len(values) for name, values in DIMENSIONS.items()}, 2 if FULL else 1)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(map(str, row.values())))
def test_no_environment_harms_a_command(row: dict[str, int], inputs: Path, tmp_path: Path) -> None:
    """Every value of every variable is met; with CROSSENT_FULL=1 every two of different variables."""
    chosen = {name: list(values)[row[name]] for name, values in DIMENSIONS.items()}
    changes = [DIMENSIONS[name][chosen[name]] for name in [*DIMENSIONS][1:]]
    link(inputs, tmp_path)
    done = subprocess.run(
        [*PROGRAM, *COMMANDS[chosen["command"]][0]], cwd=tmp_path, capture_output=True, timeout=60,
        check=False, env=environment(*changes), stdin=subprocess.DEVNULL,
    )  # fmt: skip
    out, err = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
    is_narrow = chosen["terminal"] == "dumb" and "FORCE_COLOR" in COLOURS[chosen["colour"]]
    check_end(chosen["command"], done.returncode, out, err, tmp_path, is_narrow=is_narrow)


# --- Streams --------------------------------------------------------------------------------------

CLOSED = "Bad file descriptor"
STREAMS = {  # (what is closed, what goes to /dev/full, what is said where standard error is there)
    "no input": ((0,), (), ""),
    "no output": ((1,), (), CLOSED),
    "no errors": ((2,), (), None),
    "nothing": ((0, 1, 2), (), None),
    "full output": ((), (1,), "No space left on device"),
    "full errors": ((), (2,), None),
    "full": ((), (1, 2), None),
}


@pytest.mark.parametrize("command", ["info", "text", "wrong"])
@pytest.mark.parametrize("streams", STREAMS)
def test_standard_streams_may_be_closed_or_full(
    streams: str, command: str, inputs: Path, tmp_path: Path
) -> None:
    closed, full, said = STREAMS[streams]

    def prepare() -> None:
        for handle in full:
            os.dup2(os.open("/dev/full", os.O_WRONLY), handle)
        for handle in closed:
            os.close(handle)

    done = subprocess.run(
        [*PROGRAM, *COMMANDS[command][0]], cwd=inputs, env=environment(), preexec_fn=prepare,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    is_heard = 2 not in (*closed, *full)
    is_lost = command != "wrong" and 1 in (*closed, *full)
    assert done.returncode == (1 if command == "wrong" or is_lost else 0), done.stderr
    lines = done.stderr.splitlines()
    if is_heard and is_lost:
        assert lines == [f"crossent: standard output: {said}"]
    else:
        assert len(lines) == (is_heard and command == "wrong")
    assert bool(done.stdout) == (command != "wrong" and not is_lost)


def test_an_output_is_written_though_nobody_can_be_told(inputs: Path, tmp_path: Path) -> None:
    """And no file that is opened takes the place of a closed stream, which anyone may write to."""
    path = tmp_path / "grad.npy"
    program = (
        "import os, sys\n"
        "from crossent._safe_file import SafeFile\n"
        "from crossent.commands.cli import main\n"
        "real = SafeFile.commit\n"
        "def commit(file):\n"
        "    for stream in range(3):\n"
        "        assert os.path.samefile(f'/dev/fd/{stream}', os.devnull), stream\n"
        "    real(file)\n"
        "SafeFile.commit = commit\n"
        f"sys.exit(main(['eval', 'logits.npy', 'targets.npy', '--grad', {str(path)!r}]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=inputs, timeout=60, check=False,
        preexec_fn=lambda: os.closerange(0, 3),
    )  # fmt: skip
    assert done.returncode == 1
    assert path.stat().st_size == 128 + 60 * 5 * 4
    assert np.isfinite(np.load(path)).all()


@pytest.mark.parametrize("command", ["eval", "chart", "help"])
def test_a_terminal_of_one_column_harms_nothing(command: str, inputs: Path, tmp_path: Path) -> None:
    link(inputs, tmp_path)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 1, 1, 0, 0))
    running = subprocess.Popen(
        [*PROGRAM, *COMMANDS[command][0]], cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs,
        env=environment({"TERM": "xterm", "COLUMNS": UNSET, "LINES": UNSET}),
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += (more := os.read(ours, 1 << 16))
        except OSError:  # the other end is closed
            break
        if not more:
            break
    os.close(ours)
    assert running.wait(timeout=60) == 0
    out = shown.decode("utf-8", "replace")
    assert "Traceback" not in out
    assert "Error" not in out
    assert "\x1b]" not in out


# --- Names ----------------------------------------------------------------------------------------

NAMES = {
    "newline": "a\nb",
    "quotes": """a'b"c`d$(e)""",
    "escape": "a\x1b]0;b\x07\x9b2J",
    "dash": "-a",
    "bytes": os.fsdecode(b"a\xff\xfe"),
    "emoji": "a\N{GRINNING FACE}\u202eb",
    "pattern": "a[b]*?",
    "spaces": " a  b ",
    "colon": "a.npz:b",
}


def assert_harmless(text: str) -> None:
    """It does not steer a terminal; colours may be."""
    assert re.sub(r"\x1b\[[\d;]*m", "", text).replace("\n", "").isprintable()


def one_run(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = cli.main(arguments)
    shown = capfd.readouterr()
    assert_harmless(shown.out + shown.err)
    assert shown.err.count("\n") == (code != 0)
    return code, shown.out, shown.err


@pytest.mark.parametrize("name", NAMES)
def test_files_may_have_any_name(
    name: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    monkeypatch.chdir(tmp_path)
    word = NAMES[name]
    logits, targets, classes = f"{word}.npy", f"t{word}.npy", f"c{word}.txt"
    for path, original in ((logits, "logits.npy"), (targets, "targets.npy")):
        Path(path).write_bytes((inputs / original).read_bytes())
    Path(classes).write_text("a\x1b[2J\nb\nc\nd\ne\n", "utf-8")
    outputs = [f"{kind}{word}{end}" for kind, end in (("g", ".npy"), ("l", ".npy"), ("r", ".html"))]
    if name not in ("bytes", "escape"):
        outputs.pop()  # the report takes long
    flags = [
        f"--{kind}={path}"
        for kind, path in zip(("grad", "losses", "report"), outputs, strict=False)
    ]
    assert one_run(["eval", *flags, "--", logits, targets], capfd)[0] == 0
    given = [f"--logits={logits}", f"--targets={targets}", f"--classes={classes}"]
    assert one_run(["explain", *given, "--text"], capfd)[0] == 0
    assert one_run(["explain", *given, "--latex", f"--out=w{word}"], capfd)[0] == 0
    assert all(Path(path).stat().st_size > 100 for path in [*outputs, f"w{word}"])
    code, _, said = one_run(["eval", "--", logits, f"missing{word}"], capfd)
    assert (code, "missing" in said) == (1, True)
    assert one_run(["eval", f"--{word}"], capfd)[0] == 2
    assert one_run(["explain", f"--out={word}/x"], capfd)[0] == 2


@pytest.mark.parametrize("length", [236, 255, 256, 5000])
def test_a_name_is_as_long_as_the_disk_takes(
    length: int, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    monkeypatch.chdir(tmp_path)

    def named(end: str) -> str:
        return "x" * (length - len(end)) + end

    files = [str(inputs / name) for name in ("logits.npy", "targets.npy")]
    for arguments in (
        ["eval", *files, "--grad", named(".npy")], ["eval", *files, "--losses", named(".npy")],
        ["eval", *files, "--report", named(".html")], ["explain", "--json", "--out", named("")],
        ["bench", "--from", str(inputs / "run.json"), "--plot", named(".png")],
        ["demo", "--out", named(".pdf")],
    ):  # fmt: skip
        if length <= 255 and arguments[0] == "demo":
            continue  # it takes long, and the chart of the bench is saved as its picture is
        for _ in range(2):  # anew, and in place of what is there
            code, _, said = one_run(arguments, capfd)
            assert code == (0 if length <= 255 else 2), arguments[:4]
            assert length <= 255 or "File name too long" in said
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_names_in_archives_are_printable(tmp_path: Path, capfd) -> None:
    """Arrays of .npz and .safetensors files, and what their headers hold."""
    steering = "\x1b]0;a\x07"
    np.savez(tmp_path / "a.npz", **{f"x{steering}": np.ones(3), f"y{steering}": np.ones(3)})
    header = {f"{name}{steering}": {"dtype": f"F{steering}", "shape": [1], "data_offsets": [i, i + 1]}
              for i, name in enumerate("xy")}  # fmt: skip
    text = json.dumps(header, ensure_ascii=False).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"12")
    described = repr({"descr": f"<f4{steering}", "fortran_order": False, "shape": (1,)}).encode()
    npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(described)) + described
    (tmp_path / "a.npy").write_bytes(npy + b"1234")
    for name in ("a.npz", "a.safetensors", f"a.safetensors:x{steering}", "a.npy"):
        path = str(tmp_path / name)
        code, _, said = one_run(["eval", path, path], capfd)
        assert code == 1
        assert "x1b" in said

"""The command line: exit codes, errors in one line, JSON, progress on a terminal only."""

import json
import os
import signal
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import crossent
from crossent.commands import cli
from crossent.commands import info as info_module
from crossent.commands import terminal as _terminal

COMMAND = [sys.executable, "-m", "crossent"]


def run(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


def test_demo_saves_its_picture(tmp_path: Path) -> None:
    done = run("demo", folder=tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""  # no progress bar off a terminal
    assert "accuracy" in done.stdout
    assert (tmp_path / "crossent-demo.png").read_bytes().startswith(b"\x89PNG")


def test_demo_json_is_one_document_with_the_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "digits.svg"
    assert cli.main(["demo", "--json", "--out", str(out)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["held_out"]["accuracy"] >= 0.96
    assert document["steps"] == 2000  # what the demo takes on any machine
    assert document["picture"] == str(out)
    assert out.exists()
    assert len(document["hardest"]) == 10


def test_info_json_names_what_is_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["crossent"] == crossent.__version__
    assert document["isa"] == crossent.isa()
    assert document["isa"] in document["available_isas"]
    assert document["threads"] == crossent.get_num_threads()
    assert document["front_ends"]["numpy"] == np.__version__


def test_info_text_has_a_line_a_fact(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(info_module, "FRAMEWORKS", ("pytest", "no-such-framework"))
    assert cli.main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for wanted in (crossent.__version__, crossent.isa(), f"pytest  {version('pytest')}"):
        assert any(" ".join(wanted.split()) in " ".join(line.split()) for line in lines), wanted
    assert any("not installed: pip install no-such-framework" in line for line in lines)


def test_info_names_no_front_end_that_does_not_exist() -> None:
    front_ends = info_module.collect_info()["front_ends"].keys()
    for name in front_ends - {"numpy"}:
        assert find_spec(f"crossent.{name}") is not None


def test_info_shows_settings_from_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSENT_NUM_THREADS", "1")
    assert cli.main(["info"]) == 0
    assert "CROSSENT_NUM_THREADS" in capsys.readouterr().out
    monkeypatch.setenv("CROSSENT_NUM_THREADS", "")  # as if it were not set
    assert cli.main(["info"]) == 0
    assert "CROSSENT_NUM_THREADS" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CROSSENT_ISA", "mmx", "is not available here; choose one of"),
        ("CROSSENT_NUM_THREADS", "1e3", "must be an integer from 1 to 1024, or unset"),
    ],
)
@pytest.mark.parametrize(
    "command", [["demo"], ["explain", "--text"], ["eval"], ["bench", "--quick"], ["info"]]
)
def test_an_environment_that_cannot_be_followed_is_one_line(
    command: list[str], name: str, value: str, said: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from crossent.commands.cli import main; exit(main())", *command],
        cwd=tmp_path, env={**os.environ, name: value}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert done.stderr.startswith(f"crossent: {name}='{value}' {said}")


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["--help"], {"matplotlib", "torch", "jax", "crossent.commands.demo.training"}),
        (["info"], {"matplotlib", "torch", "jax"}),
        (["demo"], {"matplotlib.pyplot", "torch", "jax"}),
    ],
)
def test_commands_import_only_what_they_use(
    arguments: list[str], unwanted: set[str], tmp_path: Path
) -> None:
    program = (
        "import sys; from crossent.commands.cli import main; "
        f"code = main({arguments!r}); print(*sorted(sys.modules), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert unwanted.isdisjoint(done.stderr.split())


def test_help_teaches() -> None:
    runner = CliRunner()
    overview = runner.invoke(cli.app, ["--help"]).output
    for wanted in ("demo", "info", "p - y", "2 bad usage"):
        assert wanted in overview
    details = runner.invoke(cli.app, ["demo", "--help"]).output
    for wanted in ("--out", "--json", "cross_entropy_and_grad", "crossent-demo.png"):
        assert wanted in details


def test_version_is_the_library_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"crossent {crossent.__version__}\n"


def test_no_command_shows_the_help_and_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "demo" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["demo", "--out", "no-such-folder/digits.png"], "no-such-folder"),
        (["demo", "--out", "."], "is a folder"),
        (["demo", "--out", "digits.txt"], ".png, .svg, .pdf"),
        (["demo", "--out"], "--out"),
        (["demo", "--jsn"], "crossent demo --help"),
        (["demo", "extra"], "extra"),
        (["dem"], "crossent --help"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(
    arguments: list[str],
    named: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert output.err.startswith("crossent: ")
    assert named in output.err


def fail_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    def fail() -> None:
        raise error

    monkeypatch.setattr(info_module, "collect_info", fail)
    return cli.main(["info"])


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (_terminal.DataError("a.npy: row 3"), 1, "a.npy: row 3"),
        (_terminal.UsageError("give --targets"), 2, "give --targets"),
        (FileNotFoundError(2, "No such file", "b.npy"), 1, "b.npy: No such file"),
        (ModuleNotFoundError("...", name="matplotlib"), 2, "pip install 'crossent[cli]'"),
        (RuntimeError("one\ntwo"), 1, "RuntimeError: one two"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_error_is_one_line(
    error: BaseException,
    code: int,
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert fail_with(error, monkeypatch) == code
    message = capsys.readouterr().err
    assert line in message
    assert "\n" not in message.strip()


class Finalized:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_that_a_library_loses_ends_with_130_and_no_word(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As matplotlib's, which makes another error of it; or in a finalizer, where Python goes on."""

    def in_another_error() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("Invalid affine transformation matrix") from None

    def in_a_finalizer() -> None:
        Finalized()
        print("goes on")
        raise ValueError("later")

    for lose in (in_another_error, in_a_finalizer):
        monkeypatch.setattr(info_module, "collect_info", lose)
        assert cli.main(["info"]) == 130
        assert capsys.readouterr().err == ""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_traceback_is_shown_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSENT_TRACEBACK", "1")
    with pytest.raises(RuntimeError, match="odd"):
        fail_with(RuntimeError("odd"), monkeypatch)


@pytest.mark.parametrize("module", ["typer", "rich"])
def test_without_the_extra_one_line_says_how_to_install_it(module: str) -> None:
    program = f"import sys; sys.modules[{module!r}] = None; import crossent.commands.cli"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr == f"crossent: {module} is not installed: pip install 'crossent[cli]'\n"


def test_json_has_null_for_what_json_cannot_say(capsys: pytest.CaptureFixture[str]) -> None:
    _terminal.print_json({"loss": float("nan"), "rows": [1.0, float("inf")], "name": "a"})
    assert json.loads(capsys.readouterr().out) == {"loss": None, "rows": [1.0, None], "name": "a"}


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="this system has no SIGPIPE")
def test_a_reader_that_leaves_ends_us_quietly() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [*COMMAND, "info"], stdout=write_end, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(write_end)
    assert done.returncode == -signal.SIGPIPE
    assert done.stderr == b""


class Terminal:
    """A standard error that says it is a terminal and remembers what was drawn."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.drawn = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.drawn += text
        return len(text)

    def flush(self) -> None:
        pass


def test_progress_is_drawn_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert cli.main(["demo", "--json", "--out", str(tmp_path / "digits.png")]) == 0
    assert "training on digits" in terminal.drawn
    assert json.loads(capsys.readouterr().out)["steps"] == 2000

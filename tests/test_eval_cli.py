"""``crossent eval``: what it prints, its exit codes, one clear line for whatever is wrong."""

import ctypes
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_cli import Terminal

import crossent
from crossent import options
from crossent.commands import cli
from crossent.evaluation import evaluator, passes
from crossent.evaluation.readers.array_file import PlainFile

COMMAND = [sys.executable, "-m", "crossent", "eval"]
N, C = 60, 5


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with logits.npy, targets.npy and other.npy."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((N, C)).astype(np.float32)
    np.save("logits.npy", logits)
    np.save("targets.npy", rng.integers(0, C, N))
    np.save("other.npy", 0.5 * logits)
    return tmp_path


def run(*arguments: str) -> int:
    return cli.main(["eval", *arguments])


def test_no_arguments_evaluate_the_digits(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    out = capsys.readouterr().out
    for wanted in (
        "1,797 rows, 10 classes",
        "0.106 +- 0.010",
        "96.94%",
        "the digits that come along",
    ):
        assert wanted in out
    assert max(map(len, out.splitlines())) <= 80


def test_text_fits_a_terminal_and_says_what_matters(folder, capsys) -> None:
    assert run("logits.npy", "targets.npy", "--compare", "other.npy", "--temperature",
               "--bytes", "100", "--label-smoothing", "0.1") == 0  # fmt: skip
    captured = capsys.readouterr()
    for wanted in ("loss", "+-", "perplexity", "bits per byte", "guessing", "Brier", "calibration",
                   "best temperature", "further passes", "the other's loss", "hardest rows",
                   "hardest classes", "most frequent mistakes", "-log p"):  # fmt: skip
        assert wanted in captured.out, wanted
    assert max(map(len, captured.out.splitlines())) <= 80
    assert captured.err == ""


def test_json_is_one_document_with_every_figure(folder, capsys) -> None:
    assert run("logits.npy", "targets.npy", "--json", "--grad", "grad.npy", "--compare",
               "other.npy", "--row-weight", "targets.npy") == 0  # fmt: skip
    document = json.loads(capsys.readouterr().out)
    result = crossent.evaluate("logits.npy", "targets.npy", row_weight="targets.npy")
    assert document["loss"] == result.loss
    assert document["written"] == {"grad": "grad.npy"}
    assert document["classes"]["calibration_bins"] == 15
    assert len(document["classes"]["loss_of_class"]) == C
    assert document["comparison"]["standard_error"] > 0
    assert document["files"]["row_weight"] == ["targets.npy"]
    assert document["verdict"]
    assert np.load("grad.npy").shape == (N, C)


def test_every_option_of_the_loss_reaches_it(folder, capsys) -> None:
    np.save("weight.npy", np.linspace(1, 2, C))
    assert run("logits.npy", "targets.npy", "--json", "--weight", "weight.npy", "--ignore-index",
               "1", "--label-smoothing", "0.1", "--z-loss", "0.01", "--softcap", "3",
               "--logit-scale", "0.5", "--reduction", "sum") == 0  # fmt: skip
    wanted = crossent.cross_entropy(
        np.load("logits.npy"), np.load("targets.npy"), weight=np.linspace(1, 2, C), ignore_index=1,
        label_smoothing=0.1, z_loss=0.01, softcap=3, logit_scale=0.5, reduction="sum",
    )  # fmt: skip
    assert json.loads(capsys.readouterr().out)["loss"] == pytest.approx(wanted, rel=1e-6)
    assert run("logits.npy", "targets.npy", "--json", "--normalizer", "7") == 0
    wanted = crossent.cross_entropy(np.load("logits.npy"), np.load("targets.npy"), normalizer=7)
    assert json.loads(capsys.readouterr().out)["loss"] == pytest.approx(wanted, rel=1e-6)
    np.save("none.npy", np.full(N, -100))
    assert run("logits.npy", "none.npy", "--json", "--when-empty", "zero") == 0
    assert json.loads(capsys.readouterr().out)["loss"] == 0
    np.save("columns.npy", np.load("logits.npy").T.copy())
    assert run("columns.npy", "targets.npy", "--axis", "0", "--json") == 0
    assert json.loads(capsys.readouterr().out)["rows"] == N


def test_command_and_function_have_the_same_options() -> None:
    import inspect

    command = set(inspect.signature(cli.evaluate).parameters) - {"files", "report", "as_json"}
    function = set(inspect.signature(crossent.evaluate).parameters) - {"logits", "progress"}
    assert command == function
    loss = set(inspect.signature(crossent.cross_entropy).parameters) - {"logits", "targets"}
    assert loss <= function
    for name in loss:
        default = inspect.signature(crossent.cross_entropy).parameters[name].default
        assert inspect.signature(crossent.evaluate).parameters[name].default == default, name
        assert inspect.signature(cli.evaluate).parameters[name].default == default, name


def test_the_command_line_spells_no_option_of_the_loss() -> None:
    """They come from crossent.options, so that one more there is one more here."""
    names = set(options.DEFAULTS) - {"reduction"}
    pattern = "|".join([*names, *(f"--{name.replace('_', '-')}" for name in names)])
    commands = Path(cli.__file__).parent
    for path in [commands / "cli.py", *(commands / "eval").iterdir()]:
        if path.is_file():
            assert re.findall(pattern, path.read_text("utf-8")) == [], path.name


@pytest.mark.parametrize(
    "arguments",
    [
        ["'logits-*.npy'", "'targets-*.npy'"],
        ["logits-0.npy", "logits-1.npy", "-t", "targets-0.npy", "-t", "targets-1.npy"],
        ["both.npz"],
        ["both.npz:logits", "both.npz:targets"],
        ["'logits-*.npy'", "both.npz:targets"],
    ],
)
def test_shards_and_archives_may_be_named_in_many_ways(folder, capsys, arguments) -> None:
    logits, targets = np.load("logits.npy"), np.load("targets.npy")
    np.savez("both.npz", logits=logits, targets=targets)
    for i, rows in enumerate((slice(0, 17), slice(17, N))):
        np.save(f"logits-{i}.npy", logits[rows])
        np.save(f"targets-{i}.npy", targets[rows])
    assert run(*[argument.strip("'") for argument in arguments], "--json") == 0
    loss = json.loads(capsys.readouterr().out)["loss"]
    assert loss == crossent.evaluate("logits.npy", "targets.npy").loss


def test_logprobs_need_no_targets(folder, capsys) -> None:
    logits, targets = np.load("logits.npy"), np.load("targets.npy")
    np.save("p.npy", -crossent.cross_entropy(logits, targets, reduction="none"))
    assert run("p.npy", "--logprobs", "--compare", "p.npy", "--bytes", "99") == 0
    out = capsys.readouterr().out
    assert "perplexity" in out
    assert "accuracy" not in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("logprobs", [False, True])
@pytest.mark.parametrize("count", [0, 1, 12, 20])
def test_as_many_of_the_hardest_rows_are_printed_as_were_asked_for(
    folder, capsys, count: int, logprobs: bool
) -> None:
    files = ["logits.npy", "targets.npy"]
    losses = crossent.cross_entropy(*map(np.load, files), reduction="none")
    if logprobs:
        np.save("p.npy", -losses)
        files = ["p.npy", "--logprobs"]
    assert run(*files, "--hardest", str(count)) == 0
    out = capsys.readouterr().out
    shown = out.partition("hardest rows")[2]
    wanted = np.argsort(-losses, kind="stable")[:count]
    assert [int(row) for row in re.findall(r"\n +(\d+) +[\d.]+", shown)] == wanted.tolist()
    assert max(map(len, out.splitlines())) <= 80


def test_a_comparison_names_the_files_that_are_compared(folder, capsys) -> None:
    files = ["logits.npy", "targets.npy", "--compare", "other.npy", "--json"]
    assert run(*files) == 0
    verdict = json.loads(capsys.readouterr().out)["verdict"]
    this, other = "this one (logits.npy)", "the other (other.npy)"
    assert verdict[-1].startswith(f"Of the two models {other} is better than {this}, by ")
    np.save("other.npy", np.load("logits.npy"))
    assert run(*files) == 0
    verdict = json.loads(capsys.readouterr().out)["verdict"]
    assert f"cannot tell the two models apart: {this} differs from {other} by" in verdict[-1]


def test_a_warning_goes_to_standard_error_and_into_json(folder, capsys) -> None:
    np.save("probs.npy", crossent.softmax(np.load("logits.npy")))
    assert run("probs.npy", "targets.npy", "--json") == 0
    captured = capsys.readouterr()
    assert "crossent: warning: these look like probabilities, not logits" in captured.err
    assert "probabilities" in json.loads(captured.out)["warnings"][0]


def test_skipped_rows_are_counted_and_said(folder, capsys) -> None:
    targets = np.load("targets.npy")
    targets[[4, 9]] = 77
    np.save("targets.npy", targets)
    assert run("logits.npy", "targets.npy", "--skip-bad") == 0
    assert (
        "2 bad rows skipped (2 by label, 0 by nan); the first is row 4" in capsys.readouterr().out
    )


def test_progress_is_drawn_on_a_terminal_with_rate_and_time_left(
    folder, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(passes, "BLOCK", 500)
    assert run("logits.npy", "targets.npy") == 0
    assert "evaluating" in terminal.drawn
    assert "/s" in terminal.drawn
    assert "0:00:0" in terminal.drawn


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["logits.npy"], "logits.npy: and the targets? crossent eval LOGITS TARGETS"),
        (["a", "b", "c"], "3 files: which are targets?"),
        (["--targets", "targets.npy"], "name the logits too"),
        (["--logprobs"], "--logprobs: name a file"),
        (["p.npy", "--logprobs", "-t", "t.npy"], "no --targets"),
        (["p.npy", "--logprobs", "--grad", "g.npy"], "need logits, not logprobs"),
        (
            ["logits.npy", "targets.npy", "--grad", "grad.txt"],
            "end its name in .npy or .safetensors",
        ),
        (["logits.npy", "targets.npy", "--grad", "none/grad.npy"], "there is no folder none"),
        (["logits.npy", "targets.npy", "--grad", "logits.npy"], "is one of the inputs"),
        (["logits.npy", "targets.npy", "--report", "report.pdf"], "end its name in .html"),
        (
            ["logits.npy", "targets.npy", "--report", "none/report.html"],
            "there is no folder none",
        ),
        (["logits.npy", "targets.npy", "--label-smoothing", "2"], "label_smoothing must be from 0"),
        (["logits.npy", "targets.npy", "--reduction", "total"], 'reduction must be "none", "sum"'),
        (["logits.npy", "targets.npy", "--memory", "1"], "memory of 1 MiB is too little"),
        (["logits.npy", "targets.npy", "--memory", "much"], "--memory"),
        (["logits.npy", "targets.npy", "--bytes", "0"], "--bytes"),
        (["logits.npy", "targets.npy", "--weight", "targets.npy"], "weight has shape (60,)"),
        (["logits.npy", "targets.npy", "--temperature", "--softcap", "3"], "of capped logits"),
        (
            ["logits.npy", "targets.npy", "--grad", "a.npy", "--losses", "./a.npy"],
            "a.npy: is named for the gradient and the losses",
        ),
        (["logits.npy", "targets.npy", "--losses"], "--losses"),
        (["logits.npy", "targets.npy", "--unknown"], "--unknown"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(folder, capsys, arguments, line) -> None:
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("crossent: ")
    assert line in captured.err
    assert captured.err.count("\n") == 1


# --- Damage: exit 1, one line, the file, the row where there is one, and the remedy ---------------


def write(name: str, change: Callable[[np.ndarray], object]) -> None:
    array = np.load(name)
    change(array)
    np.save(name, array)


def cut(name: str, count: int) -> None:
    os.truncate(name, os.path.getsize(name) + count)


def lie(name: str, old: bytes, new: bytes) -> None:
    data = Path(name).read_bytes()
    assert old in data
    Path(name).write_bytes(data.replace(old, new, 1))


DAMAGE: dict[str, tuple[Callable[[], object], str]] = {
    "missing": (lambda: os.remove("logits.npy"), "logits.npy: there is no such file"),
    "folder": (
        lambda: (os.remove("logits.npy"), os.mkdir("logits.npy")),
        "logits.npy: is a folder",
    ),
    "empty": (lambda: cut("logits.npy", -os.path.getsize("logits.npy")), "logits.npy: is empty"),
    "truncated": (lambda: cut("logits.npy", -1), "logits.npy: is truncated: its header promises"),
    "too long": (lambda: cut("targets.npy", 8), "targets.npy: has bytes that no header explains"),
    "lying shape": (
        lambda: lie("logits.npy", b"(60, 5)", b"(99, 5)"),
        "logits.npy: is truncated: its header",
    ),
    "lying type": (lambda: lie("logits.npy", b"<f4", b"<f8"), "logits.npy: is truncated"),
    "no header": (lambda: lie("logits.npy", b"NUMPY", b"PYTHN"), "logits.npy: is not a .npy file"),
    "wrong rows": (
        lambda: np.save("targets.npy", np.zeros(59, int)),
        "targets.npy: targets have shape (59,); with logits of shape (60, 5)",
    ),
    "wrong type": (
        lambda: np.save("targets.npy", np.zeros(60)),
        "targets.npy: targets of shape (60,) are class indices, so they must be integers",
    ),
    "integer logits": (
        lambda: np.save("logits.npy", np.zeros((60, 5), int)),
        "logits.npy: logits have dtype int64",
    ),
    "swapped": (
        lambda: (
            os.rename("logits.npy", "a"),
            os.rename("targets.npy", "logits.npy"),
            os.rename("a", "targets.npy"),
        ),
        "logits.npy: logits have dtype int64; they must be float64, float32, float16 or bfloat16. "
        "Convert them first, e.g. logits.astype(np.float32). Logits come first: are the two "
        "swapped?",
    ),
    "complex": (lambda: np.save("logits.npy", np.zeros((60, 5), complex)), "not plain numbers"),
    "no classes": (
        lambda: np.save("logits.npy", np.zeros((60, 0), np.float32)),
        "have no classes on axis 1",
    ),
    "a number": (
        lambda: np.save("logits.npy", np.float32(1)),
        "logits.npy: logits are a single number",
    ),
    "last label": (
        lambda: write("targets.npy", lambda a: a.__setitem__(-1, 5)),
        "targets.npy: row 59 has label 5; labels are 0 .. 4 (do yours start at 1?); correct it, or leave such rows out "
        "with --skip-bad, or one value of them with --ignore-index",
    ),
    "negative label": (
        lambda: write("targets.npy", lambda a: a.__setitem__(3, -2)),
        "row 3 has label -2",
    ),
    "nan row": (
        lambda: write("logits.npy", lambda a: a.__setitem__((41, 2), np.nan)),
        "logits.npy: row 41 has no loss: it holds nan or +inf, or is all -inf; correct it, or "
        "leave such rows out with --skip-bad",
    ),
    "pickle": (
        lambda: np.save("logits.npy", np.array([{}, 1], object)),
        "logits.npy: holds Python objects in a pickle, which is never loaded",
    ),
    "other model": (
        lambda: np.save("other.npy", np.zeros((60, 4), np.float32)),
        "other.npy: has shape (60, 4); to be compared it must have the logits' shape (60, 5)",
    ),
    "other model's nan": (
        lambda: write("other.npy", lambda a: a.__setitem__((7, 0), np.nan)),
        "other.npy: row 7 has no loss",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_one_line_that_names_the_file_and_exit_1(folder, capsys, name: str) -> None:
    damage, line = DAMAGE[name]
    damage()
    Path("grad.npy").write_bytes(b"before")
    assert run("logits.npy", "targets.npy", "--compare", "other.npy", "--grad", "grad.npy") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("crossent: ")
    assert line in captured.err
    assert captured.err.count("\n") == 1
    assert Path("grad.npy").read_bytes() == b"before"
    assert not [left for left in os.listdir() if left.startswith(".")]


def test_a_bad_row_in_a_shard_is_named_by_the_shard_and_by_the_whole(folder, capsys) -> None:
    logits = np.load("logits.npy")
    logits[43] = np.inf
    np.save("part-0.npy", logits[:40])
    np.save("part-1.npy", logits[40:])
    assert run("part-*.npy", "targets.npy") == 1
    assert "part-1.npy: row 3 (row 43 of all) has no loss" in capsys.readouterr().err


def test_a_file_that_shrinks_while_it_is_read(folder, capsys, monkeypatch) -> None:
    real = PlainFile._read_some

    def shrink(self: PlainFile, view: memoryview, offset: int) -> int:
        if offset > 100 and self.path.name == "logits.npy":
            os.truncate("logits.npy", 200)
        return real(self, view, offset)

    monkeypatch.setattr(PlainFile, "_read_some", shrink)
    assert run("logits.npy", "targets.npy") == 1
    err = capsys.readouterr().err
    assert "logits.npy: ended at byte 200 of 1,328: it shrank while it was read" in err
    assert err.count("\n") == 1


def test_reads_that_come_short_are_gone_on_with(folder, monkeypatch) -> None:
    wanted = crossent.evaluate("logits.npy", "targets.npy").as_dict()
    real = PlainFile._read_some
    monkeypatch.setattr(
        PlainFile, "_read_some", lambda self, view, offset: real(self, view[:13], offset)
    )
    assert crossent.evaluate("logits.npy", "targets.npy").as_dict() == wanted


def test_a_disk_that_cannot_be_read(folder, capsys, monkeypatch) -> None:
    def fail(self: PlainFile, view: memoryview, offset: int) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(PlainFile, "_read_some", fail)
    assert run("logits.npy", "targets.npy") == 1
    assert "logits.npy: cannot be read at byte 0: Input/output error" in capsys.readouterr().err


def without_privilege() -> None:
    """For a process about to start: root may no longer read and write whatever it likes."""
    if os.geteuid() == 0:
        drop_from_bounding_set, dac_override, dac_read_search = 24, 1, 2
        for capability in (dac_override, dac_read_search):
            if ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0):
                os._exit(99)


def test_no_permission(folder: Path) -> None:
    if os.geteuid() == 0 and sys.platform != "linux":
        pytest.skip("root may read everything here")

    def tried(*arguments: str) -> str:
        done = subprocess.run(
            [*COMMAND, *arguments], preexec_fn=without_privilege, capture_output=True, text=True,
            check=False, timeout=60,
        )  # fmt: skip
        if done.returncode == 99:
            pytest.skip("this process may not give up its privileges")
        assert done.returncode in (1, 2)
        assert done.stderr.count("\n") == 1
        return done.stderr

    os.mkdir("closed")
    os.chmod("closed", 0o555)
    assert "closed/grad.npy: may not be written" in tried(
        "logits.npy", "targets.npy", "--grad", "closed/grad.npy"
    )
    os.chmod("logits.npy", 0o000)
    assert "logits.npy: may not be read; chmod +r it" in tried("logits.npy", "targets.npy")
    assert os.listdir("closed") == []


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="this system has no SIGPIPE")
def test_a_reader_that_leaves_ends_us_quietly_and_the_gradient_is_whole(folder) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [*COMMAND, "logits.npy", "targets.npy", "--grad", "grad.npy"],
        stdout=write_end, stderr=subprocess.PIPE, timeout=60, check=False,
    )  # fmt: skip
    os.close(write_end)
    assert done.returncode == -signal.SIGPIPE
    assert done.stderr == b""
    assert np.load("grad.npy").shape == (N, C)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_standard_output_on_a_full_disk_is_one_line(folder) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "logits.npy", "targets.npy"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "crossent: standard output: No space left on device\n"


def test_targets_among_the_logits_are_noticed(folder, capsys) -> None:
    """As where a shell expands the pattern behind -t: its second file goes to the logits."""
    assert run("logits.npy", "targets.npy", "-t", "targets.npy") == 1
    err = capsys.readouterr().err
    assert "targets.npy: has shape (60,), which does not go on from logits.npy" in err
    assert "Patterns go in quotes" in err


def test_no_memory_is_one_line(folder, capsys, monkeypatch) -> None:
    def fail(*arguments: object, **settings: object) -> None:
        raise MemoryError("Unable to allocate 3 GiB")

    monkeypatch.setattr(evaluator, "plan_passes", fail)
    assert run("logits.npy", "targets.npy") == 1
    assert capsys.readouterr().err == (
        "crossent: out of memory; hold less with --memory, or free some\n"
    )


def test_eval_imports_neither_frameworks_nor_matplotlib(folder) -> None:
    program = (
        "import sys; from crossent.commands.cli import main; "
        "main(['eval', 'logits.npy', 'targets.npy']); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert {"torch", "jax", "matplotlib", "scipy", "pickle5"}.isdisjoint(done.stderr.split())


def test_the_commands_of_the_page_run(folder, capsys) -> None:
    page = Path(__file__).parents[1] / "docs" / "evaluation.md"
    block = re.search(r"```sh\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    assert block
    logits, targets = np.load("logits.npy"), np.load("targets.npy")
    np.savez("outputs.npz", logits=logits, targets=targets)
    np.save("logits-0.npy", logits)
    np.save("targets-0.npy", targets)
    for line in block[1].splitlines():
        arguments = shlex.split(line, comments=True)
        assert cli.main(arguments[1:]) == 0, line
    assert capsys.readouterr().err == ""

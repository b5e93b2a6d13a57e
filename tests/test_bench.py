"""crossent bench: everyone is timed in turns on the same data, and the report can be believed.

Contenders that are not installed are left out by design; the report names them.
"""

import doctest
import json
import os
import pkgutil
import re
import signal
from contextlib import contextmanager, nullcontext
from importlib import import_module

import numpy as np
import pytest

import crossent.commands.bench
from crossent.commands import cli, terminal
from crossent.commands.bench import run as bench_run
from crossent.commands.bench.arrays import write_array
from crossent.commands.bench.cases import FRESH, IN_PLACE, LOSS, OUT, TASKS, Case
from crossent.commands.bench.contender import Contender
from crossent.commands.bench.contenders import CONTENDERS
from crossent.commands.bench.contenders.numpy import Crossent, Textbook
from crossent.commands.bench.report import Report
from crossent.commands.bench.run import run_bench
from crossent.commands.bench.settings import Settings
from crossent.commands.bench.text import LIMIT_NAMES
from crossent.commands.terminal import own_folder

CASES = (
    Case((64, 10), "float32"),
    Case((2, 5, 6, 7), "float32", axis=1),
    Case((64, 10), "bfloat16"),
    Case((64, 10), "float64"),
)
ROUNDS = 3


class NotThere(Crossent):
    """A contender whose package nobody has."""

    name, title, ours = "not-there", "Not there", False
    packages = ("no-such-package",)


class Bench:
    """A run that many tests look at, with the progress that it told."""

    def __init__(self, cases, contenders, rounds, accuracy) -> None:
        self.contenders, self.rounds = (*contenders, NotThere), rounds
        self.advanced: list[float] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bench_run, "progress", self.progress)
            self.report = run_bench(cases, self.contenders, 1, rounds, accuracy)

    @contextmanager
    def progress(self, description, total):
        self.steps = total
        yield self.advanced.append


@pytest.fixture(scope="module")
def bench():
    """All but the first case, contenders that need NumPy alone."""
    return Bench(CASES[1:], (Crossent, Textbook), ROUNDS, accuracy=True)


@pytest.fixture(scope="module")
def everyone():
    """Whoever is installed, but for the variants of PyTorch that take longer to prepare."""
    quick = [c for c in CONTENDERS.values() if not c.compiles and not c.name.endswith("-huge")]
    return Bench(CASES[:2], quick, 1, accuracy=False)


@pytest.fixture(scope="module")
def saved_run(bench, tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "run.json"
    path.write_text(json.dumps(bench.report.as_dict()))
    return path


def output_of(capsys, *arguments):
    assert cli.main(["bench", *map(str, arguments)]) == 0
    return capsys.readouterr().out


# --- A run ----------------------------------------------------------------------------------------


def tasks_of(contender):
    more = {
        "crossent": (OUT, IN_PLACE),
        "crossent-torch": (IN_PLACE,),
        "jax": (IN_PLACE,),
        "sklearn": (OUT,),
    }
    return (LOSS, FRESH, *more.get(contender.name, ()))


@pytest.mark.parametrize("run", ["bench", "everyone"])
def test_everyone_installed_is_timed_on_every_task_that_it_has(run, request):
    bench = request.getfixturevalue(run)
    for result in bench.report.cases:
        for contender in bench.contenders:
            able = contender.is_installed() and contender.why_not(result.case) is None
            for task in TASKS:
                timing = result.find(contender.name, task)
                wanted = able and task in tasks_of(contender)
                assert (timing is not None) == wanted, (contender.name, result.case, task)
                if timing is not None:
                    assert len(timing.samples) == bench.rounds
                    assert all(sample > 0 for sample in timing.samples)


@pytest.mark.parametrize("run", ["bench", "everyone"])
def test_nobody_is_left_out_without_a_known_reason(run, request):
    bench = request.getfixturevalue(run)
    for result in bench.report.cases:
        by_name = {contender.name: contender for contender in bench.contenders}
        for name, reason in result.left_out.items():
            assert reason == by_name[name].why_not(result.case)


def test_the_machine_s_limits_are_measured_in_the_same_rounds(bench):
    for result in bench.report.cases:
        assert [timing.task for timing in result.limits] == list(LIMIT_NAMES)
        assert all("limits" in order for order in result.rounds)


def test_turns_alternate_and_another_one_begins_each_round(bench):
    for result in bench.report.cases:
        orders = result.rounds
        assert len(orders) == ROUNDS
        everyone = ["limits", *(t for t in dict.fromkeys(x.contender for x in result.timings))]
        assert all(sorted(order) == sorted(everyone) for order in orders)
        assert [order[0] for order in orders] == (2 * everyone)[:ROUNDS]


def test_progress_adds_up(bench):
    assert sum(bench.advanced) == pytest.approx(bench.steps)


def test_whoever_is_missing_is_named_with_how_to_install_it(bench, saved_run, capsys):
    missing = bench.report.contenders[-1]
    assert missing.absent == "not installed: pip install no-such-package"
    assert "not installed: pip install no-such-package" in output_of(capsys, "--from", saved_run)


def test_everyone_runs_with_the_threads_asked_for(everyone):
    for participant in everyone.report.contenders:
        assert participant.absent or participant.threads == 1, participant.name


# --- What people and machines see -----------------------------------------------------------------


def test_a_saved_run_is_the_run(bench):
    document = json.loads(json.dumps(bench.report.as_dict()))
    assert Report.from_dict(document) == bench.report


def test_json_is_one_document_with_ratios(capsys):
    document = json.loads(
        output_of(
            capsys,
            "--shapes",
            "40000x2",
            "--contenders",
            "crossent,textbook",
            "--rounds",
            2,
            "--threads",
            1,
            "--json",
        )
    )
    assert set(document) == {"schema", "settings", "contenders", "cases", "accuracy"}
    (case,) = document["cases"]
    ours = next(t for t in case["timings"] if (t["contender"], t["task"]) == ("crossent", LOSS))
    peer = next(t for t in case["timings"] if (t["contender"], t["task"]) == ("textbook", LOSS))
    limits = {limit["task"]: limit["median"] for limit in case["limits"]}
    assert ours["times_best_peer"] == pytest.approx(peer["median"] / ours["median"])
    assert ours["of_limit"] == pytest.approx(max(limits["read"], limits["exp"]) / ours["median"])
    assert ours["best_peer"] == "textbook"
    assert ours["lower"] <= ours["median"] <= ours["upper"]
    assert document["settings"]["threads"] == 1


def test_the_header_says_what_one_must_know_to_believe(monkeypatch, bench, saved_run, capsys):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    found = Settings(threads=2, rounds=3).environment
    assert found["OPENBLAS_CORETYPE"] == "Haswell"
    assert "OMP_NUM_THREADS" not in found  # the bench sets it for everyone
    shown = " ".join(output_of(capsys, "--from", saved_run).split())
    run = bench.report.settings
    wanted = [run.processor, run.isa, run.system, run.python, run.crossent]
    wanted += ["threads 1", "rounds 3", f"numpy {np.__version__}", "Not timed:", "medians over"]
    for words in wanted:
        assert " ".join(words.split()) in shown, words


def test_the_table_has_everyone_and_who_is_best(bench, saved_run, capsys):
    shown = output_of(capsys, "--from", saved_run)
    for participant in bench.report.contenders:
        assert participant.title in shown
    for words in ("64 x 10, bfloat16", "times the best peer *", "reading the logits once", "% off"):
        assert words in shown
    assert "Without textbook NumPy class: has no bfloat16." in shown


def test_markdown_and_chart_come_from_a_saved_run(saved_run, capsys, tmp_path):
    picture = tmp_path / "bench.svg"
    shown = output_of(capsys, "--from", saved_run, "--markdown", "--plot", picture)
    tables = [block for block in shown.split("\n\n") if block.startswith("|")]
    assert len(tables) == 3 * 3  # loss, loss + gradient, accuracy; for each type
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1
    drawn = picture.read_text()
    assert drawn.startswith("<?xml")
    assert len(drawn) > 10_000


def test_help_teaches_and_names_every_contender(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shown = " ".join(output_of(capsys, "--help").split())
    for words in (
        *CONTENDERS,
        "--quick",
        "crossent bench --from run.json --markdown",
        "take turns",
    ):
        assert words in shown, words


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["--shapes", "4096"], 2, "rows x classes"),
        (["--shapes", "3x4/2"], 2, "no axis 2"),
        (["--shapes", "3x0"], 2, "at least 1"),
        (["--shapes", ","], 2, "empty"),
        (["--dtypes", "int8"], 2, "float32, bfloat16, float64"),
        (["--contenders", "torch,numpy"], 2, "'numpy' is none of crossent"),
        (["--threads", "0"], 2, "--threads"),
        (["--threads", "100000"], 2, "CPUs"),
        (["--rounds", "0"], 2, "at least 1"),
        (["--json", "--markdown"], 2, "choose one"),
        (["--plot", "a.txt"], 2, "--plot a.txt"),
        (["--from", "no-such.json"], 1, "no-such.json"),
        (["--from", "bad.json"], 1, "crossent bench --json > run.json"),
        (["--from", "bad.json", "--quick"], 2, "leave out"),
    ],
)
def test_bad_usage_is_one_line(arguments, code, named, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.json").write_text('{"schema": 0}')
    assert cli.main(["bench", *arguments]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert named in shown.err
    assert shown.err.count("\n") == 1


# --- Saved runs that are none ---------------------------------------------------------------------

DAMAGE = {
    "settings": None,
    "settings.caches": None,
    "settings.isa": 3,
    "settings.memory_bytes": "much",
    "settings.load_average": [],
    "contenders.0.versions": None,
    "contenders.0.title": 1,
    "cases": "none",
    "cases.0.case.shape": [],
    "cases.0.case.dtype": "int8",
    "cases.0.case.axis": 7,
    "cases.0.left_out": [],
    "cases.0.rounds": [1],
    "cases.0.timings.0.samples": [],
    "cases.1.timings.0.samples": [1.0, 0.0],
    "cases.0.timings.0.samples.1": 10**400,
    "cases.0.timings.0.peak_bytes": "x",
    "accuracy.0.errors": None,
    "accuracy.0.errors.scale 1.loss_ulp": "x",
}


def error_of(capsys, path):
    """The one line that is told of a file, without its closing advice."""
    assert cli.main(["bench", "--from", str(path)]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    told, advice = shown.err.split("; make one: ")
    assert advice == "crossent bench --json > run.json\n"
    return told


@pytest.mark.parametrize("place", DAMAGE)
def test_a_damaged_run_is_one_line_that_names_the_place(place, saved_run, tmp_path, capsys):
    document = json.loads(saved_run.read_text())
    *way, last = (int(step) if step.isdigit() else step for step in place.split("."))
    part = document
    for step in way:
        part = part[step]
    part[last] = DAMAGE[place]
    damaged = tmp_path / "run.json"
    damaged.write_text(json.dumps(document))
    told = error_of(capsys, damaged).replace("[", ".").replace("]", "")
    assert f"run.{'.'.join(map(str, way))}".rstrip(".") in told


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[1]", b'"text"', bytes(range(256)), b"[" * 100_000, b"1" * 5000],
    ids=["empty", "null", "list", "text", "binary", "deep", "long number"],
)
def test_what_is_no_run_at_all_is_one_line(content, tmp_path, capsys):
    path = tmp_path / "run.json"
    path.write_bytes(content)
    assert len(error_of(capsys, path)) < 500


def test_no_advice_names_a_file_of_data_to_be_written_over(tmp_path, capsys):
    np.save(tmp_path / "logits.npy", np.zeros((2, 2)))
    assert "not a run" in error_of(capsys, tmp_path / "logits.npy")


def test_a_run_that_is_not_there_is_said_to_be_missing(tmp_path, capsys):
    assert cli.main(["bench", "--from", str(tmp_path / "rnu.json")]) == 1
    assert capsys.readouterr().err.endswith("rnu.json: there is no such file; is the path right?\n")


def test_every_field_that_is_missing_is_named(saved_run, tmp_path, capsys):
    document = json.loads(saved_run.read_text())
    for owner, place in ((document, "run"), (document["cases"][0]["timings"][0], "timings[0]")):
        for field in ("accuracy",) if owner is document else ("contender", "task", "calls"):
            value = owner.pop(field)
            path = tmp_path / "run.json"
            path.write_text(json.dumps(document))
            assert f"{place} has no {field}" in error_of(capsys, path)
            owner[field] = value


def test_a_file_without_end_is_not_read_to_its_end(capsys):
    assert "longer than 64 MiB" in error_of(capsys, "/dev/zero")


def test_names_that_are_nobody_s_and_words_like_markup_are_shown_as_they_are(
    saved_run, tmp_path, capsys
):
    document = json.loads(saved_run.read_text())
    document["contenders"] = [document["contenders"][0] | {"title": "[bold]a[/c]", "more": 1}]
    document["accuracy"][0]["errors"].popitem()
    path = tmp_path / "run.json"
    path.write_text(json.dumps(document))
    for form in ((), ("--markdown",)):
        shown = output_of(capsys, "--from", path, *form)
        assert "[bold]a[/c]" in shown
        assert "textbook" in shown
        assert " -" in shown


def modules():
    names = pkgutil.walk_packages(crossent.commands.bench.__path__, "crossent.commands.bench.")
    return sorted(name for _, name, _ in names)


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings_run(name):
    assert doctest.testmod(import_module(name)).failed == 0


def test_contenders_are_named_once():
    assert all(issubclass(kind, Contender) for kind in CONTENDERS.values())
    assert len({kind.title for kind in CONTENDERS.values()}) == len(CONTENDERS)


# --- The arrays of a run --------------------------------------------------------------------------


def test_arrays_of_a_killed_run_are_removed_by_the_next_one(tmp_path, capsys):
    """They may be gigabytes, and in memory. Those of a run that lives stay."""
    child = os.fork()
    if child == 0:
        with own_folder(tmp_path, "-arrays") as folder:
            (folder / "logits.npy").write_bytes(b"1")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = tmp_path.iterdir()
    with own_folder(tmp_path, "-arrays") as one, own_folder(tmp_path, "-arrays") as two:
        assert not left.exists()
        assert one.is_dir()
        assert two.is_dir()
    assert list(tmp_path.iterdir()) == []
    said = capsys.readouterr().err
    assert said == f"crossent: removed {left}, which a run that was killed had left\n"


def test_a_folder_that_was_taken_for_a_leftover_is_made_anew(tmp_path, monkeypatch):
    real, taken = terminal.locked, []

    def locked(folder):
        if not taken:
            taken.append(folder)
            folder.rmdir()
            folder.mkdir()
            return nullcontext(False)
        return real(folder)

    monkeypatch.setattr(terminal, "locked", locked)
    with own_folder(tmp_path, "-arrays") as folder:
        assert folder != taken[0]
        assert list(tmp_path.iterdir()) == [folder]


def test_a_case_that_there_is_no_room_for_is_left_out(capsys):
    """Before anything is written: a machine without memory left is of no use to anyone."""
    shown = output_of(
        capsys, "--shapes", "1000000000x1000000000/0", "--contenders", "textbook", "--rounds", "1"
    )
    assert re.search(r"Without textbook NumPy class: its arrays take 3725290305\.\d GiB; ", shown)
    assert "The machine itself" not in shown


def test_arrays_on_a_full_disk_are_an_error_that_names_them(tmp_path):
    def fill():
        yield np.zeros(10)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device: '.*logits\.npy'"):
        write_array(tmp_path / "logits.npy", np.dtype(float), (20,), fill())

"""crossent bench: everyone is timed in turns on the same data, and the report can be believed.

Contenders that are not installed are left out by design; the report names them.
"""

import doctest
import json
import pkgutil
from importlib import import_module

import numpy as np
import pytest

import crossent.commands.bench
from crossent.commands import cli
from crossent.commands.bench import settings
from crossent.commands.bench.cases import LOSS, Case
from crossent.commands.bench.contender import Contender
from crossent.commands.bench.contenders import CONTENDERS
from crossent.commands.bench.contenders.numpy import Textbook
from crossent.commands.bench.contenders.ours import Crossent
from crossent.commands.bench.limits import LIMITS
from crossent.commands.bench.report import Report
from crossent.commands.bench.run import Plan, is_installed, run_bench

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
    modules, packages = ("no_such_module",), ("no-such-package",)


class Bench:
    """A run that many tests look at, with the progress that it told."""

    def __init__(self, cases, contenders, rounds, accuracy) -> None:
        self.contenders = (*contenders, NotThere)
        self.plan = Plan(cases, self.contenders, 1, rounds, accuracy)
        self.advanced: list[int] = []
        self.report = run_bench(self.plan, self.advanced.append)


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


@pytest.mark.parametrize("run", ["bench", "everyone"])
def test_everyone_installed_is_timed_on_every_task_that_it_has(run, request):
    bench = request.getfixturevalue(run)
    for result in bench.report.cases:
        for contender in bench.contenders:
            able = is_installed(contender) and contender.why_not(result.case) is None
            for task in contender.tasks:
                timing = result.find(contender.name, task)
                assert (timing is not None) == able, (contender.name, result.case, task)
                if timing is not None:
                    assert len(timing.samples) == bench.plan.rounds
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
        assert [timing.task for timing in result.limits] == list(LIMITS)
        assert all("limits" in order for order in result.rounds)


def test_turns_alternate_and_another_one_begins_each_round(bench):
    for result in bench.report.cases:
        orders = result.rounds
        assert len(orders) == ROUNDS
        everyone = ["limits", *(t for t in dict.fromkeys(x.contender for x in result.timings))]
        assert all(sorted(order) == sorted(everyone) for order in orders)
        assert [order[0] for order in orders] == (2 * everyone)[:ROUNDS]


def test_progress_adds_up(bench):
    assert sum(bench.advanced) == bench.plan.steps


def test_whoever_is_missing_is_named_with_how_to_install_it(bench, saved_run, capsys):
    missing = bench.report.participants[-1]
    assert missing.absent == "not installed: pip install no-such-package"
    assert "not installed: pip install no-such-package" in output_of(capsys, "--from", saved_run)


def test_everyone_runs_with_the_threads_asked_for(everyone):
    for participant in everyone.report.participants:
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
    found = settings.collect_settings(2, 3)
    assert found["environment"]["OPENBLAS_CORETYPE"] == "Haswell"
    assert "OMP_NUM_THREADS" not in found["environment"]  # the bench sets it for everyone
    shown = " ".join(output_of(capsys, "--from", saved_run).split())
    run = bench.report.settings
    wanted = [run["processor"], run["isa"], run["system"], run["python"], run["crossent"]]
    wanted += ["threads 1", "rounds 3", f"numpy {np.__version__}", "Not timed:", "medians over"]
    for words in wanted:
        assert " ".join(words.split()) in shown, words


def test_the_table_has_everyone_and_who_is_best(bench, saved_run, capsys):
    shown = output_of(capsys, "--from", saved_run)
    for participant in bench.report.participants:
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
        (["--from", "bad.json"], 1, "crossent bench --json > bad.json"),
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


def modules():
    names = pkgutil.walk_packages(crossent.commands.bench.__path__, "crossent.commands.bench.")
    return sorted(name for _, name, _ in names)


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings_run(name):
    assert doctest.testmod(import_module(name)).failed == 0


def test_contenders_are_named_once():
    assert all(issubclass(kind, Contender) for kind in CONTENDERS.values())
    assert len({kind.title for kind in CONTENDERS.values()}) == len(CONTENDERS)

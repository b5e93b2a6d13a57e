"""The workers of the bench: one process a contender, inputs restored, the wrong left out."""

import pickle
import subprocess
import sys
import time
from contextlib import closing
from types import MappingProxyType

import numpy as np
import pytest
from test_bench import CASES

from crossent.commands.bench import measure, run
from crossent.commands.bench.arrays import as_stored, from_stored, read_arrays, write_arrays
from crossent.commands.bench.cases import FRESH, IN_PLACE, LOSS, OUT, SHAPES, Case, parse_shape
from crossent.commands.bench.contenders.numpy import Crossent
from crossent.commands.bench.contenders.torch import CrossentTorch
from crossent.commands.bench.measure import Call
from crossent.commands.bench.process import ContenderError, Worker
from crossent.commands.bench.worker import Session

ROUNDS = 3


@pytest.fixture
def no_waiting(monkeypatch):
    """Workers in this process have no one to wait for."""
    monkeypatch.setattr(measure, "FREEING_SECONDS", 0)
    monkeypatch.setattr(measure, "TURN_SECONDS", 0)
    monkeypatch.setattr(run, "SETTLE_SECONDS", 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of resident memory")
def test_peak_memory_is_what_a_call_takes():
    found = measure.watch_memory(Call(lambda: (1.0, np.ones(64 << 20, np.uint8))))
    assert 60 < found.peak_bytes / 2**20 < 80


# --- Inputs are restored, and whoever is wrong is left out ----------------------------------------


@pytest.mark.filterwarnings("ignore:Converting a tensor")
@pytest.mark.parametrize(
    ("contender", "tasks"),
    [(Crossent, (LOSS, FRESH, OUT, IN_PLACE)), (CrossentTorch, (LOSS, FRESH, IN_PLACE))],
)
def test_inputs_are_restored_after_every_call(contender, tasks, tmp_path):
    if not contender.is_installed():
        pytest.skip("PyTorch is not installed")
    write_arrays(CASES[0], tmp_path)
    session = Session(contender(), 1)
    session.start()
    session.load(CASES[0], tmp_path)
    assert tuple(session.calls) == tasks
    before = float(session.calls[LOSS].function())
    for task, turn in session.turn().items():
        assert turn.calls >= measure.TURN_CALLS
        assert turn.loss == pytest.approx(before, rel=1e-6)
        measure.take_turn(session.calls[task])
        assert float(session.calls[LOSS].function()) == before


def test_the_first_call_of_a_turn_is_not_timed():
    made = []

    def slow():
        made.append(None)
        time.sleep(measure.LONG_TURN_SECONDS)

    turn = measure.take_turn(Call(slow))
    assert (turn.calls, len(made)) == (1, 2)


class InProcess:
    """A worker without a process."""

    def __init__(self, contender):
        self.contender = contender
        self.session = Session(contender(), 1)
        self.session.start()
        self.asked = []

    def revive(self):
        pass

    def ask(self, do, *more):
        self.asked.append(do)
        try:
            return getattr(self.session, do)(*more)
        except Exception as error:
            raise ContenderError(str(error)) from error


class Forgetful(Crossent):
    """Does not restore what it overwrote, once warm: its next loss is that of a gradient."""

    name = "forgetful"

    def load(self, case, arrays):
        made, call = [], super().load(case, arrays)[IN_PLACE]

        def restore_twice():
            made.append(None)
            if len(made) <= 2:
                call.restore()

        return {IN_PLACE: Call(call.function, restore_twice)}


class Wrong(Crossent):
    """Computes something else."""

    name = "wrong"

    def load(self, case, arrays):
        return {LOSS: Call(lambda: 1.5)}


class Failing(Crossent):
    """Fails at the second round."""

    name = "failing"

    def load(self, case, arrays):
        made, loss = [], super().load(case, arrays)[LOSS].function

        def fail_in_the_end():
            made.append(None)
            if len(made) > 4:
                raise RuntimeError("no more")
            return loss()

        return {LOSS: Call(fail_in_the_end)}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(Forgetful, "inputs changed"), (Wrong, "loss 1.5, but crossent"), (Failing, "no more")],
)
def test_whoever_is_wrong_is_left_out_and_the_others_go_on(kind, reason, tmp_path, no_waiting):
    workers = [InProcess(Crossent), InProcess(kind)]
    result = run.run_case(CASES[0], workers, ROUNDS, tmp_path, lambda steps: None)
    assert reason in result.left_out[kind.name]
    assert {timing.contender for timing in result.timings} == {"crossent"}
    assert all(len(timing.samples) == ROUNDS for timing in result.timings)
    assert workers[1].asked[-1] == "unload"


def test_where_memory_is_short_arrays_are_loaded_anew_for_every_turn(
    tmp_path, monkeypatch, no_waiting
):
    case = CASES[0]
    for room, loads in ((5 * case.bytes, 1 + ROUNDS), (8 * case.bytes, 1)):
        monkeypatch.setattr(run, "free_memory", lambda room=room: room)
        workers = [InProcess(Crossent), InProcess(Crossent)]
        run.run_case(case, workers, ROUNDS, tmp_path, lambda steps: None)
        assert workers[0].asked.count("load") == workers[0].asked.count("unload") == loads
    monkeypatch.setattr(run, "free_memory", lambda: 2 * case.bytes)
    result = run.run_case(case, workers, ROUNDS, tmp_path, lambda steps: None)
    assert "GiB are free" in result.left_out["crossent"]


# --- Processes ------------------------------------------------------------------------------------


def test_a_worker_that_dies_is_reported():
    with closing(Worker(Crossent, 1)) as worker:
        assert worker.ask("start")["threads"] == 1
        with pytest.raises(ContenderError, match="no_such_request"):
            worker.ask("no_such_request")
        worker._process.kill()
        for _ in range(2):  # it says so however often it is asked
            with pytest.raises(ContenderError, match="killed"):
                worker.ask("unload")
        worker.revive()
        assert worker.ask("errors", "scale 1", "float32").loss_ulp < 2


def test_what_a_library_prints_does_not_come_between_the_replies():
    program = """
import sys
from crossent.commands.bench import worker
from crossent.commands.bench.contenders.numpy import Crossent
class Loud(Crossent):
    def start(self, threads):
        print("welcome")
        return threads
worker.WORKERS["loud"] = Loud
sys.argv = ["worker", "loud", "1"]
worker.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps(("start", ())),
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    answer, failure = pickle.loads(done.stdout)
    assert (answer["threads"], failure) == (1, None)
    assert b"welcome" in done.stderr


def test_a_worker_imports_no_library_before_it_is_asked_to_start():
    program = "import sys, crossent.commands.bench.worker; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert {"torch", "jax", "scipy", "sklearn", "rich", "typer"}.isdisjoint(done.stdout.split())


def test_every_process_has_its_contender_s_environment(monkeypatch):
    class Environment(Crossent):
        environment = MappingProxyType({"THP_MEM_ALLOC_ENABLE": "1"})

    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    for kind, wanted in ((Environment, b"=1\0"), (Crossent, None)):
        with closing(Worker(kind, 1)) as worker:
            worker.ask("start")
            with open(f"/proc/{worker._process.pid}/environ", "rb") as file:
                found = file.read()
        assert b"CROSSENT_NUM_THREADS=1\0" in found
        assert (b"THP_MEM_ALLOC_ENABLE" + wanted in found) if wanted else b"THP_MEM" not in found


# --- Data -----------------------------------------------------------------------------------------


def test_everyone_gets_the_same_data_every_time(tmp_path):
    for case in CASES:
        write_arrays(case, tmp_path)
        first = {name: array.copy() for name, array in read_arrays(tmp_path).items()}
        write_arrays(case, tmp_path)
        again = read_arrays(tmp_path)
        assert all((first[name] == again[name]).all() for name in ("logits", "targets"))
        assert first["logits"].shape == case.shape
        assert first["targets"].shape == case.rows
        assert abs(from_stored(first["logits"]).std() - 1) < 0.2


def test_bfloat16_is_rounded_to_nearest():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    values[:3] = 1.00390625, 1.01171875, -0.0  # halfway, to even below and above
    wanted = values.astype(ml_dtypes.bfloat16)
    assert (as_stored(values, "bfloat16") == wanted.view(np.uint16)).all()
    assert (from_stored(as_stored(values, "bfloat16")) == wanted.astype(np.float32)).all()


def test_shapes_read_back_as_they_are_written():
    for text in SHAPES:
        shape, axis = parse_shape(text)
        assert Case(shape, "float32", axis).spelled == text

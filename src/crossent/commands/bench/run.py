"""A run: workers are started, take turns on every case, and are judged for accuracy.

On a case the workers that can compute it warm up, then take turns round by round.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict
from importlib.util import find_spec
from math import inf, isclose
from pathlib import Path
from typing import Any

from crossent.commands.bench.accuracy import REGIMES, Errors, can_judge
from crossent.commands.bench.cases import Case, shared_folder, write_arrays
from crossent.commands.bench.contender import Contender
from crossent.commands.bench.limits import MachineLimits
from crossent.commands.bench.measure import proc_bytes
from crossent.commands.bench.process import ContenderError, Worker
from crossent.commands.bench.report import Accuracy, CaseResult, Participant, Report, Timing
from crossent.commands.bench.settings import Settings
from crossent.commands.terminal import progress

Advance = Callable[[float], None]  # called with the share of a step of the progress that is done

# Whoever takes long sits rounds out, so as not to take longer than this on a case; but it takes
# part in LEAST_ROUNDS.
CASE_SECONDS = 15.0
LEAST_ROUNDS = 2
CALLS_PER_TURN = 2  # of a task that takes long: the first is not timed

# Before a turn: the threads of whoever came before spin for a while in case there is more to do.
SETTLE_SECONDS = 0.02

MEMORY_SHARE = 0.85  # of what is free: the rest is the system's

# How far the mean losses of contenders may be apart: they compute the same.
LOSS_TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 2e-2}


def run_bench(
    cases: Sequence[Case],
    contenders: Sequence[type[Contender]],
    threads: int,
    rounds: int,
    accuracy: bool = True,
) -> Report:
    """Times and memory of all contenders on all cases, and errors for the types of the cases."""
    settings = Settings(threads=threads, rounds=rounds)
    dtypes = list(dict.fromkeys(case.dtype for case in cases)) if accuracy else []
    folder = shared_folder(max((case.bytes for case in cases), default=0))
    everyone: list[type[Contender]] = [MachineLimits, *contenders]
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory("-crossent-bench", dir=folder)
        arrays = Path(stack.enter_context(temporary))
        workers = [
            stack.enter_context(closing(Worker(contender, threads)))
            for contender in everyone
            if is_installed(contender)
        ]
        steps = len(cases) * (1 + rounds) + len(dtypes)  # a warm-up and the rounds of each case
        advance = stack.enter_context(progress("measuring", steps))
        started = start_all(workers)
        running = [worker for worker in workers if not started[worker.contender.name].absent]
        results = tuple(run_case(case, running, rounds, arrays, advance) for case in cases)
        judged = tuple(judge_all(dtypes, running, advance))
    listed = tuple(started.get(c.name) or absent(c) for c in contenders)
    return Report(settings, listed, results, judged)


def is_installed(contender: type[Contender]) -> bool:
    """Whether all modules that a contender needs are there; none is imported."""
    return all(find_spec(module) is not None for module in contender.modules)


def absent(contender: type[Contender]) -> Participant:
    """A contender that is not installed, and how to install it."""
    return participant(
        contender, absent=f"not installed: pip install {' '.join(contender.packages)}"
    )


def participant(contender: type[Contender], **found: Any) -> Participant:
    """A contender with what was found out about it."""
    return Participant(contender.name, contender.title, contender.ours, **found)


def start_all(workers: list[Worker]) -> dict[str, Participant]:
    """What every worker says of itself, by contender. They import side by side."""
    for worker in workers:
        worker.send("start")
    started = {}
    for worker in workers:
        contender = worker.contender
        try:
            found = worker.receive() | {"environment": dict(contender.environment)}
        except ContenderError as error:
            found = {"absent": f"does not start: {error}"}
        started[contender.name] = participant(contender, **found)
    return started


def judge_all(dtypes: list[str], workers: list[Worker], advance: Advance) -> Iterator[Accuracy]:
    """The largest errors of every contender for every type."""
    judged = [worker for worker in workers if worker.contender is not MachineLimits]
    for dtype in dtypes:
        for worker in judged:
            yield judge(worker, dtype)
            advance(1 / len(judged))


def judge(worker: Worker, dtype: str) -> Accuracy:
    """One contender's errors for one type, or why there are none."""
    name = worker.contender.name
    reason = worker.contender.why_not(Case((1, 2), dtype))
    if reason is None and not can_judge(dtype):
        reason = f"np.longdouble is no more precise than {dtype} on this machine"
    if reason is not None:
        return Accuracy(name, dtype, {}, reason)
    try:
        worker.revive()
        found = {regime: worker.ask("errors", regime=regime, dtype=dtype) for regime in REGIMES}
    except ContenderError as error:
        return Accuracy(name, dtype, {}, str(error))
    return Accuracy(name, dtype, {regime: Errors(**each) for regime, each in found.items()})


# --- One case -------------------------------------------------------------------------------------


class Entry:
    """A worker within one case, and what it has measured."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.name = worker.contender.name
        self.rounds = 0  # in which it takes part
        self.first: dict[str, Any] = {}  # of each task, at the warm-up
        self.turns: dict[str, list[Any]] = {task: [] for task in worker.contender.tasks}

    def warm_up(self, rounds: int) -> None:
        """Every task for the first time: compiled, its memory measured, its time foreseen."""
        self.first = {task: self.worker.ask("warm_up", task=task) for task in self.turns}
        seconds = sum(CALLS_PER_TURN * first["seconds"] for first in self.first.values())
        self.rounds = rounds_for(seconds, rounds)

    def take_turn(self, dtype: str) -> None:
        """One turn of every task."""
        time.sleep(SETTLE_SECONDS)
        for task, turns in self.turns.items():
            turn = self.worker.ask("turn", task=task)
            loss, before = turn["loss"], self.first[task]["loss"]
            if not same_loss(loss, before, dtype):
                raise ContenderError(f"loss {loss:.7g} after {before:.7g}: inputs changed")
            turns.append(turn)

    def timings(self) -> Iterator[Timing]:
        """The results, task by task."""
        for task, turns in self.turns.items():
            samples = tuple(turn["seconds"] for turn in turns)
            calls = sum(turn["calls"] for turn in turns)
            if turns:
                yield Timing(self.name, task, samples, calls, self.first[task]["peak_bytes"])


def rounds_for(seconds: float, rounds: int) -> int:
    """In how many rounds a worker takes part whose turn takes so long.

    >>> rounds_for(0.1, 9), rounds_for(3.0, 9), rounds_for(60.0, 9), rounds_for(60.0, 1)
    (9, 5, 2, 1)
    """
    affordable = int(CASE_SECONDS / seconds) if seconds > 0 else rounds
    return min(rounds, max(LEAST_ROUNDS, affordable))


def takes_part(share: int, number: int, rounds: int) -> bool:
    """Whether a worker that takes part in `share` rounds is in this one: they are spread evenly.

    >>> [number for number in range(9) if takes_part(3, number, 9)]
    [2, 5, 8]
    """
    return (number * share) // rounds != ((number + 1) * share) // rounds


def same_loss(loss: float, other: float | None, dtype: str) -> bool:
    """Whether two results are the same computation's; limits have none."""
    return other is None or isclose(loss, other, rel_tol=LOSS_TOLERANCE[dtype])


class CaseRun:
    """The state of one case: who takes part, and who was left out."""

    def __init__(self, case: Case, workers: list[Worker], folder: Path) -> None:
        self.case, self.folder = case, folder
        self.left_out: dict[str, str] = {}
        self.entries = [Entry(worker) for worker in workers]
        held = sum(worker.contender.held for worker in workers)
        most = max((worker.contender.most_held for worker in workers), default=0)
        # Where memory is short nothing is kept between turns: arrays are loaded anew for each.
        self.keep = (held + most) * case.bytes < free_memory()

    def everyone_does(
        self, turn: Callable[[Entry], None], entries: list[Entry], advance: Advance
    ) -> None:
        """A turn of one after the other, a step in all; whoever fails is left out from then on."""
        for entry in entries:
            try:
                if not self.keep or not entry.rounds:
                    self.load(entry.worker)
                turn(entry)
                if not self.keep:
                    entry.worker.ask("unload")
            except ContenderError as error:
                self.leave_out(entry, str(error))
            advance(1 / len(entries))

    def load(self, worker: Worker) -> None:
        """Have the worker hold the arrays; ContenderError where it cannot compute the case here."""
        contender = worker.contender
        if reason := contender.why_not(self.case):
            raise ContenderError(reason)
        needed, room = contender.most_held * self.case.bytes / 2**30, free_memory() / 2**30
        if needed > room:
            raise ContenderError(f"needs {needed:.1f} GiB; {room:.1f} GiB are free")
        worker.revive()
        worker.ask("load", case=asdict(self.case), folder=str(self.folder))

    def leave_out(self, entry: Entry, reason: str) -> None:
        """From here on the worker takes no part in the case."""
        self.left_out[entry.name] = reason
        self.entries.remove(entry)
        with suppress(ContenderError):  # it may be dead
            entry.worker.ask("unload")

    def leave_out_the_wrong(self) -> None:
        """Who computes another loss than the first contender does computes something else."""
        warm = [(entry, first) for entry in self.entries for first in entry.first.values()]
        losses = [(entry, first["loss"]) for entry, first in warm if first["loss"] is not None]
        for entry, loss in losses:
            first, expected = losses[0]
            if entry in self.entries and not same_loss(loss, expected, self.case.dtype):
                self.leave_out(entry, f"loss {loss:.7g}, but {first.name} {expected:.7g}")


def run_case(
    case: Case, workers: list[Worker], rounds: int, folder: Path, advance: Advance
) -> CaseResult:
    """Time every worker that can compute the case, in alternation; the first one moves on."""
    write_arrays(case, folder)
    run = CaseRun(case, workers, folder)
    run.everyone_does(lambda entry: entry.warm_up(rounds), list(run.entries), advance)
    run.leave_out_the_wrong()
    order = []
    for number in range(rounds):
        taking_turns = [e for e in run.entries if takes_part(e.rounds, number, rounds)]
        first = number % max(1, len(taking_turns))
        taking_turns = taking_turns[first:] + taking_turns[:first]
        run.everyone_does(lambda entry: entry.take_turn(case.dtype), taking_turns, advance)
        order.append(tuple(entry.name for entry in taking_turns))
    for entry in run.entries if run.keep else ():
        entry.worker.ask("unload")
    timings = [timing for entry in run.entries for timing in entry.timings()]
    limits = tuple(timing for timing in timings if timing.contender == MachineLimits.name)
    others = tuple(timing for timing in timings if timing.contender != MachineLimits.name)
    return CaseResult(case, limits, others, run.left_out, tuple(order))


def free_memory() -> float:
    """Bytes that a case may take; without end where the system does not say."""
    available = proc_bytes("meminfo", "MemAvailable")
    return inf if available is None else available * MEMORY_SHARE

"""One case: the workers that can compute it warm up, then take turns round by round."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from math import inf, isclose
from pathlib import Path
from typing import Any

from crossent.commands.bench.cases import Case, write_arrays
from crossent.commands.bench.contender import Contender
from crossent.commands.bench.limits import MachineLimits
from crossent.commands.bench.measure import proc_bytes
from crossent.commands.bench.process import ContenderError, Worker
from crossent.commands.bench.report import CaseResult, Timing

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
            if turns:
                samples = tuple(turn["seconds"] for turn in turns)
                calls = sum(turn["calls"] for turn in turns)
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


def same_loss(loss: float | None, other: float | None, dtype: str) -> bool:
    """Whether two results are the same computation's."""
    if loss is None or other is None:
        return True
    return isclose(loss, other, rel_tol=LOSS_TOLERANCE[dtype])


class CaseRun:
    """The state of one case: who takes part, and who was left out."""

    def __init__(self, case: Case, workers: list[Worker], folder: Path) -> None:
        self.case, self.folder = case, folder
        self.left_out: dict[str, str] = {}
        self.entries = [Entry(worker) for worker in workers if self.can_take_part(worker)]
        held = sum(worker.contender.held for worker in workers)
        most = max((worker.contender.most_held for worker in workers), default=0)
        # Where memory is short nothing is kept between turns: arrays are loaded anew for each.
        self.keep = (held + most) * case.bytes < free_memory()

    def can_take_part(self, worker: Worker) -> bool:
        """Whether a worker can compute the case here; if not, says why in `left_out`."""
        contender = worker.contender
        reason = contender.why_not(self.case) or self.lacks_memory(contender)
        if reason is None:
            try:
                worker.revive()
            except ContenderError as error:
                reason = str(error)
        if reason is not None:
            self.left_out[contender.name] = reason
        return reason is None

    def lacks_memory(self, contender: type[Contender]) -> str | None:
        """Why a contender should not even begin, or None."""
        needed, room = contender.most_held * self.case.bytes, free_memory()
        if needed <= room:
            return None
        return f"needs {needed / 2**30:.1f} GiB; {room / 2**30:.1f} GiB are free"

    def everyone_does(
        self, turn: Callable[[Entry], None], entries: list[Entry], advance: Advance
    ) -> None:
        """A turn of one after the other, a step in all; whoever fails is left out from then on."""
        for entry in entries:
            try:
                self.load(entry)
                turn(entry)
                if not self.keep:
                    entry.worker.ask("unload")
            except ContenderError as error:
                self.leave_out(entry, str(error))
            advance(1 / len(entries))

    def load(self, entry: Entry) -> None:
        """Have the worker hold the arrays, if it does not yet."""
        if self.keep and entry.rounds:
            return
        if lacking := self.lacks_memory(entry.worker.contender):
            raise ContenderError(lacking)
        entry.worker.ask("load", case=asdict(self.case), folder=str(self.folder))

    def leave_out(self, entry: Entry, reason: str) -> None:
        """From here on the worker takes no part in the case."""
        self.left_out[entry.name] = reason
        self.entries.remove(entry)
        if entry.worker.alive:
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
    case: Case,
    workers: list[Worker],
    rounds: int,
    folder: Path,
    advance: Advance,
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

"""A run: workers are started, take turns on every case, and are judged for accuracy.

On a case the workers that can compute it warm up, then take turns round by round.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from math import inf, isclose
from pathlib import Path
from typing import Any

from crossent.commands.bench.accuracy import REGIMES, can_judge
from crossent.commands.bench.arrays import MEMORY_FOLDER, shared_folder, write_arrays
from crossent.commands.bench.cases import Case
from crossent.commands.bench.contender import Contender
from crossent.commands.bench.limits import MachineLimits
from crossent.commands.bench.measure import Turn, proc_bytes
from crossent.commands.bench.process import ContenderError, Worker
from crossent.commands.bench.report import Accuracy, CaseResult, Participant, Report, Timing
from crossent.commands.bench.settings import Settings
from crossent.commands.terminal import own_folder, progress

Advance = Callable[[float], None]  # called with the share of a step of the progress that is done

# Whoever takes long sits rounds out, so as not to take longer than this on a case; but it takes
# part in LEAST_ROUNDS.
CASE_SECONDS = 15.0
LEAST_ROUNDS = 2
CALLS_PER_TURN = 2  # of a task that takes long: the first is not timed

# Before a turn: the threads of whoever came before spin for a while in case there is more to do.
SETTLE_SECONDS = 0.02

INDEX_BYTES = 8  # of a target
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
        arrays = stack.enter_context(own_folder(folder, "-crossent-bench-arrays"))
        workers = {
            contender.name: stack.enter_context(closing(Worker(contender, threads)))
            for contender in everyone
            if contender.is_installed()
        }
        steps = len(cases) * (1 + rounds) + len(dtypes)  # a warm-up and the rounds of each case
        advance = stack.enter_context(progress("measuring", steps))
        for worker in workers.values():
            worker.send("start")  # they import side by side
        participants = [participant_of(each, workers.get(each.name)) for each in everyone]
        running = [workers[each.name] for each in participants if not each.absent]
        results = tuple(run_case(case, running, rounds, arrays, advance) for case in cases)
        judged = tuple(judge_all(dtypes, running, advance))
    return Report(settings, tuple(participants[1:]), results, judged)


def participant_of(contender: type[Contender], worker: Worker | None) -> Participant:
    """A contender with what its worker, which is starting, says of it; or how to install it."""
    found: dict[str, Any] = {"absent": f"not installed: pip install {' '.join(contender.packages)}"}
    if worker is not None:
        try:
            found = worker.receive() | {"environment": dict(contender.environment)}
        except ContenderError as error:
            found = {"absent": f"does not start: {error}"}
    return Participant(contender.name, contender.title, contender.ours, **found)


def judge_all(dtypes: list[str], workers: list[Worker], advance: Advance) -> Iterator[Accuracy]:
    """The largest errors of every contender for every type."""
    judged = [worker for worker in workers if worker.contender is not MachineLimits]
    for dtype in dtypes:
        for worker in judged:
            yield judge(worker, dtype)
            advance(1 / len(judged))


def judge(worker: Worker, dtype: str) -> Accuracy:
    """One contender's errors for one type, or why there are none."""
    errors, reason = {}, worker.contender.why_not(Case((1, 2), dtype))
    if reason is None and not can_judge(dtype):
        reason = f"np.longdouble is no more precise than {dtype} on this machine"
    if reason is None:
        try:
            worker.revive()
            errors = {regime: worker.ask("errors", regime, dtype) for regime in REGIMES}
        except ContenderError as error:
            reason = str(error)
    return Accuracy(worker.contender.name, dtype, errors, reason)


# --- One case -------------------------------------------------------------------------------------


class Entry:
    """A worker within one case: what it has measured, or why it is left out."""

    def __init__(self, worker: Worker, case: Case, folder: Path, keep: bool) -> None:
        self.worker, self.case, self.folder = worker, case, folder
        # Where memory is short nothing is kept between turns: arrays are loaded anew for each.
        self.keep, self.loaded = keep, False
        self.name = worker.contender.name
        # By task. The first is the warm-up: compiled, its memory measured, its time foreseen.
        self.turns: list[dict[str, Turn]] = []
        self.left_out: str | None = None

    def take_turn(self) -> None:
        """One turn of every task. Whoever fails is left out from then on."""
        try:
            if not self.loaded:
                self.load()
            time.sleep(SETTLE_SECONDS)
            turn = self.worker.ask("turn" if self.turns else "warm_up")
            self.check_losses(turn)
            self.turns.append(turn)
            if not self.keep:
                self.unload()
        except ContenderError as error:
            self.leave_out(str(error))

    def check_losses(self, turn: dict[str, Turn]) -> None:
        """Raise ContenderError where a turn's losses are not those of the warm-up."""
        for task, first in self.turns[0].items() if self.turns else ():
            loss, before = turn[task].loss, first.loss
            if not same_loss(loss, before, self.case.dtype):
                raise ContenderError(f"loss {loss:.7g} after {before:.7g}: inputs changed")

    def load(self) -> None:
        """Have the worker hold the arrays; ContenderError where it cannot compute the case here."""
        contender = self.worker.contender
        if reason := contender.why_not(self.case):
            raise ContenderError(reason)
        needed, room = contender.most_held * self.case.bytes / 2**30, free_memory() / 2**30
        if needed > room:
            raise ContenderError(f"needs {needed:.1f} GiB; {room:.1f} GiB are free")
        self.worker.revive()
        self.worker.ask("load", self.case, self.folder)
        self.loaded = True

    def unload(self) -> None:
        """Have the worker let go of them."""
        self.loaded = False
        self.worker.ask("unload")

    def leave_out(self, reason: str) -> None:
        """From here on the worker takes no part in the case."""
        self.left_out = reason
        with suppress(ContenderError):  # it may be dead
            self.unload()

    def share(self, rounds: int) -> int:
        """In how many rounds it takes part."""
        seconds = sum(turn.seconds for turn in self.turns[0].values())
        return rounds_for(CALLS_PER_TURN * seconds, rounds)

    def results(self) -> Iterator[Timing]:
        """What was measured, task by task."""
        for task, first in self.turns[0].items():
            turns = [turn[task] for turn in self.turns[1:]]
            samples = tuple(turn.seconds for turn in turns)
            calls = sum(turn.calls for turn in turns)
            yield Timing(self.name, task, samples, calls, first.peak_bytes)


def rounds_for(seconds: float, rounds: int) -> int:
    """In how many rounds a worker takes part whose turn takes so long.

    >>> rounds_for(0.1, 9), rounds_for(3.0, 9), rounds_for(60.0, 9), rounds_for(60.0, 1)
    (9, 5, 2, 1)
    """
    affordable = int(CASE_SECONDS / seconds) if seconds > 0 else rounds
    return min(rounds, max(LEAST_ROUNDS, affordable))


def is_in_round(share: int, number: int, rounds: int) -> bool:
    """Whether a worker that takes part in `share` rounds is in this one: they are spread evenly.

    >>> [number for number in range(9) if is_in_round(3, number, 9)]
    [2, 5, 8]
    """
    return (number * share) // rounds != ((number + 1) * share) // rounds


def same_loss(loss: float | None, other: float | None, dtype: str) -> bool:
    """Whether two results are the same computation's; limits have none."""
    return loss is None or other is None or isclose(loss, other, rel_tol=LOSS_TOLERANCE[dtype])


def run_case(
    case: Case, workers: list[Worker], rounds: int, folder: Path, advance: Advance
) -> CaseResult:
    """Time every worker that can compute the case, in alternation; the first one moves on."""
    if reason := why_no_room(case, folder):
        return CaseResult(case, (), (), {each.contender.name: reason for each in workers}, ())
    write_arrays(case, folder)
    held = sum(worker.contender.held for worker in workers)
    most = max((worker.contender.most_held for worker in workers), default=0)
    keep = (held + most) * case.bytes < free_memory()
    everyone = [Entry(worker, case, folder, keep) for worker in workers]
    take_turns(everyone, advance)
    entries = [entry for entry in everyone if not entry.left_out]
    leave_out_the_wrong(entries)
    order = []
    for number in range(rounds):
        entries = [entry for entry in entries if not entry.left_out]
        turn = [entry for entry in entries if is_in_round(entry.share(rounds), number, rounds)]
        first = number % max(1, len(turn))
        turn = turn[first:] + turn[:first]
        take_turns(turn, advance)
        order.append(tuple(entry.name for entry in turn))
    for entry in everyone:
        if entry.loaded:
            entry.unload()
    left_out = {entry.name: entry.left_out for entry in everyone if entry.left_out}
    timings = [t for entry in everyone if not entry.left_out for t in entry.results()]
    limits = tuple(timing for timing in timings if timing.contender == MachineLimits.name)
    others = tuple(timing for timing in timings if timing.contender != MachineLimits.name)
    return CaseResult(case, limits, others, left_out, tuple(order))


def take_turns(entries: list[Entry], advance: Advance) -> None:
    """A turn of one after the other, a step in all."""
    for entry in entries:
        entry.take_turn()
        advance(1 / len(entries))


def leave_out_the_wrong(entries: list[Entry]) -> None:
    """Who computes another loss than the first contender does computes something else."""
    warm = [(entry, turn.loss) for entry in entries for turn in entry.turns[0].values()]
    losses = [(entry, loss) for entry, loss in warm if loss is not None]
    for entry, loss in losses:
        first, expected = losses[0]
        if not entry.left_out and not same_loss(loss, expected, entry.case.dtype):
            entry.leave_out(f"loss {loss:.7g}, but {first.name} {expected:.7g}")


def why_no_room(case: Case, folder: Path) -> str | None:
    """Why the case's arrays cannot be written, where they cannot."""
    room = float(shutil.disk_usage(folder).free)
    if folder.parent == MEMORY_FOLDER:
        room = min(room, free_memory())
    needed = case.bytes + INDEX_BYTES * case.elements // case.classes
    if needed < room:
        return None
    return (
        f"its arrays take {needed / 2**30:.1f} GiB; {folder.parent} has room for {room / 2**30:.1f}"
    )


def free_memory() -> float:
    """Bytes that a case may take; without end where the system does not say."""
    available = proc_bytes("meminfo", "MemAvailable")
    return inf if available is None else available * MEMORY_SHARE

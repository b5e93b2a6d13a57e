"""A whole run: workers are started, take turns on every case, and are judged for accuracy."""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from crossent.commands.bench.accuracy import REGIMES, Errors, can_judge
from crossent.commands.bench.cases import Case
from crossent.commands.bench.contender import Contender
from crossent.commands.bench.data import shared_folder
from crossent.commands.bench.limits import MachineLimits
from crossent.commands.bench.process import ContenderError, Worker
from crossent.commands.bench.report import Accuracy, Participant, Report
from crossent.commands.bench.rounds import run_case
from crossent.commands.bench.settings import collect_settings


@dataclass(frozen=True)
class Plan:
    """What to run."""

    cases: tuple[Case, ...]
    contenders: tuple[type[Contender], ...]
    threads: int
    rounds: int
    accuracy: bool = True

    @property
    def steps(self) -> int:
        """What ``advance`` adds up to."""
        return len(self.cases) * (len(self.contenders) + 1) * (self.rounds + 1) + self.judgements

    @property
    def judgements(self) -> int:
        """How many pairs of contender and type are judged for accuracy."""
        return len(self.contenders) * len(self.dtypes) if self.accuracy else 0

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The types of the cases, each once."""
        return tuple(dict.fromkeys(case.dtype for case in self.cases))


def run_bench(plan: Plan, advance: Callable[[int], None] = lambda steps: None) -> Report:
    """Measure everything in the plan.

    Args:
        plan: the cases and the contenders.
        advance: called with a number of steps as they are done, ``plan.steps`` in all.
    """
    settings = collect_settings(plan.threads, plan.rounds)
    most_bytes = max((case.bytes for case in plan.cases), default=0)
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory("-crossent-bench", dir=shared_folder(most_bytes))
        folder = Path(stack.enter_context(temporary))
        everyone: list[type[Contender]] = [MachineLimits, *plan.contenders]
        workers = [
            stack.enter_context(Worker(contender, plan.threads))
            for contender in everyone
            if is_installed(contender)
        ]
        participants = start_all(workers)
        running = [worker for worker in workers if not participants[worker.contender.name].absent]
        cases = []
        for case in plan.cases:
            advance((len(plan.contenders) + 1 - len(running)) * (plan.rounds + 1))
            cases.append(run_case(case, running, plan.rounds, folder, advance))
        accuracy = tuple(judge_all(plan, running, advance))
    listed = tuple(participants.get(c.name) or absent(c) for c in plan.contenders)
    return Report(settings, listed, tuple(cases), accuracy)


def is_installed(contender: type[Contender]) -> bool:
    """Whether all modules that a contender needs are there; none is imported."""
    return all(find_spec(module) is not None for module in contender.modules)


def absent(contender: type[Contender]) -> Participant:
    """A contender that is not installed, and how to install it."""
    reason = f"not installed: pip install {' '.join(contender.packages)}"
    return Participant(contender.name, contender.title, contender.ours, absent=reason)


def start_all(workers: Iterable[Worker]) -> dict[str, Participant]:
    """What every worker says of itself, by contender. They import side by side."""
    for worker in workers:
        worker.send("start")
    participants = {}
    for worker in workers:
        contender = worker.contender
        fields: dict[str, Any]
        try:
            fields = worker.receive() | {"environment": dict(contender.environment)}
        except ContenderError as error:
            fields = {"absent": f"does not start: {error}"}
        participants[contender.name] = Participant(
            contender.name, contender.title, contender.ours, **fields
        )
    return participants


def judge_all(
    plan: Plan, workers: Iterable[Worker], advance: Callable[[int], None]
) -> Iterator[Accuracy]:
    """The largest errors of every contender for every type of the plan's cases."""
    judged = [worker for worker in workers if worker.contender is not MachineLimits]
    advance(plan.judgements - len(judged) * len(plan.dtypes) if plan.accuracy else 0)
    for dtype in plan.dtypes if plan.accuracy else ():
        for worker in judged:
            yield judge(worker, dtype)
            advance(1)


def judge(worker: Worker, dtype: str) -> Accuracy:
    """One contender's errors for one type, or why there are none."""
    contender = worker.contender
    reason = contender.why_not(Case((1, 2), dtype, kind=contender.kind))
    if reason is None and not can_judge(dtype):
        reason = f"np.longdouble is no more precise than {dtype} on this machine"
    if reason is not None:
        return Accuracy(contender.name, dtype, {}, reason)
    try:
        worker.revive()
        errors = {
            name: Errors(**worker.ask("errors", regime=name, dtype=dtype)) for name in REGIMES
        }
    except ContenderError as error:
        return Accuracy(contender.name, dtype, {}, str(error))
    return Accuracy(contender.name, dtype, errors)

"""A whole run: workers are started, take turns on every case, and are judged for accuracy."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from crossent.commands.bench.accuracy import REGIMES, Errors, can_judge
from crossent.commands.bench.cases import Case, shared_folder
from crossent.commands.bench.contender import Contender
from crossent.commands.bench.limits import MachineLimits
from crossent.commands.bench.process import ContenderError, Worker
from crossent.commands.bench.report import Accuracy, Participant, Report
from crossent.commands.bench.rounds import Advance, run_case
from crossent.commands.bench.settings import Settings
from crossent.commands.terminal import progress


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

"""What a run found, as data: the same that ``--json`` prints and ``--from`` reads."""

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from crossent.commands.bench.accuracy import Errors
from crossent.commands.bench.cases import FRESH, GRADIENTS, LOSS, Case
from crossent.commands.bench.limits import BOUNDS

SCHEMA = 1
SMALL = 1 << 15  # elements
ALLOCATOR_KEEPS = 1 << 25  # bytes: what glibc's malloc gives back to the system at once


@dataclass(frozen=True)
class Participant:
    """A contender and what it runs on, or why it does not take part."""

    name: str
    title: str
    ours: bool
    threads: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)  # set for it alone
    absent: str | None = None


@dataclass(frozen=True)
class Timing:
    """One task of one contender (or limit) on one case."""

    contender: str
    task: str
    samples: tuple[float, ...]  # seconds of a call, the median of each round's turn
    calls: int  # timed in all
    peak_bytes: int | None

    @property
    def median(self) -> float:
        """Over the rounds."""
        return statistics.median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Lower and upper; of fewer than four rounds the least and the largest."""
        if len(self.samples) < 4:
            return min(self.samples), max(self.samples)
        lower, _, upper = statistics.quantiles(self.samples, n=4, method="inclusive")
        return lower, upper

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, relative to the median."""
        lower, upper = self.quartiles
        return (upper - lower) / 2 / self.median


@dataclass(frozen=True)
class CaseResult:
    """All timings of a case."""

    case: Case
    timings: tuple[Timing, ...]
    limits: tuple[Timing, ...]
    left_out: dict[str, str]  # contenders that did not compute it, and why
    rounds: tuple[tuple[str, ...], ...]  # whose turn it was, in order; "limits": the machine's

    def find(self, contender: str, task: str) -> Timing | None:
        """A contender's timing of a task, or None."""
        found = (t for t in self.timings if (t.contender, t.task) == (contender, task))
        return next(found, None)

    def limit(self, task: str) -> Timing | None:
        """What the machine allows at most: the slowest of the task's bounds; None if it has none.

        Small calls are bound by the call itself. Small fresh gradients lie in memory that the
        allocator kept from the last, so that filling new memory is no bound on them.
        """
        if self.case.elements < SMALL or (task == FRESH and self.case.bytes < ALLOCATOR_KEEPS):
            return None
        bounds = [timing for timing in self.limits if timing.task in BOUNDS.get(task, ())]
        return max(bounds, key=lambda timing: timing.median, default=None)

    def best(self, contenders: Iterable[str], task: str) -> Timing | None:
        """The quickest way in which any of the contenders gets what the task gets.

        With a gradient: fresh, `out=` or in place, whichever is quickest.
        """
        names, tasks = set(contenders), (LOSS,) if task == LOSS else GRADIENTS
        found = [t for t in self.timings if t.contender in names and t.task in tasks]
        return min(found, key=lambda timing: timing.median, default=None)


@dataclass(frozen=True)
class Accuracy:
    """A contender's largest errors for logits of one type, by regime; or why there are none."""

    contender: str
    dtype: str
    errors: dict[str, Errors]
    failed: str | None = None


@dataclass(frozen=True)
class Report:
    """A whole run."""

    settings: dict[str, Any]
    participants: tuple[Participant, ...]
    cases: tuple[CaseResult, ...]
    accuracy: tuple[Accuracy, ...]

    def peers(self) -> list[str]:
        """The names of the contenders that are not ours."""
        return [p.name for p in self.participants if not p.ours]

    def title(self, name: str) -> str:
        """What a contender is called in tables."""
        return next(p.title for p in self.participants if p.name == name)

    def ours(self) -> list[str]:
        """The names of the contenders that are ours."""
        return [p.name for p in self.participants if p.ours]

    def as_dict(self) -> dict[str, Any]:
        """Everything, with what follows from it (medians, ratios) spelled out."""
        return {
            "schema": SCHEMA,
            "settings": self.settings,
            "contenders": [asdict(participant) for participant in self.participants],
            "cases": [self._case_as_dict(result) for result in self.cases],
            "accuracy": [
                {
                    "contender": accuracy.contender,
                    "dtype": accuracy.dtype,
                    "errors": {name: e._asdict() for name, e in accuracy.errors.items()},
                    "failed": accuracy.failed,
                }
                for accuracy in self.accuracy
            ],
        }

    def _case_as_dict(self, result: CaseResult) -> dict[str, Any]:
        def timing_as_dict(timing: Timing) -> dict[str, Any]:
            lower, upper = timing.quartiles
            document = asdict(timing)
            return document | {"median": timing.median, "lower": lower, "upper": upper}

        def compared(timing: Timing) -> dict[str, Any]:
            limit = result.limit(timing.task)
            best = result.best(self.peers(), timing.task)
            return timing_as_dict(timing) | {
                "limit": limit and limit.task,
                "of_limit": limit and limit.median / timing.median,
                "best_peer": best and best.contender,
                "times_best_peer": best and best.median / timing.median,
            }

        return {
            "case": asdict(result.case) | {"spelled": result.case.spelled},
            "limits": [timing_as_dict(timing) for timing in result.limits],
            "timings": [compared(timing) for timing in result.timings],
            "left_out": result.left_out,
            "rounds": result.rounds,
        }

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> "Report":
        """The report that `as_dict` wrote.

        Raises:
            ValueError, KeyError, TypeError: the document is something else.
        """
        if document["schema"] != SCHEMA:
            raise ValueError(f"its schema is {document['schema']}, not {SCHEMA}")
        return cls(
            settings=document["settings"],
            participants=tuple(Participant(**entry) for entry in document["contenders"]),
            cases=tuple(_case_from(entry) for entry in document["cases"]),
            accuracy=tuple(_accuracy_from(entry) for entry in document["accuracy"]),
        )


def _timing_from(entry: dict[str, Any]) -> Timing:
    return Timing(
        entry["contender"], entry["task"], tuple(entry["samples"]), entry["calls"],
        entry["peak_bytes"],
    )  # fmt: skip


def _case_from(entry: dict[str, Any]) -> CaseResult:
    fields = {k: v for k, v in entry["case"].items() if k != "spelled"}
    return CaseResult(
        case=Case(**fields | {"shape": tuple(fields["shape"])}),
        timings=tuple(_timing_from(timing) for timing in entry["timings"]),
        limits=tuple(_timing_from(timing) for timing in entry["limits"]),
        left_out=entry["left_out"],
        rounds=tuple(tuple(names) for names in entry["rounds"]),
    )


def _accuracy_from(entry: dict[str, Any]) -> Accuracy:
    errors = {
        name: Errors(**{k: float("nan") if v is None else v for k, v in fields.items()})
        for name, fields in entry["errors"].items()
    }
    return Accuracy(entry["contender"], entry["dtype"], errors, entry["failed"])

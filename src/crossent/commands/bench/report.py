"""What a run found, as data: the same that ``--json`` prints and ``--from`` reads."""

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from crossent.commands.bench.accuracy import Errors
from crossent.commands.bench.cases import FRESH, GRADIENTS, LOSS, Case
from crossent.commands.bench.document import from_document
from crossent.commands.bench.limits import BOUNDS
from crossent.commands.bench.settings import Settings

SCHEMA = 1
SMALL = 1 << 15  # elements
ALLOCATOR_KEEPS = 1 << 25  # bytes: what glibc's malloc gives back to the system at once
SECONDS = (1e-12, 1e9)  # a call takes more and less


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

    def __post_init__(self) -> None:
        least, most = SECONDS
        if not self.samples or not all(least < seconds < most for seconds in self.samples):
            raise ValueError("its samples are not the seconds of calls")

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
    limits: tuple[Timing, ...]
    timings: tuple[Timing, ...]
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

    settings: Settings
    contenders: tuple[Participant, ...]
    cases: tuple[CaseResult, ...]
    accuracy: tuple[Accuracy, ...]

    def peers(self) -> list[str]:
        """The names of the contenders that are not ours."""
        return [p.name for p in self.contenders if not p.ours]

    def ours(self) -> list[str]:
        """The names of the contenders that are ours."""
        return [p.name for p in self.contenders if p.ours]

    def title(self, name: str) -> str:
        """What a contender is called in tables."""
        return next((p.title for p in self.contenders if p.name == name), name)

    def of_dtype(self, dtype: str) -> list[CaseResult]:
        """The cases of one type."""
        return [result for result in self.cases if result.case.dtype == dtype]

    def as_dict(self) -> dict[str, Any]:
        """Everything, with what follows from it (medians, ratios) spelled out."""
        document = {"schema": SCHEMA} | asdict(self)
        for result, shown in zip(self.cases, document["cases"], strict=True):
            shown["case"]["spelled"] = result.case.spelled
            for kind in ("limits", "timings"):
                for timing, entry in zip(getattr(result, kind), shown[kind], strict=True):
                    lower, upper = timing.quartiles
                    entry |= {"median": timing.median, "lower": lower, "upper": upper}
            for timing, entry in zip(result.timings, shown["timings"], strict=True):
                entry |= self._compared(result, timing)
        return document

    def _compared(self, result: CaseResult, timing: Timing) -> dict[str, Any]:
        limit = result.limit(timing.task)
        best = result.best(self.peers(), timing.task)
        return {
            "limit": limit and limit.task,
            "of_limit": limit and limit.median / timing.median,
            "best_peer": best and best.contender,
            "times_best_peer": best and best.median / timing.median,
        }

    @classmethod
    def from_dict(cls, document: Any) -> "Report":
        """The report that `as_dict` wrote.

        Raises:
            ValueError: the document is something else.
        """
        schema = document.get("schema") if isinstance(document, dict) else None
        if schema != SCHEMA:
            raise ValueError(f"its schema is {schema!r}, not {SCHEMA}")
        report: Report = from_document(cls, document)
        return report

"""Figures and sentences that the table, the Markdown and the chart share."""

import math
from collections.abc import Iterable

from crossent.commands.bench.accuracy import Errors
from crossent.commands.bench.cases import Case
from crossent.commands.bench.limits import EXP, FILL, FILL_SMALL, READ, SCALE
from crossent.commands.bench.report import Accuracy, CaseResult, Participant, Report, Timing
from crossent.commands.bench.settings import Settings

TIMED = (
    "Timed: one call, from arrays to the loss (and gradient) being there; mean over the rows, "
    "targets are class indices, logits are normal numbers, the same for all.",
    "Not timed: compiling, warming up, letting go of results, restoring logits that a call "
    "overwrote.",
    "Fresh: the gradient in memory that the call asks for. out=: in memory used before. In place: "
    "over the logits.",
    "Each contender has a process of its own. They take turns, in an order that moves on every "
    "round. Figures are medians over the rounds, ± half the distance between the quartiles.",
    "Of the limit: the time that the machine needs at least, over ours. For the loss the larger of "
    "reading the logits once and of that many bare exps on data in L1; with the gradient the "
    "larger of scaling them in place (fresh, from 32 MiB: filling new memory) and of the exps.",
    "Extra memory: the peak of resident memory in a call, less what was resident before it.",
)

LARGE_ERROR = 0.01  # from here on an error is told in percent, not in ULP


def seconds(value: float) -> str:
    """A time in three digits.

    >>> seconds(0.01234), seconds(5.4), seconds(6.1e-6), seconds(0.123456)
    ('12.3 ms', '5.40 s', '6.10 µs', '123 ms')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= 0.9995 * size:
            return f"{three_digits(value / size)} {unit}"
    return f"{value * 1e9:.0f} ns"


def three_digits(value: float) -> str:
    """A number from 1 up in three digits or as an integer.

    >>> three_digits(1.234), three_digits(99.96), three_digits(1234.5)
    ('1.23', '100', '1,234')
    """
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:,.{decimals}f}"


def with_spread(timing: Timing) -> str:
    """A time and its spread; of one round there is none."""
    if len(timing.samples) < 2:
        return seconds(timing.median)
    return f"{seconds(timing.median)} ±{timing.spread:.0%}"


def times(ratio: float) -> str:
    """How many times as fast.

    >>> times(1.234), times(123.4)
    ('1.2x', '123x')
    """
    return f"{ratio:.1f}x" if ratio < 9.95 else f"{ratio:,.0f}x"


def of_limit(result: CaseResult, timing: Timing) -> str | None:
    """The share of what the machine could do, or None where it sets no limit."""
    limit = result.limit(timing.task)
    return None if limit is None else f"{limit.median / timing.median:.0%}"


def mebibytes(size: int | None) -> str:
    """Memory in MiB.

    >>> mebibytes(524_288_000), mebibytes(1000), mebibytes(None)
    ('500', '<1', '?')
    """
    if size is None:
        return "?"
    return "<1" if size < 2**20 else f"{size / 2**20:,.0f}"


def size_of(case: Case) -> str:
    """The size of the logits, for a heading."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if case.bytes >= size:
            return f"{three_digits(case.bytes / size)} {unit}"
    return f"{case.bytes} bytes"


def error(ulp: float, relative: float) -> str:
    """A largest error in ULP, or in percent once it is large.

    >>> error(0.82, 1e-7), error(1060.0, 1e-4), error(8e6, 0.5), error(float("nan"), 1.0)
    ('0.8', '1,060', '50 % off', 'nan')
    """
    if math.isnan(ulp):
        return "nan"
    if relative >= LARGE_ERROR and ulp > 2:
        return f"{relative:.0%} off".replace("%", " %")
    return f"{ulp:.1f}" if ulp < 99.95 else f"{ulp:,.0f}" if ulp < 1e6 else f"{ulp:.1e}"


def errors(found: Errors | None) -> str:
    """Loss and gradient."""
    if found is None:
        return "-"
    loss = error(found.loss_ulp, found.loss_relative)
    return f"{loss} / {error(found.grad_ulp, found.grad_relative)}"


def regimes_of(judged: Iterable[Accuracy]) -> list[str]:
    """The names of all regimes in which somebody was judged."""
    return list(dict.fromkeys(name for accuracy in judged for name in accuracy.errors))


LIMIT_NAMES = {
    READ: "reading the logits once",
    SCALE: "scaling them in place",
    FILL: "filling a fresh gradient",
    FILL_SMALL: "the same in small pages",
    EXP: "that many bare exps",
}


def notes(report: Report, result: CaseResult) -> list[str]:
    """What the machine needs at least for a case; who did not compute it, and why."""
    found = {timing.task: timing for timing in result.limits}
    limits = [f"{LIMIT_NAMES[t]} {with_spread(found[t])}" for t in LIMIT_NAMES if t in found]
    missing = [
        f"Without {report.title(name)}: {reason}." for name, reason in result.left_out.items()
    ]
    machine = ["The machine itself: " + ", ".join(limits) + "."] if limits else []
    return [*machine, *missing]


# --- What a run was made with ---------------------------------------------------------------------


def setting_lines(settings: Settings) -> list[tuple[str, str]]:
    """Name and value of each setting, for people."""
    lines = [
        ("crossent", f"{settings.crossent}, {settings.isa}"),
        ("threads", f"{settings.threads} for each that can use them"),
        ("rounds", f"{settings.rounds}; whoever takes long sits some out"),
        ("processor", processor_line(settings)),
        ("system", system_line(settings)),
        ("python", settings.python),
        ("environment", environment_line(settings.environment)),
    ]
    if settings.load_average is not None:
        busy = ": others were at work, so figures are noisy" if settings.load_average > 0.5 else ""
        lines.append(("load before", f"{settings.load_average:.1f}{busy}"))
    return [*lines, ("command", settings.command), ("date", settings.date)]


def processor_line(settings: Settings) -> str:
    """The processor, how much of it, and its caches."""
    caches = [f"{level} {size}" for level, size in settings.caches.items()]
    parts = [settings.processor, f"{settings.cpus} CPUs to use", *caches]
    return ", ".join(part for part in parts if part)


def system_line(settings: Settings) -> str:
    """The system, its memory, and when it gives huge pages."""
    parts = [settings.system]
    if settings.memory_bytes:
        parts.append(f"{settings.memory_bytes / 2**30:.1f} GiB")
    if settings.huge_pages:
        parts.append(f"transparent huge pages: {settings.huge_pages}")
    return ", ".join(parts)


def environment_line(environment: dict[str, str]) -> str:
    """The variables that change how fast somebody is."""
    return ", ".join(f"{name}={value}" for name, value in environment.items()) or "nothing set"


def participant_line(participant: Participant) -> str:
    """What a contender runs on, or why it does not."""
    if participant.absent:
        return participant.absent
    parts = [version_line(participant.versions)]
    parts.append(f"{participant.threads} thread" + ("s" if participant.threads != 1 else ""))
    if participant.environment:
        parts.append(environment_line(participant.environment))
    return ", ".join(parts)


def version_line(versions: dict[str, str]) -> str:
    """Packages and their versions."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())

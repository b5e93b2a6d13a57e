"""A report as a picture: a line a contender, a dot at its median, a bar where the machine ends."""

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crossent.commands.bench import text
from crossent.commands.bench.cases import GRADIENTS, LOSS
from crossent.commands.bench.report import CaseResult, Report, Timing

# Inches: the page, a contender's line, what stands around a panel, and where its names end.
WIDTH, LINE, HEAD, FOOT, TOP = 12.0, 0.23, 0.5, 0.5, 0.95
NAMES, GAP, EDGE = 2.3, 2.45, 0.3

OURS, PEERS, LIMIT = "#1b6ca8", "#7d838c", "#c2410c"
INK, FAINT, GRID = "#22262b", "#6b7280", "#e5e7eb"

FORMS = {"fresh": ", fresh", "out": ", out=", "in_place": ", in place"}
Line = tuple[str, Timing, bool]  # label, figures, whether it is ours


def save_chart(report: Report, path: Path) -> None:
    """Write ``chart`` to a .png, .svg or .pdf file."""
    chart(report).savefig(path)


def chart(report: Report) -> Figure:
    """Every case, the loss on the left, loss and gradient on the right, on one scale."""
    rows = [
        (result, [lines(report, result, tasks) for tasks in ((LOSS,), GRADIENTS)])
        for result in report.cases
    ]
    inches = [LINE * max(1, *(len(found) for found in both)) for _, both in rows]
    height = TOP + sum(inches) + len(rows) * (HEAD + FOOT)
    figure = Figure(figsize=(WIDTH, height), dpi=130, facecolor="white")
    write_head(figure, report)
    width = (WIDTH - NAMES - GAP - EDGE) / 2
    top = TOP
    for (result, both), room in zip(rows, inches, strict=True):
        write(figure, EDGE, top + 0.25, f"{result.case.title}, {result.case.dtype}", weight="bold")
        scale = time_scale(result, [line for found in both for line in found])
        for column, found in enumerate(both):
            left = NAMES + column * (width + GAP)
            tall = LINE * max(1, len(found))
            bottom = 1 - (top + HEAD + tall) / height
            axes = figure.add_axes((left / WIDTH, bottom, width / WIDTH, tall / height))
            axes.set_title(("loss", "loss + gradient")[column], loc="left", fontsize=9, color=FAINT)
            draw_panel(axes, result, found, scale)
        top += HEAD + room + FOOT
    return figure


def write_head(figure: Figure, report: Report) -> None:
    """What is shown, and on what it was measured."""
    settings = report.settings
    machine = f"{text.processor_line(settings)}; {settings['threads']} threads; {settings['isa']}"
    write(figure, EDGE, 0.4, "Softmax cross-entropy: time of a call", size=16, weight="bold")
    write(
        figure, EDGE, 0.68,
        f"{machine}. Dot: median, line: quartiles, bar: what the machine needs at least. "
        "Logarithmic scale.",
        size=9, color=FAINT,
    )  # fmt: skip


def lines(report: Report, result: CaseResult, tasks: tuple[str, ...]) -> list[Line]:
    """Ours first, then the peers, each in the forms that it has."""
    found = []
    for participant in report.participants:
        timings = [t for task in tasks if (t := result.find(participant.name, task))]
        for timing in timings:
            form = FORMS.get(timing.task, "") if len(timings) > 1 else ""
            found.append((participant.title + form, timing, participant.ours))
    return found


def time_scale(result: CaseResult, found: list[Line]) -> tuple[float, float]:
    """The least and the largest time that a case's panels show, with room for words."""
    shown = [time for _, timing, _ in found for time in timing.quartiles]
    shown += [limit.median for _, t, ours in found if ours and (limit := result.limit(t.task))]
    if not shown:
        return 1e-6, 1.0
    least, largest = min(shown), max(shown)
    room = max(10.0, largest / least)
    return least / room**0.03, largest * room**0.25


def draw_panel(
    axes: Axes, result: CaseResult, found: list[Line], scale: tuple[float, float]
) -> None:
    """The contenders of one column from top to bottom."""
    axes.set_xscale("log")
    axes.set_xlim(*scale)
    axes.set_ylim(max(1, len(found)) - 0.5, -0.5)
    for place, (_, timing, ours) in enumerate(found):
        color = OURS if ours else PEERS
        axes.plot([scale[0], timing.median], [place] * 2, color=GRID, linewidth=3, zorder=1)
        axes.plot(timing.quartiles, [place] * 2, color=color, linewidth=1.4, zorder=2)
        axes.plot([timing.median], [place], "o", color=color, markersize=5.5, zorder=3)
        axes.annotate(
            text.seconds(timing.median), (timing.quartiles[1], place), xytext=(6, 0),
            textcoords="offset points", va="center", fontsize=8, color=color if ours else INK,
            weight="bold" if ours else "normal",
        )  # fmt: skip
        limit = result.limit(timing.task) if ours else None
        if limit is not None:
            ends = [place - 0.4, place + 0.4]
            axes.plot([limit.median] * 2, ends, color=LIMIT, linewidth=2, zorder=4)
    axes.set_yticks(range(len(found)), [label for label, _, _ in found])
    powers = range(math.ceil(math.log10(scale[0])), math.floor(math.log10(scale[1])) + 1)
    axes.set_xticks([10.0**power for power in powers], [tick(power) for power in powers])
    axes.minorticks_off()
    axes.grid(axis="x", color=GRID, linewidth=0.7, zorder=0)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=8, labelcolor=INK)
    axes.tick_params(axis="x", labelcolor=FAINT, labelsize=7, pad=1)


def tick(power: int) -> str:
    """A power of ten in seconds.

    >>> tick(-3), tick(-5), tick(1)
    ('1 ms', '10 µs', '10 s')
    """
    unit = min(0, math.floor(power / 3) * 3)
    return f"{10 ** (power - unit)} " + {0: "s", -3: "ms", -6: "µs", -9: "ns"}[unit]


def write(
    figure: Figure,
    left: float,
    baseline: float,
    words: str,
    *,
    size: float = 11.0,
    weight: str = "normal",
    color: str = INK,
) -> None:
    """Text at a position in inches from the top left corner."""
    width, height = figure.get_size_inches()
    figure.text(
        left / width, 1 - baseline / height, words, fontsize=size, weight=weight, color=color
    )

"""A report as a picture: a line a contender, a dot at its median, a bar where the machine ends."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import EngFormatter, LogLocator

from crossent.commands.bench import text
from crossent.commands.bench.cases import GRADIENTS, LOSS
from crossent.commands.bench.report import CaseResult, Report, Timing

# Inches: the page, its head, what a case takes beside its lines, a contender's line, and around.
WIDTH, HEAD, CASE, LINE, BESIDE, BETWEEN = 12.0, 0.85, 1.0, 0.23, 0.3, 0.12
EDGE = BESIDE / WIDTH

OURS, PEERS, LIMIT = "#1b6ca8", "#7d838c", "#c2410c"
INK, FAINT, GRID = "#22262b", "#6b7280", "#e5e7eb"

COLUMNS = {"loss": (LOSS,), "loss + gradient": GRADIENTS}
FORMS = {"fresh": ", fresh", "out": ", out=", "in_place": ", in place"}
Line = tuple[str, Timing, bool]  # label, figures, whether it is ours


def chart(report: Report) -> Figure:
    """Every case, the loss on the left, loss and gradient on the right, on one scale."""
    rows = [[lines(report, result, tasks) for tasks in COLUMNS.values()] for result in report.cases]
    most = [max(1, *map(len, columns)) for columns in rows]
    heights = [HEAD, *(CASE + LINE * count for count in most)]
    layout = ConstrainedLayoutEngine(w_pad=BESIDE, h_pad=BETWEEN)
    figure = Figure((WIDTH, sum(heights)), dpi=130, facecolor="white", layout=layout)
    head, *parts = figure.subfigures(len(heights), squeeze=False, height_ratios=heights)[:, 0]
    write_head(head, report)
    for part, result, columns, count in zip(parts, report.cases, rows, most, strict=True):
        title = f"{result.case.title}, {result.case.dtype}"
        part.suptitle(title, x=EDGE, ha="left", fontsize=11, weight="bold", color=INK)
        scale = time_scale(result, [line for found in columns for line in found])
        for axes, heading, found in zip(part.subplots(1, 2), COLUMNS, columns, strict=True):
            axes.set_title(heading, loc="left", fontsize=9, color=FAINT)
            axes.set_ylim(count - 0.5, -0.5)
            draw_panel(axes, result, found, scale)
    return figure


def write_head(head: SubFigure, report: Report) -> None:
    """What is shown, and on what it was measured."""
    settings = report.settings
    machine = f"{text.processor_line(settings)}; {settings.threads} threads; {settings.isa}"
    legend = "Dot: median, line: quartiles, bar: what the machine needs at least."
    title = "Softmax cross-entropy: time of a call"
    head.text(EDGE, 0.5, title, fontsize=16, weight="bold", color=INK)
    head.text(EDGE, 0.2, f"{machine}. {legend} Logarithmic scale.", fontsize=9, color=FAINT)


def lines(report: Report, result: CaseResult, tasks: tuple[str, ...]) -> list[Line]:
    """Ours first, then the peers, each in the forms that it has."""
    found = []
    for participant in report.contenders:
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
    axes.xaxis.set_major_locator(LogLocator(numticks=99))
    axes.xaxis.set_major_formatter(EngFormatter("s"))
    axes.minorticks_off()
    axes.grid(axis="x", color=GRID, linewidth=0.7, zorder=0)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=8, labelcolor=INK)
    axes.tick_params(axis="x", labelcolor=FAINT, labelsize=7, pad=1)

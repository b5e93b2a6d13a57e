"""A report as tables for people."""

from collections.abc import Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from crossent.commands.bench import text
from crossent.commands.bench.cases import TASKS
from crossent.commands.bench.report import CaseResult, Report

WIDTH = 120  # off a terminal
BEST = "*"
COLUMNS = ("loss", "+ gradient,\nfresh", "+ gradient,\nout=", "+ gradient,\nin place")
MEMORY_COLUMN = "extra MiB,\nin this order"


def print_report(report: Report) -> None:
    """Settings, a table a case, the accuracy, and what the figures mean, on standard output."""
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    console.print(facts("crossent bench", text.setting_lines(report.settings)))
    lines = [(each.title, text.participant_line(each)) for each in report.contenders]
    console.print(facts("contenders", lines))
    for result in report.cases:
        console.print(case_table(report, result), *text.notes(report, result), "", sep="\n")
    for dtype in dict.fromkeys(accuracy.dtype for accuracy in report.accuracy):
        console.print(accuracy_table(report, dtype), "", sep="\n")
    console.print(*text.TIMED, sep="\n")


def facts(title: str, lines: list[tuple[str, str]]) -> RenderableType:
    """Names and values."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    for line in lines:
        grid.add_row(*line)
    return Group(Text(title, style="bold"), Padding(grid, (0, 0, 1, 2)))


def figures(title: str, columns: Sequence[str]) -> Table:
    """An empty table: the first column is words, the others figures."""
    table = Table(title=title, title_style="bold", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def case_table(report: Report, result: CaseResult) -> Table:
    """Times and memory of everyone; below ours, what they are of the limit and of the best peer."""
    case = result.case
    title = f"{case.title}, {case.dtype} ({text.size_of(case)})"
    table = figures(title, (*COLUMNS, MEMORY_COLUMN))
    best = [result.best(report.peers(), task) for task in TASKS]
    for participant in report.contenders:
        timings = [result.find(participant.name, task) for task in TASKS]
        if not any(timings):
            continue
        beside = list(zip(timings, best, strict=True))
        times = [
            text.with_spread(timing) + (f" {BEST}" if timing is peer else "") if timing else ""
            for timing, peer in beside
        ]
        peaks = ", ".join(text.mebibytes(t.peak_bytes) if t else "-" for t in timings)
        table.add_row(participant.title, *times, peaks, style="bold" if participant.ours else "")
        if participant.ours:
            shares = [text.of_limit(result, timing) if timing else None for timing in timings]
            if any(shares):
                table.add_row("  of the limit", *shares)
            ratios = [text.times(p.median / t.median) if t and p else "" for t, p in beside]
            table.add_row(f"  times the best peer {BEST}", *ratios, end_section=True)
    return table


def accuracy_table(report: Report, dtype: str) -> Table:
    """The largest errors of everyone for one type."""
    judged = [accuracy for accuracy in report.accuracy if accuracy.dtype == dtype]
    regimes = text.regimes_of(judged)
    title = f"Largest error of loss / gradient in {dtype}, in units of the last place"
    table = figures(title, regimes)
    for accuracy in judged:
        errors = [text.errors(accuracy.errors.get(regime)) for regime in regimes]
        reason = [Text(accuracy.failed or "", style="dim")]
        table.add_row(report.title(accuracy.contender), *(errors if accuracy.errors else reason))
    return table

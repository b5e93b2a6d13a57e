"""A report as tables for people."""

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from crossent.commands.bench import text
from crossent.commands.bench.cases import TASKS
from crossent.commands.bench.report import CaseResult, Participant, Report, Timing

WIDTH = 120  # off a terminal
BEST = "*"


def print_report(report: Report) -> None:
    """The whole report on standard output."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(report_tables(report), highlight=False)


def report_tables(report: Report) -> RenderableType:
    """Settings, a table a case, the accuracy, and what the figures mean."""
    parts: list[RenderableType] = [facts("crossent bench", text.setting_lines(report))]
    contenders = [(p.title, text.participant_line(p)) for p in report.participants]
    parts.append(facts("contenders", contenders))
    for result in report.cases:
        parts += [case_table(report, result), *notes(report, result), ""]
    for dtype in dict.fromkeys(accuracy.dtype for accuracy in report.accuracy):
        parts += [accuracy_table(report, dtype), ""]
    parts += [Text(line) for line in text.TIMED]
    return Group(*parts)


def facts(title: str, lines: list[tuple[str, str]]) -> RenderableType:
    """Names and values."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    for name, value in lines:
        grid.add_row(name, Text(value))
    return Group(Text(title, style="bold"), Padding(grid, (0, 0, 1, 2)))


def case_table(report: Report, result: CaseResult) -> Table:
    """Times and memory of everyone, ours with what it reaches."""
    case = result.case
    table = Table(
        title=f"{case.title}, {case.dtype} ({text.size_of(case)})",
        title_style="bold", title_justify="left", box=box.SIMPLE_HEAD,
    )  # fmt: skip
    table.add_column("")
    for title in ("loss", "+ gradient,\nfresh", "+ gradient,\nout=", "+ gradient,\nin place"):
        table.add_column(title, justify="right")
    table.add_column("extra MiB,\nin this order", justify="right")
    for participant in report.participants:
        timings = [result.find(participant.name, task) for task in TASKS]
        if any(timings):
            add_rows(table, report, result, participant, timings)
    return table


def add_rows(
    table: Table,
    report: Report,
    result: CaseResult,
    participant: Participant,
    timings: list[Timing | None],
) -> None:
    """One contender's row; ours has two more: of the limit, and times the best peer."""
    best = {task: result.best(report.peers(), task) for task in TASKS}
    cells = [cell(timing, best[timing.task]) if timing else "" for timing in timings]
    peaks = ", ".join(text.mebibytes(t.peak_bytes) if t else "-" for t in timings)
    style = "bold" if participant.ours else ""
    table.add_row(participant.title, *cells, peaks, style=style)
    if not participant.ours:
        return
    shares = [text.of_limit(result, timing) if timing else None for timing in timings]
    if any(shares):
        table.add_row("  of the limit", *(share or "" for share in shares))
    ratios = [
        text.times(peer.median / timing.median) if timing and (peer := best[timing.task]) else ""
        for timing in timings
    ]
    table.add_row(f"  times the best peer {BEST}", *ratios, end_section=True)


def cell(timing: Timing, best: Timing | None) -> str:
    """A time, marked where no peer is quicker."""
    mark = f" {BEST}" if best is not None and timing is best else ""
    return text.with_spread(timing) + mark


def notes(report: Report, result: CaseResult) -> list[RenderableType]:
    """The limits, and who is missing."""
    lines = [text.limits_sentence(result), *text.left_out_sentences(report, result)]
    return [Text(line) for line in lines]


def accuracy_table(report: Report, dtype: str) -> Table:
    """The largest errors of everyone for one type."""
    judged = [accuracy for accuracy in report.accuracy if accuracy.dtype == dtype]
    table = Table(
        title=f"Largest error of loss / gradient in {dtype}, in units of the last place",
        title_style="bold", title_justify="left", box=box.SIMPLE_HEAD,
    )  # fmt: skip
    table.add_column("")
    regimes = next((list(accuracy.errors) for accuracy in judged if accuracy.errors), [])
    for regime in regimes:
        table.add_column(regime, justify="right")
    for accuracy in judged:
        title = report.title(accuracy.contender)
        if accuracy.errors:
            table.add_row(title, *(text.errors(accuracy.errors[regime]) for regime in regimes))
        else:
            table.add_row(title, Text(accuracy.failed or "", style="dim"))
    return table

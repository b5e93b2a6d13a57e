"""A report as Markdown: the tables of the README."""

from crossent.commands.bench import text
from crossent.commands.bench.cases import FRESH, IN_PLACE, LOSS, OUT
from crossent.commands.bench.report import CaseResult, Report, Timing

BEST = "best peer"
AS_IT_COMES = "torch"  # the peer that most people have: named beside the best one


def markdown(report: Report) -> str:
    """Speed of the loss and of loss and gradient, accuracy, and how the figures were made."""
    dtypes = list(dict.fromkeys(result.case.dtype for result in report.cases))
    blocks = []
    for ours in report.ours():
        for dtype in dtypes:
            blocks += [loss_table(report, ours, dtype), gradient_table(report, ours, dtype)]
    blocks += [accuracy_table(report, dtype) for dtype in dtypes]
    blocks.append(footnote(report))
    return "\n\n".join(block for block in blocks if block) + "\n"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown's table, where there are rows; the first column is words, the others figures."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) if rows else ""


def loss_table(report: Report, ours: str, dtype: str) -> str:
    """A row a case: the loss alone, and how far the peers are behind."""
    head = [f"loss, {dtype}", report.title(ours), "of the limit", *rivals(report)]
    rows = []
    for result in report.of_dtype(dtype):
        if timing := result.find(ours, LOSS):
            rows.append([*start_of_row(result, timing), *behind(report, result, timing)])
    return table(head, rows)


def gradient_table(report: Report, ours: str, dtype: str) -> str:
    """A row a case: loss and gradient, in place where there is such a form, and the memory."""
    title = report.title(ours)
    head = [f"loss + gradient, {dtype}", f"{title}, in place", "of the limit", f"{title}, fresh"]
    head += [*rivals(report), "extra MiB: in place / fresh / best peer"]
    rows = []
    for result in report.of_dtype(dtype):
        in_place, out, fresh = (result.find(ours, task) for task in (IN_PLACE, OUT, FRESH))
        if timing := in_place or out or fresh:
            held = (timing, fresh, result.best(report.peers(), FRESH))
            memory = " / ".join(text.mebibytes(each.peak_bytes) if each else "-" for each in held)
            row = [*start_of_row(result, timing), text.seconds(fresh.median) if fresh else "-"]
            rows.append([*row, *behind(report, result, timing), memory])
    return table(head, rows)


def start_of_row(result: CaseResult, timing: Timing) -> list[str]:
    """The case, our time, and what it is of the limit."""
    share = text.of_limit(result, timing) or "-"
    return [result.case.title, text.seconds(timing.median), share]


def rivals(report: Report) -> dict[str, list[str]]:
    """Whose times stand beside ours, by the column's title: of each column the best one's."""
    common = {report.title(name): [name] for name in report.peers() if name == AS_IT_COMES}
    return common | {BEST: report.peers()}


def behind(report: Report, result: CaseResult, timing: Timing) -> list[str]:
    """Of each rival the time, and how many times ours it is."""
    cells = []
    for title, names in rivals(report).items():
        cell, peer = "-", result.best(names, timing.task)
        if peer:
            ratio = text.times(peer.median / timing.median)
            named = f", {report.title(peer.contender)}" if title == BEST else ""
            cell = f"{text.seconds(peer.median)} ({ratio}){named}"
        cells.append(cell)
    return cells


def accuracy_table(report: Report, dtype: str) -> str:
    """The largest errors; contenders with the same ones share a row."""
    judged = [a for a in report.accuracy if a.dtype == dtype and a.errors]
    regimes = text.regimes_of(judged)
    alike: dict[tuple[str, ...], list[str]] = {}
    for accuracy in judged:
        cells = tuple(text.errors(accuracy.errors.get(regime)) for regime in regimes)
        alike.setdefault(cells, []).append(report.title(accuracy.contender))
    head = [f"{dtype}: largest error in ULP, loss / gradient", *regimes]
    return table(head, [["; ".join(titles), *cells] for cells, titles in alike.items()])


def footnote(report: Report) -> str:
    """Where the figures come from."""
    settings = report.settings
    versions: dict[str, str] = {}
    for participant in report.contenders:
        versions |= participant.versions
    others = {name: versions[name] for name in versions if name not in ("crossent", "isa")}
    return (
        f"`{settings.command}`: {text.processor_line(settings)}; {settings.isa}; "
        f"{settings.threads} threads; {text.system_line(settings)}; {text.version_line(others)}; "
        f"environment: {text.environment_line(settings.environment)}. "
        "Medians of contenders in processes of their own that take turns."
    )

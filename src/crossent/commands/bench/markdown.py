"""A report as Markdown: the tables of the README."""

from crossent.commands.bench import text
from crossent.commands.bench.cases import FRESH, IN_PLACE, LOSS, OUT
from crossent.commands.bench.report import CaseResult, Report, Timing

AS_IT_COMES = "torch"  # the peer that most people have: named beside the best one


def markdown(report: Report) -> str:
    """Speed of the loss and of loss and gradient, accuracy, and how the figures were made."""
    dtypes = list(dict.fromkeys(result.case.dtype for result in report.cases))
    blocks = []
    for ours in report.ours():
        for dtype in dtypes:
            results = [result for result in report.cases if result.case.dtype == dtype]
            blocks.append(loss_table(report, ours, dtype, results))
            blocks.append(gradient_table(report, ours, dtype, results))
    blocks += [accuracy_table(report, dtype) for dtype in dtypes]
    blocks.append(footnote(report))
    return "\n\n".join(block for block in blocks if block) + "\n"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown's table, where there are rows; the first column is words, the others figures."""
    if not rows:
        return ""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def loss_table(report: Report, ours: str, dtype: str, results: list[CaseResult]) -> str:
    """A row a case: the loss alone, and how far the peers are behind."""
    head = [f"loss, {dtype}", report.title(ours), "of the limit", *peer_titles(report)]
    rows = [
        [*beginning(result, timing), *peers(report, result, timing)]
        for result in results
        if (timing := result.find(ours, LOSS))
    ]
    return table(head, rows)


def gradient_table(report: Report, ours: str, dtype: str, results: list[CaseResult]) -> str:
    """A row a case: loss and gradient, in place where there is such a form, and the memory."""
    title = report.title(ours)
    head = [f"loss + gradient, {dtype}", f"{title}, in place", "of the limit", f"{title}, fresh"]
    head += [*peer_titles(report), "extra MiB: in place / fresh / best peer"]
    rows = []
    for result in results:
        forms = [t for task in (IN_PLACE, OUT, FRESH) if (t := result.find(ours, task))]
        if not forms:
            continue
        timing, fresh = forms[0], result.find(ours, FRESH)
        held = (timing, fresh, result.best(report.peers(), FRESH))
        memory = " / ".join(text.mebibytes(each.peak_bytes) if each else "-" for each in held)
        row = [*beginning(result, timing), text.seconds(fresh.median) if fresh else "-"]
        rows.append([*row, *peers(report, result, timing), memory])
    return table(head, rows)


def beginning(result: CaseResult, timing: Timing) -> list[str]:
    """What both tables' rows begin with: the case, our time, and what it is of the limit."""
    share = text.of_limit(result, timing) or "-"
    return [result.case.title, text.seconds(timing.median), share]


def common_peer(report: Report) -> list[str]:
    """The peer that is named beside the best one, where it takes part."""
    return [name for name in report.peers() if name == AS_IT_COMES]


def peer_titles(report: Report) -> list[str]:
    """The heads of the columns that ``peers`` fills."""
    return [*(report.title(name) for name in common_peer(report)), "best peer"]


def peers(report: Report, result: CaseResult, timing: Timing) -> list[str]:
    """What the common peer needs, and the best one: times, and how many times ours."""
    common = [result.best([name], timing.task) for name in common_peer(report)]
    best = result.best(report.peers(), timing.task)
    named = f", {report.title(best.contender)}" if best else ""
    return [*(beside(timing, peer) for peer in common), beside(timing, best) + named]


def beside(timing: Timing, peer: Timing | None) -> str:
    """A peer's time and how many times ours it is."""
    if peer is None:
        return "-"
    return f"{text.seconds(peer.median)} ({text.times(peer.median / timing.median)})"


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

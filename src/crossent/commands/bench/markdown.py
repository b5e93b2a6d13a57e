"""A report as Markdown: the tables of the README."""

from crossent.commands.bench import text
from crossent.commands.bench.cases import FRESH, IN_PLACE, LOSS, OUT
from crossent.commands.bench.report import Accuracy, CaseResult, Report, Timing

AS_IT_COMES = "torch"  # the peer that most people have: named beside the best one


def markdown(report: Report) -> str:
    """Speed of the loss and of loss and gradient, accuracy, and how the figures were made."""
    blocks = []
    for ours in report.ours():
        for dtype in dtypes(report):
            blocks += [loss_table(report, ours, dtype), gradient_table(report, ours, dtype)]
    blocks += [accuracy_table(report, dtype) for dtype in dtypes(report)]
    blocks.append(footnote(report))
    return "\n\n".join(block for block in blocks if block) + "\n"


def dtypes(report: Report) -> list[str]:
    """The types of the cases, each once."""
    return list(dict.fromkeys(result.case.dtype for result in report.cases))


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown's table; the first column is words, the others figures."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def loss_table(report: Report, ours: str, dtype: str) -> str:
    """A row a case: the loss alone, and how far the peers are behind."""
    rows = [
        [
            result.case.title,
            text.seconds(timing.median),
            text.of_limit(result, timing) or "-",
            *peers(report, result, timing),
        ]
        for result in cases_of(report, dtype)
        if (timing := result.find(ours, LOSS))
    ]
    head = [f"loss, {dtype}", report.title(ours), "of the limit", *peer_titles(report)]
    return table(head, rows) if rows else ""


def gradient_table(report: Report, ours: str, dtype: str) -> str:
    """A row a case: loss and gradient, in place where there is such a form, and the memory."""
    rows = []
    for result in cases_of(report, dtype):
        forms = [t for task in (IN_PLACE, OUT, FRESH) if (t := result.find(ours, task))]
        if not forms:
            continue
        timing, fresh = forms[0], result.find(ours, FRESH)
        best = result.best(report.peers(), FRESH)
        rows.append(
            [
                result.case.title,
                text.seconds(timing.median),
                text.of_limit(result, timing) or "-",
                text.seconds(fresh.median) if fresh else "-",
                *peers(report, result, timing),
                " / ".join(
                    text.mebibytes(t.peak_bytes) if t else "-" for t in (timing, fresh, best)
                ),
            ]
        )
    title = report.title(ours)
    head = [f"loss + gradient, {dtype}", f"{title}, in place", "of the limit", f"{title}, fresh"]
    head += [*peer_titles(report), "extra MiB: in place / fresh / best peer"]
    return table(head, rows) if rows else ""


def cases_of(report: Report, dtype: str) -> list[CaseResult]:
    """The cases of one type."""
    return [result for result in report.cases if result.case.dtype == dtype]


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
    if not judged:
        return ""
    regimes = list(judged[0].errors)
    rows: dict[tuple[str, ...], list[Accuracy]] = {}
    for accuracy in judged:
        cells = tuple(text.errors(accuracy.errors[regime]) for regime in regimes)
        rows.setdefault(cells, []).append(accuracy)
    lines = [
        ["; ".join(report.title(a.contender) for a in alike), *cells]
        for cells, alike in rows.items()
    ]
    return table([f"{dtype}: largest error in ULP, loss / gradient", *regimes], lines)


def footnote(report: Report) -> str:
    """Where the figures come from."""
    settings = report.settings
    versions: dict[str, str] = {}
    for participant in report.participants:
        versions |= {k: v for k, v in participant.versions.items() if k not in ("crossent", "isa")}
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"`{settings['command']}`: {text.processor_line(settings)}; {settings['isa']}; "
        f"{settings['threads']} threads; {text.system_line(settings)}; {listed}; "
        f"environment: {text.environment_line(settings['environment'])}. "
        "Medians of contenders in processes of their own that take turns."
    )

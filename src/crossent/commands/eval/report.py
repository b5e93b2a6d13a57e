"""The report: one self-contained HTML page. No script, no font, no network."""

from __future__ import annotations

import html
from pathlib import Path

from matplotlib.figure import Figure

import crossent
from crossent.commands.eval import charts
from crossent.commands.eval.report_tables import comparison_table, facts_table, hardest_table, tiles
from crossent.commands.eval.text import headline, with_error
from crossent.commands.eval.verdict import figure as number
from crossent.commands.eval.verdict import verdict
from crossent.evaluation.result import ENOUGH_ROWS, Classes, EvaluationResult
from crossent.evaluation.safe_file import SafeFile

NEVER = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"  # what the page may load


def save_report(result: EvaluationResult, path: Path) -> None:
    """Writes the page; like all outputs it appears when it is whole."""
    data = report_page(result).encode("utf-8")
    with SafeFile(path, len(data)) as file:
        file.write_at(0, data)
        file.commit()


def report_page(result: EvaluationResult) -> str:
    """The page as text. Names of files come from outside and are escaped."""
    style = (Path(__file__).parent / "report.css").read_text("utf-8")
    name = next(iter(result.files.values()), ["outputs"])[0]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{NEVER}">',
        f"<title>{html.escape(f'Evaluation of {name}')}</title>",
        f"<style>{style}</style></head><body><main>",
        f"<h1>{escape(page_title(result))}</h1>",
        *(f'<p class="lead">{escape(sentence)}</p>' for sentence in verdict(result)),
        *(f'<p class="warning">Warning: {html.escape(text)}.</p>' for text in result.warnings),
        f'<p class="faint">{html.escape(headline(result))}, from',
        f"<code>{html.escape(name)}</code></p>",
        tiles(result),
        '<div class="grid">',
        *chart_cards(result),
        "</div>",
        comparison_table(result),
        hardest_table(result),
        facts_table(result),
        f"<footer>crossent {html.escape(crossent.__version__)}. Losses in nats; "
        "\N{PLUS-MINUS SIGN} is one standard error. Rows count from 0.</footer>",
        "</main></body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def escape(text: str) -> str:
    """A sentence as HTML, with the sign that terminals may lack."""
    return html.escape(text).replace("+-", "\N{PLUS-MINUS SIGN}")


def page_title(result: EvaluationResult) -> str:
    """The two figures that matter most."""
    title = f"Loss {number(result.loss)}"
    if result.loss_standard_error > 0:
        title = f"Loss {with_error(result.loss, result.loss_standard_error)}"
    if result.classes is not None:
        return f"{title}, right {result.classes.accuracy:.1%} of the time"
    return f"{title}, perplexity {number(result.perplexity)}"


def chart_cards(result: EvaluationResult) -> list[str]:
    """The charts, each with a finding for its title; none where there is no row."""
    if not result.rows or not any(count for count in result.histogram[2]):
        return []
    classes = result.classes
    cards = [
        card(
            "losses", f"Half of the rows cost less than {number(result.quantiles['median'])} nats",
            charts.loss_distribution(result),
            "How many rows have which loss, on a logarithmic scale. The mean "
            "is what is trained and reported.",
        ),
        card(
            "concentration",
            f"The hardest tenth of the rows carries {charts.share_of_hardest(result, 0.1):.0%} of "
            "the loss",
            charts.loss_concentration(result),
            "Rows in order of their loss, the hardest first, and how much of the whole they carry.",
        ),
    ]  # fmt: skip
    return cards if classes is None else [*cards, *class_cards(classes)]


def class_cards(classes: Classes) -> list[str]:
    """The charts of answers and labels."""
    first = classes.ranks[0].rows if classes.ranks and classes.ranks[0].low == 1 else 0
    share = first / max(1, sum(one.rows for one in classes.ranks))
    cards = [
        card(
            "reliability", f"Calibration error {classes.calibration_error:.1%}: "
            f"{classes.confidence:.1%} sure, {classes.accuracy:.1%} right",
            charts.reliability(classes),
            "Answers by how sure the model was of them, in bins of equal width; the larger the "
            "dot, the more rows. Below the line it is surer than it should be.",
        ),
        card(
            "rank", f"The truth is the first answer in {share:.1%} of the rows",
            charts.loss_by_rank(classes),
            "Where the true class stands when classes are sorted by probability, and the mean loss "
            "of the rows where it stands there.",
        ),
    ]  # fmt: skip
    if classes.count > 1:
        shown = len(classes.hardest(charts.LISTED))
        part = shown < classes.count
        cards.append(
            card(
                "classes", "Loss by class" + (f": the hardest {shown} of {classes.count:,}" * part),
                charts.loss_by_class(classes),
                "Mean -log p of the rows of each label, and how many are answered right."
                + f" Classes of fewer than {ENOUGH_ROWS} rows are left out." * part,
            )
        )  # fmt: skip
    return [*cards, *mistake_cards(classes)]


def mistake_cards(classes: Classes) -> list[str]:
    """Which class is taken for which."""
    if classes.confusion is not None and classes.count <= charts.MATRIX_CLASSES:
        mistakes = int(classes.confusion.sum() - classes.confusion.trace())
        return [
            card(
                "confusion", f"{mistakes:,} mistakes: which class is taken for which",
                charts.confusion_matrix(classes),
                "Rows by label and answer. The colour counts mistakes only.",
            )
        ]  # fmt: skip
    if not classes.top_pairs:
        return []
    exact = "" if classes.top_pairs_are_exact else " Counts are estimates, never too low."
    return [
        card(
            "pairs", "The most frequent mistakes", charts.top_pairs(classes),
            f"Label for answer, and how often.{exact}",
        )
    ]  # fmt: skip


def card(name: str, title: str, figure: Figure, caption: str) -> str:
    """A chart with its finding above and how to read it below."""
    picture = charts.svg(figure, name, html.escape(title))
    return (
        f'<figure class="card"><h2>{html.escape(title)}</h2>{picture}'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )

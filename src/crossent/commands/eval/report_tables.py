"""The tables of a report, as HTML."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable

from crossent.commands.eval.verdict import figure as number
from crossent.evaluation.result import EvaluationResult
from crossent.evaluation.rows import HardRow
from crossent.evaluation.tallies import CALIBRATION_BINS


def tiles(result: EvaluationResult) -> str:
    """The main figures as a grid of name, value and note."""
    unit = "nats in all" if result.options["reduction"] == "sum" else "nats a row"
    shown = [("loss", number(result.loss), f"{plus_minus(result.loss_standard_error)} {unit}")]
    if result.nll != result.loss:
        shown.append(("-log p", number(result.nll), plus_minus(result.nll_standard_error)))
    shown += [
        ("perplexity", number(result.perplexity), "as unsure as among that many"),
        ("bits", number(result.bits), "a row"),
    ]
    if result.bits_per_byte is not None:
        shown.append(("bits per byte", number(result.bits_per_byte), f"of {result.bytes:,}"))
    classes = result.classes
    if classes is not None:
        accuracy_error = plus_minus(classes.accuracy_standard_error, as_percent=True)
        shown += [
            ("guessing", number(classes.prior_loss), "by class frequency"),
            ("guessing", number(classes.uniform_loss), f"uniform: ln {classes.count:,}"),
            (
                "accuracy",
                f"{classes.accuracy:.2%}",
                accuracy_error,
            ),
            ("top 5", f"{classes.top5:.2%}", "the truth among five"),
            ("Brier score", number(classes.brier), plus_minus(classes.brier_standard_error)),
            ("calibration error", f"{classes.calibration_error:.2%}", f"{CALIBRATION_BINS} bins"),
        ]
    if result.temperature is not None:
        fit = result.temperature
        note = f"loss {number(fit.nll)}; {fit.passes} further passes"
        shown.append(("best temperature", f"{fit.temperature:.3g}", note))
    cells = (
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>"
        f"<dd>{html.escape(note)}</dd></div>"
        for name, value, note in shown
    )
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def plus_minus(error: float, *, as_percent: bool = False) -> str:
    """A standard error behind its sign; nothing where there is none."""
    if not error >= 0:
        return ""
    return f"\N{PLUS-MINUS SIGN} {error:.2%}" if as_percent else f"\N{PLUS-MINUS SIGN} {error:.2g}"


def section(title: str, table: str, note: str = "", kind: str = "") -> str:
    """A table under its title."""
    after = f'<p class="note">{html.escape(note)}</p>' if note else ""
    return (
        f'<section class="card {kind}"><h2>{html.escape(title)}</h2>'
        f'<div class="scroll">{table}</div>{after}</section>'
    )


def table_of(head: Iterable[str], rows: Iterable[Iterable[str]], numbers: int) -> str:
    """A table from HTML cells; the first ``numbers`` columns are flushed right."""

    def cells(tag: str, values: Iterable[str]) -> str:
        return "".join(
            f"<{tag}{' class=number' if i < numbers else ''}>{value}</{tag}>"
            for i, value in enumerate(values)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{cells('th', head)}</tr></thead><tbody>{body}</tbody></table>"


def hardest_table(result: EvaluationResult) -> str:
    """The rows with the largest loss and what the model thought of them."""
    if not result.hardest:
        return ""
    if result.classes is None:
        rows = [[f"{row.row:,}", number(row.loss)] for row in result.hardest]
        return section("The hardest rows", table_of(("row", "-log p"), rows, 2))
    rows = [
        [f"{row.row:,}", number(row.loss), f"{row.label:,}", answers(row)] for row in result.hardest
    ]
    return section(
        "The hardest rows", table_of(("row", "-log p", "label", "most probable classes"), rows, 3),
        "The truth is green where it is among the most probable.", "hardest",
    )  # fmt: skip


def answers(row: HardRow) -> str:
    """Classes with their probabilities as bars."""
    return "".join(
        f'<span class="answer{" truth" if k == row.label else ""}">'
        f'<i style="width:{100 * prob:.1f}%"></i><b>{k}</b><span>{share(prob)}</span></span>'
        for k, prob in zip(row.classes, row.probs, strict=True)
    )


def share(prob: float) -> str:
    """A probability in few characters.

    >>> share(0.9912), share(0.00012), share(0.0)
    ('99.1%', '1e-04', '0%')
    """
    if prob == 0:
        return "0%"
    return f"{prob:.1%}" if prob >= 0.0005 else f"{prob:.0e}"


def comparison_table(result: EvaluationResult) -> str:
    """The paired difference to another model."""
    comparison = result.comparison
    if comparison is None:
        return ""
    error = plus_minus(comparison.standard_error)
    low = comparison.difference - 2 * comparison.standard_error
    high = comparison.difference + 2 * comparison.standard_error
    rows = [
        ["this less the other", f"{comparison.difference:+.4g} {error}"],
        ["two standard errors around it", f"{low:.4g} to {high:.4g}"],
        ["the other's loss", number(comparison.other_loss)],
    ]
    if result.classes is not None:
        rows += [
            ["both right", f"{comparison.both_right:,}"],
            ["only this one right", f"{comparison.only_this_right:,}"],
            ["only the other right", f"{comparison.only_other_right:,}"],
            ["neither right", f"{comparison.both_wrong:,}"],
        ]
    escaped = [[html.escape(cell) for cell in row] for row in rows]
    return section(
        "Against the other model", table_of(("", "nats, rows"), escaped, 0),
        "Differences are taken row by row, so what both models find hard cancels.",
    )  # fmt: skip


def facts_table(result: EvaluationResult) -> str:
    """What was evaluated and with which options."""
    rows = [[name, ", ".join(names)] for name, names in result.files.items()]
    rows += [
        ["rows", f"{result.rows:,}"], ["left out", f"{result.ignored:,}"],
        ["bad rows skipped", f"{result.bad_labels + result.bad_logits:,}"],
        ["sum of losses", f"{result.loss_sum:.17g}"], ["divisor", f"{result.divisor:.17g}"],
    ]  # fmt: skip
    rows += [[name, shortened(json.dumps(value))] for name, value in result.options.items()]
    escaped = [[html.escape(name), f"<code>{html.escape(text)}</code>"] for name, text in rows]
    return section("Data and options", table_of(("", ""), escaped, 0))


def shortened(text: str) -> str:
    """At most 200 characters of a text."""
    return text if len(text) <= 200 else f"{text[:190]} ..."

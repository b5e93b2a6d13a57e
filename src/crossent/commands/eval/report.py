"""The report: one self-contained HTML page, from the template beside this file."""

from __future__ import annotations

import json
from pathlib import Path

import jinja2

import crossent
from crossent.commands.eval import charts, text
from crossent.commands.terminal import save_text
from crossent.evaluation.result import ENOUGH_ROWS, EvaluationResult
from crossent.evaluation.tallies import CALIBRATION_BINS


def save_report(result: EvaluationResult, path: Path) -> None:
    """Writes the page; like all outputs it appears when it is whole."""
    save_text(report_page(result), path)


def report_page(result: EvaluationResult) -> str:
    """The page as text. Names of files come from outside and are escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "figure": text.figure,
        "formatted": format,
        "plus_minus": plus_minus,
        "share": share,
    }
    return environment.get_template("report.html.jinja").render(
        result=result, facts=facts(result), text=text, charts=charts, zip=zip,
        calibration_bins=CALIBRATION_BINS, enough_rows=ENOUGH_ROWS, version=crossent.__version__,
    )  # fmt: skip


def plus_minus(error: float, form: str = ".2g") -> str:
    """A standard error behind its sign; nothing where there is none."""
    return f"\N{PLUS-MINUS SIGN} {error:{form}}" if error >= 0 else ""


def share(prob: float) -> str:
    """A probability in few characters.

    >>> share(0.9912), share(0.00012), share(0.0)
    ('99.1%', '1e-04', '0%')
    """
    if prob == 0:
        return "0%"
    return f"{prob:.1%}" if prob >= 0.0005 else f"{prob:.0e}"


def facts(result: EvaluationResult) -> dict[str, str]:
    """What was evaluated and with which options."""
    return {
        **{name: ", ".join(names) for name, names in result.files.items()},
        "rows": f"{result.rows:,}",
        "left out": f"{result.ignored:,}",
        "bad rows skipped": f"{result.bad_labels + result.bad_logits:,}",
        "sum of losses": f"{result.loss_sum:.17g}",
        "divisor": f"{result.divisor:.17g}",
        **{name: shortened(json.dumps(value)) for name, value in result.options.items()},
    }


def shortened(value: str) -> str:
    """At most 200 characters of a text."""
    return value if len(value) <= 200 else f"{value[:190]} ..."

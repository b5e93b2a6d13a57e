"""The ``crossent explain`` command: reads the problem, writes the walk in the form asked for."""

import os
import sys
import webbrowser
from pathlib import Path
from typing import Any

import numpy as np

from crossent.commands.explain.inputs import files_among, read_problem
from crossent.commands.explain.latex import latex
from crossent.commands.explain.numpy_code import program
from crossent.commands.explain.page import make_page
from crossent.commands.explain.steps import Walk
from crossent.commands.explain.text import plain_text
from crossent.commands.explain.view import make_view
from crossent.commands.explain.walk import NUDGES
from crossent.commands.terminal import (
    UsageError,
    check_output_path,
    json_text,
    save_text,
    say,
)

PAGE = Path("crossent-explain.html")
DOCUMENT = {  # what --json prints, by the walk's names
    "rows": "N",
    "classes": "C",
    "row": "row",
    "shown_rows": "shown_rows",
    "shown_classes": "shown_classes",
    "class_names": "class_names",
    "other_classes": "other_classes",
    "logits": "a",
    "targets": "y",
    "row_max": "m",
    "without_maximum": {"shift": "kappa", "exp": "naive.exp", "prob": "naive.p"},
    "exp": "exp",
    "sum_exp": "sum",
    "lse": "lse",
    "prob": "p",
    "loss": {"row": "loss", "sum": "loss.sum", "mean": "loss.mean"},
    "loss_of_shown_rows": "losses",
    "grad_by_prob": "dp",
    "softmax_jacobian": "J",
    "log_softmax_slopes": "dlog",
    "terms": "term",
    "grad_of_row": "grad",
    "grad_of_mean": "Grow",
    "finite_differences": "finite_differences",
    "step": {
        "size": "eta",
        "logits": "movedrow",
        "mean_before": "step.before",
        "mean_after": "step.after",
        "mean_predicted": "step.predicted",
    },
    "confident": {
        "margin": "x",
        "naive_loss": "sure.naive.loss.64",
        "loss": "sure.loss.64",
        "naive_grad": "sure.naive.grad.64",
        "grad": "sure.grad.64",
    },
    "soft": {"targets": "soft.y", "loss": "soft.loss", "grad": "soft.grad"},
    "label_smoothing": {
        "share": "eps",
        "targets": "q",
        "loss": "smooth.loss",
        "grad": "smooth.grad",
    },
}


def explain_command(
    *,
    logits: str | None,
    targets: str | None,
    classes: str | None,
    row: int | None,
    form: str,
    out: Path | None,
    open_page: bool,
) -> None:
    """Write the walk: a page to a file that is opened, the other forms to the terminal or --out."""
    if out is None and form == "page":
        out = PAGE
    if out is not None:
        check_output_path(out, "--out", PAGE, files_among(logits, targets, classes))
    problem = read_problem(logits, targets, classes)
    if row is not None and not 0 <= row < problem.N:
        raise UsageError(
            f"--row {row}: there is no such row; rows are counted from 0, the last is "
            f"{problem.N - 1}"
        )
    with np.errstate(all="ignore"):  # numbers may be too large: the walk shows what comes of it
        told = FORMS[form](Walk.of(make_view(problem, row)))
    if out is None:
        say(told, end="")
        return
    save_text(told, out)
    if form == "page":
        opened = open_page and has_screen() and webbrowser.open(out.resolve().as_uri())
        say(f"Page: {out}" + ("" if opened else " (open it in a browser)"))
    else:
        say(f"Written: {out}")


def chosen_form(**wanted: bool) -> str:
    """The one form that is asked for; the page if none is."""
    asked = [name for name, is_wanted in wanted.items() if is_wanted]
    if len(asked) > 1:
        raise UsageError(f"--{asked[0]} and --{asked[1]}: give one of them")
    return asked[0] if asked else "page"


def has_screen() -> bool:
    """Whether a browser could show a window; else Python would start one in the terminal."""
    wanted = ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in wanted)


def document(walk: Walk) -> str:
    """Every step's numbers as JSON: lists over the shown classes, the rest of them last."""
    view = walk.view
    values = {name: np.asarray(value).tolist() for name, value in walk.values.items()}
    errors = zip(NUDGES, values["nudge.error"], strict=True)
    values |= {
        "shown_rows": [row.index for row in view.rows],
        "shown_classes": view.row.classes,
        "class_names": view.row.names,
        "other_classes": view.problem.C - len(view.row.classes),
        "finite_differences": [{"h": h, "largest_difference": error} for h, error in errors],
    }
    return json_text(named(DOCUMENT, values)) + "\n"


def named(names: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The values that the names stand for, nested as they are."""
    return {
        name: named(value, values) if isinstance(value, dict) else values[value]
        for name, value in names.items()
    }


FORMS = {
    "page": make_page, "text": plain_text, "latex": latex, "numpy": program, "json": document,
}  # fmt: skip

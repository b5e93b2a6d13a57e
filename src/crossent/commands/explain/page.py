"""The page: assets/page.jinja with the steps, the picture, styles and script put in.

Every number, word, bar and colour names its key, so that the page's script can change it.
"""

import math
import re
from dataclasses import asdict
from functools import partial
from html import escape
from importlib.metadata import metadata
from typing import Any

from markupsafe import Markup

import crossent
from crossent.commands.explain.state import CHOICES
from crossent.commands.explain.steps import Walk, asset, environment, macros, short_name
from crossent.commands.explain.view import ShownRow
from crossent.commands.explain.walk import NUDGE, NUDGES

SCRIPTS = ("numbers.js", "walk.js", "draw.js", "state.js", "main.js")
CURVE = {"left": 34, "top": 12, "width": 300, "height": 150, "most": 5}  # of -log p over p


def make_page(walk: Walk) -> str:
    """The whole page."""
    words = page_vocabulary(walk)
    words |= vars(macros("parts.jinja", words))
    page = environment().get_template("page.jinja")
    return page.render(
        words,
        steps=list(walk.steps("page", **words)),
        overview=walk.tell("overview", "page"),
        pass_picture=macros("picture.jinja", words).page(),
    )


def page_vocabulary(walk: Walk) -> dict[str, Any]:
    """What the page's templates may use."""
    words = {key: as_text(word) for key, word in walk.words.items()}
    logits = [x for row in walk.view.rows for x in row.a]
    low, high = min(-5.0, math.floor(min(logits)) - 1), max(5.0, math.ceil(max(logits)) + 1)
    return walk.vocabulary | {
        "words": words,
        "n": partial(number, walk),
        "word": lambda key: Markup('<span data-w="{}">{}</span>').format(key, words[key]),
        "when": partial(condition, walk),
        "share": partial(share, walk),
        "choices": CHOICES,
        "low": low,  # of the sliders: room around the logits, at least -5 to 5
        "high": high,
        "pace": 0.1 if high - low <= 100 else (high - low) / 1000,
        "curve": CURVE,
        "curve_point": curve_point,
        "curve_shares": [math.exp(-CURVE["most"] * (1 - n / 60)) for n in range(61)],
        "data": page_data(walk),
        "script": Markup("\n".join(without_comments(asset(name)) for name in SCRIPTS)),
        "see_also": see_also,
        "asset": asset,
        "version": crossent.__version__,
    }


# --- Pieces of markup -----------------------------------------------------------------------------


def as_text(word: str) -> Markup:
    """A name as text of the page, where a dollar sign begins a formula."""
    return Markup(escape(word).replace("$", "&#36;"))


def number(
    walk: Walk, key: str, style: str = "3", tag: str = "span", attributes: str = ""
) -> Markup:
    """A number of the walk as an element that knows its key."""
    code = "" if style == "3" else f' data-f="{style}"'
    opening = " ".join(filter(None, (tag, attributes)))
    return Markup(f'<{opening} data-k="{key}"{code}>{walk.write(key, style)}</{tag}>')


def condition(walk: Walk, name: str) -> Markup:
    """Attributes of a sentence that holds where a number is not 0; with "not name" where it is."""
    holds = bool(walk.numbers[name.removeprefix("not ")]) != name.startswith("not ")
    return Markup(f'data-if="{name}"{"" if holds else " hidden"}')


def share(walk: Walk, key: str, size: str = "") -> float:
    """How large a number is, to four digits, as a share of 1 or of another number; at most 1."""
    whole = walk.numbers[size] if size else 1
    return float(f"{min(abs(walk.numbers[key]) / whole, 1):.4g}")


def curve_point(p: float) -> tuple[float, float]:
    """Where (p, -log p) stands in its figure; what is too large stays at the upper edge."""
    most = CURVE["most"]
    loss = most if p <= 0 else min(-math.log(p), most)
    return CURVE["left"] + CURVE["width"] * p, CURVE["top"] + CURVE["height"] * (1 - loss / most)


def without_comments(script: str) -> str:
    """A script without its lines of comment and its indentation; it has no text over two lines."""
    lines = (line.strip() for line in script.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("//"))


def see_also(heading: str) -> Markup:
    """Where a step stands in docs/derivation.md; a link if the package says where its docs are."""
    cited = Markup("<cite>docs/derivation.md</cite>, “{}”").format(heading)
    for line in metadata("crossent").get_all("Project-URL") or []:
        label, _, url = line.partition(", ")
        if label.lower() == "documentation":
            anchor = re.sub(r"[^a-z0-9-]", "", heading.lower().replace(" ", "-"))
            link = Markup('<a href="{}/derivation.md#{}">{}</a>')
            return link.format(url.rstrip("/"), anchor, cited)
    return cited


# --- What the script needs to compute every number itself -----------------------------------------


def page_data(walk: Walk) -> dict[str, Any]:
    """Rows, choices and constants; what is not shown as sums and moments."""
    view = walk.view
    return {
        "N": view.problem.N,
        "C": view.problem.C,
        "first": asdict(walk.state),
        "rows": [row_data(row, walk.names(r)) for r, row in enumerate(view.rows)],
        "hidden": asdict(view.hidden),
        "nudge": NUDGE,
        "nudges": NUDGES,
        "choices": {name: choice._asdict() for name, choice in CHOICES.items()},
        "curve": CURVE,
    }


def row_data(row: ShownRow, names: list[str]) -> dict[str, Any]:
    """What the script needs of a row beside its logits, which the state holds."""
    data = {key: value for key, value in asdict(row).items() if key in ("index", "y", "rest")}
    return data | {"names": names, "short": [short_name(name) for name in names]}

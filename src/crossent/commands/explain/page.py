"""The page: story.html with its numbers, tables and pictures put in, styles and script included.

One file that needs nothing else: no library, no font, no network. What it says stands in it as
text, so that it reads the same without its script.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from html import escape
from importlib.metadata import metadata
from typing import Any

import crossent
from crossent.commands.explain import controls, picture, tables
from crossent.commands.explain.markup import Markup, asset, flags_of, words_of
from crossent.commands.explain.numpy_code import course_class
from crossent.commands.explain.panels import LETTERS
from crossent.commands.explain.state import State
from crossent.commands.explain.view import ShownRow, View
from crossent.commands.explain.walk import NUDGE, NUDGES, all_numbers

SCRIPTS = ("numbers.js", "walk.js", "draw.js", "state.js", "main.js")
PIECE = re.compile(r"<!-- (\w+)(?::(\w+))? -->")
SECTION = re.compile(r'(<section id="(\w+)"[^>]*>\s*)<h2>(.+?)</h2>')
SEE = re.compile(r' data-see="([^"]+)"')

TABLES: dict[str, Callable[[Markup], str]] = {
    "logits": tables.logits_table,
    "overflow": tables.overflow_table,
    "softmax": tables.softmax_table,
    "losses": tables.losses_table,
    "dp": tables.through_table,
    "cases": tables.cases_table,
    "shortcut": tables.shortcut_table,
    "collapse": tables.collapse_table,
    "check": tables.check_table,
    "gradient": tables.gradient_table,
    "step": tables.step_table,
    "sure": tables.sure_table,
    "soft": tables.soft_table,
    "smooth": tables.smooth_table,
}


def make_page(view: View) -> str:
    """The whole page for a view."""
    state = State.of(view)
    numbers = all_numbers(view, state)
    m = Markup(view, numbers, words_of(view, numbers), flags_of(numbers, view.slots))
    story = put_in_flags(m, number_headings(asset("story.html")))
    body = unquote(PIECE.sub(partial(piece, m), m.prose(story)))
    return PIECE.sub(partial(shell_piece, m, body, state), asset("shell.html"))


def without_comments(script: str) -> str:
    """A script without its lines of comment and its indentation; it has no text over two lines."""
    lines = (line.strip() for line in script.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("//"))


def unquote(markup: str) -> str:
    """Markup without the quotes that HTML does not need; its text has none outside of tags."""
    return re.sub(r'="([\w.#%-]+)"(?=[ >])', r"=\1", markup)


def piece(m: Markup, found: re.Match[str]) -> str:
    """What a comment in the story stands for."""
    kind, name = found[1], found[2]
    if kind == "table":
        return TABLES[name](m)
    if kind == "ask":
        return controls.ask(m, name)
    if kind == "slider":
        return controls.slider(m, name)
    simple: dict[str, Callable[[Markup], str]] = {
        "pass": picture.pass_pictures,
        "curve": tables.curve,
        "heatmap": tables.heat_map,
        "symbols": controls.symbols,
        "code": lambda m: f"<pre><code>{escape(course_class())}</code></pre>",
    }
    return simple[kind](m)


def shell_piece(m: Markup, body: str, state: State, found: re.Match[str]) -> str:
    """What a comment in the frame around the story stands for."""
    if found[1] == "style":
        return asset("page.css") + asset("picture.css")
    if found[1] == "script":
        return "\n".join(without_comments(asset(name)) for name in SCRIPTS)
    if found[1] == "data":
        return json.dumps(page_data(m.view, state), separators=(",", ":")).replace("<", "\\u003c")
    if found[1] == "constants":
        return f"const CURVE = {json.dumps(tables.CURVE)}, LETTERS = {LETTERS};"
    if found[1] == "panel":
        return unquote(controls.panel(m))
    if found[1] == "intro":
        return m.prose(asset("intro.html")).replace("<!-- limits -->", limits(m.view))
    if found[1] == "contents":
        return contents(body)
    if found[1] == "version":
        return escape(crossent.__version__)
    return body


# --- Parts of the page ----------------------------------------------------------------------------


def number_headings(story: str) -> str:
    """Headings with their numbers, and at each section's end where its text stands in full."""
    count = iter(range(1, 100))

    def heading(found: re.Match[str]) -> str:
        opening, name, title = found.groups()
        number = f'<span class="number">{next(count)}</span> ' if "data-see" in opening else ""
        return f'{opening}<h2 id="h-{name}">{number}{title}</h2>'

    parts = []
    for section in SECTION.sub(heading, story).split("</section>"):
        see = SEE.search(section)
        if see:
            section = SEE.sub(f' class="step" aria-labelledby="{heading_id(section)}"', section)
            section += f'<p class="see">In full: {see_also(see[1])}</p>\n'
        parts.append(section)
    return "</section>".join(parts)


def heading_id(section: str) -> str:
    found = re.search(r'<h2 id="([\w-]+)"', section)
    return found[1] if found else ""


def see_also(heading: str) -> str:
    """Where a step stands in docs/derivation.md; a link if the package says where its docs are."""
    cited = f"<cite>docs/derivation.md</cite>, “{heading}”"
    for line in metadata("crossent").get_all("Project-URL") or []:
        label, _, url = line.partition(", ")
        if label.lower() == "documentation":
            anchor = re.sub(r"[^a-z0-9-]", "", heading.lower().replace(" ", "-"))
            return f'<a href="{escape(url.rstrip("/"))}/derivation.md#{anchor}">{cited}</a>'
    return cited


def put_in_flags(m: Markup, story: str) -> str:
    """Hides the alternatives that do not hold."""
    return re.sub(
        r'data-if="(\w+)"',
        lambda found: found[0] + ("" if m.flags[found[1]] else " hidden"),
        story,
    )


def contents(body: str) -> str:
    """The list of steps."""
    found = re.findall(r"<section id=(\w+) class=step.*?</span> (.+?)</h2>", body, re.DOTALL)
    return "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title in found)


def limits(view: View) -> str:
    """What is not shown, in a sentence; nothing where all is."""
    said = []
    if view.hidden:
        rows = ", ".join(f"{row.index:,}" for row in view.rows)
        said.append(
            f"Of {view.N:,} rows the page shows {len(view.rows)}: rows {rows}, among them those "
            "with the largest, the median and the smallest loss. Sums and means are over all rows."
        )
    if view.row.rest:
        said.append(
            f"Of {view.C:,} classes it shows, for each row, the {len(view.row.classes)} that "
            f"matter most: the target and the most probable. The {view.row.rest.count:,} others "
            "act together, as one class whose probability is theirs added up."
        )
    return f'<p class="note">{" ".join(said)}</p>' if said else ""


def page_data(view: View, state: State) -> dict[str, Any]:
    """What the script needs to compute every number itself."""
    hidden = view.hidden and {
        "count": view.hidden.count,
        "steps": view.hidden.steps.tolist(),
        "losses": view.hidden.losses.tolist(),
        "grad_squared": view.hidden.grad_squared,
    }
    return {
        "N": view.N,
        "C": view.C,
        "chosen": view.chosen,
        "rows": [row_data(row) for row in view.rows],
        "targets": list(state.targets),
        "hidden": hidden,
        "nudge": NUDGE,
        "nudges": list(NUDGES),
        "defaults": {
            "shift": state.shift,
            "step": state.step,
            "margin": state.margin,
            "keep": state.keep,
            "smoothing": state.smoothing,
        },
    }


def row_data(row: ShownRow) -> dict[str, Any]:
    rest = row.rest and {
        "count": row.rest.count,
        "lse": row.rest.lse,
        "sum_logits": row.rest.sum_logits,
        "sum_y": row.rest.sum_y,
        "sum_y_logits": row.rest.sum_y_logits,
        "peak": row.rest.peak,
        "moments": [[float(f"{x:.9g}") for x in line] for line in row.rest.moments],
    }
    return {
        "index": row.index,
        "names": list(row.names),
        "a": row.a.tolist(),
        "y": row.y.tolist(),
        "rest": rest,
    }

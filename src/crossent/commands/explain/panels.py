"""The pieces of the picture: panels of bars, heat map, loss, arrows, what a question hides.

Panels and heat map are drawn at the origin; a layout (picture.py) moves and enlarges them.
"""

from __future__ import annotations

import re
from html import escape

from crossent.commands.explain.markup import Markup

HEAD, PITCH, FOOT = 36, 24, 10  # of a panel: its title, a line a class, below the last
PANEL, NAME, VALUE = 163, 48, 69  # widths: a panel; in it the class's name, the number
LETTERS = 7  # of a name that fit


def symbol(text: str) -> str:
    """A symbol as the page's formulas show it."""
    return f'<tspan class="s">{text}</tspan>'


PANELS = {
    "a": f"logits {symbol('a')}",
    "p": f"probabilities {symbol('p')}",
    "dp": f"{symbol('∂ℓ')}/{symbol('∂p')} = −{symbol('y')}/{symbol('p')}",
    "grad": f"{symbol('∂ℓ')}/{symbol('∂a')} = {symbol('p')} − {symbol('y')}",
}
LOSS, LOG = f"loss {symbol('ℓ')}", f"−log {symbol('p')}"
SLOPES = f"slopes {symbol('J')}"


def panel_height(m: Markup) -> int:
    """The height of every panel."""
    return HEAD + PITCH * len(m.slots) + FOOT


def text(x: float, y: float, content: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{content}</text>'


def arrow(x: float, y: float, to_x: float, to_y: float, kind: str = "") -> str:
    """A straight arrow, across or up and down."""
    dx, dy = (to_x > x) - (to_x < x), (to_y > y) - (to_y < y)
    across = f"{to_x - 9 * dx:g},{to_y - 9 * dy:g}"
    tip = (
        f"M{to_x:g},{to_y:g}L{to_x - 10 * dx + 5 * dy:g},{to_y - 10 * dy + 5 * dx:g}"
        f"L{to_x - 10 * dx - 5 * dy:g},{to_y - 10 * dy - 5 * dx:g}Z"
    )
    return (
        f'<path class="arrow {kind}" d="M{x:g},{y:g}L{across}"/>'
        f'<path class="tip {kind}" d="{tip}"/>'
    )


def bend(x: float, y: float, to_y: float, to_x: float) -> str:
    """From below a box down, around a corner, and left."""
    return (
        f'<path class="arrow back" d="M{x:g},{y:g}V{to_y - 12:g}Q{x:g},{to_y:g} {x - 12:g},{to_y:g}'
        f'H{to_x + 20:g}"/>' + arrow(to_x + 20, to_y, to_x, to_y, "back")
    )


def veiled(question: str, body: str, x: float, y: float, width: float, height: float) -> str:
    """What a question hides until it is answered."""
    mark = text(x + width / 2, y + height / 2 + 10, "?", "big mid ask")
    card = f'<rect class="card" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="8"/>'
    return f'<g data-veil="{question}">{card}<g class="inside">{body}</g>{mark}</g>'


def bound(m: Markup, key: str, x: float, y: float, kind: str, style: str = "3") -> str:
    """A number of the walk as text of the picture."""
    tag = m.number(key, style, "text")
    return tag.replace("<text", f'<text class="{kind}" x="{x:g}" y="{y:g}"', 1)


def panel(m: Markup, name: str) -> str:
    """A box with a line for each class: name, bar, number."""
    kind = "card result" if name == "grad" else "card"
    return (
        f'<rect class="{kind}" width="{PANEL}" height="{panel_height(m)}" rx="8"/>'
        + text(10, 23, PANELS[name], "title")
        + "".join(panel_line(m, name, k) for k in m.slots)
    )


def panel_line(m: Markup, name: str, k: int) -> str:
    """A class of a panel."""
    label, middle = short_name(m.words[f"name.{k}"]), line_top(k) + PITCH / 2
    start, end = NAME + 8, PANEL - VALUE - 8
    zero, scale = (start, end - start) if name == "p" else ((start + end) / 2, (end - start) / 2)
    bar_key = {"a": f"size.a.{k}", "dp": f"size.dp.{k}"}.get(name, f"{name}.{k}")
    kind = {"a": "logit", "p": "prob"}.get(name, "sign")
    mark = (
        rect(m, f"y.{k}", "truth", zero, middle - 8, scale, 16)
        if name == "p"
        else f'<path class="zero" d="M{zero:g},{middle - 11:g}v22"/>'
    )
    return (
        rect(m, bar_key, kind, zero, middle - 6, scale, 12)
        + mark
        + f'<text data-w="name.{k}" class="note" x="10" y="{middle + 4.5:g}">{escape(label)}</text>'
        + bound(m, f"{name}.{k}", PANEL - 9, middle + 4.5, "value", "a" if name == "a" else "3")
    )


def short_name(name: str) -> str:
    """A class's name for a panel: of "class 8868" or "9,995 others" what tells them apart."""
    if len(name) <= LETTERS:
        return name
    telling = re.sub(r"^class (?=\d+$)|^[\d,]+ (?=others$)", "", name)
    return telling if len(telling) <= LETTERS else telling[: LETTERS - 1] + "…"


def line_top(k: int) -> int:
    return HEAD + PITCH * k


def targets(m: Markup, where: str) -> str:
    """What can be clicked over a panel to choose a class as the target."""
    lines = "".join(
        f'<rect data-pick="{k}" y="{line_top(k)}" width="{PANEL}" height="{PITCH}"/>'
        for k in range(len(m.view.row.classes))
    )
    return f'<g class="picks" transform="{where}">{lines}</g>'


def rect(m: Markup, key: str, kind: str, zero: float, y: float, scale: float, height: int) -> str:
    """A bar whose length is a number of the walk: to the right of zero, or to the left."""
    value = max(-1.0, min(1.0, m.numbers[key]))
    length = abs(value) * scale
    left = zero - length if value < 0 else zero
    colour = ("below" if value < 0 else "up") if kind == "sign" else kind
    hidden = ' visibility="hidden"' if kind == "truth" and value == 0 else ""
    return (
        f'<rect class="{colour}" data-length="{key} {kind} {zero:g} {scale:g}" x="{left:.4g}" '
        f'y="{y:g}" width="{length:.4g}" height="{height}"{hidden}/>'
    )


def heat(m: Markup) -> str:
    """The Jacobian as squares that fill a square of size 1: blue below 0, red above."""
    step, largest = 1 / len(m.slots), m.numbers["J.size"]
    parts = [f'<g class="squares" transform="scale({step:.6g})">']
    for i in m.slots:
        for j in m.slots:
            value = m.numbers[f"J.{i}.{j}"]
            parts.append(
                f'<rect class="{"below" if value < 0 else "up"}" data-heat="J.{i}.{j}" '
                f'fill-opacity="{abs(value) / largest:.3g}" x="{j}" y="{i}"/>'
            )
    return "".join(parts) + "</g>"


def loss_card(m: Markup, x: float, y: float, width: float, height: float) -> str:
    """The loss as a number."""
    middle = y + height / 2
    card = f'<rect class="card" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="8"/>'
    if height < 80:
        return (
            card
            + text(x + 12, middle + 5, LOSS, "title")
            + text(x + 70, middle + 5, f"{LOG} at the target", "note")
            + bound(m, "loss", x + width - 12, middle + 9, "big value")
        )
    return (
        card
        + text(x + width / 2, middle - 26, LOSS, "title mid")
        + bound(m, "loss", x + width / 2, middle + 8, "big mid")
        + text(x + width / 2, middle + 32, LOG, "note mid")
        + text(x + width / 2, middle + 48, "at the target", "note mid")
    )

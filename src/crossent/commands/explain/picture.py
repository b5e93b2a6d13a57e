"""The picture of the whole pass: logits to softmax to loss, and the derivatives back.

Drawn by hand as SVG, wide for a page or a README, tall for a phone. ``docs/pass.svg`` is the wide
one for the worked example, written by

    python -m crossent.commands.explain.picture docs/pass.svg
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from crossent.commands.explain.inputs import read_problem
from crossent.commands.explain.markup import Markup, asset, flags_of, words_of
from crossent.commands.explain.panels import (
    PANEL,
    PANELS,
    SLOPES,
    arrow,
    bend,
    heat,
    loss_card,
    panel,
    panel_height,
    targets,
    text,
    veiled,
)
from crossent.commands.explain.state import State
from crossent.commands.explain.view import make_view
from crossent.commands.explain.walk import all_numbers

WIDE, WIDE_SCALE, TALL = 752, 1.13, 344  # widths of the layouts; the wide one enlarges its panels

Place = Callable[[str, float, float, float], str]  # how a layout gets a panel: name, x, y, scale


def pass_pictures(m: Markup) -> str:
    """Both layouts, sharing their panels; the style sheet shows the one that fits."""
    label = (
        "The whole pass. Forward: logits, softmax, probabilities, compared with the target, loss. "
        "Backward: derivative of the loss by the probabilities, times the slopes of the "
        "probabilities, gives the derivative by the logits, p minus y."
    )
    shared = "".join(f'<g id="panel-{name}">{panel(m, name)}</g>' for name in PANELS)
    shared += f'<g id="panel-J">{heat(m)}</g>'

    def use(name: str, x: float, y: float, scale: float) -> str:
        where = f"translate({x:g} {y:g}) scale({scale:g})"
        drawn = f'<use href="#panel-{name}" transform="{where}"/>'
        return drawn + (targets(m, where) if name in ("a", "p") else "")

    pictures = "".join(
        f'<svg class="pass {kind}" viewBox="0 0 {width} {height:g}" role="img" '
        f'aria-label="{label}">{body}</svg>'
        for kind, width, height, body in (
            ("wide", WIDE, wide_height(m), wide(m, use)),
            ("tall", TALL, tall_height(m), tall(m, use)),
        )
    )
    return (
        f'<figure class="glance"><svg class="pass shared" aria-hidden="true">{shared}</svg>'
        f"{pictures}</figure>"
    )


def standalone(m: Markup) -> str:
    """The wide picture as a file of its own, light or dark as its reader's screen."""

    def draw(name: str, x: float, y: float, scale: float) -> str:
        body = heat(m) if name == "J" else panel(m, name)
        return f'<g transform="translate({x:g} {y:g}) scale({scale:g})">{body}</g>'

    body = re.sub(r' data-[\w-]+="[^"]*"', "", wide(m, draw)).replace("><", ">\n<")
    width, height = WIDE, round(wide_height(m))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="pass" role="img" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">\n'
        "<title>Softmax cross-entropy, forward and backward</title>\n"
        f"<style>{asset('picture_colors.css')}{asset('picture.css')}</style>\n"
        f'<rect width="100%" height="100%" fill="var(--paper)" rx="8"/>\n{body}\n</svg>\n'
    )


# --- The two layouts ------------------------------------------------------------------------------


def wide_height(m: Markup) -> float:
    return 2 * panel_height(m) * WIDE_SCALE + 106


def wide(m: Markup, place: Place) -> str:
    """Forward from left to right above, backward from right to left below."""
    box, high = PANEL * WIDE_SCALE, panel_height(m) * WIDE_SCALE
    left, right, top, low = 8.0, 372.0, 10.0, high + 62
    middle, below = top + high / 2, low + high / 2
    size = min(high - 4, 118.0)
    between = (left + box + right) / 2
    map_left, map_top = between - size / 2, low + (high - size) / 2
    loss_left, loss_width = 622.0, 122.0
    return "".join(
        (
            place("a", left, top, WIDE_SCALE),
            arrow(left + box + 6, middle, right - 6, middle),
            text(between, middle - 12, "softmax", "title mid"),
            text(between, middle + 22, "exponentiate,", "note mid"),
            text(between, middle + 39, "divide by the sum", "note mid"),
            place("p", right, top, WIDE_SCALE),
            arrow(right + box + 6, middle, loss_left - 6, middle),
            loss_card(m, loss_left, top, loss_width, high),
            bend(loss_left + loss_width / 2, top + high + 6, below, right + box + 6),
            veiled("dp", place("dp", right, low, WIDE_SCALE), right, low, box, high),
            arrow(right - 6, below, map_left + size + 8, below, "back"),
            text(between, map_top - 9, f"times the {SLOPES}", "title mid"),
            veiled("jacobian", place("J", map_left, map_top, size), map_left, map_top, size, size),
            arrow(map_left - 8, below, left + box + 6, below, "back"),
            veiled("gradient", place("grad", left, low, WIDE_SCALE), left, low, box, high),
            text(left, low + high + 24, "Outlined: the target. Blue: below 0, red: above.", "note"),
            text(WIDE - 8, low + high + 24, "Forward above, backward below.", "note value"),
        )
    )


def tall_height(m: Markup) -> float:
    return 2 * panel_height(m) + 292


def tall(m: Markup, place: Place) -> str:
    """Forward down the left side, backward up the right."""
    high, size = panel_height(m), 84.0
    left, right, first, second = 4.0, TALL - PANEL - 4.0, 6.0, high + 140.0
    last = second + high + 46
    down, up = left + PANEL / 2, right + PANEL / 2
    map_left, map_top = up - size / 2, first + high + 26
    return "".join(
        (
            place("a", left, first, 1),
            arrow(down, first + high + 5, down, second - 5),
            text(down - 10, first + high + 62, "softmax", "title value"),
            place("p", left, second, 1),
            arrow(down, second + high + 5, down, last - 5),
            loss_card(m, left, last, TALL - 8, 62),
            arrow(up, last - 5, up, second + high + 5, "back"),
            veiled("dp", place("dp", right, second, 1), right, second, PANEL, high),
            arrow(up, second - 4, up, map_top + size + 3, "back"),
            veiled("jacobian", place("J", map_left, map_top, size), map_left, map_top, size, size),
            text(map_left - 8, map_top + 36, "times the", "title value"),
            text(map_left - 8, map_top + 54, SLOPES, "title value"),
            arrow(up, map_top - 3, up, first + high + 4, "back"),
            veiled("gradient", place("grad", right, first, 1), right, first, PANEL, high),
            text(left, last + 84, "Outlined: the target. Blue: below 0, red: above.", "note"),
        )
    )


def example_picture() -> str:
    """``docs/pass.svg``: the worked example."""
    view = make_view(read_problem(None, None, None))
    numbers = all_numbers(view, State.of(view))
    return standalone(Markup(view, numbers, words_of(view, numbers), flags_of(numbers, view.slots)))


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(example_picture(), encoding="utf-8")

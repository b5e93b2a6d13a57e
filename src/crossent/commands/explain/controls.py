"""What the reader can touch: the panel of sliders, the sliders in the text, the questions."""

from __future__ import annotations

import math
from html import escape
from typing import NamedTuple

from crossent.commands.explain.markup import Markup


class Slider(NamedTuple):
    """A choice that belongs to one step: what it is called and how far it goes."""

    part: str  # of the state
    key: str  # its number in the walk
    label: str
    low: float
    high: float
    step: float


SLIDERS = {
    "shift": Slider("shift", "kappa", r"$\kappa$, added to every logit", -1000, 1000, 10),
    "step": Slider("step", "eta", r"$\eta$, the step size", 0, 4, 0.05),
    "margin": Slider("margin", "x", "$x$, the lead of the right class", 0, 60, 1),
    "keep": Slider("keep", "keep", "the share that {{@t.name}} keeps", 0, 1, 0.05),
    "smoothing": Slider("smoothing", "eps", r"$\varepsilon$, the share spread evenly", 0, 1, 0.01),
}

SIGNS = {-1: "negative", 0: "zero", 1: "positive"}


class Question(NamedTuple):
    """A sign to predict before the answer is read."""

    text: str
    key: str  # the number whose sign it is
    answers: dict[int, str]


QUESTIONS = {
    "shift": [
        Question(
            "Add 1000 to every logit of the row. What happens to the share of {{@t.name}}?",
            "shift.sign", {-1: "it falls", 0: "nothing", 1: "it rises"},
        )
    ],
    "dp": [
        Question(
            "The probability of the right class, {{@t.name}}, goes up a little. Which sign has the "
            "change of the loss?", "dp.t", SIGNS,
        )
    ],
    "jacobian": [
        Question(
            "Only the logit of {{@t.name}} goes up a little. Which sign has the change of the "
            "probability of another class, {{@rival.name}}?", "J.other", SIGNS,
        )
    ],
    "gradient": [
        Question(
            "Which sign will the derivative by the logit of the right class, {{@t.name}}, have?",
            "grad.t", SIGNS,
        ),
        Question("And that by the logit of {{@rival.name}}?", "grad.rival", SIGNS),
    ],
    "step": [
        Question("After the step, which sign has the change of the mean loss?", "step.sign", SIGNS)
    ],
    "smooth": [
        Question(
            r"A classifier is right and sure: $x = \v[g]{x}$, as in the step before. With this "
            "label smoothing, which sign has the derivative by the logit of the right class?",
            "sure.smoothed", SIGNS,
        )
    ],
}  # fmt: skip


def ask(m: Markup, name: str) -> str:
    """A question with its answers; without the script it is only read."""
    sets = []
    for n, question in enumerate(QUESTIONS[name]):
        choices = "".join(
            f'<label><input type="radio" name="ask-{name}-{n}" value="{sign}"><span>{text}</span>'
            "</label>"
            for sign, text in question.answers.items()
        )
        quiet = ' data-quiet="1"' if name == "shift" else ""
        sets.append(
            f'<fieldset data-sign="{question.key}"{quiet}><legend>{m.prose(question.text)}</legend>'
            f'<div class="choices js-only">{choices}</div>'
            '<p class="verdict" role="status"></p></fieldset>'
        )
    return (
        f'<div class="ask" data-ask="{name}"><p class="label">Predict</p>{"".join(sets)}'
        '<p class="js-only"><button type="button" data-show>Just show me</button></p></div>'
    )


def slider(m: Markup, name: str) -> str:
    """A slider in the text, with its value."""
    each = SLIDERS[name]
    return (
        f'<p class="slider"><label for="part-{name}">{m.prose(each.label)}: '
        f"<b>{m.number(each.key, 'g')}</b></label>"
        f'<input class="js-only" type="range" id="part-{name}" data-part="{each.part}" '
        f'min="{each.low}" max="{each.high}" step="{each.step}" '
        f'value="{m.numbers[each.key]:g}"></p>'
    )


def panel(m: Markup) -> str:
    """The reader's numbers: row, target, a slider for every logit, and what follows from them."""
    lines = "".join(panel_line(m, k) for k in range(len(m.view.row.classes)))
    rest = ""
    if m.view.row.rest:
        k = m.view.slots - 1
        rest = (
            f'<div class="line rest"><span></span><span class="name">{m.word(f"name.{k}")}</span>'
            f'<span class="prob">{m.bar(f"p.{k}")}{m.number(f"p.{k}")}</span></div>'
        )
    return (
        '<aside id="panel" class="js-only" aria-label="Your numbers">'
        '<button type="button" id="fold" aria-expanded="false" aria-controls="numbers">'
        f"<span>row {m.number('row', 'i')}, target {m.word('t.name')}</span>"
        f"<span>loss <b>{m.number('loss')}</b></span><span class='more'>change</span></button>"
        '<form id="numbers" onsubmit="return false"><h2>Your numbers</h2>'
        f"{row_choice(m)}"
        '<fieldset class="logits"><legend>Target, and logit of each class</legend>'
        f"{lines}{given_choice(m)}{rest}</fieldset>"
        f'<p class="live">Loss of the row <b>{m.number("loss")}</b><br>'
        f"Mean of all rows <b>{m.number('loss.mean')}</b></p>"
        '<p class="buttons"><button type="button" id="reset">Start again</button> '
        '<button type="button" id="copy">Copy link</button></p>'
        '<p><label><input type="checkbox" id="reveal"> Show all answers</label></p>'
        '<p id="said" role="status"></p></form></aside>'
    )


def row_choice(m: Markup) -> str:
    """Which row the page follows."""
    if len(m.view.rows) == 1:
        return ""
    choices = "".join(
        f'<label><input type="radio" name="row" value="{r}"><span>{row.index}</span></label>'
        for r, row in enumerate(m.view.rows)
    )
    return (
        '<fieldset class="rows"><legend>Row</legend>'
        f'<div class="choices">{choices}</div></fieldset>'
    )


def given_choice(m: Markup) -> str:
    """For a target that is not one class: a way back to it."""
    if all(row.is_one_hot for row in m.view.rows):
        return ""
    return (
        '<div class="line" data-given="1"><input type="radio" name="target" value="y" '
        'aria-label="the target as given"><span class="name">as given</span></div>'
    )


def panel_line(m: Markup, k: int) -> str:
    low, high, step = slider_range(m)
    value = m.numbers[f"a.{k}"]
    return (
        f'<div class="line" data-slot="{k}"><input type="radio" name="target" value="{k}">'
        f'<span class="name">{m.word(f"name.{k}")}</span>'
        f'<input type="number" data-logit="{k}" step="any" value="{value:.6g}">'
        f'<input type="range" data-logit="{k}" min="{low:g}" max="{high:g}" step="{step:g}" '
        f'value="{value!r}"><span class="prob">{m.bar(f"p.{k}")}{m.number(f"p.{k}")}</span></div>'
    )


def slider_range(m: Markup) -> tuple[float, float, float]:
    """From where to where the sliders go: room around the logits, at least -5 to 5."""
    logits = [x for row in m.view.rows for x in row.a]
    low, high = min(-5.0, math.floor(min(logits)) - 1), max(5.0, math.ceil(max(logits)) + 1)
    return low, high, 0.1 if high - low <= 100 else (high - low) / 1000


SYMBOLS = (
    (r"A, a, a_k", "logits: of all rows, of one row, of class $k$", "logits"),
    (r"Y, y", "targets: the share each class ought to have", "logits"),
    (r"N, C", "number of rows, number of classes", "logits"),
    (r"i, j, k, t", "classes; $t$ is the right one", "logits"),
    (r"\sum_k, \max_j", "sum over all classes, largest over all classes", "maximum"),
    ("e", "base of the exponential function", "maximum"),
    (r"\kappa, m", "a constant added to a row, the row's largest logit", "maximum"),
    (r"\sigma, p", "softmax, probabilities $p = \\sigma(a)$", "softmax"),
    (r"\log, \mathrm{lse}", "natural logarithm, that of the sum of the exponentials", "softmax"),
    (r"\ell, H, L", "loss of a row, of each row, of all rows", "loss"),
    (r"\circ, \iota, \top", "product entry by entry, a vector of ones, turned on its side", "loss"),
    (r"\partial, h", "derivative with all else held fixed, step of a finite difference", "through"),
    (r"J, S", "Jacobian of the softmax, sum of the exponentials", "jacobian"),
    (r"\delta_{ij}, \mathrm{diag}", "1 where $i = j$, else 0; matrix with a diagonal", "jacobian"),
    (r"G, \lVert G \rVert, \eta", "gradient of the mean, its length, step size", "step"),
    (r"x, R", "lead of the right class, sum of the others", "sure"),
    (r"q, \varepsilon", "smoothed target, share that is spread evenly", "soft"),
)


def symbols(m: Markup) -> str:
    """Every symbol with its meaning and the step that brings it in."""
    rows = [
        f'<tr><th scope="row">{m.math(tex)}</th><td>{m.prose(meaning)}</td>'
        f'<td><a href="#{step}">{escape(step_title(step))}</a></td></tr>'
        for tex, meaning, step in SYMBOLS
    ]
    return m.table(["symbol", "what it is", "step"], rows, "In the order of the page", "symbols")


def step_title(step: str) -> str:
    return {
        "logits": "Logits", "maximum": "Maximum", "softmax": "Softmax", "loss": "Loss",
        "through": "Probabilities", "jacobian": "Jacobian", "step": "Step", "sure": "Right answer",
        "soft": "Soft targets",
    }[step]  # fmt: skip

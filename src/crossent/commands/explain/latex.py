r"""The walk as LaTeX for a report: a fragment that needs amsmath and nothing else."""

from typing import Any

import numpy as np
from markupsafe import Markup

from crossent.commands.explain.mathml import NUMBER
from crossent.commands.explain.numbers import plain, write_number
from crossent.commands.explain.steps import Walk

HEAD = "% Softmax cross-entropy, step by step. Needs \\usepackage{amsmath}.\n"
NAMED = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
ESCAPES = str.maketrans({sign: f"\\{sign}" for sign in "{}$&%#_"} | NAMED)


def latex(walk: Walk) -> str:
    """The whole walk."""
    names = [escape(walk.words[f"name.{k}"]) for k in walk.slots]
    values = walk.numbers | walk.values
    steps = walk.steps(
        "latex", names=Markup(", ").join(names), word=lambda key: escape(walk.words[key])
    )
    sections = [section(step.title, step.told) for step in steps]
    return HEAD + NUMBER.sub(
        lambda found: entry(values[found[2]], found[1] or "3"), "\n".join(sections)
    )


def escape(text: str) -> Markup:
    """A class's name as LaTeX text."""
    return Markup(text.translate(ESCAPES))


def section(title: str, told: str) -> str:
    """A step: a heading, a sentence, its equations; each of them a paragraph of what is told."""
    if "verbatim" in told:
        return f"\\subsection*{{{title}}}\n{told}"
    text, *equations = (" ".join(part.split()) for part in told.split("\n\n"))
    body = " \\\\\n".join(f"  {equation}" for equation in equations)
    shown = f"\n\\begin{{gather*}}\n{body}\n\\end{{gather*}}" if equations else ""
    return f"\\subsection*{{{title}}}\n{text}{shown}\n"


def entry(value: Any, style: str) -> str:
    """A number in mathematics, a vector or a matrix in brackets."""
    array = np.asarray(value)
    if array.ndim == 2:
        rows = (" & ".join(entry(x, style) for x in row) for row in array)
        return r"\begin{bmatrix} " + r" \\ ".join(rows) + r" \end{bmatrix}"
    if array.ndim == 1:
        return "[" + ", ".join(entry(x, style) for x in array) + "]"
    text = plain(write_number(float(array), style))
    if text == "nan":
        return r"\text{nan}"
    if text.endswith("inf"):
        return text.replace("inf", r"\infty")
    mantissa, _, exponent = text.partition("e")
    return rf"{mantissa} \times 10^{{{exponent}}}" if exponent else text.replace(",", "{,}")

"""The steps of the walk, told once: their order and titles here, each in a template of its own.

A step's template (assets/steps) begins with its tables and formulas; below a line such as
"== text" stands what a form says with them: the page, the text, LaTeX, the NumPy program. The
numbers come from the walk; what writes them and the tables, each form brings itself.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, NamedTuple, Self

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from crossent.commands.explain.mathml import with_formulas
from crossent.commands.explain.numbers import write_number
from crossent.commands.explain.state import State
from crossent.commands.explain.view import View
from crossent.commands.explain.walk import NUDGES, all_values, flat

STEPS = {  # their templates and titles
    "logits": "Logits",
    "maximum": "Why the maximum is subtracted",
    "softmax": "Exponentials, sum, probabilities",
    "loss": "Loss of a row, sum and mean",
    "through": "The derivative through the probabilities",
    "jacobian": "The Jacobian of softmax",
    "cases": "The two cases",
    "collapse": "The product collapses",
    "check": "Finite-difference check",
    "divide": "Divide by N",
    "numpy": "Forward and backward in NumPy",
    "step": "One gradient step",
    "sure": "A confident right answer",
    "soft": "Soft targets and label smoothing",
}
LETTERS = 7  # of a class's name that fit into the picture


class Column(NamedTuple):
    """A column of a table: its numbers are key.0, key.1 and on."""

    key: str
    head: str  # on the page
    plain: str = ""  # its head in the text; without one it stands on the page alone
    style: str = "3"
    bar: str = ""  # key of the bars beside the numbers, from 0 to 1
    signed: bool = False  # bars from -1 to 1; the text has none
    fixed: str = ""  # what stands in every line instead of a number


class Step(NamedTuple):
    """A step as one form tells it."""

    name: str
    title: str
    told: Markup


@dataclass(frozen=True)
class Walk:
    """What is told: the view of a problem, the reader's state, the numbers that follow."""

    view: View
    state: State

    @classmethod
    def of(cls, view: View) -> Self:
        """The walk that a page begins with."""
        return cls(view, State.of(view))

    @cached_property
    def values(self) -> dict[str, Any]:
        """Numbers, vectors and matrices under their names."""
        return all_values(self.view, self.state)

    @cached_property
    def numbers(self) -> dict[str, float]:
        """Every single number under its name and its places."""
        return flat(self.values)

    @property
    def slots(self) -> range:
        """The lines of a table over classes: those shown, and one for the others."""
        return range(len(self.names(self.view.chosen)))

    def names(self, r: int) -> list[str]:
        """What the shown classes of shown row r are called, and the rest."""
        row = self.view.rows[r]
        return [*row.names, *([f"{row.rest.count:,} others"] if row.rest else [])]

    @cached_property
    def words(self) -> dict[str, str]:
        """The names of classes that change with the reader's choice."""
        names = self.names(self.state.chosen)
        return {
            **{f"name.{k}": name for k, name in enumerate(names)},
            **{f"short.{k}": short_name(name) for k, name in enumerate(names)},
            **{f"target.{r}": self.names(r)[k] for r, k in enumerate(self.values["target"])},
            "t.name": names[self.values["t"]],
            "rival.name": names[self.values["rival"]],
        }

    def write(self, key: str, style: str = "3") -> str:
        """A number as the page prints it."""
        return write_number(self.numbers[key], style)

    def steps(self, form: str, **brought: Any) -> Iterator[Step]:
        """The steps as a form tells them, with what it brings for its tables and numbers."""
        for number, (name, title) in enumerate(STEPS.items(), 1):
            yield Step(name, title, self.tell(f"steps/{name}", form, **brought, number=number))

    def tell(self, template: str, form: str, **brought: Any) -> Markup:
        """What a template says in a form. Its other forms are not read: compiling takes longest."""
        head, *forms = re.split(r"^== (\w+)\n", asset(f"{template}.jinja"), flags=re.MULTILINE)
        wanted = environment().from_string(f"{head}{forms[forms.index(form) + 1]}\n")
        return Markup(wanted.render(self.vocabulary, **brought))

    @property
    def vocabulary(self) -> dict[str, Any]:
        """What every template may use."""
        problem = self.view.problem
        return {
            "view": self.view, "N": problem.N, "C": problem.C, "slots": self.slots,
            "numbers": self.numbers, "t": self.numbers["t"], "column": Column,
            "nudges": [f"{h:.7f}".rstrip("0") for h in NUDGES],
            "shown_rows": ", ".join(f"{row.index:,}" for row in self.view.rows),
        }  # fmt: skip


def short_name(name: str) -> str:
    """A class's name for the picture: of "class 8868" or "9,995 others" what tells them apart."""
    if len(name) <= LETTERS:
        return name
    telling = re.sub(r"^class (?=\d+$)|^[\d,]+ (?=others$)", "", name)
    return telling if len(telling) <= LETTERS else telling[: LETTERS - 1] + "…"


def asset(name: str) -> Markup:
    """A file that comes with the package."""
    return Markup((files("crossent.commands.explain") / "assets" / name).read_text("utf-8"))


@pass_context
def formulas(context: Context, text: str) -> str:
    """The text of the page with its formulas as MathML, and no quotes that HTML does not need."""
    text = with_formulas(text, lambda key, style: context["n"](key, style, "mn"))
    return re.sub(r'="([\w.#%-]+)"(?=[ >])', r"=\1", text)


@cache
def environment() -> Environment:
    """Where templates come from; floats in them are written without needless digits."""
    templates = Environment(
        loader=PackageLoader("crossent.commands.explain", "assets"),
        autoescape=True,
        optimized=False,  # each is rendered once: folding constants takes longer than it saves
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: f"{value:g}" if isinstance(value, float) else value,
    )
    templates.filters["formulas"] = formulas
    dense = {"separators": (",", ":"), "default": np.ndarray.tolist}
    templates.policies["json.dumps_kwargs"] = dense
    return templates


def macros(template: str, vocabulary: Mapping[str, Any]) -> Any:
    """The macros of a template, as attributes."""
    return environment().get_template(template).make_module(dict(vocabulary))

"""The steps of the walk, told once: each is a template in assets/steps.

A step's template holds its title, its tables and formulas, and what each form makes of them: the
page, the text, LaTeX, the NumPy program. `numbers` and `words` come from the walk; what writes
them, and the tables, each form brings itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from crossent.commands.explain.mathml import with_formulas
from crossent.commands.explain.numbers import write_number
from crossent.commands.explain.state import State
from crossent.commands.explain.view import View
from crossent.commands.explain.walk import NUDGES, all_numbers, all_values

STEPS = (
    "logits", "maximum", "softmax", "loss", "through", "jacobian", "cases", "collapse", "check",
    "divide", "numpy", "step", "sure", "soft",
)  # fmt: skip


class Column(NamedTuple):
    """A column of a table: its numbers are key.0, key.1 and on."""

    key: str
    head: str  # on the page
    plain: str = ""  # its head in the text; without one it stands on the page alone
    style: str = "3"
    bar: str = ""  # key of the bars beside the numbers, from 0 to 1
    signed_bar: str = ""  # the same from -1 to 1
    fixed: str = ""  # what stands in every line instead of a number


class Step(NamedTuple):
    """A step as one form tells it."""

    id: str
    title: str
    see: str  # where docs/derivation.md has it in full
    tell: Callable[..., str]


@dataclass(frozen=True)
class Walk:
    """What is told: the view of a problem, the reader's state, the numbers that follow."""

    view: View
    state: State

    @classmethod
    def of(cls, view: View) -> Walk:
        """The walk that a page begins with."""
        return cls(view, State.of(view))

    @cached_property
    def values(self) -> dict[str, Any]:
        """Numbers, vectors and matrices under their names."""
        return all_values(self.view, self.state)

    @cached_property
    def numbers(self) -> dict[str, float]:
        """Every single number under its name and its places."""
        return all_numbers(self.view, self.state)

    @property
    def slots(self) -> range:
        """The lines of a table over classes."""
        return range(self.view.slots)

    @cached_property
    def words(self) -> dict[str, str]:
        """The names of classes that change with the reader's choice."""
        rest = self.view.C - len(self.view.row.classes)
        names = [*self.view.rows[self.state.chosen].names, *([f"{rest:,} others"] * (rest > 0))]
        return {
            **{f"name.{k}": name for k, name in enumerate(names)},
            **{f"target.{r}": self.view.rows[r].names[k] for r, k in enumerate(self.targets)},
            "t.name": names[int(self.numbers["t"])],
            "rival.name": names[int(self.numbers["rival"])],
        }

    @property
    def targets(self) -> list[int]:
        """The place of the right class in each shown row."""
        shown = len(self.view.row.classes)
        return [int(y[:shown].argmax()) for y in self.values["Y"]]

    def write(self, key: str, style: str = "3") -> str:
        """A number as the page prints it."""
        return write_number(self.numbers[key], style)

    def steps(self, form: str, **brought: Any) -> Iterator[Step]:
        """The steps as a form tells them, with what it brings for its tables and numbers."""
        for name in STEPS:
            module = macros(f"steps/{name}.jinja", self.vocabulary | brought)
            see = getattr(module, "see", module.title)
            yield Step(name, module.title, see, getattr(module, form))

    @property
    def course_class(self) -> str:
        """Forward and backward as a class, as docs/derivation.md has it."""
        code: str = macros("steps/numpy.jinja", self.vocabulary).course_class
        return code

    @property
    def vocabulary(self) -> dict[str, Any]:
        """What every template may use."""
        return {
            "view": self.view, "slots": self.slots, "numbers": self.numbers, "t": self.numbers["t"],
            "column": Column, "nudges": [f"{h:.7f}".rstrip("0") for h in NUDGES],
            "shown_rows": ", ".join(f"{row.index:,}" for row in self.view.rows),
        }  # fmt: skip


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
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: f"{value:g}" if isinstance(value, float) else value,
    )
    templates.filters["formulas"] = formulas
    templates.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return templates


def macros(template: str, vocabulary: Mapping[str, Any]) -> Any:
    """The macros of a template, as attributes."""
    return environment().get_template(template).make_module(dict(vocabulary))

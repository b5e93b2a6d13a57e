"""The small pieces of markup: a number or a word that knows its key, a bar, a row of a table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

from crossent.commands.explain.mathml import to_mathml
from crossent.commands.explain.numbers import write_number
from crossent.commands.explain.view import View

FORMULA = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$", re.DOTALL)
LONE = re.compile(r"<span( data-[^>]*)>([^<]*)</span>")
UNBROKEN = re.compile(r"(<dfn[^>]*>)?<math(?:(?!</math>).)*</math>(?(1)</dfn>)[,.:;?)]", re.DOTALL)
BOUND = re.compile(r"\{\{(@?)([\w.]+)(?::(\w))?\}\}")


def asset(name: str) -> str:
    """A file that comes with the package."""
    return (files("crossent.commands.explain") / "assets" / name).read_text(encoding="utf-8")


@dataclass(frozen=True)
class Markup:
    """Numbers, words and flags of a walk, as elements that the page's script can update."""

    view: View
    numbers: Mapping[str, float]
    words: Mapping[str, str]
    flags: Mapping[str, bool]

    @property
    def slots(self) -> range:
        """The lines of a table over classes."""
        return range(self.view.slots)

    def number(self, key: str, style: str = "3", tag: str = "span") -> str:
        """A number of the walk."""
        value = self.numbers[key]
        code = "" if style == "3" else f' data-f="{style}"'
        return f'<{tag} data-k="{key}"{code}>{write_number(value, style)}</{tag}>'

    def in_formula(self, key: str, style: str) -> str:
        """A number inside a formula."""
        return self.number(key, style, "mn")

    def word(self, key: str) -> str:
        """A name that changes with the reader's choice."""
        return f'<span data-w="{key}">{escape(self.words[key])}</span>'

    def math(self, tex: str, *, display: bool = False) -> str:
        """A formula; one of its own line may be scrolled where the screen is narrow."""
        formula = to_mathml(tex, self.in_formula, display=display)
        return f'<div class="formula">{formula}</div>' if display else formula

    def prose(self, text: str) -> str:
        """Text with its formulas, numbers and words put in; no line begins with a comma."""
        text = FORMULA.sub(
            lambda found: self.math(found[1], display=True) if found[1] else self.math(found[2]),
            text,
        )
        text = UNBROKEN.sub(r'<span class="u">\g<0></span>', text)
        return BOUND.sub(
            lambda found: (
                self.word(found[2]) if found[1] else self.number(found[2], found[3] or "3")
            ),
            text,
        )

    def bar(self, key: str) -> str:
        """A bar from the left for a share between 0 and 1."""
        return f'<span class="bar"><i data-bar="{key}"{self.bar_style(key)}></i></span>'

    def signed_bar(self, key: str) -> str:
        """A bar from the middle: to the left below 0, to the right above."""
        return f'<span class="bar signed"><i data-bar="{key}"{self.bar_style(key)}></i></span>'

    def bar_style(self, key: str) -> str:
        value = self.numbers[key]
        below = ' class="below"' if value < 0 else ""
        return f'{below} style="--v:{min(abs(value), 1):.4g}"'

    def class_row(self, slot: int, cells: Sequence[str]) -> str:
        """A table row that belongs to a class: its name, then the cells."""
        target = ' class="target"' if slot == int(self.numbers["t"]) else ""
        head = cell(self.word(f"name.{slot}"), "th", ' scope="row"')
        return f'<tr data-slot="{slot}"{target}>{head}{"".join(map(cell, cells))}</tr>'

    def table(self, heads: Sequence[str], rows: Sequence[str], caption: str, kind: str = "") -> str:
        """A table in a frame that scrolls sideways where it must."""
        head = "".join(cell(self.prose(text), "th", ' scope="col"') for text in heads)
        return (
            f'<div class="frame"><table class="{kind or "plain"}"><caption>{self.prose(caption)}'
            f"</caption><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        )

    def class_table(
        self, heads: Sequence[str], columns: Sequence[Sequence[str]], caption: str
    ) -> str:
        """A table with a line for each class; columns hold cells for all of them."""
        rows = [self.class_row(k, [column[k] for column in columns]) for k in self.slots]
        return self.table(["class", *heads], rows, caption, "classes")

    def column(self, name: str, style: str = "3") -> list[str]:
        """The numbers name.0, name.1, ... as cells."""
        return [self.number(f"{name}.{k}", style) for k in self.slots]


def cell(content: str, tag: str = "td", attributes: str = "") -> str:
    """A cell of a table; a lone number or word lends it its key."""
    alone = LONE.fullmatch(content)
    if alone:
        return f"<{tag}{attributes}{alone[1]}>{alone[2]}</{tag}>"
    return f"<{tag}{attributes}>{content}</{tag}>"


def words_of(view: View, numbers: Mapping[str, float]) -> dict[str, str]:
    """The names that the page uses."""
    row = view.rows[next(r for r, each in enumerate(view.rows) if each.index == numbers["row"])]
    names = slot_names(view, row.names)
    return {
        **{f"name.{k}": name for k, name in enumerate(names)},
        **{f"target.{r}": target_name(view, numbers, r) for r in range(len(view.rows))},
        "t.name": names[int(numbers["t"])],
        "rival.name": names[int(numbers["rival"])],
        "rows.noun": "row" if view.N == 1 else "rows",
        "classes.noun": "class" if view.C == 1 else "classes",
    }


def target_name(view: View, numbers: Mapping[str, float], r: int) -> str:
    """What the right class of shown row r is called."""
    names = view.rows[r].names
    return names[max(range(len(names)), key=lambda k: numbers[f"Y.{r}.{k}"])]


def slot_names(view: View, shown: Sequence[str]) -> list[str]:
    """The names of the shown classes and of the rest."""
    rest = view.C - len(shown)
    return [*shown, *([f"{rest:,} others"] if rest else [])]


def flags_of(numbers: Mapping[str, float], slots: int) -> dict[str, bool]:
    """Which of the alternative sentences hold."""
    y = [numbers[f"y.{k}"] for k in range(slots)]
    largest = max(numbers[f"a.{k}"] for k in range(slots))
    naive = [numbers[f"naive.p.{k}"] for k in range(slots)]
    long_way = [numbers[f"long.{k}"] for k in range(slots)]
    breaks = any(value != value for value in naive)
    return {
        "onehot": sorted(y)[-1] == 1 and sum(y) == 1,
        "soft": not (sorted(y)[-1] == 1 and sum(y) == 1),
        "right": numbers["a.t"] == largest,
        "wrong": numbers["a.t"] != largest,
        "breaks": breaks,
        "holds": not breaks,
        "longfails": any(value != value for value in long_way),
        "toosure": numbers["sure.smoothed"] > 0,
    }

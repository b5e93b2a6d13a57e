"""The walk as plain text for a terminal: every step with its formula and its numbers, in ASCII."""

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from markupsafe import Markup

from crossent.commands.explain.numbers import plain
from crossent.commands.explain.steps import Column, Walk

WIDTH, NAME_WIDTH, COLUMN = 80, 16, 12


def plain_text(walk: Walk) -> str:
    """The whole walk."""
    t = Teller(walk)
    overview = paragraphs(walk.tell("overview", "text"))
    brought = {
        "n": t.n, "class_table": t.class_table, "row_table": t.row_table, "grid": t.grid,
    }  # fmt: skip
    parts = ["\n".join(overview)]
    for number, step in enumerate(walk.steps("text", **brought), 1):
        heading = f"{number}. {step.title}"
        told = "\n\n".join(paragraphs(step.told))
        gap = "\n" if told.startswith(" ") else ""
        parts.append(f"{heading}\n{'-' * len(heading)}\n{gap}{told}")
    return "\n\n".join(parts) + "\n"


def paragraphs(told: str) -> Iterator[str]:
    """Sentences in lines of the terminal's width; what is set in, formulas and tables, as it is."""
    for block in re.split(r"\n\s*\n", told.strip("\n")):
        yield block if block.startswith(" ") else textwrap.fill(block, WIDTH)


def shorten(text: str, width: int) -> str:
    """The text, cut to a width; names that ASCII lacks are left as they are."""
    return text if len(text) <= width else text[: width - 2] + ".."


class Teller:
    """What the text brings: numbers and tables in ASCII."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk

    def n(self, key: str, style: str = "3") -> str:
        """A number."""
        return plain(self.walk.write(key, style))

    def name(self, k: int) -> str:
        """The beginning of a line for class k."""
        return "  " + shorten(self.walk.words[f"name.{k}"], NAME_WIDTH - 2).ljust(NAME_WIDTH - 2)

    def class_table(self, columns: Iterable[Column]) -> Markup:
        """A line for each class."""
        numbers, columns = self.walk.numbers, [column for column in columns if column.plain]
        widths = [max(COLUMN, len(column.plain) + 2) for column in columns]
        heads = [column.plain.rjust(w) for column, w in zip(columns, widths, strict=True)]
        lines = [" " * NAME_WIDTH + "".join(heads)]
        for k in self.walk.slots:
            line = self.name(k)
            for column, width in zip(columns, widths, strict=True):
                key = f"{column.key}.{k}"
                line += (self.n(key, column.style) if key in numbers else "").rjust(width)
                if column.bar and not column.signed:
                    line += f"  {'#' * round(20 * numbers[f'{column.bar}.{k}'])}".ljust(22)
            lines.append(line + ("  <- t" if k == numbers["t"] else ""))
        return unescaped(lines)

    def grid(self, name: str) -> Markup:
        """A square table over classes, rows down and columns across."""
        slots = self.walk.slots
        heads = [shorten(self.walk.words[f"name.{k}"], COLUMN - 2).rjust(COLUMN) for k in slots]
        lines = [" " * NAME_WIDTH + "".join(heads)]
        for i in slots:
            cells = [self.n(f"{name}.{i}.{j}").rjust(COLUMN) for j in slots]
            lines.append(self.name(i) + "".join(cells))
        return unescaped(lines)

    def row_table(self, columns: Sequence[Column]) -> Markup:
        """A line for each shown row."""
        heads = "".join(column.plain.rjust(COLUMN) for column in columns)
        lines = [f"  {'row':<10}{'right class':<14}{heads}"]
        for r, row in enumerate(self.walk.view.rows):
            target = shorten(self.walk.words[f"target.{r}"], 14)
            cells = [self.n(f"{column.key}.{r}").rjust(COLUMN) for column in columns]
            lines.append(f"  {row.index:<10,}{target:<14}{''.join(cells)}")
        return unescaped(lines)


def unescaped(lines: Iterable[str]) -> Markup:
    """Lines of a table; what is markup elsewhere is none in a terminal."""
    return Markup("\n".join(line.rstrip() for line in lines))

"""The walk as plain text for a terminal: every step with its formula and its numbers, in ASCII."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence

from crossent.commands.explain.markup import words_of
from crossent.commands.explain.numbers import plain, write_number
from crossent.commands.explain.view import View
from crossent.commands.explain.walk import NUDGES

WIDTH, NAME_WIDTH, COLUMN = 80, 16, 12


class Teller:
    """Collects the lines of the walk."""

    def __init__(self, view: View, numbers: Mapping[str, float]) -> None:
        self.view, self.numbers = view, numbers
        self.words = words_of(view, numbers)
        self.lines: list[str] = []
        self.steps = 0

    def step(self, title: str) -> None:
        self.steps += 1
        heading = f"{self.steps}. {title}"
        self.lines += ["", heading, "-" * len(heading)]

    def say(self, text: str) -> None:
        self.lines += textwrap.wrap(text, WIDTH)

    def formula(self, text: str) -> None:
        self.lines += ["", f"    {text}", ""]

    def n(self, key: str, style: str = "3") -> str:
        """A number of the walk, in ASCII."""
        return plain(write_number(self.numbers[key], style))

    def table(self, *columns: tuple[str, str, str], bar: str = "") -> None:
        """A line for each class; a column is (head, key, style)."""
        self.lines.append("")
        heads = "".join(head.rjust(max(COLUMN, len(head) + 2)) for head, _, _ in columns)
        self.lines.append("".ljust(NAME_WIDTH) + heads)
        for k in range(self.view.slots):
            cells = [
                (self.n(f"{key}.{k}", style) if f"{key}.{k}" in self.numbers else "")
                .rjust(max(COLUMN, len(head) + 2))
                for head, key, style in columns
            ]  # fmt: skip
            tail = "  <- t" if k == int(self.numbers["t"]) else ""
            if bar:
                tail = f"  {'#' * round(20 * self.numbers[f'{bar}.{k}'])}".ljust(22) + tail
            name = shorten(self.words[f"name.{k}"], NAME_WIDTH - 2)
            self.lines.append(f"  {name.ljust(NAME_WIDTH - 2)}{''.join(cells)}{tail}".rstrip())
        self.lines.append("")

    def grid(self, name: str) -> None:
        """A square table over classes, rows down and columns across."""
        slots = range(self.view.slots)
        heads = [shorten(self.words[f"name.{k}"], COLUMN - 2) for k in slots]
        self.lines += ["", "".ljust(NAME_WIDTH) + "".join(head.rjust(COLUMN) for head in heads)]
        for i in slots:
            cells = "".join(self.n(f"{name}.{i}.{j}").rjust(COLUMN) for j in slots)
            label = shorten(self.words[f"name.{i}"], NAME_WIDTH - 2)
            self.lines.append(f"  {label.ljust(NAME_WIDTH - 2)}{cells}")
        self.lines.append("")


def shorten(text: str, width: int) -> str:
    """The text, cut to a width; names that ASCII lacks are left as they are."""
    return text if len(text) <= width else text[: width - 2] + ".."


def rows_lines(t: Teller, heads: Sequence[str], keys: Sequence[str]) -> None:
    """A line for each shown row."""
    t.lines += ["", "  row       right class   " + "".join(head.rjust(COLUMN) for head in heads)]
    for r, row in enumerate(t.view.rows):
        cells = "".join(t.n(f"{key}.{r}").rjust(COLUMN) for key in keys)
        target = shorten(t.words[f"target.{r}"], 14)
        t.lines.append(f"  {row.index:<10,}{target.ljust(14)}{cells}")
    t.lines.append("")


def tell(view: View, numbers: Mapping[str, float]) -> str:
    """The whole walk."""
    t = Teller(view, numbers)
    rows = "1 row" if view.N == 1 else f"{view.N:,} rows"
    t.lines.append("Softmax cross-entropy, step by step")
    t.say(f"{rows}, {view.C:,} classes; in detail row {view.row.index}.")
    if view.hidden:
        t.say(
            f"Shown are rows {', '.join(f'{row.index:,}' for row in view.rows)}, among them those "
            "with the largest, the median and the smallest loss. Sums and means are over all."
        )
    if view.row.rest:
        t.say(
            f"Shown are the classes of the target and the most probable ones; the "
            f"{view.row.rest.count:,} others act as one, their probabilities added up."
        )
    forward(t)
    backward(t)
    beyond(t)
    return re.sub("\n{3,}", "\n\n", "\n".join(t.lines)).strip() + "\n"


def forward(t: Teller) -> None:
    """From the logits to the loss."""
    t.step("Logits")
    t.say("A classifier gives each class a score, any real number: a logit. A is the table of "
          f"all logits, N = {t.n('N', 'i')} rows, one for each example, by C = {t.n('C', 'i')} "
          "classes. Y, of the same shape, has the targets: the share that each class ought to "
          f"have. In row {t.n('row', 'i')} the logits are a, the target is y. a_k is the logit of "
          "class k; i and j stand for classes too. t is the right class, with the largest "
          "share.")  # fmt: skip
    t.table(("a", "a", "a"), ("y", "y", "g"))
    t.step("Why the maximum is subtracted")
    t.say("exp makes each score positive; divided by their sum (sum_k adds up over all k) they are "
          "shares:")  # fmt: skip
    t.formula("exp(a_i) / sum_k exp(a_k)")
    t.say("A constant kappa added to every logit cancels: it puts exp(kappa) above and below the "
          "line. In 64 bits it decides whether there is an answer. With kappa = "
          f"{t.n('kappa', 'g')}, as written and safely:")  # fmt: skip
    t.table(("exp(a + kappa)", "naive.exp", "3"), ("as written", "naive.p", "3"),
            ("safely", "safe.p", "3"))  # fmt: skip
    t.say(f"Let m = max_j a_j = {t.n('m', 'a')} be the largest logit. With kappa = -m no exponent "
          "is above 0, and the sum is at least 1: that is safe.")  # fmt: skip
    t.step("Exponentials, sum, probabilities")
    t.say("This is the softmax. It turns logits into probabilities p:")
    t.formula("p_i = exp(a_i - m) / sum_k exp(a_k - m)")
    t.table(("a - m", "shifted", "a"), ("exp(a - m)", "exp", "3"), ("p", "p", "3"), bar="p")
    t.say(f"The sum is {t.n('sum')}. With log the natural logarithm, lse = log sum_k exp(a_k) = "
          f"m + log({t.n('sum')}) = {t.n('lse')}, so log p_i = a_i - lse.")  # fmt: skip
    t.step("Loss of a row, sum and mean")
    t.say("Cross-entropy charges each class -log p_k, as far as the target asks for it:")
    t.formula(f"loss = -sum_k y_k log p_k = {t.n('loss')}")
    rows_lines(t, ("p_t", "loss"), ("pt", "loss"))
    t.say(f"Over all rows the sum is {t.n('loss.sum')}, the mean, sum / N, {t.n('loss.mean')}.")


def backward(t: Teller) -> None:
    """From the loss to its gradient by the logits."""
    t.step("The derivative through the probabilities")
    t.say("d says derivative, all else held fixed. As if probabilities were free to move:")
    t.formula("d loss / d p_j = -y_j / p_j")
    t.say("Beside it, and beside every derivative below, stands a finite difference: move one "
          "number up and down by a small h, divide the change by 2 h.")  # fmt: skip
    t.table(("-y/p", "dp", "3"), ("difference", "dp.check", "3"))
    t.step("The Jacobian of softmax")
    t.say("But each probability depends on every logit. By the quotient rule, for i and j not the "
          "same:")  # fmt: skip
    t.formula("d p_i / d a_i = p_i (1 - p_i),   d p_i / d a_j = -p_i p_j")
    t.say("These slopes are the Jacobian J: J_ij is that of p_i (row) by a_j (column).")
    t.grid("J")
    t.say(f"Each row and column adds up to 0. Finite differences: off by {t.n('J.error', '1')}.")
    t.step("The two cases")
    t.say("Or by the logarithm: log p_k = a_k - lse, and the slope of lse by a_i is p_i.")
    t.formula("d log p_k / d a_i = 1 - p_i  if i = k,  else  -p_i")
    t.say("For the right class, k = t:")
    t.table(("value", "dlog", "3"), ("difference", "dlog.check", "3"))
    t.say("Weighted with -y_k and added up over k: -y_i (1 - p_i) from k = i, and the sum of the "
          "other y_k times p_i. The first part alone is wrong wherever y_i is not 1.")  # fmt: skip
    t.table(("first part", "own", "3"), ("second", "others", "3"), ("both", "grad", "3"))
    t.step("The product collapses")
    t.say("The long way agrees: (-y_k / p_k) J_kj for each k (down) and j (across), then the "
          "columns added up, where p_k cancels.")  # fmt: skip
    t.grid("term")
    t.formula("d loss / d a_j = p_j sum_k y_k - y_j   (p - y, where y adds up to 1)")
    t.table(("columns", "long", "3"), ("p - y", "grad", "3"), ("difference", "grad.check", "3"))
    t.step("Finite-difference check")
    t.lines += ["", "  h            quotient at t   largest difference"]
    for n, h in enumerate(NUDGES):
        quotient, error = t.n(f"nudge.quotient.{n}", "5"), t.n(f"nudge.error.{n}", "1")
        t.lines.append(f"  {h:<12g}{quotient.rjust(14)}{error.rjust(21)}")
    t.lines.append("")
    t.say("It falls with h squared until the rounding of the loss, divided by h, takes over.")
    t.step("Divide by N")
    t.say("A row's logits occur in its own loss only, and the mean divides that by N:")
    t.formula(f"d mean / d a = (p - y) / N,   N = {t.n('N', 'i')}")
    t.table(("for the mean", "Grow", "3"), ("difference", "G.check", "3"))


def beyond(t: Teller) -> None:
    """What the gradient is good for, and what else there is to know."""
    t.step("Forward and backward in NumPy")
    t.say("crossent explain --numpy prints the walk as a program.")
    t.step("One gradient step")
    t.say("G is the gradient of the mean: its derivatives by all of A. Against it goes a step of "
          f"size eta = {t.n('eta', 'g')}:")  # fmt: skip
    t.formula("A - eta G")
    t.table(("a", "a", "a"), ("G", "Grow", "3"), ("after", "movedrow", "3"))
    rows_lines(t, ("p_t before", "p_t after"), ("pt", "pt.after"))
    t.say(f"The mean loss goes from {t.n('step.before')} to {t.n('step.after')}. To first order it "
          "falls by eta times the sum of the squared entries of G, to "
          f"{t.n('step.predicted')}; it is never lower, as it curves upward.")  # fmt: skip
    t.step("A confident right answer")
    t.say(f"Logits [{t.n('x', 'g')}, 0, 0], the first class right:")
    t.lines += ["", f"  {''.ljust(22)}{'loss'.rjust(COLUMN)}{'p_t - 1'.rjust(COLUMN)}"]
    for bits in ("64", "32"):
        for label, name in (
            (f"{bits} bits, naive", "sure.naive"),
            (f"{bits} bits, crossent", "sure"),
        ):
            loss, grad = t.n(f"{name}.loss.{bits}", "e"), t.n(f"{name}.grad.{bits}", "e")
            t.lines.append(f"  {label.ljust(22)}{loss.rjust(COLUMN)}{grad.rjust(COLUMN)}")
    t.lines.append("")
    t.say("Added to 1, the exponentials of the others are rounded away. crossent keeps R, their "
          "sum, apart: the loss is log(1 + R) from a function that does not form 1 + R, log1p(R), "
          "and the derivative p_t - 1 is -R / (1 + R).")  # fmt: skip
    t.step("Soft targets and label smoothing")
    t.say("Any target will do. One that is shared:")
    t.table(("y", "soft.y", "g"), ("p - y", "soft.grad", "3"), ("difference", "soft.check", "3"))
    t.say(f"Its loss is {t.n('soft.loss')}; half of it gives half: {t.n('half.loss')}. Label "
          f"smoothing spreads a share eps = {t.n('eps', 'g')} evenly over the classes: the target "
          "is q = (1 - eps) y + eps / C.")  # fmt: skip
    t.table(("q", "q", "3"), ("p - q", "smooth.grad", "3"), ("difference", "smooth.check", "3"))
    t.say(f"Its loss is {t.n('smooth.loss')}.")

r"""The walk as LaTeX for a report: a fragment that needs amsmath and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crossent.commands.explain.markup import words_of
from crossent.commands.explain.numbers import plain, write_number
from crossent.commands.explain.numpy_code import COURSE_CLASS
from crossent.commands.explain.view import View
from crossent.commands.explain.walk import NUDGES

ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%",
        "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    }
)  # fmt: skip


def escape(text: str) -> str:
    """A class's name as LaTeX text."""
    return text.translate(ESCAPES)


class Writer:
    """Numbers of the walk as LaTeX."""

    def __init__(self, view: View, numbers: Mapping[str, float]) -> None:
        self.view, self.numbers = view, numbers
        self.words = words_of(view, numbers)

    def n(self, key: str, style: str = "3") -> str:
        """A number in mathematics."""
        text = plain(write_number(self.numbers[key], style))
        if text.endswith("inf"):
            return text.replace("inf", r"\infty")
        if text == "nan":
            return r"\text{nan}"
        if "e" in text:
            mantissa, exponent = text.split("e")
            return rf"{mantissa} \times 10^{{{int(exponent)}}}"
        return text.replace(",", "{,}")

    def vector(self, name: str, style: str = "3") -> str:
        """The entries of the chosen row, in brackets."""
        keys = [f"{name}.{k}" for k in range(self.view.slots) if f"{name}.{k}" in self.numbers]
        return "[" + ", ".join(self.n(key, style) for key in keys) + "]"

    def matrix(self, name: str, style: str = "3") -> str:
        """A square table over classes."""
        slots = range(self.view.slots)
        rows = (" & ".join(self.n(f"{name}.{i}.{j}", style) for j in slots) for i in slots)
        return r"\begin{bmatrix} " + r" \\ ".join(rows) + r" \end{bmatrix}"

    def rows(self, name: str, style: str = "3") -> str:
        """A table over the shown rows and their classes."""
        slots = range(self.view.slots)
        shown = range(len(self.view.rows))
        rows = (" & ".join(self.n(f"{name}.{r}.{k}", style) for k in slots) for r in shown)
        return r"\begin{bmatrix} " + r" \\ ".join(rows) + r" \end{bmatrix}"


def section(title: str, text: str, *equations: str) -> str:
    """A step: a heading, a sentence, its equations."""
    body = " \\\\\n".join(f"  {equation}" for equation in equations)
    shown = f"\n\\begin{{gather*}}\n{body}\n\\end{{gather*}}" if equations else ""
    return f"\\subsection*{{{title}}}\n{text}{shown}\n"


def latex(view: View, numbers: Mapping[str, float]) -> str:
    """The whole walk."""
    w = Writer(view, numbers)
    head = "% Softmax cross-entropy, step by step. Needs \\usepackage{amsmath}.\n"
    return head + "\n".join((*forward(w), *backward(w), *beyond(w)))


def forward(w: Writer) -> Sequence[str]:
    """From the logits to the loss."""
    names = ", ".join(escape(w.words[f"name.{k}"]) for k in range(w.view.slots))
    whole = w.view.hidden is None and w.view.row.rest is None
    tables = (rf"A = {w.rows('A', 'a')}, \qquad Y = {w.rows('Y', 'g')}",) if whole else ()
    return (
        section(
            "Logits",
            f"Of $N = {w.n('N', 'i')}$ rows of $C = {w.n('C', 'i')}$ classes with logits $A$ and "
            f"targets $Y$, row {w.view.row.index}: logits $a$, target $y$. Classes, from the left: "
            f"{names}. The right class $t$ is {escape(w.words['t.name'])}.",
            *tables,
            f"a = {w.vector('a', 'a')}, \\qquad y = {w.vector('y', 'g')}",
        ),
        section(
            "Why the maximum is subtracted",
            r"A constant $\kappa$ added to every logit cancels, so it may be minus the maximum "
            "$m$, and then no exponential overflows.",
            r"\frac{e^{a_i + \kappa}}{\sum_k e^{a_k + \kappa}} = \frac{e^{a_i}}{\sum_k e^{a_k}}, "
            rf"\qquad m = \max_j a_j = {w.n('m', 'a')}",
        ),
        section(
            "Exponentials, sum, probabilities",
            r"The softmax $p = \sigma(a)$ and the logarithm of the sum of the exponentials:",
            rf"a - m = {w.vector('shifted', 'a')}, \qquad e^{{a - m}} = {w.vector('exp')}",
            rf"p_i = \frac{{e^{{a_i - m}}}}{{\sum_k e^{{a_k - m}}}}, \qquad p = {w.vector('p')}",
            rf"\mathrm{{lse}} = m + \log \sum_k e^{{a_k - m}} = {w.n('lse')}, \qquad "
            r"\log p_i = a_i - \mathrm{lse}",
        ),
        section(
            "Loss of a row, sum and mean",
            r"Of this row, and of all rows, where $\circ$ multiplies entry by entry and $\iota$ "
            "is a column of ones:",
            rf"\ell = -\sum_k y_k \log p_k = {w.n('loss')}",
            r"H(A, Y) = (-Y \circ \log \sigma(A)) \iota_C, \qquad "
            rf"L_{{\text{{sum}}}} = \iota_N^\top H(A, Y) = {w.n('loss.sum')}, \qquad "
            rf"L_{{\text{{mean}}}} = L_{{\text{{sum}}}} / N = {w.n('loss.mean')}",
        ),
    )


def backward(w: Writer) -> Sequence[str]:
    """From the loss to its gradient by the logits."""
    return (
        section(
            "The derivative through the probabilities",
            "As if the probabilities were free to move one by one:",
            r"\frac{\partial \ell}{\partial p_j} = -\frac{y_j}{p_j}, \qquad "
            rf"\frac{{\partial \ell}}{{\partial p}} = {w.vector('dp')}",
        ),
        section(
            "The Jacobian of softmax",
            r"By the quotient rule, with $S = \sum_k e^{a_k}$ and $p_i = e^{a_i} / S$:",
            r"\frac{\partial p_i}{\partial a_i} = \frac{e^{a_i} S - e^{a_i} e^{a_i}}{S^2} "
            r"= p_i (1 - p_i), \qquad \frac{\partial p_i}{\partial a_j} "
            r"= \frac{0 \cdot S - e^{a_i} e^{a_j}}{S^2} = -p_i p_j \quad (i \ne j)",
            rf"J = \mathrm{{diag}}(p) - p p^\top = {w.matrix('J')}",
        ),
        section(
            "The two cases",
            r"The same by the logarithm, since $\partial\, \mathrm{lse} / \partial a_i = p_i$; "
            r"$\delta_{ik}$ is 1 where $i = k$, else 0:",
            r"\frac{\partial \log p_k}{\partial a_i} = \delta_{ik} - p_i = "
            r"\begin{cases} 1 - p_i & i = k, \\ -p_i & i \ne k \end{cases}",
            r"\frac{\partial \ell}{\partial a_i} = \underbrace{-y_i (1 - p_i)}_{k = i} "
            r"+ \underbrace{\sum_{k \ne i} y_k p_i}_{k \ne i} = p_i \sum_k y_k - y_i",
        ),
        section(
            "The product collapses",
            "The long way, through the probabilities, agrees:",
            r"\frac{\partial \ell}{\partial a_j} = \sum_k \Bigl(-\frac{y_k}{p_k}\Bigr) "
            r"p_k (\delta_{kj} - p_j) = p_j \sum_k y_k - y_j",
            rf"\frac{{\partial \ell}}{{\partial a}} = p \sum_k y_k - y = {w.vector('grad')}",
        ),
        section(
            "Finite-difference check",
            "Each logit moved up and down by $h$, the change of the loss divided by $2 h$: the "
            "largest difference from the derivative, over all classes, is",
            *(
                f"h = {f'{h:.7f}'.rstrip('0')}: \\quad {w.n(f'nudge.error.{n}', '1')}"
                for n, h in enumerate(NUDGES)
            ),
        ),
        section(
            "Divide by N",
            f"For the mean over $N = {w.n('N', 'i')}$ rows, this row:",
            r"\frac{\partial L_{\text{mean}}}{\partial A} = \frac{\sigma(A) - Y}{N}, \qquad "
            rf"\frac{{\partial L_{{\text{{mean}}}}}}{{\partial a}} = {w.vector('Grow')}",
        ),
    )


def beyond(w: Writer) -> Sequence[str]:
    """What the gradient is good for, and what else there is to know."""
    code = f"\\begin{{verbatim}}\n{COURSE_CLASS}\\end{{verbatim}}"
    return (
        section("Forward and backward in NumPy", f"The two formulas as a class:\n{code}"),
        section(
            "One gradient step",
            r"With $G = \partial L_{\text{mean}} / \partial A$ and step size "
            f"$\\eta = {w.n('eta', 'g')}$ all logits move to $A - \\eta G$; this row to",
            r"a - \eta \frac{\partial L_{\text{mean}}}{\partial a} = " + w.vector("movedrow"),
            rf"L_{{\text{{mean}}}}: \quad {w.n('step.before')} \to {w.n('step.after')}, \qquad "
            rf"\text{{to first order }} {w.n('step.predicted')}",
        ),
        section(
            "A confident right answer",
            "The sum $R$ of the other exponentials is kept apart from 1, so that small losses are "
            "not 0:",
            r"R = \sum_{j \ne t} e^{a_j - m}, \qquad \ell = \log (1 + R), \qquad "
            r"p_t - 1 = -\frac{R}{1 + R}",
            rf"a = [{w.n('x', 'g')}, 0, 0], \; t = 0: \quad \ell = {w.n('sure.loss.64', 'e')}, "
            rf"\qquad p_t - 1 = {w.n('sure.grad.64', 'e')}",
        ),
        section(
            "Soft targets and label smoothing",
            r"The gradient has the same form for any target. With a share $\varepsilon$ spread "
            "evenly the target is $q$:",
            r"q = (1 - \varepsilon) y + \varepsilon / C, \qquad "
            rf"\varepsilon = {w.n('eps', 'g')}, \qquad q = {w.vector('q')}",
            rf"\ell = {w.n('smooth.loss')}, \qquad "
            rf"\frac{{\partial \ell}}{{\partial a}} = p \sum_k q_k - q = {w.vector('smooth.grad')}",
        ),
    )

"""The tables and small figures of the page, one function each; story.html says where they stand."""

from __future__ import annotations

import math

from crossent.commands.explain.markup import Markup, cell
from crossent.commands.explain.walk import NUDGES

MATRIX_CLASSES = 8  # more are listed for the chosen row only


def logits_table(m: Markup) -> str:
    """A and Y where every class is shown, else the chosen row downward."""
    view = m.view
    if view.row.rest is not None:
        columns = [m.column("a", "a"), m.column("y", "g")]
        return m.class_table(["$a_k$", "$y_k$"], columns, "The chosen row: logits and target")
    both = matrix(m, "A", "a", "$A$: the logits") + matrix(m, "Y", "g", "$Y$: the targets")
    return f'<div class="pair">{both}</div>'


def matrix(m: Markup, name: str, style: str, caption: str) -> str:
    """A table over shown rows and all classes; the chosen row and the targets stand out."""
    heads = ["row", *(f"{{{{@name.{k}}}}}" for k in m.slots)]
    rows = []
    for r, row in enumerate(m.view.rows):
        target = max(m.slots, key=lambda k, r=r: m.numbers[f"Y.{r}.{k}"])  # type: ignore[misc]
        cells = "".join(
            cell(m.number(f"{name}.{r}.{k}", style), "td", " class=target" if k == target else "")
            for k in m.slots
        )
        chosen = " class=chosen" if row.index == m.numbers["row"] else ""
        rows.append(f'<tr data-r="{r}"{chosen}><th scope="row">{row.index}</th>{cells}</tr>')
    return m.table(heads, rows, caption, "matrix")


def overflow_table(m: Markup) -> str:
    heads = [r"$a_k + \kappa$", r"$e^{a_k + \kappa}$", "share as written", "share, safely"]
    columns = [
        m.column("big", "g"), m.column("naive.exp"), m.column("naive.p"), m.column("safe.p"),
    ]  # fmt: skip
    return m.class_table(heads, columns, r"With $\kappa$ added, in 64 bits")


def softmax_table(m: Markup) -> str:
    probs = [f"{m.number(f'p.{k}')}{m.bar(f'p.{k}')}" for k in m.slots]
    columns = [m.column("a", "a"), m.column("shifted", "a"), m.column("exp"), probs]
    rows = [m.class_row(k, [column[k] for column in columns]) for k in m.slots]
    rows.append(
        f'<tr class="sum"><th scope="row">sum</th><td></td><td></td><td>{m.number("sum")}</td>'
        f"<td>{m.number('sum.p', 's')}</td></tr>"
    )
    heads = ["class", "$a_k$", "$a_k - m$", "$e^{a_k - m}$", "$p_k$"]
    return m.table(heads, rows, "Subtract, exponentiate, divide by the sum", "classes wide-last")


def losses_table(m: Markup) -> str:
    rows = []
    for r, row in enumerate(m.view.rows):
        chosen = " class=chosen" if row.index == m.numbers["row"] else ""
        rows.append(
            f'<tr data-r="{r}"{chosen}><th scope="row">{row.index}</th>'
            f"<td>{m.word(f'target.{r}')}</td><td>{m.number(f'pt.{r}')}</td>"
            f"<td>{m.number(f'loss.{r}')}</td></tr>"
        )
    if m.view.hidden:
        rows.append(
            f'<tr><th scope="row">{m.view.hidden.count:,} others</th><td></td><td></td>'
            f"<td>{m.number('loss.hidden')} together</td></tr>"
        )
    rows.append(
        f'<tr class="sum"><th scope="row">sum</th><td></td><td></td>'
        f"<td>{m.number('loss.sum')}</td></tr>"
    )
    return m.table(
        ["row", "right class", "$p_t$", r"loss $\ell$"], rows, "$H(A, Y)$, row by row", "plain"
    )


def through_table(m: Markup) -> str:
    slopes = [f"{m.number(f'dp.{k}')}{m.signed_bar(f'size.dp.{k}')}" for k in m.slots]
    columns = [m.column("y", "g"), m.column("p"), slopes, m.column("dp.check")]
    heads = ["$y_j$", "$p_j$", "$-y_j / p_j$", "finite difference"]
    return m.class_table(heads, columns, "The derivative of the loss by each probability")


def heat_map(m: Markup) -> str:
    """The Jacobian, every entry over its finite difference; the line below spells out one term."""
    heads = "".join(cell(m.word(f"name.{j}"), "th", ' scope="col"') for j in m.slots)
    rows = []
    for i in m.slots:
        cells = "".join(heat_cell(m, i, j) for j in m.slots)
        head = cell(m.word(f"name.{i}"), "th", ' scope="row"')
        rows.append(f"<tr>{head}{cells}</tr>")
    own = m.prose(r"own logit $p_t (1 - p_t)$ $= \v{p.t} \cdot \v{not.p.t}$ $= \v{J.own}$; ")
    other = m.prose(
        r"by that of {{@rival.name}} $-p_t p_i$ $= -\v{p.t} \cdot \v{p.rival}$ $= \v{J.other}$."
    )
    caption = m.prose(
        "$J$: probability (row) by logit (column); below each entry, small, its finite difference"
    )
    return (
        f'<div class="frame"><table class="heat" role="grid" data-size="{m.view.slots}">'
        f"<caption>{caption}</caption><thead><tr><td></td>{heads}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        f'<p class="term" id="term" aria-live="polite">{m.word("t.name")}: {own}'
        f"{other if m.view.slots > 1 else ''}</p>"
        '<p class="hint js-only">Point at an entry, or move there with the arrow keys, and its '
        "term appears.</p>"
        + m.prose("<p>The largest difference between an entry and its check is {{J.error:1}}.</p>")
    )


def heat_cell(m: Markup, i: int, j: int) -> str:
    value, size = m.numbers[f"J.{i}.{j}"], m.numbers["J.size"]
    below = ' class="below"' if value < 0 else ""
    return (
        f'<td data-cell="{i} {j}"{below} style="--v:{abs(value) / size:.3g}">'
        f"{m.number(f'J.{i}.{j}')}{m.number(f'J.check.{i}.{j}', tag='small')}</td>"
    )


def cases_table(m: Markup) -> str:
    cases = [
        f'<span class="own">{m.math("1 - p_i")}</span><span class="other">{m.math("-p_i")}</span>'
        for _ in m.slots
    ]
    columns = [cases, m.column("dlog"), m.column("dlog.check")]
    caption = r"The slopes of $\log p_k$ for $k = t$, the right class ({{@t.name}})"
    return m.class_table(["case", "value", "finite difference"], columns, caption)


def shortcut_table(m: Markup) -> str:
    columns = [m.column("own"), m.column("others"), m.column("grad")]
    heads = ["first part alone", "second part", r"$\partial \ell / \partial a_i$, both"]
    return m.class_table(heads, columns, "The two parts, and what the first one misses")


def collapse_table(m: Markup) -> str:
    rows = []
    for k in m.slots:
        cells = "".join(cell(m.number(f"term.{k}.{j}")) for j in m.slots)
        empty = "" if m.numbers[f"y.{k}"] else ' class="empty"'
        rows.append(
            f'<tr data-share="{k}"{empty}><th scope="row">{m.math("k =")} '
            f"{m.word(f'name.{k}')}</th>{cells}</tr>"
        )
    for kind, head, name, style in (
        ("sum", "columns added up", "long", "3"),
        ("", "$p_j$", "p", "3"),
        ("", "$y_j$", "y", "g"),
        ("result", r"$p_j \sum_k y_k - y_j$", "grad", "3"),
        ("", "finite difference", "grad.check", "3"),
    ):
        cells = "".join(cell(m.number(f"{name}.{j}", style)) for j in m.slots)
        rows.append(f'<tr class="{kind}"><th scope="row">{m.prose(head)}</th>{cells}</tr>')
    heads = ["", *(f"{{{{@name.{j}}}}}" for j in m.slots)]
    return m.table(heads, rows, r"$(-y_k / p_k) J_{kj}$, term by term", "collapse")


def check_table(m: Markup) -> str:
    rows = [
        f'<tr><th scope="row">{f"{h:.7f}".rstrip("0")}</th>'
        f"<td>{m.number(f'nudge.quotient.{n}', '5')}</td>"
        f"<td>{m.number(f'nudge.error.{n}', '1')}</td></tr>"
        for n, h in enumerate(NUDGES)
    ]
    heads = ["$h$", "quotient at the right class", "largest difference over all classes"]
    return m.table(heads, rows, "Finite differences of the row's loss, and the derivative")


def gradient_table(m: Markup) -> str:
    columns = [m.column("grad"), m.column("Grow"), m.column("G.check")]
    heads = [
        r"$\partial \ell / \partial a_j$", r"$\partial L_{\text{mean}} / \partial a_j$",
        "finite difference",
    ]  # fmt: skip
    html = m.class_table(heads, columns, "Row {{row:i}}: for its own loss, and for the mean")
    if m.view.row.rest is None and m.view.N > 1:
        html += matrix(m, "G", "3", r"$(\sigma(A) - Y) / N$")
    return html


def step_table(m: Markup) -> str:
    places = range(len(m.view.row.classes))
    moved = [m.number(f"movedrow.{k}") for k in places] + [""]
    columns = [m.column("a", "a"), m.column("Grow"), moved]
    heads = ["$a_k$", "entry of $G$", r"$a_k$ after the step"]
    html = m.class_table(heads, columns, "Row {{row:i}} moves against its gradient")
    rows = [
        f'<tr data-r="{r}"{" class=chosen" if row.index == m.numbers["row"] else ""}>'
        f'<th scope="row">{row.index}</th><td>{m.word(f"target.{r}")}</td>'
        f"<td>{m.number(f'pt.{r}')}</td><td>{m.number(f'pt.after.{r}')}</td></tr>"
        for r, row in enumerate(m.view.rows)
    ]
    heads = ["row", "right class", "$p_t$ before", "$p_t$ after"]
    return html + m.table(heads, rows, "What the right classes gain")


def sure_table(m: Markup) -> str:
    rows = []
    for bits in ("64", "32"):
        for name, loss, grad in (
            ("naive", f"sure.naive.loss.{bits}", f"sure.naive.grad.{bits}"),
            ("crossent", f"sure.loss.{bits}", f"sure.grad.{bits}"),
        ):
            kind = ' class="ours"' if name == "crossent" else ""
            rows.append(
                f'<tr{kind}><th scope="row">{bits} bits, {name}</th>'
                f"<td>{m.number(loss, 'e')}</td><td>{m.number(grad, 'e')}</td></tr>"
            )
    heads = ["", r"loss $\ell$", "derivative $p_t - 1$"]
    return m.table(heads, rows, r"$-\log (1 / (1 + 2 e^{-x}))$ as a computer sees it")


def soft_table(m: Markup) -> str:
    columns = [
        m.column("soft.y", "g"), m.column("soft.grad"), m.column("soft.check"),
        m.column("half.grad"),
    ]  # fmt: skip
    heads = ["$y_k$", "$p_k - y_k$", "finite difference", "half of it"]
    return m.class_table(heads, columns, r"A soft target: loss $\ell = \v{soft.loss}$")


def smooth_table(m: Markup) -> str:
    columns = [m.column("y", "g"), m.column("q"), m.column("smooth.grad"), m.column("smooth.check")]
    heads = ["$y_k$", "$q_k$", "derivative", "finite difference"]
    return m.class_table(heads, columns, r"The smoothed target: loss $\ell = \v{smooth.loss}$")


# --- The curve of -log p --------------------------------------------------------------------------

CURVE = {"left": 34, "top": 12, "width": 300, "height": 150, "max": 5}  # draw.js moves its dot


def curve_point(p: float) -> tuple[float, float]:
    """Where (p, -log p) stands in the figure; what is too large stays at its upper edge."""
    most = CURVE["max"]
    loss = most if p <= 0 else min(-math.log(p), most)
    return CURVE["left"] + CURVE["width"] * p, CURVE["top"] + CURVE["height"] * (1 - loss / most)


def curve(m: Markup) -> str:
    """-log p against p, with the right class on it."""
    left, top, width, height, most = CURVE.values()
    points = [math.exp(-most * (1 - n / 60)) for n in range(61)]
    path = " ".join("{:.1f},{:.1f}".format(*curve_point(p)) for p in points)
    bottom, right = top + height, left + width
    x, y = curve_point(m.numbers["p.t"])
    ticks = "".join(
        f'<text class="tick" x="{left - 8}" y="{curve_point(math.exp(-loss))[1] + 4:.1f}" '
        f'text-anchor="end">{loss}</text>'
        for loss in range(most + 1)
    ) + "".join(
        f'<text class="tick" x="{left + width * p:.1f}" y="{bottom + 16}" '
        f'text-anchor="middle">{p:g}</text>'
        for p in (0, 0.25, 0.5, 0.75, 1)
    )
    return (
        f'<figure class="curve"><svg viewBox="0 0 350 {bottom + 22}" role="img" '
        'aria-label="The curve of minus log p: 0 at p = 1, steeply up toward p = 0, with a dot at '
        'the probability of the right class">'
        f'<path class="axis" d="M{left} {top}V{bottom}H{right}"/>{ticks}'
        f'<polyline class="line" points="{path}"/>'
        f'<path class="drop" id="drop" d="M{left} {y:.1f}H{x:.1f}V{bottom}"/>'
        f'<circle class="dot" id="dot" cx="{x:.1f}" cy="{y:.1f}" r="6"/></svg><figcaption>'
        + m.prose(r"$-\log p$ over $p$. The dot is the right class: $p_t = \v{p.t}$.")
        + "</figcaption></figure>"
    )

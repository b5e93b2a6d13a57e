"""The numbers of every step, computed by crossent's core for what the reader has chosen.

Keys name the step's symbol and then its indices: "p.1" is the probability of the class in place 1
of the chosen row, "J.0.1" an entry of the Jacobian, "G.1.0" the gradient of the mean in shown row
1, place 0. Classes that are not shown are one more place, the last. assets/walk.js computes the
same dictionary; the tests hold one against the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import crossent
from crossent.commands.explain.state import FullRow, State
from crossent.commands.explain.view import View

Floats = NDArray[np.float64]
Numbers = dict[str, float]

NUDGE = 1e-4  # h of the finite difference beside each derivative
NUDGES = (0.1, 0.01, 0.001, 1e-5, 1e-7)  # h of the check of its own


def all_numbers(view: View, state: State) -> Numbers:
    """Every number of the walk under its key."""
    rows = [FullRow.of(view, state, r) for r in range(len(view.rows))]
    row = rows[state.chosen]
    a, y = row.folded_logits(), row.fold(row.y)
    numbers: Numbers = {"N": view.N, "C": view.C, "row": view.rows[state.chosen].index}
    numbers |= {"kappa": state.shift, "eta": state.step, "x": state.margin}
    numbers |= {"keep": state.keep, "eps": state.smoothing}
    numbers["rest.count"] = view.C - len(row.places)
    numbers["rows.hidden"] = view.hidden.count if view.hidden else 0
    for r, each in enumerate(rows):
        numbers |= indexed(f"A.{r}", each.folded_logits()) | indexed(f"Y.{r}", each.fold(each.y))
    numbers |= {"t": row.target, "rival": row.rival}
    numbers |= softmax_numbers(row, a, y, state.shift)
    numbers |= loss_numbers(view, rows, state.chosen)
    numbers |= chain_numbers(row, a, y)
    numbers |= check_numbers(row, a, y)
    numbers |= step_numbers(view, rows, state)
    numbers |= confident_numbers(state.margin, state.smoothing)
    numbers |= soft_numbers(row, state)
    return numbers


def indexed(name: str, values: Any) -> Numbers:
    """The entries of an array under "name.i" or "name.i.j"."""
    array = np.asarray(values)
    return {
        ".".join((name, *map(str, place))): float(value) for place, value in np.ndenumerate(array)
    }


def difference(function: Any, at: Floats, nudge: float) -> Floats:
    """Central differences of a function by each entry of `at`, one entry a row."""
    quotients = [
        (function(at + nudge * e) - function(at - nudge * e)) / (2 * nudge) for e in np.eye(len(at))
    ]
    return np.array(quotients)


# --- The steps ------------------------------------------------------------------------------------


def softmax_numbers(row: FullRow, a: Floats, y: Floats, shift: float) -> Numbers:
    """Logits, the same numbers without the maximum subtracted, exponentials, probabilities."""
    m, target, p = float(a.max()), row.target, crossent.softmax(a)
    not_p = np.diagonal(crossent.log_softmax_jacobian(a))
    with np.errstate(all="ignore"):
        naive = np.exp(a + shift)
        naive_p = naive / naive.sum()
    shifted_p = crossent.softmax(a + shift)
    return {
        **indexed("a", a), **indexed("y", y), **indexed("size.a", a / np.abs(a).max(initial=1e-9)),
        **indexed("shifted", a - m), **indexed("exp", np.exp(a - m)), **indexed("p", p),
        **indexed("big", a + shift), **indexed("naive.exp", naive), **indexed("naive.p", naive_p),
        **indexed("safe.p", shifted_p), "naive.sum": float(naive.sum()),
        "m": m, "sum": float(np.exp(a - m).sum()), "lse": float(crossent.logsumexp(a)),
        "sum.y": float(y.sum()), "sum.p": float(p.sum()), 
        "a.t": float(a[target]), "p.t": float(p[target]), "p.rival": float(p[row.rival]),
        "not.p.t": float(not_p[target]), "shift.sign": 0.0,
    }  # fmt: skip


def loss_numbers(view: View, rows: list[FullRow], chosen: int) -> Numbers:
    """The loss of each shown row, the sum and the mean over all rows."""
    losses = [float(crossent.cross_entropy(row.a, row.y, reduction="none")) for row in rows]
    hidden = float(view.hidden.losses[0]) if view.hidden else 0.0
    total = sum(losses) + hidden
    return {
        **indexed("loss", losses), "loss": losses[chosen], "loss.hidden": hidden,
        "loss.sum": total, "loss.mean": total / view.N,
    }  # fmt: skip


def chain_numbers(row: FullRow, a: Floats, y: Floats) -> Numbers:
    """The derivative through the probabilities, the Jacobian, the two cases, their product."""
    p, J = crossent.softmax(a), crossent.softmax_jacobian(a)
    by_p = crossent.grad_wrt_probabilities(p, y) + 0.0
    by_log = crossent.log_softmax_jacobian(a)
    target, rival = row.target, row.rival
    own, others = -y * np.diagonal(by_log), p * (y.sum() - y)
    with np.errstate(all="ignore"):
        nudged = [
            difference(lambda x, k=k: -y[k] * np.log(x), p[k : k + 1], NUDGE * float(p[k]))[0, 0]
            if y[k]
            else 0.0
            for k in range(len(p))
        ]
        terms = by_p[:, None] * J
        long_way = terms.sum(0)
    finite = by_p[np.isfinite(by_p)]
    size = np.abs(finite).max(initial=0) or 1.0
    J_difference = difference(crossent.softmax, a, NUDGE).T
    log_difference = difference(crossent.log_softmax, a, NUDGE).T
    return {
        **indexed("dp", by_p), **indexed("dp.check", nudged), "dp.t": float(by_p[target]),
        **indexed("size.dp", np.clip(by_p / size, -1, 1)),
        **indexed("J", J), **indexed("J.check", J_difference),
        "J.error": float(np.abs(J_difference - J).max()), "J.size": float(np.abs(J).max() or 1.0),
        "J.own": float(J[target, target]), "J.other": float(J[rival, target]),
        **indexed("J.sum", J.sum(0)),
        **indexed("dlog", by_log[target]), **indexed("dlog.check", log_difference[target]),
        **indexed("own", own), **indexed("others", others),
        **indexed("term", terms), **indexed("long", long_way),
    }  # fmt: skip


def check_numbers(row: FullRow, a: Floats, y: Floats) -> Numbers:
    """The gradient of the row's loss, and its finite differences for several h."""
    _, full = crossent.cross_entropy_and_grad(row.a, row.y, reduction="sum")
    grad, target = row.fold(full), row.target

    def loss(at: Floats) -> Any:
        return crossent.cross_entropy(at, y, reduction="sum")

    beside = difference(loss, a, NUDGE)
    numbers = indexed("grad", grad) | indexed("grad.check", beside)
    numbers |= {"grad.sum": float(grad.sum()), "grad.t": float(grad[target])}
    numbers["grad.rival"] = float(grad[row.rival])
    for place, h in enumerate(NUDGES):
        quotient = difference(loss, a, h)
        numbers[f"nudge.quotient.{place}"] = float(quotient[target])
        numbers[f"nudge.error.{place}"] = float(np.abs(quotient - grad).max())
    e = np.eye(len(a))[target] * NUDGES[0]
    numbers |= {"nudge.up": float(loss(a + e)), "nudge.down": float(loss(a - e))}
    return numbers


def step_numbers(view: View, rows: list[FullRow], state: State) -> Numbers:
    """The gradient of the mean over all rows, and the loss after a step against it."""
    numbers: Numbers = {}
    before = after = grad_squared = 0.0
    if view.hidden:
        before, grad_squared = float(view.hidden.losses[0]), view.hidden.grad_squared
        after = view.hidden.losses_after(state.step)
    for r, row in enumerate(rows):
        loss, grad = crossent.cross_entropy_and_grad(row.a, row.y, normalizer=view.N)
        moved = row.a - state.step * grad
        target = row.places[row.target]
        before += float(loss) * view.N
        after += float(crossent.cross_entropy(moved, row.y, reduction="sum"))
        grad_squared += float(grad @ grad)
        numbers |= indexed(f"G.{r}", row.fold(grad))
        if r == state.chosen:
            numbers |= indexed("Grow", row.fold(grad)) | indexed("movedrow", moved[row.places])
        numbers[f"pt.{r}"] = float(crossent.softmax(row.a)[target])
        numbers[f"pt.after.{r}"] = float(crossent.softmax(moved)[target])
    chosen = rows[state.chosen]
    beside = difference(
        lambda at: crossent.cross_entropy(at, chosen.fold(chosen.y), reduction="sum") / view.N,
        chosen.folded_logits(), NUDGE,
    )  # fmt: skip
    numbers |= indexed("G.check", beside)
    return numbers | {
        "G.squared": grad_squared, "step.before": before / view.N, "step.after": after / view.N,
        "step.predicted": before / view.N - state.step * grad_squared,
        "step.sign": (after - before) / view.N,
    }  # fmt: skip


def confident_numbers(margin: float, smoothing: float) -> Numbers:
    """Logits [x, 0, 0] with target 0: the loss as it is often computed, and as it is."""
    numbers: Numbers = {}
    for name, dtype in (("64", np.float64), ("32", np.float32)):
        a = np.array([margin, 0, 0], dtype=dtype)
        loss, grad = crossent.cross_entropy_and_grad(a, 0)
        exps = np.exp(a - a.max())
        p = exps[0] / exps.sum()
        numbers |= {f"sure.loss.{name}": float(loss), f"sure.grad.{name}": float(grad[0])}
        naive_loss, naive_grad = float(-np.log(p)) + 0.0, float(p - 1)
        numbers |= {f"sure.naive.loss.{name}": naive_loss, f"sure.naive.grad.{name}": naive_grad}
    smoothed = crossent.cross_entropy_and_grad([margin, 0.0, 0.0], 0, label_smoothing=smoothing)[1]
    return numbers | {"sure.R": float(2 * np.exp(-margin)), "sure.smoothed": float(smoothed[0])}


def soft_numbers(row: FullRow, state: State) -> Numbers:
    """A target that is shared between classes, half of it, and label smoothing."""
    soft = np.zeros_like(row.y)
    soft[row.places] = shared_target(row.target, len(row.places), state.keep)
    loss, grad = crossent.cross_entropy_and_grad(row.a, soft, reduction="sum")
    half_loss, half_grad = crossent.cross_entropy_and_grad(row.a, soft / 2, reduction="sum")
    eps, classes = state.smoothing, len(row.a)
    q = (1 - eps) * row.y + eps / classes
    smooth_loss, smooth_grad = crossent.cross_entropy_and_grad(
        row.a, row.y, reduction="sum", label_smoothing=eps
    )
    soft_check, smooth_check = (
        difference(
            lambda at, y=target: crossent.cross_entropy(at, y, reduction="sum"),
            row.folded_logits(), NUDGE,
        )
        for target in (row.fold(soft), row.fold(q))
    )  # fmt: skip
    return {
        **indexed("soft.y", row.fold(soft)), **indexed("soft.grad", row.fold(grad)),
        "soft.loss": float(loss), "half.loss": float(half_loss),
        **indexed("half.grad", row.fold(half_grad)),
        **indexed("q", row.fold(q)), **indexed("smooth.grad", row.fold(smooth_grad)),
        **indexed("smooth.check", smooth_check), **indexed("soft.check", soft_check),
        "smooth.loss": float(smooth_loss), "smooth.keep": 1 - eps,
        "smooth.even": float(-crossent.log_softmax(row.a).mean()),
    }  # fmt: skip


def shared_target(target: int, classes: int, keep: float) -> Floats:
    """A soft target: the right class keeps its share, the others have less and less of the rest."""
    if classes == 1:
        return np.ones(1)
    weights = np.arange(classes - 1, 0, -1, dtype=np.float64)
    return np.insert(weights / weights.sum() * (1 - keep), target, keep)

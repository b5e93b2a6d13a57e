"""The numbers of every step, computed by crossent's core for what the reader has chosen.

Each has the name of the step's symbol: "p" holds the probabilities of the chosen row, "J" its
Jacobian, "G" the gradient of the mean over the shown rows. Classes that are not shown are one more
place, the last. In the page a number is known by its name and its places, "p.1" or "J.0.1";
assets/walk.js computes the same ones; the tests hold one against the other.
"""

from typing import Any

import numpy as np

import crossent
from crossent.commands.explain.inputs import Floats
from crossent.commands.explain.state import FullRow, State
from crossent.commands.explain.view import View

Values = dict[str, Any]  # numbers, vectors and matrices under their names

NUDGE = 1e-4  # h of the finite difference beside each derivative
NUDGES = (0.1, 0.01, 0.001, 1e-5, 1e-7)  # h of the check of its own


def all_values(view: View, state: State) -> Values:
    """Everything that the walk has numbers for."""
    rows = [FullRow.of(view, state, r) for r in range(len(view.rows))]
    row = rows[state.chosen]
    a, y = row.folded_logits, row.fold(row.y)
    return {
        "N": view.problem.N,
        "C": view.problem.C,
        "chosen": state.chosen,
        "row": view.rows[state.chosen].index,
        "target": [each.target for each in rows],
        "t": row.target,
        "rival": row.rival,
        "A": [each.folded_logits for each in rows],
        "Y": [each.fold(each.y) for each in rows],
        **state.choices,
        **softmax_values(row, a, y, state.choices["kappa"]),
        **loss_values(view, rows, state.chosen),
        **chain_values(row, a, y),
        **check_values(row, a, y),
        **step_values(view, rows, state),
        **confident_values(state.choices["x"], state.choices["eps"]),
        **soft_values(row, a, state.choices["keep"], state.choices["eps"]),
    }


def flat(values: Values) -> dict[str, float]:
    """Every single number under its name and its places."""
    return {
        ".".join((name, *map(str, place))): float(number)
        for name, value in values.items()
        for place, number in np.ndenumerate(value)
    }


def difference(function: Any, at: Floats, nudge: float = NUDGE) -> Floats:
    """Central differences of a function by each entry of `at`, one entry a row."""
    quotients = [
        (function(at + nudge * e) - function(at - nudge * e)) / (2 * nudge) for e in np.eye(len(at))
    ]
    return np.array(quotients)


def loss_difference(a: Floats, y: Floats, nudge: float = NUDGE) -> Floats:
    """Central differences of a row's loss by each logit."""
    return difference(lambda at: crossent.cross_entropy(at, y, reduction="sum"), a, nudge)


# --- The steps ------------------------------------------------------------------------------------


def softmax_values(row: FullRow, a: Floats, y: Floats, shift: float) -> Values:
    """Logits, the same numbers without the maximum subtracted, exponentials, probabilities."""
    m, t, p = a.max(), row.target, crossent.softmax(a)
    exps = np.exp(a - m)
    with np.errstate(all="ignore"):
        naive = np.exp(a + shift)
        naive_p = naive / naive.sum()
    return {
        "a": a, "a.t": a[t], "size.a": a / np.abs(a).max(initial=1e-9),
        "y": y, "onehot": y.max() == 1 and y.sum() == 1,
        "right": a[t] == m, "m": m, "shifted": a - m, "exp": exps, "sum": exps.sum(),
        "big": a + shift, "naive.exp": naive, "naive.p": naive_p,
        "safe.p": crossent.softmax(a + shift), "breaks": np.isnan(naive_p).any(), "shift.sign": 0,
        "p": p, "p.t": p[t], "p.rival": p[row.rival], "sum.p": p.sum(),
        "not.p.t": crossent.log_softmax_jacobian(a)[t, t], "lse": crossent.logsumexp(a),
    }  # fmt: skip


def loss_values(view: View, rows: list[FullRow], chosen: int) -> Values:
    """The loss of each shown row, the sum and the mean over all rows."""
    losses = [float(crossent.cross_entropy(row.a, row.y, reduction="none")) for row in rows]
    hidden = float(view.hidden.losses[0])
    total = sum(losses) + hidden
    return {
        "losses": losses, "loss": losses[chosen], "loss.hidden": hidden,
        "loss.sum": total, "loss.mean": total / view.problem.N,
    }  # fmt: skip


def chain_values(row: FullRow, a: Floats, y: Floats) -> Values:
    """The derivative through the probabilities, the Jacobian, the two cases, their product."""
    p, J, t = crossent.softmax(a), crossent.softmax_jacobian(a), row.target
    by_p = crossent.grad_wrt_probabilities(p, y) + 0.0
    by_log = crossent.log_softmax_jacobian(a)
    with np.errstate(all="ignore"):
        nudged = [
            difference(lambda x, k=k: -y[k] * np.log(x), p[k : k + 1], NUDGE * float(p[k]))[0, 0]
            if y[k]
            else 0.0
            for k in range(len(p))
        ]
        terms = by_p[:, None] * J
        long_way = terms.sum(0)
    size = np.abs(by_p[np.isfinite(by_p)]).max(initial=0) or 1.0
    J_check = difference(crossent.softmax, a).T
    return {
        "dp": by_p, "dp.check": nudged, "dp.t": by_p[t], "size.dp": np.clip(by_p / size, -1, 1),
        "J": J, "J.check": J_check, "J.error": np.abs(J_check - J).max(),
        "J.size": np.abs(J).max() or 1.0, "J.own": J[t, t], "J.other": J[row.rival, t],
        "dlog": by_log[t], "dlog.check": difference(crossent.log_softmax, a).T[t],
        "own": -y * np.diagonal(by_log), "others": p * (y.sum() - y),
        "term": terms, "long": long_way, "longfails": np.isnan(long_way).any(),
    }  # fmt: skip


def check_values(row: FullRow, a: Floats, y: Floats) -> Values:
    """The gradient of the row's loss, and its finite differences for several h."""
    _, full = crossent.cross_entropy_and_grad(row.a, row.y, reduction="sum")
    grad, t = row.fold(full), row.target
    quotients = [loss_difference(a, y, h) for h in NUDGES]
    nudge = np.eye(len(a))[t] * NUDGES[0]
    return {
        "grad": grad, "grad.check": loss_difference(a, y), "grad.sum": grad.sum(),
        "grad.t": grad[t], "grad.rival": grad[row.rival],
        "nudge.quotient": [quotient[t] for quotient in quotients],
        "nudge.error": [np.abs(quotient - grad).max() for quotient in quotients],
        "nudge.up": crossent.cross_entropy(a + nudge, y, reduction="sum"),
        "nudge.down": crossent.cross_entropy(a - nudge, y, reduction="sum"),
    }  # fmt: skip


def step_values(view: View, rows: list[FullRow], state: State) -> Values:
    """The gradient of the mean over all rows, and the loss after a step against it."""
    N, eta, chosen = view.problem.N, state.choices["eta"], rows[state.chosen]
    before, squared = float(view.hidden.losses[0]), view.hidden.grad_squared
    after = view.losses_after(eta)
    G, moved, p_before, p_after = [], [], [], []
    for row in rows:
        loss, grad = crossent.cross_entropy_and_grad(row.a, row.y, normalizer=N)
        later, target = row.a - eta * grad, row.places[row.target]
        before += float(loss) * N
        after += float(crossent.cross_entropy(later, row.y, reduction="sum"))
        squared += float(grad @ grad)
        G.append(row.fold(grad))
        moved.append(later[row.places])
        p_before.append(crossent.softmax(row.a)[target])
        p_after.append(crossent.softmax(later)[target])
    return {
        "G": G, "Grow": G[state.chosen], "movedrow": moved[state.chosen],
        "G.check": loss_difference(chosen.folded_logits, chosen.fold(chosen.y)) / N,
        "G.squared": squared, "pt": p_before, "pt.after": p_after,
        "step.before": before / N, "step.after": after / N,
        "step.predicted": before / N - eta * squared, "step.sign": (after - before) / N,
    }  # fmt: skip


def confident_values(margin: float, smoothing: float) -> Values:
    """Logits [x, 0, 0] with target 0: the loss as it is often computed, and as it is."""
    values: Values = {"sure.R": 2 * np.exp(-margin)}
    for bits, dtype in (("64", np.float64), ("32", np.float32)):
        a = np.array([margin, 0, 0], dtype=dtype)
        loss, grad = crossent.cross_entropy_and_grad(a, 0)
        exps = np.exp(a - a.max())
        p = exps[0] / exps.sum()
        values |= {f"sure.loss.{bits}": loss, f"sure.grad.{bits}": grad[0]}
        values |= {f"sure.naive.loss.{bits}": -np.log(p) + 0.0, f"sure.naive.grad.{bits}": p - 1}
    smoothed = crossent.cross_entropy_and_grad([margin, 0.0, 0.0], 0, label_smoothing=smoothing)[1]
    return values | {"sure.smoothed": smoothed[0], "toosure": smoothed[0] > 0}


def soft_values(row: FullRow, a: Floats, keep: float, eps: float) -> Values:
    """A target that is shared between classes, half of it, and label smoothing."""
    soft = np.zeros_like(row.y)
    soft[row.places] = shared_target(row.target, len(row.places), keep)
    q = (1 - eps) * row.y + eps / len(row.a)
    loss, grad = crossent.cross_entropy_and_grad(row.a, soft, reduction="sum")
    half_loss, half_grad = crossent.cross_entropy_and_grad(row.a, soft / 2, reduction="sum")
    smooth_loss, smooth_grad = crossent.cross_entropy_and_grad(
        row.a, row.y, reduction="sum", label_smoothing=eps
    )
    return {
        "soft.y": row.fold(soft), "soft.loss": loss, "soft.grad": row.fold(grad),
        "soft.check": loss_difference(a, row.fold(soft)),
        "half.loss": half_loss, "half.grad": row.fold(half_grad),
        "q": row.fold(q), "smooth.loss": smooth_loss, "smooth.grad": row.fold(smooth_grad),
        "smooth.check": loss_difference(a, row.fold(q)), "smooth.keep": 1 - eps,
        "smooth.even": -crossent.log_softmax(row.a).mean(),
    }  # fmt: skip


def shared_target(target: int, classes: int, keep: float) -> Floats:
    """A soft target: the right class keeps its share, the others have less and less of the rest."""
    if classes == 1:
        return np.ones(1)
    weights = np.arange(classes - 1, 0, -1, dtype=np.float64)
    return np.insert(weights / weights.sum() * (1 - keep), target, keep)

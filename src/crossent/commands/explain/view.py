"""What of a problem the page shows: a few rows, of each a few classes, and the rest as sums.

N rows, C classes. All classes are shown where there are at most 6, all rows where there are at
most 5. Else a row shows its target and its most probable classes, and the others act as one: a
class whose logit is the log of the sum of their exponentials has their joint probability, and the
softmax over the shown classes and it is exact. What a step moves one by one is kept as moments.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import crossent
from crossent.commands.explain.inputs import BLOCK, Floats, Problem

ALL_CLASSES, SOME_CLASSES, SOME_TARGETS = 6, 5, 2  # all up to 6; else 5, up to 2 of the target
ALL_ROWS = 5
LARGEST_STEP = 4.0  # of the gradient step that the reader can choose
NEGLIGIBLE = 1e-12  # terms of a series that are left out


@dataclass(frozen=True)
class Rest:
    """The classes of a row that are not shown, as far as loss and gradient step need them."""

    count: int
    lse: float  # log of the sum of their exponentials
    sum_logits: float
    sum_y: float
    sum_y_logits: float
    peak: float  # their largest logit
    moments: list[list[float]]  # [i][j] = sum of y^i exp(j (a - peak)), as far as a step needs it


@dataclass(frozen=True)
class ShownRow:
    """A row of the page: its number in the problem, its classes, what they hold."""

    index: int
    classes: tuple[int, ...]
    names: tuple[str, ...]
    a: Floats
    y: Floats
    rest: Rest | None  # None where every class is shown

    @property
    def target(self) -> int:
        """The place, among the shown classes, with the largest share of the target."""
        return int(self.y.argmax())

    @property
    def is_one_hot(self) -> bool:
        """Whether the whole target is one class."""
        rest = self.rest.sum_y if self.rest else 0.0
        return rest == 0 and bool((np.delete(self.y, self.target) == 0).all() and self.y.max() == 1)


@dataclass(frozen=True)
class HiddenRows:
    """The rows that are not shown: what they add to the sum of the losses after a step."""

    count: int
    steps: Floats  # step sizes at which `losses` was computed: Chebyshev points, and 0
    losses: Floats
    grad_squared: float  # sum of squares of their entries in the gradient of the mean


@dataclass(frozen=True)
class View:
    """What the page shows of a problem, and the row it begins with."""

    problem: Problem
    rows: tuple[ShownRow, ...]
    chosen: int  # place among `rows`
    hidden: HiddenRows

    @property
    def row(self) -> ShownRow:
        return self.rows[self.chosen]

    def losses_after(self, step: float) -> float:
        """The hidden rows' losses after a step of this size, computed from all of their logits."""
        shown = frozenset(row.index for row in self.rows)
        return hidden_pass(self.problem, shown, step)[0]


def make_view(problem: Problem, row: int | None = None) -> View:
    """The view of a problem on a row; without one the first, or the worst of too many to show."""
    if problem.N <= ALL_ROWS:
        indices: Sequence[int] = range(problem.N)
        chosen = 0 if row is None else row
    else:
        order = np.argsort(-row_losses(problem), kind="stable")
        chosen = int(order[0]) if row is None else row
        telling = (chosen, order[0], order[1], order[len(order) // 2], order[-1])
        indices = sorted({int(n) for n in telling})
    rows = tuple(show_row(problem, n) for n in indices)
    return View(problem, rows, list(indices).index(chosen), hide_rows(problem, frozenset(indices)))


def show_row(problem: Problem, n: int) -> ShownRow:
    """Row n with its telling classes, and the rest of them summed up."""
    a, y = problem.row(n)
    classes = telling_classes(a, y)
    hidden = ~np.isin(np.arange(len(a)), classes)
    pace = LARGEST_STEP / problem.N
    rest = sum_up(a[hidden], y[hidden], pace, float(y.sum())) if hidden.any() else None
    names = tuple(problem.name(int(k)) for k in classes)
    return ShownRow(n, tuple(int(k) for k in classes), names, a[classes], y[classes], rest)


def telling_classes(a: Floats, y: Floats) -> NDArray[np.intp]:
    """All classes if they are few; else those of the target and the most probable, in order."""
    if len(a) <= ALL_CLASSES:
        return np.arange(len(a))
    wanted = np.argsort(-y, kind="stable")[:SOME_TARGETS]
    wanted = wanted[y[wanted] > 0]
    probable = np.argsort(-a, kind="stable")
    probable = probable[~np.isin(probable, wanted)][: SOME_CLASSES - len(wanted)]
    classes = np.concatenate((wanted, probable))
    return classes[np.argsort(-a[classes], kind="stable")]


def series(x: float) -> Floats:
    """x^k / k! for k = 0, 1, 2 and on until it is negligible."""
    terms = [1.0, x, x * x / 2]
    while terms[-1] > NEGLIGIBLE:
        terms.append(terms[-1] * x / len(terms))
    return np.array(terms)


def sum_up(a: Floats, y: Floats, pace: float, total: float) -> Rest:
    """The rest of a row from its hidden logits and targets; `total` is the sum of its target.

    The largest step moves a logit by `pace` times its probability and its share.
    """
    peak = float(a.max())
    by_power, by_share = series(pace * total), series(pace * float(y.max()))
    powers = np.exp(np.outer(np.arange(len(by_power) + 1), a - peak))
    shares = y ** np.arange(len(by_share) if y.any() else 1)[:, None]
    needed = (np.outer(by_share, by_power) > NEGLIGIBLE).sum(1) + 1
    return Rest(
        count=len(a),
        lse=float(crossent.logsumexp(a)),
        sum_logits=float(a.sum()),
        sum_y=float(y.sum()),
        sum_y_logits=float(y @ a),
        peak=peak,
        moments=[
            [float(f"{x:.9g}") for x in row[: max(length, 3 - i)]]
            for i, (row, length) in enumerate(zip(shares @ powers.T, needed, strict=False))
        ],
    )


# --- Rows that are not shown ----------------------------------------------------------------------


def blocks(problem: Problem) -> Iterator[tuple[slice, Floats, NDArray[Any]]]:
    """(rows, float64 logits, targets) of a few rows at a time."""
    step = max(1, BLOCK // problem.C)
    for start in range(0, problem.N, step):
        rows = slice(start, min(start + step, problem.N))
        logits = np.asarray(problem.logits[rows], dtype=np.float64)
        targets = np.asarray(problem.targets[rows])
        yield rows, logits, targets.astype(np.float64) if targets.ndim == 2 else targets


def row_losses(problem: Problem) -> Floats:
    """The loss of every row."""
    return np.concatenate(
        [crossent.cross_entropy(a, y, reduction="none") for _, a, y in blocks(problem)]
    )


def hidden_pass(problem: Problem, shown: frozenset[int], step: float) -> tuple[float, float]:
    """(sum of the losses after a step, squared gradient of the mean) over the rows not shown."""
    losses = grad_squared = 0.0
    for rows, a, y in blocks(problem):
        kept = np.array([n not in shown for n in range(rows.start, rows.stop)])
        _, grad = crossent.cross_entropy_and_grad(a, y, reduction="sum")
        grad /= problem.N
        grad_squared += float(np.einsum("nk,nk->n", grad, grad)[kept].sum())
        grad *= -step
        grad += a
        losses += float(crossent.cross_entropy(grad, y, reduction="none")[kept].sum())
    return losses, grad_squared


def hide_rows(problem: Problem, shown: frozenset[int]) -> HiddenRows:
    """The rows beyond those shown, of which there may be none."""
    if len(shown) == problem.N:
        return HiddenRows(0, np.zeros(1), np.zeros(1), 0.0)
    # The losses are smooth in the step, on the scale N: a polynomial through few points is exact.
    points = 8 if problem.N < 100 else 4
    angles = np.pi * (np.arange(points) + 0.5) / points
    steps = np.concatenate(([0.0], LARGEST_STEP / 2 * (1 - np.cos(angles))))
    passes = [hidden_pass(problem, shown, float(step)) for step in steps]
    losses = np.array([losses for losses, _ in passes])
    return HiddenRows(problem.N - len(shown), steps, losses, passes[0][1])

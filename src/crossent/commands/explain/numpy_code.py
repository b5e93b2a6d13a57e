"""The walk as a NumPy program: for a homework, and to see each line do what the page says."""

from __future__ import annotations

from crossent.commands.explain.state import FullRow, State
from crossent.commands.explain.view import View

COURSE_CLASS = """\
import numpy as np


class CrossEntropyLoss:
    def softmax(self, x):
        exps = np.exp(x - x.max(axis=1, keepdims=True))
        return exps / exps.sum(axis=1, keepdims=True)

    def forward(self, A, Y):
        self.Y, self.probabilities = Y, self.softmax(A)
        shifted = A - A.max(axis=1, keepdims=True)
        log_prob = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return (-Y * log_prob).sum(axis=1).mean()

    def backward(self):
        return (self.probabilities - self.Y) / len(self.Y)
"""

PROGRAM = '''

# 1. Logits: N rows, C classes. Targets: the share that each class ought to have.
A = np.array({logits})
Y = np.array({targets})
N, C = A.shape
a, y = A[{row}], Y[{row}]  # the row that is followed
np.set_printoptions(precision=3, suppress=True)


def difference(f, x, h=1e-4):
    """Central differences of f by each entry of x: one row an entry."""
    return np.array([(f(x + h * e) - f(x - h * e)) / (2 * h) for e in np.eye(len(x))])


# 2. Why the maximum is subtracted: the same numbers plus 1000, without it.
with np.errstate(all="ignore"):
    naive = np.exp(a + 1000) / np.exp(a + 1000).sum()
print("without subtracting the maximum:", naive)

# 3. Exponentials, sum, probabilities.
def softmax(a):
    exps = np.exp(a - a.max())
    return exps / exps.sum()


def lse(a):
    return a.max() + np.log(np.exp(a - a.max()).sum())


def log_softmax(a):
    return a - lse(a)


p = softmax(a)
print("p:", p)

# 4. Loss of the row; sum and mean over all rows.
def row_loss(a, y):
    return (y * (lse(a) - a)).sum()  # -log p_k is lse - a_k


loss = row_loss(a, y)
losses = np.array([row_loss(*pair) for pair in zip(A, Y)])
print("loss: %.3f, sum: %.3f, mean: %.3f" % (loss, losses.sum(), losses.mean()))

# 5. The derivative through the probabilities: -y / p, 0 where y is.
with np.errstate(divide="ignore"):
    by_p = np.array([-y_k / p_k if y_k else 0.0 for y_k, p_k in zip(y, p)])
print("-y / p:", by_p)

# 6. The Jacobian of softmax: p_i (1 - p_i) on the diagonal, -p_i p_j elsewhere.
J = np.diag(p) - np.outer(p, p)
print("J:", J, sep="\\n")
assert np.allclose(J, difference(softmax, a), atol=1e-7)

# 7. The two cases: d log p_k / d a_i is 1 - p_i for i = k, else -p_i.
log_J = np.eye(C) - p
assert np.allclose(log_J, difference(log_softmax, a).T, atol=1e-6)
grad = -y @ log_J

# 8. The product collapses: p - y (p times the sum of y, minus y). The long way fails
# where the probability of the right class is too small for a number; p - y does not.
if np.isfinite(by_p).all():
    assert np.allclose(by_p @ J, grad)
assert np.allclose(p * y.sum() - y, grad)
print("p - y:", grad)

# 9. Finite-difference check.
for h in (1e-1, 1e-2, 1e-3, 1e-5, 1e-7):
    error = np.abs(difference(lambda a: row_loss(a, y), a, h) - grad).max()
    print("h = %g: largest difference %.0e" % (h, error))

# 10. Divide by N: the gradient of the mean, all rows at once.
P = np.array([softmax(a) for a in A])
G = (P * Y.sum(axis=1, keepdims=True) - Y) / N
print("gradient of the mean:", G, sep="\\n")

# 11. The same as a class.
criterion = CrossEntropyLoss()
assert np.isclose(criterion.forward(A, Y), losses.mean())
if np.allclose(Y.sum(axis=1), 1):
    assert np.allclose(criterion.backward(), G)

# 12. One gradient step.
after = np.mean([row_loss(*pair) for pair in zip(A - G, Y)])
print("mean loss after a step of size 1: %.3f" % after)

# 13. A confident right answer: keep the sum of the others apart from 1.
R = 2 * np.exp(-40.0)
print("logits [40, 0, 0]: naive %.3e, true %.3e" % (np.log(1 + R), np.log1p(R)))

# 14. Label smoothing: the same gradient for the target q.
q = 0.9 * y + 0.1 / C
print("smoothed: loss %.3f, gradient" % row_loss(a, q), p * q.sum() - q)
'''


def course_class() -> str:
    """Forward and backward as a class, as docs/derivation.md has it."""
    return COURSE_CLASS


def program(view: View, state: State) -> str:
    """A program that needs NumPy alone, checks itself and prints what the page shows."""
    rows = [FullRow.of(view, state, r) for r in range(len(view.rows))]
    head = []
    if view.hidden:
        indices = ", ".join(str(row.index) for row in view.rows)
        head.append(f"# Of {view.N} rows these {len(view.rows)}: {indices}. Means are over them.")
    if view.row.rest:
        head.append(
            f"# Of {view.C} classes {len(view.row.classes)} a row; the last column stands for the\n"
            "# others: its logit is the logarithm of the sum of their exponentials."
        )
    body = PROGRAM.format(
        logits=table([row.folded_logits().tolist() for row in rows]),
        targets=table([row.fold(row.y).tolist() for row in rows]),
        row=state.chosen,
    )
    return COURSE_CLASS + "".join(f"\n\n{line}" for line in head) + body


def table(rows: list[list[float]]) -> str:
    """Nested lists, a row a line."""
    lines = ",\n    ".join("[" + ", ".join(f"{x!r}" for x in row) + "]" for row in rows)
    return f"[\n    {lines},\n]"

"""How many units in the last place (ULP) the loss and its gradient are from the truth.

The truth comes from mpmath, with 60 digits. Beside crossent stands the textbook formula in the same
dtype: subtract the maximum, exponentiate, divide, take the logarithm. N rows, C classes.

    python examples/accuracy.py
"""

from collections.abc import Iterator

import mpmath
import numpy as np

import crossent

mp = mpmath.mp.clone()
mp.dps = 60


def cases() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(description, logits, targets), the same numbers every time."""
    rng = np.random.default_rng(1)
    for scale in (1, 10, 100):
        logits = scale * rng.standard_normal((8, 1000))
        yield f"normal, scale {scale}, C = 1,000", logits, rng.integers(0, 1000, 8)
    yield "normal + 1,000, C = 1,000", 1000 + logits / 100, rng.integers(0, 1000, 8)
    for margin in (20, 40, 95, 103):
        logits = np.zeros((8, 10))
        targets = rng.integers(0, 10, 8)
        logits[np.arange(8), targets] = margin + 0.1 * np.arange(8)
        yield f"target {margin} above the rest, C = 10", logits, targets
    yield "normal, scale 1, C = 256,000", rng.standard_normal((1, 256_000)), np.array([7])


def truth(row: np.ndarray, target: int) -> tuple[mpmath.mpf, list[mpmath.mpf]]:
    """Loss and gradient of one row, to 60 digits."""
    u = [mp.mpf(float(x)) for x in row]
    exps = [mp.exp(x - u[target]) for x in u]
    others = mp.fsum(e for k, e in enumerate(exps) if k != target)
    grad = [e / (1 + others) for e in exps]
    grad[target] = -others / (1 + others)
    return mp.log1p(others), grad


def textbook(logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Losses and gradients as usually written."""
    exps = np.exp(logits - logits.max(axis=1, keepdims=True))
    prob = exps / exps.sum(axis=1, keepdims=True)
    rows = np.arange(len(targets))
    with np.errstate(divide="ignore"):
        losses = -np.log(prob[rows, targets])
    prob[rows, targets] -= 1
    return losses, prob


def ulps(got: np.floating, true: mpmath.mpf) -> float:
    """The distance between two numbers in units of the last place of the true one."""
    if not np.isfinite(got):
        return float("inf")
    last_place = np.spacing(abs(got.dtype.type(float(true))))
    return float(abs(mp.mpf(float(got)) - true) / mp.mpf(float(last_place)))


def worst(losses: np.ndarray, grads: np.ndarray, logits: np.ndarray, targets: np.ndarray) -> str:
    """The largest distance of a loss, and of an element of the gradient."""
    of_loss = of_grad = 0.0
    for row, target, loss, grad in zip(logits, targets, losses, grads, strict=True):
        true_loss, true_grad = truth(row, int(target))
        of_loss = max(of_loss, ulps(loss, true_loss))
        of_grad = max(of_grad, *(ulps(g, t) for g, t in zip(grad, true_grad, strict=True)))
    return f"{of_loss:12.3g}{of_grad:12.3g}"


def main() -> None:
    print(f"{'largest error in ULP':36}{'crossent':>18}{'textbook':>24}")
    print(f"{'':36}{'loss':>12}{'gradient':>12}{'loss':>12}{'gradient':>12}")
    for dtype in (np.float32, np.float64):
        print(dtype.__name__)
        for name, wide, targets in cases():
            logits = wide.astype(dtype)
            ours = crossent.cross_entropy_and_grad(logits, targets, reduction="none")
            theirs = textbook(logits, targets)
            print(f"  {name:34}{worst(*ours, logits, targets)}{worst(*theirs, logits, targets)}")


if __name__ == "__main__":
    main()

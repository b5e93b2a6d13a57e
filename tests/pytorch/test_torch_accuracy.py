"""The core's bars hold through autograd: errors in ULP of the true value, at long double precision.

Index targets: 2 ULP in float32 and 4 in float64 for the loss of each row and every element of the
gradient, for every reduction and random incoming gradients.
"""

from __future__ import annotations

import numpy as np
import pytest
from covering import covering
from torch_cases import fallback_path, torch

import crossent.torch as ct

WIDE = np.longdouble
PEAKS = {
    "scale 1": lambda a, t: a,
    "scale 10": lambda a, t: a * 10,
    "scale 100": lambda a, t: a * 100,
    "offset 1e3": lambda a, t: a + 1000,
    "margin 20": lambda a, t: a.scatter(1, t[:, None], 20.0),
    "margin 40": lambda a, t: a.scatter(1, t[:, None], 40.0),
    "margin 95": lambda a, t: (a * 0).scatter(1, t[:, None], 95.0),
}


def _truth(logits, target):
    """(loss of each row, gradient of its sum) in long double, from the sum of the others."""
    a = logits.detach().to(torch.float64).numpy().astype(WIDE)
    rows = np.arange(len(a))
    top = a.max(1, keepdims=True)
    exps = np.exp(a - top)
    others = exps.copy()
    others[rows, target] = 0
    others, total = others.sum(1), exps.sum(1)
    on_target = (a - top)[rows, target]
    loss = np.where(on_target == 0, np.log1p(others), np.log(total) - on_target)
    grad = exps / total[:, None]
    grad[rows, target] = -others / total
    return loss, grad


def _ulps(found, true, dtype):
    info = torch.finfo(dtype)
    exponent = np.floor(np.log2(np.maximum(np.abs(true), WIDE(info.tiny))))
    spacing = np.exp2(exponent) * WIDE(info.eps)
    return float((np.abs(found.to(torch.float64).numpy().astype(WIDE) - true) / spacing).max())


def _problem(peak, classes, dtype):
    generator = torch.Generator().manual_seed(classes)
    n = 8 if classes < 10_000 else 2
    logits = torch.randn(n, classes, generator=generator, dtype=torch.float32)
    target = torch.randint(0, classes, (n,), generator=generator)
    logits = PEAKS[peak](logits, target).to(dtype).requires_grad_()
    return logits, target, generator


BARS = {torch.float32: 2.0, torch.float64: 4.0, torch.bfloat16: 0.52, torch.float16: 0.52}


@covering(peak=PEAKS.keys(), classes=[2, 10, 1000, 256_000], dtype=BARS.keys())
def test_loss_and_gradient_are_within_the_bars(peak, classes, dtype):
    if dtype is torch.float64 and np.finfo(WIDE).nmant < 63:
        pytest.skip("long double is no wider than double here")
    bar = BARS[dtype]
    logits, target, generator = _problem(peak, classes, dtype)
    true_loss, true_grad = _truth(logits, target.numpy())
    loss_type = torch.float64 if dtype is torch.float64 else torch.float32
    n = len(target)
    incoming = torch.rand(n, generator=generator, dtype=loss_type) + 0.5
    for reduction in ("none", "sum", "mean"):
        loss = ct.cross_entropy(logits, target, reduction=reduction)
        factor = incoming if reduction == "none" else incoming[0]
        (grad,) = torch.autograd.grad(loss, logits, factor)
        wide = factor.numpy().astype(WIDE)
        divisor = n if reduction == "mean" else 1
        expected = true_grad * (wide[:, None] if reduction == "none" else wide) / divisor
        assert _ulps(grad, expected, dtype) <= bar
        true = true_loss if reduction == "none" else true_loss.sum() / divisor
        assert _ulps(loss.detach(), true, loss_type) <= max(bar, 2.0)


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("peak", PEAKS)
def test_torch_operations_are_nearly_as_exact(peak, classes):
    logits, target, _ = _problem(peak, classes, torch.float32)
    true_loss, true_grad = _truth(logits, target.numpy())
    with fallback_path():
        loss = ct.cross_entropy(logits, target, reduction="none")
        (grad,) = torch.autograd.grad(loss.sum(), logits)
    assert _ulps(loss.detach(), true_loss, torch.float32) <= 32
    assert _ulps(grad, true_grad, torch.float32) <= 32

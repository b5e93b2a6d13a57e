"""Edge rows and scores: the core and ordinary torch operations agree with the reference."""

from __future__ import annotations

import numpy as np
import pytest
from torch_cases import FORMS, OPTIONS, fallback_path, problem, torch

import crossent.torch as ct
from crossent import reference

INF, NAN = float("inf"), float("nan")
ROWS = {
    "ordinary": [1.0, -2.0, 0.5],
    "ties": [3.0, 3.0, 3.0],
    "masked class": [1.0, 2.0, -INF],
    "masked target": [-INF, 0.0, 1.0],
    "all masked": [-INF, -INF, -INF],
    "nan": [0.0, NAN, 1.0],
    "infinity": [0.0, INF, 1.0],
    "large": [3e38, -3e38, 0.0],
    "margin": [60.0, 0.0, 0.0],
}


def _numbers(options):
    return {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in options.items()}


@pytest.mark.parametrize("path", ["core", "fallback"])
@pytest.mark.parametrize("name", ["none", "smoothing", "z_loss", "softcap", "logit_scale"])
@pytest.mark.parametrize("row", ROWS)
def test_edge_rows_have_the_references_loss_and_gradient(row, name, path):
    options = {**OPTIONS[name], "reduction": "none"}
    logits = torch.tensor([ROWS[row], ROWS["ordinary"], ROWS[row]], dtype=torch.float64)
    logits.requires_grad_()
    target = torch.tensor([0, 2, -100])
    expected, grads = reference.cross_entropy_and_grad(
        logits.detach().numpy(), target.numpy(), **options
    )
    if path == "core":
        loss = ct.cross_entropy(logits, target, **options)
    else:
        with fallback_path():
            loss = ct.cross_entropy(logits, target, **options)
    (grad,) = torch.autograd.grad(loss.sum(), logits)
    np.testing.assert_allclose(loss.detach().numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(grad.numpy(), grads, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("shape", [(1,), (5,), (3, 1), (6, 5), (2, 4, 3, 2), (0, 3)])
def test_torch_operations_agree_with_the_core(shape, name, form):
    logits, target, options = problem(form, shape, **OPTIONS[name])
    loss = ct.cross_entropy(logits, target, **options)
    with fallback_path():
        fallback = ct.cross_entropy(logits, target, **options)
    torch.testing.assert_close(fallback, loss, equal_nan=True, rtol=1e-11, atol=1e-12)
    incoming = torch.rand_like(loss)
    (grad,) = torch.autograd.grad(loss, logits, incoming)
    (by_fallback,) = torch.autograd.grad(fallback, logits, incoming)
    torch.testing.assert_close(by_fallback, grad, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("path", ["core", "fallback"])
@pytest.mark.parametrize("name", ["plain", "softcap", "logit_scale"])
def test_scores_are_the_references(name, path):
    options = {k: v for k, v in OPTIONS[name].items() if k in ("softcap", "logit_scale")}
    rows = [ROWS[k] for k in ("ordinary", "ties", "masked class", "margin")]
    logits = torch.tensor([*rows, *rows], dtype=torch.float64)
    target = torch.tensor([1, 0, 1, 0, -100, 2, 0, 1])
    expected = reference.token_scores(logits.numpy(), target.numpy(), **options)
    if path == "core":
        scores = ct.token_scores(logits, target, **options)
    else:
        with fallback_path():
            scores = ct.token_scores(logits, target, **options)
    assert scores.argmax.dtype is torch.int64
    for found, true in zip(scores, expected, strict=True):
        np.testing.assert_allclose(found.numpy(), true, rtol=1e-12, atol=1e-13)


def test_scores_of_images_have_the_targets_shape():
    logits, target, _ = problem("index", (2, 5, 3, 4), torch.float32)
    scores = ct.token_scores(logits, target)
    assert all(score.shape == (2, 3, 4) for score in scores)
    losses = ct.cross_entropy(logits, target, reduction="none")
    assert torch.equal(scores.nll, losses)
    (grad,) = torch.autograd.grad(scores.nll.sum(), logits)
    (expected,) = torch.autograd.grad(losses.sum(), logits)
    assert torch.equal(grad, expected)


def test_scores_need_labels():
    with pytest.raises(ValueError, match="scores are of one class a row"):
        ct.token_scores(torch.zeros(2, 3), torch.zeros(2, 3))


def test_more_rows_than_a_caller_would_label_by_hand_on_any_threads():
    logits, target, _ = problem("index", (5000, 33), torch.float32)
    before = torch.get_num_threads()
    bits = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            loss = ct.cross_entropy(logits, target)
            bits.append((loss.detach(), torch.autograd.grad(loss, logits)[0]))
    finally:
        torch.set_num_threads(before)
    for loss, grad in bits[1:]:
        assert torch.equal(loss, bits[0][0])
        assert torch.equal(grad, bits[0][1])

"""Where ours differs from PyTorch's loss on purpose: each line of docs/pytorch.md's table.

A case shows what PyTorch does and what we do; its name is the line's first words in the table.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from torch_cases import fallback_path, torch

import crossent.torch as ct

F = torch.nn.functional
INF, NAN = float("inf"), float("nan")


def _raises(error, function, *arguments, **options):
    with pytest.raises(error):
        function(*arguments, **options)


def small_losses():
    logits = torch.tensor([[30.0, 0.0, 0.0]], requires_grad=True)
    target = torch.tensor([0])
    theirs, ours = F.cross_entropy(logits, target), ct.cross_entropy(logits, target)
    assert theirs == 0
    assert 1.8e-13 < ours < 1.9e-13
    (theirs,) = torch.autograd.grad(theirs, logits)
    (ours,) = torch.autograd.grad(ours, logits)
    assert theirs[0, 0] == 0
    assert -1.9e-13 < ours[0, 0] < -1.8e-13


def float32_loss_for_half_logits():
    for dtype in (torch.bfloat16, torch.float16):
        logits, target = torch.randn(2, 3).to(dtype), torch.tensor([0, 1])
        assert F.cross_entropy(logits, target).dtype is dtype
        assert ct.cross_entropy(logits, target).dtype is torch.float32


def finite_loss_beside_masked_classes():
    logits, target = torch.tensor([[1.0, 2.0, -INF]]), torch.tensor([[0.0, 1.0, 0.0]])
    assert torch.isnan(F.cross_entropy(logits, target))
    assert torch.isfinite(ct.cross_entropy(logits, target))


def ignored_rows_spread_no_nan():
    target = torch.tensor([0, -100])
    grads = []
    for function in (F.cross_entropy, ct.cross_entropy):
        logits = torch.tensor([[1.0, 2.0], [NAN, -INF]], requires_grad=True)
        function(logits, target).backward()
        grads.append(logits.grad[1])
    assert torch.isnan(grads[0]).any()
    assert torch.equal(grads[1], torch.zeros(2))


def finite_gradient_of_an_infinite_loss():
    grads = []
    for function in (F.cross_entropy, ct.cross_entropy):
        logits = torch.tensor([[-INF, 0.0]], requires_grad=True)
        loss = function(logits, torch.tensor([0]))
        assert loss == INF
        grads.append(torch.autograd.grad(loss, logits)[0])
    assert torch.isfinite(grads[1]).all()


def every_integer_dtype_as_labels():
    logits = torch.randn(2, 3)
    expected = F.cross_entropy(logits, torch.tensor([0, 2]))
    for dtype in (torch.int8, torch.int16, torch.int32, torch.uint16, torch.uint32, torch.uint64):
        target = torch.tensor([0, 2]).to(dtype)
        _raises(RuntimeError, F.cross_entropy, logits, target)
        torch.testing.assert_close(ct.cross_entropy(logits, target), expected)


def every_real_dtype_as_distributions():
    logits, one_hot = torch.randn(2, 3), torch.tensor([[1, 0, 0], [0, 0, 1]])
    expected = F.cross_entropy(logits, one_hot.float())
    for dtype in (torch.int64, torch.bool, torch.uint8):
        _raises(RuntimeError, F.cross_entropy, logits, one_hot.to(dtype))
        torch.testing.assert_close(ct.cross_entropy(logits, one_hot.to(dtype)), expected)
    doubles = one_hot.double()
    torch.testing.assert_close(ct.cross_entropy(logits, doubles), expected)


def class_weights_of_any_real_dtype():
    logits, target = torch.randn(2, 3), torch.tensor([0, 2])
    weight = torch.tensor([1, 2, 3])
    _raises(RuntimeError, F.cross_entropy, logits, target, weight)
    expected = F.cross_entropy(logits, target, weight.float())
    torch.testing.assert_close(ct.cross_entropy(logits, target, weight), expected)


def class_weights_are_finite():
    logits, target = torch.randn(2, 3), torch.tensor([0, 2])
    for bad in (NAN, INF):
        weight = torch.tensor([1.0, bad, 1.0])
        F.cross_entropy(logits, target, weight)
        _raises(ValueError, ct.cross_entropy, logits, target, weight)


def gradients_of_class_weights():
    logits, target = torch.randn(2, 3), torch.tensor([0, 2])
    weight = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    _raises(RuntimeError, lambda: F.cross_entropy(logits, target, weight).backward())
    ct.cross_entropy(logits, target, weight).backward()
    assert weight.grad.abs().sum() > 0


def errors_are_valueerror_and_typeerror():
    logits, target = torch.randn(2, 3), torch.tensor([0, 2])
    for options in ({"label_smoothing": 2.0}, {"weight": torch.ones(2)}):
        _raises(RuntimeError, F.cross_entropy, logits, target, **options)
        _raises(ValueError, ct.cross_entropy, logits, target, **options)
    _raises(RuntimeError, F.cross_entropy, logits, target.float())
    _raises(TypeError, ct.cross_entropy, logits, target.float())


def no_classes_is_an_error():
    assert F.cross_entropy(torch.zeros(0, 0), torch.zeros(0, dtype=torch.int64)).isnan()
    empty = torch.zeros(0, 0), torch.zeros(0, dtype=torch.int64)
    _raises(ValueError, ct.cross_entropy, *empty)


DIFFERENCES = [
    small_losses,
    float32_loss_for_half_logits,
    finite_loss_beside_masked_classes,
    ignored_rows_spread_no_nan,
    finite_gradient_of_an_infinite_loss,
    every_integer_dtype_as_labels,
    every_real_dtype_as_distributions,
    class_weights_of_any_real_dtype,
    class_weights_are_finite,
    gradients_of_class_weights,
    errors_are_valueerror_and_typeerror,
    no_classes_is_an_error,
]


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda case: case.__name__)
def test_ours_differs_as_the_table_says(difference):
    difference()


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda case: case.__name__)
def test_torch_operations_differ_in_the_same_way(difference):
    with fallback_path():
        difference()


def test_the_table_lists_what_is_tested():
    page = Path(__file__).parents[2] / "docs" / "pytorch.md"
    if not page.exists():
        pytest.skip("the documentation is not beside the tests")
    lines = page.read_text().split("## What differs on purpose")[1].split("\n## ")[0].splitlines()
    listed = [line.split("|")[1].strip() for line in lines if line.startswith("| ")][1:]
    names = [case.__name__.replace("_", " ") for case in DIFFERENCES]
    assert [line.lower().replace("`", "") for line in listed] == names

"""How much memory a training step's loss takes, and what is written where."""

from __future__ import annotations

import functools
import gc
import mmap
import sys
from pathlib import Path

import pytest
from torch_cases import problem, torch

import crossent.torch as ct

ROWS, CLASSES = 1024, 20_000  # 82 MB: beyond any size that an allocator keeps for later
SIZE = ROWS * CLASSES * 4
SMALL = SIZE // 20


def _resident(field):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise AssertionError(field)


def _extra_peak(step):
    """The most memory that `step` took beyond what was there before it."""
    _first_step_of_the_process()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _resident("VmRSS")
    step()
    return _resident("VmHWM") - before


@functools.cache
def _first_step_of_the_process():
    """Starts threads and touches what is loaded once."""
    logits = torch.randn(1024, 500, requires_grad=True)
    target = torch.zeros(1024, dtype=torch.int64)
    for reduction in ("mean", "none"):
        loss = ct.cross_entropy(logits + 0, target, reduction=reduction, inplace_backward=True)
        (loss.sum() * 0.5).backward()
        torch.nn.functional.cross_entropy(logits, target).backward()


def _logits(dtype=torch.float32):
    leaf = torch.randn(ROWS, CLASSES).to(dtype).requires_grad_()
    return leaf, torch.randint(0, CLASSES, (ROWS,))


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc of Linux")


@on_linux
@pytest.mark.parametrize("factor", [1.0, 0.5])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_training_step_holds_one_gradient_more(reduction, factor):
    leaf, target = _logits()

    def step():
        (ct.cross_entropy(leaf, target, reduction=reduction).sum() * factor).backward()

    extra = _extra_peak(step)
    assert SIZE * 0.9 < extra < SIZE + SMALL


@on_linux
def test_in_place_a_training_step_holds_nothing_more():
    leaf, target = _logits()

    class Passed(torch.autograd.Function):  # a layer that makes logits and needs no gradient memory
        @staticmethod
        def forward(ctx, a, logits):
            return logits

        @staticmethod
        def backward(ctx, grad):
            return grad[0, 0], None

    start = torch.zeros((), requires_grad=True)
    values = leaf.detach()
    logits = Passed.apply(start, values.view_as(values))

    def step():
        ct.cross_entropy(logits, target, inplace_backward=True).backward()

    assert _extra_peak(step) < SMALL


@on_linux
def test_without_gradients_nothing_of_the_inputs_size_is_held():
    leaf, target = _logits()

    def step():
        with torch.no_grad():
            ct.cross_entropy(leaf, target)
            ct.token_scores(leaf, target)

    assert _extra_peak(step) < SMALL


@on_linux
def test_half_logits_are_never_widened_as_a_whole():
    leaf, target = _logits(torch.bfloat16)
    assert _extra_peak(lambda: ct.cross_entropy(leaf, target).backward()) < SIZE // 2 + SMALL


def _mappings():
    """(first address, end, flags) of every range of this process's memory."""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if "-" in first:
            begin, end = (int(part, 16) for part in first.split("-"))
        elif first == "VmFlags:":
            yield begin, end, rest


@on_linux
def test_large_gradients_lie_in_memory_that_is_advised_to_huge_pages():
    leaf, target = _logits()
    loss = ct.cross_entropy(leaf, target)
    if not any(_mappings()):
        pytest.skip("this kernel does not say how it treats memory")
    address = loss.grad_fn.grad.data_ptr()
    begin, end = address + mmap.PAGESIZE, address + SIZE - mmap.PAGESIZE  # less what is at the ends
    assert any("hg" in flags for b, e, flags in _mappings() if b <= begin and end <= e)


def test_the_gradient_that_forward_made_is_handed_out():
    logits, target, _ = problem("index")
    loss = ct.cross_entropy(logits, target)
    made = loss.grad_fn.grad.data_ptr()
    loss.backward()
    assert logits.grad.data_ptr() == made


def test_in_place_the_gradient_lies_where_the_logits_were():
    leaf, target, _ = problem("index")
    (expected,) = torch.autograd.grad(ct.cross_entropy(leaf * 2, target), leaf)
    logits = leaf * 2
    address = logits.data_ptr()
    seen = []
    logits.register_hook(lambda grad: seen.append(grad.data_ptr()))
    ct.cross_entropy(logits, target, inplace_backward=True).backward()
    assert seen == [address]
    assert torch.equal(leaf.grad, expected)


@pytest.mark.parametrize("incoming", [1.0, -0.3])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_in_place_gradients_have_the_same_bits(reduction, incoming):
    leaf, target, _ = problem("index", (6, 70), torch.float32)
    grads = []
    for in_place in (False, True):
        loss = ct.cross_entropy(leaf + 0, target, reduction=reduction, inplace_backward=in_place)
        grads.append(torch.autograd.grad(loss.sum() * incoming, leaf)[0])
    assert torch.equal(*grads)


def test_an_exp_before_the_loss_notices_that_its_result_is_gone():
    leaf, target, _ = problem("index")
    logits = leaf.exp()  # its backward needs its result
    loss = ct.cross_entropy(logits, target, inplace_backward=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("first", [True, False])
def test_another_use_of_the_logits_is_right_or_an_error(first):
    leaf, target, _ = problem("index")
    logits = leaf * 2
    other = logits.pow(2).sum() if first else None
    loss = ct.cross_entropy(logits, target, inplace_backward=True)
    other = logits.pow(2).sum() if other is None else other
    try:
        (loss + other).backward()
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)
        return
    reference = leaf.detach().clone().requires_grad_()
    again = reference * 2
    (ct.cross_entropy(again, target) + again.pow(2).sum()).backward()
    torch.testing.assert_close(leaf.grad, reference.grad)


def test_in_place_twice_is_an_error():
    leaf, target, _ = problem("index")
    loss = ct.cross_entropy(leaf * 2, target, inplace_backward=True)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_in_place_views_bump_their_base():
    leaf, target, _ = problem("index", (4, 5))
    base = torch.cat((leaf * 2, leaf * 3))
    version = base._version
    loss = ct.cross_entropy(base[:4], target, inplace_backward=True)
    loss.backward()
    assert base._version > version


def test_in_place_refuses_leaves_and_expanded_inputs():
    leaf, target, _ = problem("index")
    with pytest.raises(ValueError, match="leaf"):
        ct.cross_entropy(leaf, target, inplace_backward=True)
    expanded = (leaf[:1] * 2).expand(4, 5)
    with pytest.raises(ValueError, match="share memory"):
        ct.cross_entropy(expanded, target, inplace_backward=True)


def test_in_place_under_create_graph_writes_nothing():
    leaf, target, _ = problem("index")
    logits = leaf * 2
    before = logits.detach().clone()
    loss = ct.cross_entropy(logits, target, inplace_backward=True)
    (grad,) = torch.autograd.grad(loss, leaf, create_graph=True)
    grad.sum().backward()
    assert torch.equal(logits.detach(), before)


def test_changed_logits_are_noticed_where_they_are_needed():
    leaf, target, _ = problem("index")
    logits = leaf * 2
    loss = ct.cross_entropy(logits, target)
    logits.detach().zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (loss * 3).backward()

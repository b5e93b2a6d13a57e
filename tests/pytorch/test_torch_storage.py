"""Storage that is freed or cut short, before a call or before its backward: an error, never a read.

As FSDP leaves parameters between uses. Every case would read out of bounds.
"""

from __future__ import annotations

import functools
import itertools
from contextlib import ExitStack, contextmanager, nullcontext

import pytest
from torch_cases import fallback_path, operator_path, torch

import crossent.torch as ct

N, C, D = 4, 5, 3
LOSSES = {
    "cross_entropy": ct.cross_entropy,
    "token_scores": ct.token_scores,
    "linear_cross_entropy": ct.linear_cross_entropy,
    "linear_token_scores": ct.linear_token_scores,
}


@contextmanager
def _lost(tensor, how):
    """Within it the tensor's storage is freed, or less than the tensor needs.

    Afterwards it is whole again: a failed test prints its tensors.
    """
    storage, size = tensor.untyped_storage(), tensor.untyped_storage().nbytes()
    storage.resize_(0 if how == "freed" else size - tensor.itemsize)
    try:
        yield
    finally:
        storage.resize_(size)


def _of(tensor, view):
    """The same tensor as a part of larger memory: not all of its storage, or not in order."""
    if view == "whole":
        return tensor.clone()
    if view == "later rows":
        return torch.cat([tensor, tensor])[len(tensor) :]
    return torch.stack([tensor, tensor], -1)[..., 1]


def _arguments(name, **more):
    tensors = {"target": torch.arange(N) % C}
    if name.startswith("linear"):
        tensors |= {
            "input": torch.rand(N, D), "linear_weight": torch.rand(C, D),
            "linear_bias": torch.rand(C),
        }  # fmt: skip
    else:
        tensors["input"] = torch.rand(N, C)
    if name.endswith("cross_entropy"):
        tensors["weight"] = torch.rand(C)
    return {**tensors, **more}


PATHS = {
    "eager": nullcontext,
    "autocast": functools.partial(torch.autocast, "cpu"),
    "operator": operator_path,
    "fallback": fallback_path,
}
CASES = [(name, argument) for name in LOSSES for argument in _arguments(name)]
MESSAGE = (
    "a tensor of shape .* (has no memory: its storage was freed"
    "|reaches beyond its memory: its storage was resized)"
)


@pytest.mark.parametrize("how", ["freed", "cut"])
@pytest.mark.parametrize("view", ["whole", "later rows", "every other"])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("name", "argument"), CASES)
def test_a_tensor_without_its_memory_is_named(name, argument, path, view, how):
    given = _arguments(name)
    given[argument] = _of(given[argument], view)
    message = f"^{argument}: {MESSAGE}"
    with _lost(given[argument], how), PATHS[path](), pytest.raises(ValueError, match=message):
        LOSSES[name](**given)


@pytest.mark.parametrize(("name", "argument"), CASES)
def test_a_tensor_without_its_memory_is_named_under_vmap(name, argument):
    given = _arguments(name)
    mapped = torch.func.vmap(lambda scale: LOSSES[name](**given, logit_scale=scale))
    with _lost(given[argument], "cut"), pytest.raises(ValueError, match=f"{argument}: {MESSAGE}"):
        mapped(torch.ones(2))


@pytest.mark.parametrize(("name", "argument"), CASES)
def test_a_tensor_without_its_memory_is_named_by_compiled_code(name, argument):
    given = _arguments(name)
    compiled = torch.compile(LOSSES[name], backend="eager", fullgraph=True)
    with _lost(given[argument], "freed"), pytest.raises(ValueError, match=f"{argument}: {MESSAGE}"):
        compiled(**given)


# Between forward and backward


def _leaves(name):
    """Arguments whose floating tensors require grad but for the class weights."""
    given = _arguments(name)
    for argument, tensor in given.items():
        if tensor.is_floating_point() and argument != "weight":
            tensor.requires_grad_()
    return given


def _wanted(given):
    return [tensor for tensor in given.values() if tensor.requires_grad]


def _once(function, given):
    """A backward whose gradients are not ready: for an incoming gradient that is not 1."""
    result = function(**given)
    loss = result if isinstance(result, torch.Tensor) else result.nll + result.lse + result.entropy
    return lambda: torch.autograd.grad(loss.sum() * 3, _wanted(given))


def _twice(function, given):
    loss = function(**given)
    grads = torch.autograd.grad(loss.sum(), _wanted(given), create_graph=True)
    total = sum(grad.square().sum() for grad in grads)
    return lambda: torch.autograd.grad(total, _wanted(given))


def _batched(function, given):
    loss = function(**given)
    incoming = torch.eye(N) if loss.dim() else torch.ones(2)
    return lambda: torch.autograd.grad(loss, _wanted(given), incoming, is_grads_batched=True)


BACKWARD = {"once": _once, "twice": _twice, "batched": _batched}


def _reads(name, argument, backward, reduction, operator):
    """Whether there is such a backward, and it reads the argument."""
    if name.endswith("scores"):
        return (backward, reduction) == ("once", "none") and not (operator and "linear" in name)
    if name == "cross_entropy":
        return True
    if operator:
        return (backward, reduction) == ("once", "none")
    if backward == "once":
        return reduction == "none"  # else its gradients are ready
    return (backward, argument) != ("twice", "input")  # of which there is a copy


BACKWARD_CASES = [
    (*case, *others)
    for case in CASES
    for others in itertools.product(BACKWARD, ("none", "sum"), (False, True))
    if _reads(*case, *others)
]


@pytest.mark.parametrize("how", ["freed", "cut"])
@pytest.mark.parametrize(("name", "argument", "backward", "reduction", "operator"), BACKWARD_CASES)
def test_memory_that_is_lost_before_backward_is_named(
    name, argument, backward, reduction, operator, how
):
    function = LOSSES[name]
    if not name.endswith("scores"):
        function = functools.partial(function, reduction=reduction)
    given = _leaves(name)
    if argument == "weight":
        given["weight"] = given["weight"].double()  # what the core takes as it is
    with operator_path() if operator else nullcontext():
        pull = BACKWARD[backward](function, given)
    message = f"^{argument}: {MESSAGE}"
    with _lost(given[argument].detach(), how), pytest.raises(ValueError, match=message):
        pull()


@pytest.mark.parametrize("name", LOSSES)
def test_storage_can_be_freed_after_a_call(name):
    """FSDP frees parameters right after forward, and gradients once they are reduced."""
    given = _leaves(name)
    result = LOSSES[name](**given)
    loss = result if isinstance(result, torch.Tensor) else result.nll.sum()
    grads = torch.autograd.grad(loss, _wanted(given))
    for tensor in (*given.values(), *grads, loss):
        assert tensor.untyped_storage().resizable()


def test_gradients_that_are_ready_need_no_memory_of_the_inputs():
    """As where FSDP frees a head after forward: nothing is read again."""
    for name in ("cross_entropy", "linear_cross_entropy"):
        given = _leaves(name)
        wanted = _wanted(given)
        expected = torch.autograd.grad(LOSSES[name](**given), wanted)
        loss = LOSSES[name](**given)
        with ExitStack() as lost:
            for tensor in wanted:
                lost.enter_context(_lost(tensor.detach(), "freed"))
            grads = torch.autograd.grad(loss, wanted)
        assert all(map(torch.equal, grads, expected))


@pytest.mark.parametrize("how", ["freed", "cut"])
@pytest.mark.parametrize("argument", ["input", "target"])
def test_a_gradient_in_place_needs_the_memory(argument, how):
    logits, target = torch.rand(N, C, requires_grad=True) * 1, torch.arange(N) % C
    loss = ct.cross_entropy(logits, target, inplace_backward=True)
    lost = {"input": logits, "target": target}[argument].detach()
    with _lost(lost, how), pytest.raises(ValueError, match=f"^{argument}: {MESSAGE}"):
        loss.backward()


@pytest.mark.parametrize("how", ["freed", "cut"])
@pytest.mark.parametrize("name", [name for name in LOSSES if "scores" not in name])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_an_incoming_gradient_needs_its_memory(reduction, name, how):
    given = _leaves(name)
    loss = LOSSES[name](**given, reduction=reduction)
    incoming = torch.ones_like(loss)
    message = f"^the incoming gradient: {MESSAGE}"
    with _lost(incoming, how), pytest.raises(ValueError, match=message):
        torch.autograd.grad(loss, _wanted(given), incoming)


@pytest.mark.parametrize("how", ["freed", "cut"])
@pytest.mark.parametrize(
    "name", ["label_smoothing", "z_loss", "softcap", "logit_scale", "normalizer"]
)
def test_options_that_are_tensors_need_their_memory(name, how):
    value = torch.tensor(0.5)
    with _lost(value, how), pytest.raises(ValueError, match=f"^{name}: {MESSAGE}"):
        ct.cross_entropy(torch.zeros(N, C), torch.arange(N), **{name: value})


@pytest.mark.parametrize("how", ["freed", "cut"])
@pytest.mark.parametrize("argument", ["input", "weight"])
def test_what_learns_by_torch_operations_keeps_what_it_needs(argument, how):
    """These keep copies of what callers gave, so that their backward reads nothing that is lost."""
    scale = torch.tensor(0.5, requires_grad=True)
    given = _arguments("cross_entropy")
    soft = torch.rand(N, C, requires_grad=True)

    def gradients(lost=None):
        loss = ct.cross_entropy(given["input"], soft, given["weight"], logit_scale=scale)
        with nullcontext() if lost is None else _lost(given[lost], how):
            return torch.autograd.grad(loss, [scale, soft])

    expected = gradients()
    assert all(map(torch.equal, gradients(argument), expected))

"""torch.func and forward mode: every transform gives what eager autograd gives."""

from __future__ import annotations

import pytest
from torch_cases import FORMS, OPTIONS, problem, torch

import crossent.torch as ct

forward_ad = torch.autograd.forward_ad


def _loss(target, options):
    return lambda a: ct.cross_entropy(a, target, **options)


def _summed(target, options):
    return lambda a: ct.cross_entropy(a, target, **options).sum()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", OPTIONS)
def test_grad_is_that_of_autograd(name, form):
    logits, target, options = problem(form, **OPTIONS[name])
    (expected,) = torch.autograd.grad(_summed(target, options)(logits), logits)
    found = torch.func.grad(_summed(target, options))(logits.detach())
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["plain", "all"])
def test_jvp_agrees_with_the_gradient(name, form):
    logits, target, options = problem(form, **OPTIONS[name])
    direction = torch.randn_like(logits)
    function = _summed(target, options)
    (grad,) = torch.autograd.grad(function(logits), logits)
    _, change = torch.func.jvp(function, (logits.detach(),), (direction,))
    torch.testing.assert_close(change, (grad * direction).sum())
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(logits.detach(), direction)
        change = forward_ad.unpack_dual(function(dual)).tangent
    torch.testing.assert_close(change, (grad * direction).sum())


@pytest.mark.parametrize("form", FORMS)
def test_jacobians_agree_forwards_and_backwards(form):
    logits, target, options = problem(form, **OPTIONS["all"])
    function, point = _loss(target, options), logits.detach()
    backwards, forwards = torch.func.jacrev(function)(point), torch.func.jacfwd(function)(point)
    torch.testing.assert_close(backwards, forwards)
    by_autograd = torch.autograd.functional.jacobian(function, point)
    torch.testing.assert_close(backwards, by_autograd)
    batched = torch.autograd.functional.jacobian(function, point, vectorize=True)
    torch.testing.assert_close(batched, by_autograd)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["plain", "z_loss", "softcap"])
def test_hessian_agrees_with_second_derivatives(name, form):
    logits, target, options = problem(form, (2, 3), **OPTIONS[name])
    function, point = _summed(target, options), logits.detach()
    by_autograd = torch.autograd.functional.hessian(function, point)
    torch.testing.assert_close(torch.func.hessian(function)(point), by_autograd)


def test_vmap_over_rows_is_reduction_none():
    logits, target, _ = problem("index", (6, 5))
    rows = torch.func.vmap(lambda a, t: ct.cross_entropy(a, t, reduction="sum"))(
        logits.detach(), target
    )
    expected = ct.cross_entropy(logits.detach(), target, reduction="none")
    torch.testing.assert_close(rows, expected)


def test_per_sample_gradients():
    logits, target, _ = problem("index", (6, 5))
    one = torch.func.grad(lambda a, t: ct.cross_entropy(a, t, reduction="sum"))
    found = torch.func.vmap(one)(logits.detach(), target)
    loss = ct.cross_entropy(logits, target, reduction="sum")
    torch.testing.assert_close(found, torch.autograd.grad(loss, logits)[0])


def test_vmap_over_models():
    stack, target = torch.randn(3, 4, 5), torch.tensor([0, 1, 2, 3])
    losses = torch.func.vmap(lambda a: ct.cross_entropy(a, target))(stack)
    expected = torch.stack([ct.cross_entropy(a, target) for a in stack])
    torch.testing.assert_close(losses, expected)


def test_labels_are_checked_inside_transforms():
    stack = torch.randn(3, 4, 5)
    with pytest.raises(IndexError, match=r"target\[2\] is 5"):
        torch.func.vmap(lambda a: ct.cross_entropy(a, torch.tensor([0, 1, 5, 3])))(stack)
    with pytest.raises(IndexError, match="is 7"):
        torch.func.vmap(lambda a, t: ct.cross_entropy(a, t))(stack, torch.full((3, 4), 7))


def test_a_learned_scale_inside_transforms():
    logits, target, _ = problem("index")
    point, scale = logits.detach(), torch.tensor(0.7, dtype=torch.float64)
    found = torch.func.grad(lambda s: ct.cross_entropy(point, target, logit_scale=s))(scale)
    scale.requires_grad_()
    loss = ct.cross_entropy(point, target, logit_scale=scale)
    torch.testing.assert_close(found, torch.autograd.grad(loss, scale)[0])


def test_functional_call_of_a_model():
    model, target = torch.nn.Linear(3, 5), torch.tensor([0, 4])
    inputs, criterion = torch.randn(2, 3), ct.CrossEntropyLoss()

    def loss(parameters):
        return criterion(torch.func.functional_call(model, parameters, (inputs,)), target)

    found = torch.func.grad(loss)(dict(model.named_parameters()))
    expected = torch.autograd.grad(criterion(model(inputs), target), list(model.parameters()))
    torch.testing.assert_close(list(found.values()), list(expected))

"""First and second derivatives against finite differences in float64, for every option."""

from __future__ import annotations

import pytest
from covering import covering
from torch_cases import FORMS, OPTIONS, fallback_path, problem, torch

import crossent.torch as ct

gradcheck, gradgradcheck = torch.autograd.gradcheck, torch.autograd.gradgradcheck
PATHS = ("core", "fallback")


def _check(check, function, inputs, path, **options):
    if path == "core":
        assert check(function, inputs, **options)
        return
    with fallback_path():
        assert check(function, inputs, **options)


@covering(name=OPTIONS.keys(), form=FORMS, path=PATHS)
def test_first_derivatives_are_those_of_the_loss(name, form, path):
    logits, target, options = problem(form, (3, 4), **OPTIONS[name])
    function = lambda a: ct.cross_entropy(a, target, **options)  # noqa: E731
    _check(
        gradcheck, function, (logits,), path, check_batched_grad=True,
        check_forward_ad=True, check_batched_forward_grad=True,
    )  # fmt: skip


@covering(name=OPTIONS.keys(), form=FORMS, path=PATHS)
def test_second_derivatives_are_those_of_the_gradient(name, form, path):
    logits, target, options = problem(form, (3, 4), **OPTIONS[name])
    function = lambda a: ct.cross_entropy(a, target, **options)  # noqa: E731
    _check(gradgradcheck, function, (logits,), path, check_batched_grad=True)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 2), (2, 3, 2, 2)])
def test_derivatives_in_other_shapes(shape):
    for form in ("index", "weighted distribution"):
        logits, target, options = problem(form, shape)
        function = lambda a: ct.cross_entropy(a, target, **options)  # noqa: E731
        assert gradcheck(function, (logits,))
        assert gradgradcheck(function, (logits,))


@pytest.mark.parametrize("name", OPTIONS)
def test_soft_targets_get_their_gradient(name):
    logits, target, options = problem("weighted distribution", (3, 4), **OPTIONS[name])
    target.requires_grad_()
    function = lambda a, y: ct.cross_entropy(a, y, **options)  # noqa: E731
    assert gradcheck(function, (logits, target), check_forward_ad=True)
    assert gradgradcheck(function, (logits, target))


def test_one_hot_targets_get_a_gradient_where_they_are_0():
    logits, _, _ = problem("index", (2, 3))
    target = torch.eye(3, dtype=torch.float64)[:2].requires_grad_()
    (grad,) = torch.autograd.grad(ct.cross_entropy(logits, target, reduction="sum"), target)
    torch.testing.assert_close(grad, -torch.log_softmax(logits, 1).detach())


@pytest.mark.parametrize("form", ["weighted index", "weighted distribution"])
@pytest.mark.parametrize("name", OPTIONS)
def test_class_weights_get_their_gradient(name, form):
    logits, target, options = problem(form, (3, 4), **OPTIONS[name])
    weight = options.pop("weight").requires_grad_()
    function = lambda a, w: ct.cross_entropy(a, target, w, **options)  # noqa: E731
    assert gradcheck(function, (logits, weight))
    assert gradgradcheck(function, (logits, weight))


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_a_learned_logit_scale_gets_its_gradient(softcap):
    logits, target, _ = problem("index", (3, 4))
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    function = lambda a, s: ct.cross_entropy(  # noqa: E731
        a, target, logit_scale=s, softcap=softcap
    )
    assert gradcheck(function, (logits, scale), check_forward_ad=True)
    assert gradgradcheck(function, (logits, scale))


@pytest.mark.parametrize("name", ["label_smoothing", "z_loss", "softcap", "normalizer"])
def test_an_option_that_could_not_get_its_gradient_is_refused(name):
    logits, target, _ = problem("index")
    value = torch.tensor(0.5, requires_grad=True)
    with pytest.raises(ValueError, match=f"{name} requires grad"):
        ct.cross_entropy(logits, target, **{name: value})
    plain = ct.cross_entropy(logits, target, **{name: 0.5})
    assert torch.equal(ct.cross_entropy(logits, target, **{name: value.detach()}), plain)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["plain", "softcap", "logit_scale"])
def test_scores_have_their_gradients(name, path):
    logits, target, options = problem("index", (3, 4), **OPTIONS[name])
    function = lambda a: ct.token_scores(a, target, **options)[:3]  # noqa: E731
    _check(gradcheck, function, (logits,), path, check_forward_ad=True)
    _check(gradgradcheck, function, (logits,), path)
    for k in range(3):
        one = lambda a: ct.token_scores(a, target, **options)[k]  # noqa: E731
        _check(gradcheck, one, (logits,), path)


def test_third_derivatives_follow():
    logits, target, _ = problem("index", (2, 3))
    loss = ct.cross_entropy(logits, target, z_loss=0.1)
    (first,) = torch.autograd.grad(loss, logits, create_graph=True)
    (second,) = torch.autograd.grad(first.pow(2).sum(), logits, create_graph=True)
    (third,) = torch.autograd.grad(second.pow(2).sum(), logits)
    expected = torch.func.grad(
        lambda a: (
            torch.func.grad(
                lambda b: torch.func.grad(_written_out(target))(b).pow(2).sum()
            )(a).pow(2).sum()
        )
    )(logits.detach())  # fmt: skip
    torch.testing.assert_close(third, expected)


def _written_out(target):
    def loss(a):
        lse = a.logsumexp(1)
        kept = target != -100
        nll = lse - a.gather(1, torch.where(kept, target, 0)[:, None])[:, 0]
        return torch.where(kept, nll + 0.1 * lse**2, 0.0).sum() / kept.sum()

    return loss

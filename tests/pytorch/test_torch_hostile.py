"""What callers may do to the tensors of a loss: the right gradient or an error, never a wrong one."""

from __future__ import annotations

import pytest
from torch.autograd.graph import saved_tensors_hooks
from torch_cases import torch

import crossent.torch as ct
from crossent.options import Options

N, C, D = 6, 5, 4
LABELS = torch.arange(N) % C


def _leaf(rows=N, columns=C, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator).requires_grad_()


def _negative(tensor):
    """The same values, held as their negatives beside a bit that says so."""
    return torch._neg_view(-tensor)


def _loss(incoming):
    logits = _leaf()
    loss = ct.cross_entropy(logits, LABELS, reduction="none")
    return torch.autograd.grad(loss, logits, incoming)[0]


def _linear(incoming):
    hidden = _leaf(columns=D)
    loss = ct.linear_cross_entropy(hidden, _leaf(C, D, 1), LABELS, reduction="none")
    return torch.autograd.grad(loss, hidden, incoming)[0]


def _scores(incoming):
    logits = _leaf()
    scores = ct.token_scores(logits, LABELS)
    return torch.autograd.grad(scores[:3], logits, [incoming] * 3)[0]


def _product(incoming):
    logits = _leaf()
    loss = ct.cross_entropy(logits, LABELS)
    (grad,) = torch.autograd.grad(loss, logits, create_graph=True)
    vector = incoming.unsqueeze(1) * torch.arange(C)
    vector = _negative(vector) if incoming.is_neg() else vector
    return torch.autograd.grad(grad, logits, vector)[0]


INCOMING = torch.linspace(0.5, 2, N)
GIVEN = {
    "a negative's view": _negative(INCOMING),
    "sparse": INCOMING.to_sparse(),
    "strided": torch.stack([INCOMING, INCOMING * 0], 1)[:, 0],
    "float64": INCOMING.double(),
}


DENSE = [name for name in GIVEN if name != "sparse"]


@pytest.mark.parametrize(
    ("backward", "given"),
    [(backward, given) for backward in (_loss, _linear) for given in GIVEN]
    + [(backward, given) for backward in (_scores, _product) for given in DENSE],
)
def test_an_incoming_gradient_of_any_form_means_its_values(backward, given):
    torch.testing.assert_close(backward(GIVEN[given]), backward(INCOMING))


@pytest.mark.parametrize(
    "view",
    [lambda x: x.as_strided((N, C), (1, 1)), lambda x: x.unfold(0, C, 2),
     lambda x: x[:C].expand(N, C)],
)  # fmt: skip
def test_no_gradient_is_written_over_rows_that_share_memory(view):
    logits = view(torch.randn(20, requires_grad=True) * 1)
    labels = torch.zeros(len(logits), dtype=torch.int64)
    with pytest.raises(ValueError, match="has elements that share memory"):
        ct.cross_entropy(logits, labels, inplace_backward=True)


FLAWS = {
    "half": lambda t: t.half() if t.is_floating_point() else t,
    "shorter": lambda t: t[:1],
    "labels as numbers": lambda t: t if t.is_floating_point() else t.float(),
    "without memory": lambda t: t.to("meta"),
    "flat": lambda t: t.flatten() if t.dim() > 1 else t[:2],
}


@pytest.mark.parametrize("reduction", ["none", "sum"])
@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("flaw", FLAWS)
def test_a_hook_that_gives_back_another_tensor_is_named(flaw, linear, reduction):
    weight = torch.rand(C, dtype=torch.float64)
    with saved_tensors_hooks(lambda t: t, FLAWS[flaw]):
        if linear:
            loss = ct.linear_cross_entropy(
                _leaf(columns=D), _leaf(C, D), LABELS, weight=weight, reduction=reduction
            )
        else:
            loss = ct.cross_entropy(_leaf(), LABELS, weight, reduction=reduction)
    with pytest.raises(ValueError, match=r"^a hook on saved tensors gave back .* must undo"):
        loss.sum().backward()


def test_a_hook_may_give_back_the_same_values_elsewhere():
    def elsewhere(tensor):
        return torch.stack([_negative(tensor), tensor * 0], -1)[..., 0]

    weight = torch.rand(C, dtype=torch.float64)
    grads = []
    for unpack in (lambda t: t, elsewhere):
        logits = _leaf()
        with saved_tensors_hooks(lambda t: t, unpack):
            loss = ct.cross_entropy(logits, LABELS, weight)
        loss.backward()
        grads.append(logits.grad)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("target", [LABELS, torch.ones(N, C)])
def test_a_target_whose_data_was_replaced_by_less_is_an_error(target, linear):
    target = target.clone()
    if linear:
        loss = ct.linear_cross_entropy(_leaf(columns=D), _leaf(C, D), target, reduction="none")
    else:
        loss = ct.cross_entropy(_leaf(), target, reduction="none")
    target.data = target[:1].clone()
    with pytest.raises(ValueError, match="^target no longer fits an input of shape"):
        loss.sum().backward()


# The operators, as anyone may call them

OPERATORS = torch.ops.crossent
LOGITS, HIDDEN, HEAD = _leaf().detach(), _leaf(columns=D).detach(), _leaf(C, D).detach()
MEAN, NONE = Options(), Options(reduction="none")
ONE, ALL = torch.ones(()), [True] * 3
MISUSES = {
    "short labels": lambda: OPERATORS.cross_entropy(LOGITS, LABELS[:1], None, *MEAN),
    "short weights": lambda: OPERATORS.cross_entropy(LOGITS, LABELS, torch.ones(1), *MEAN),
    "no reduction": lambda: OPERATORS.cross_entropy(
        LOGITS, LABELS, None, *MEAN._replace(reduction="some")
    ),
    "short gradient": lambda: OPERATORS.cross_entropy_grad(
        torch.ones(1), LOGITS, LABELS, None, *NONE
    ),
    "short vector": lambda: OPERATORS.cross_entropy_hvp(
        LOGITS[:1], ONE, LOGITS, LABELS, None, *MEAN
    ),
    "scores of distributions": lambda: OPERATORS.token_scores(LOGITS, LOGITS, *NONE),
    "short gradient of scores": lambda: OPERATORS.token_scores_grad(
        torch.ones(1), None, None, LOGITS, LABELS, *NONE
    ),
    "short labels of a layer": lambda: OPERATORS.linear_cross_entropy(
        HIDDEN, HEAD, None, LABELS[:1], None, ALL, *MEAN
    ),
    "short bias": lambda: OPERATORS.linear_cross_entropy(
        HIDDEN, HEAD, torch.ones(1), LABELS, None, ALL, *MEAN
    ),
    "short gradient of a layer": lambda: OPERATORS.linear_cross_entropy_grad(
        torch.ones(1), [], HIDDEN, HEAD, None, LABELS, None, ALL, *NONE
    ),
    "short labels of scores": lambda: OPERATORS.linear_token_scores(
        HIDDEN, HEAD, None, LABELS[:1], *NONE
    ),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_an_operator_refuses_what_does_not_go_together(misuse):
    with pytest.raises(ValueError):  # noqa: PT011
        MISUSES[misuse]()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_a_nested_target_is_named():
    nested = torch.nested.nested_tensor([torch.ones(C), torch.ones(C)])
    with pytest.raises(TypeError, match="^target is a nested tensor"):
        ct.cross_entropy(LOGITS[:2], nested)


def test_a_layer_without_features_has_even_logits():
    loss = ct.linear_cross_entropy(torch.zeros(N, 0), torch.zeros(C, 0), LABELS)
    torch.testing.assert_close(loss, torch.tensor(float(C)).log())

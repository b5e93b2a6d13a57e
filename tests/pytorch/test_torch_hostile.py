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


class _Changes:
    """A number that, when it is asked for its value, puts other data in a tensor's place."""

    def __init__(self, tensor, data):
        self.tensor, self.data = tensor, data

    def __float__(self):
        self.tensor.data = self.data
        return 0.5


@pytest.mark.parametrize("function", [ct.cross_entropy, ct.token_scores])
@pytest.mark.parametrize("changed", ["input", "target", "dtype"])
def test_a_tensor_that_a_number_changes_is_an_error(function, changed):
    logits, target = torch.zeros(N, C), torch.zeros(N, dtype=torch.int64)
    number = {
        "input": _Changes(logits, torch.zeros(N + 1, C)),
        "target": _Changes(target, torch.zeros(1, dtype=torch.int64)),
        "dtype": _Changes(logits, torch.zeros(N, C, dtype=torch.int32)),
    }[changed]
    with pytest.raises(ValueError, match="no longer the one that was checked"):
        function(logits, target, logit_scale=number)


def test_a_target_that_a_number_changes_is_an_error_of_the_linear_form():
    target = torch.zeros(N, dtype=torch.int64)
    number = _Changes(target, torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="^targets: its shape or dtype"):
        ct.linear_cross_entropy(torch.zeros(N, D), torch.zeros(C, D), target, z_loss=number)


def test_class_weights_that_a_number_changes_are_an_error():
    weight = torch.ones(C, dtype=torch.float64)
    number = _Changes(weight, torch.ones(1, dtype=torch.float64))
    with pytest.raises(ValueError, match="^weight: its shape or dtype"):
        ct.cross_entropy(torch.zeros(N, C), LABELS, weight, z_loss=number)


@pytest.mark.parametrize("ignore_index", [2**64 - 1, 2**64, -(2**63) - 1])
@pytest.mark.parametrize("count", [1, 2])
def test_derivatives_know_ignored_labels_that_are_no_int64(ignore_index, count):
    """What forward takes backward takes: the scores', and second derivatives of the loss."""
    labels = LABELS.to(torch.uint64)
    if ignore_index == 2**64 - 1:
        labels = torch.tensor([0, 1, 2, 3, 4, ignore_index], dtype=torch.uint64)
    plain = labels.to(torch.int64)  # of which the ignored is -1
    found = []
    for target, ignored in ((labels, ignore_index), (plain, -1)):
        logits = _leaf()
        if count == 1:
            scores = ct.token_scores(logits, target, ignore_index=ignored)
            loss = scores.nll.sum() + scores.entropy.sum()
            found.append(torch.autograd.grad(loss, logits, create_graph=True)[0])
        else:
            loss = ct.cross_entropy(logits, target, ignore_index=ignored)
            (grad,) = torch.autograd.grad(loss, logits, create_graph=True)
            found.append(
                torch.autograd.grad(grad.sum() + grad.square().sum(), logits, create_graph=True)[0]
            )
    assert torch.equal(*found)


def test_a_loss_beyond_float32_is_infinite_in_the_linear_form():
    layer = torch.ones(N, D), torch.ones(C, D), LABELS
    assert ct.linear_cross_entropy(*layer, normalizer=1e-300) == torch.inf


_PLAIN = Options()


def test_an_operator_of_scores_gives_every_row_whatever_the_reduction():
    logits = _leaf().detach()
    for reduction in ("none", "mean", "sum"):
        found = torch.ops.crossent.token_scores(
            logits, LABELS, *_PLAIN._replace(reduction=reduction)
        )
        assert all(map(torch.equal, found, ct.token_scores(logits, LABELS)))
        layer = logits, torch.eye(C), None, LABELS
        found = torch.ops.crossent.linear_token_scores(
            *layer, *_PLAIN._replace(reduction=reduction)
        )
        assert all(map(torch.equal, found, ct.linear_token_scores(logits, torch.eye(C), LABELS)))


def test_an_operator_s_gradient_of_scores_checks_what_it_is_given():
    grad = torch.ops.crossent.token_scores_grad
    with pytest.raises(ValueError, match="no classes"):
        grad(torch.ones(N), None, None, torch.zeros(N, 0), LABELS, *_PLAIN)
    with pytest.raises(ValueError, match=r"incoming gradient has shape \(1,\)"):
        grad(None, None, torch.ones(1), _leaf().detach(), LABELS, *_PLAIN)


def test_an_operator_s_vector_is_not_broadcast():
    with pytest.raises(ValueError, match=r"vector has shape \(5,\)"):
        torch.ops.crossent.cross_entropy_along(
            torch.ones(C), _leaf().detach(), LABELS, None, *_PLAIN
        )


def test_an_incoming_gradient_that_is_not_real_is_named_by_its_dtype():
    options = _PLAIN._replace(reduction="none")
    incoming = torch.ones(N, dtype=torch.complex64)
    with pytest.raises(TypeError, match=r"dtype torch\.complex64; it must hold real numbers"):
        torch.ops.crossent.cross_entropy_grad(incoming, _leaf().detach(), LABELS, None, *options)

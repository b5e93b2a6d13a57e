"""What autograd does with the loss in eager mode on the CPU."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest
from torch_cases import FORMS, OPTIONS, problem, torch

import crossent
import crossent.torch as ct

F = torch.nn.functional
checkpoint = torch.utils.checkpoint.checkpoint


def _reference_grad(logits, target, incoming, **options):
    """What the NumPy front-end gives: the same core, so the same bits."""
    options = {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    if torch.is_tensor(incoming) and incoming.dim() == 0:
        incoming = incoming.item()
    elif torch.is_tensor(incoming):
        incoming = incoming.numpy()
    loss, grad = crossent.cross_entropy_and_grad(
        logits.detach().numpy(), target.detach().numpy(), axis=min(1, logits.dim() - 1),
        grad_loss=incoming, **options,
    )  # fmt: skip
    return torch.as_tensor(np.asarray(loss)), torch.from_numpy(grad)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("shape", [(7,), (6, 5), (3, 70, 4), (2, 1000)])
def test_bits_are_those_of_the_numpy_front_end(shape, name, form):
    logits, target, options = problem(form, shape, torch.float32, **OPTIONS[name])
    loss = ct.cross_entropy(logits, target, **options)
    for incoming in (torch.ones_like(loss), torch.randn_like(loss)):
        (grad,) = torch.autograd.grad(loss, logits, incoming, retain_graph=True)
        expected_loss, expected = _reference_grad(logits, target, incoming, **options)
        assert torch.equal(loss.detach(), expected_loss)
        assert torch.equal(grad, expected)


def test_a_second_backward_gives_the_same_gradient():
    logits, target, _ = problem("index")
    loss = ct.cross_entropy(logits, target)
    loss.backward(retain_graph=True)
    first = logits.grad.clone()
    logits.grad.zero_()
    loss.backward()
    assert torch.equal(logits.grad, first)


def test_gradients_handed_out_are_not_shared():
    logits, target, _ = problem("index")
    loss = ct.cross_entropy(logits, target)
    (first,) = torch.autograd.grad(loss, logits, retain_graph=True)
    kept = first.clone()
    first.zero_()
    (second,) = torch.autograd.grad(loss, logits)
    assert torch.equal(second, kept)


def test_a_backward_after_the_graph_is_gone_is_pytorchs_error():
    logits, target, _ = problem("index")
    loss = ct.cross_entropy(logits, target)
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_targets_changed_before_backward_are_noticed():
    logits, target, _ = problem("index")
    loss = ct.cross_entropy(logits, target)
    target.zero_()
    with pytest.raises(RuntimeError, match="inplace"):
        (loss * 2).backward()


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_create_graph_gives_the_bits_of_backward(reduction):
    logits, target, _ = problem("index", dtype=torch.float32)
    loss = ct.cross_entropy(logits, target, reduction=reduction).sum()
    (plain,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (graphed,) = torch.autograd.grad(loss, logits, create_graph=True)
    assert torch.equal(plain, graphed)
    assert graphed.requires_grad


def test_gradient_penalty_trains():
    logits, target, _ = problem("index")
    (grad,) = torch.autograd.grad(ct.cross_entropy(logits, target), logits, create_graph=True)
    grad.pow(2).sum().backward()
    reference = logits.detach().clone().requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(reference, target), reference, create_graph=True)
    grad.pow(2).sum().backward()
    torch.testing.assert_close(logits.grad, reference.grad)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_nothing_is_saved_and_input_is_not_written(mode):
    logits, target, _ = problem("index")
    before, version = logits.detach().clone(), logits._version
    with mode():
        loss = ct.cross_entropy(logits, target, inplace_backward=True)
        scores = ct.token_scores(logits, target)
    assert loss.grad_fn is None
    assert scores.nll.grad_fn is None
    assert torch.equal(logits, before)
    assert logits._version == version


def test_a_frozen_input_needs_no_graph():
    logits, target, _ = problem("index")
    assert not ct.cross_entropy(logits.detach(), target).requires_grad


def test_inference_tensors_are_inputs_too():
    with torch.inference_mode():
        logits = torch.randn(3, 4)
        target = torch.tensor([0, 1, 2])
    assert torch.isfinite(ct.cross_entropy(logits, target))


LAYOUTS = {
    "transposed": lambda a: a.t().contiguous().t(),
    "sliced": lambda a: torch.stack((a, a), 2)[..., 1],
    "flipped columns": lambda a: a.flip(1)[:, torch.arange(a.shape[1] - 1, -1, -1)],
    "expanded": lambda a: a[:1].expand(a.shape),
    "offset": lambda a: torch.cat((a.flatten()[:1], a.flatten()))[1:].view(a.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", ["index", "distribution"])
def test_layouts_of_the_input(layout, form):
    base, target, _ = problem(form, (6, 5))
    logits = LAYOUTS[layout](base)
    loss = ct.cross_entropy(logits, target)
    (grad,) = torch.autograd.grad(loss, base, retain_graph=True)
    expected = ct.cross_entropy(logits.detach().contiguous(), target)
    assert torch.equal(loss.detach(), expected)
    expected = torch.autograd.grad(F.cross_entropy(LAYOUTS[layout](base), target), base)[0]
    torch.testing.assert_close(grad, expected)


def test_channels_last_images_have_channels_last_gradients():
    images = torch.randn(2, 5, 4, 3).contiguous(memory_format=torch.channels_last)
    images.requires_grad_()
    target = torch.randint(0, 5, (2, 4, 3))
    ct.cross_entropy(images, target).backward()
    assert images.grad.is_contiguous(memory_format=torch.channels_last)
    plain = images.detach().contiguous().requires_grad_()
    ct.cross_entropy(plain, target).backward()
    assert torch.equal(images.grad, plain.grad)


def test_strided_and_negated_views_of_complex_numbers():
    numbers = torch.randn(4, 5, dtype=torch.complex64)
    target = torch.randint(0, 5, (4,))
    negated = numbers.conj().imag
    assert negated.is_neg()
    expected = ct.cross_entropy(negated.resolve_neg(), target)
    assert torch.equal(ct.cross_entropy(negated, target), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_logits_have_a_float32_loss_and_a_half_gradient(dtype):
    logits, target, _ = problem("index", (6, 5), dtype)
    loss = ct.cross_entropy(logits, target)
    loss.backward()
    assert loss.dtype is torch.float32
    assert logits.grad.dtype is dtype


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_trains_as_pytorch_does(dtype):
    layer, target = torch.nn.Linear(8, 5), torch.randint(0, 5, (6,))
    inputs = torch.randn(6, 8)
    losses, grads = [], []
    for function in (F.cross_entropy, ct.cross_entropy):
        layer.zero_grad()
        with torch.autocast("cpu", dtype=dtype):
            loss = function(layer(inputs).float(), target)
            direct = ct.cross_entropy(layer(inputs), target)
        loss.backward()
        losses.append(loss.detach())
        grads.append(layer.weight.grad.clone())
        assert direct.dtype is torch.float32
        torch.testing.assert_close(direct, loss)
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*grads, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointed_losses_have_the_same_gradient(use_reentrant):
    logits, target, _ = problem("index")
    (expected,) = torch.autograd.grad(ct.cross_entropy(logits.exp(), target), logits)
    loss = checkpoint(
        lambda a: ct.cross_entropy(a.exp(), target), logits, use_reentrant=use_reentrant
    )
    loss.backward()
    assert torch.equal(logits.grad, expected)


def test_under_hooks_on_saved_tensors_all_that_is_kept_goes_through_them():
    logits, target, _ = problem("index")
    packed = []

    def pack(tensor):
        packed.append(tensor)
        return tensor.clone()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = ct.cross_entropy(logits, target)
    assert loss.grad_fn.grad is None
    assert any(tensor is logits for tensor in packed)
    loss.backward()
    (expected,) = torch.autograd.grad(ct.cross_entropy(logits, target), logits)
    assert torch.equal(logits.grad, expected)


def test_anomaly_mode_and_hooks_on_tensors():
    logits, target, _ = problem("index")
    hidden = logits * 1.0
    seen = []
    hidden.register_hook(seen.append)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # anomaly mode says that it is on
        with torch.autograd.detect_anomaly():
            ct.cross_entropy(hidden, target).backward()
    assert torch.equal(seen[0], logits.grad)


def test_modules_copy_pickle_and_keep_their_state():
    criterion = ct.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0]), softcap=4.0, z_loss=0.1)
    logits, target = torch.randn(5, 3), torch.randint(0, 3, (5,))
    expected = criterion(logits, target)
    assert isinstance(criterion, torch.nn.CrossEntropyLoss)
    for twin in (copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))):
        assert torch.equal(twin(logits, target), expected)
    other = ct.CrossEntropyLoss(torch.ones(3), softcap=4.0, z_loss=0.1)
    other.load_state_dict(criterion.state_dict())
    assert list(criterion.state_dict()) == ["weight"]
    assert torch.equal(other(logits, target), expected)


def test_a_parameter_as_logit_scale_is_learned():
    criterion = ct.CrossEntropyLoss(logit_scale=torch.nn.Parameter(torch.tensor(0.5)))
    assert [name for name, _ in criterion.named_parameters()] == ["logit_scale"]
    criterion(torch.randn(5, 3), torch.randint(0, 3, (5,))).backward()
    assert criterion.logit_scale.grad.abs() > 0


def test_legacy_reductions_are_pytorchs():
    logits, target, _ = problem("index")
    with pytest.warns(UserWarning, match="size_average and reduce"):
        summed = ct.cross_entropy(logits, target, size_average=False)
    assert torch.equal(summed, ct.cross_entropy(logits, target, reduction="sum"))


def test_subclasses_keep_their_type():
    class Tagged(torch.Tensor):
        pass

    logits = torch.randn(4, 5).as_subclass(Tagged)
    target = torch.randint(0, 5, (4,))
    loss = ct.cross_entropy(logits, target)
    assert type(loss) is Tagged
    assert torch.equal(
        loss.as_subclass(torch.Tensor), ct.cross_entropy(logits.as_subclass(torch.Tensor), target)
    )


def test_a_default_device_does_not_move_anything():
    logits, target, _ = problem("index")
    with torch.device("meta"):
        loss = ct.cross_entropy(logits, target)
    loss.backward()
    assert loss.device.type == logits.grad.device.type == "cpu"

"""PyTorch's own cases for its cross-entropy, run against ours.

Sample inputs, module inputs and error inputs come from torch.testing._internal. What differs on
purpose is listed in test_differences.py.
"""

from __future__ import annotations

import inspect
import math

import pytest
from torch_cases import fallback_path, torch

import crossent.torch as ct
from crossent.options import DEFAULTS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
invocations = pytest.importorskip("torch.testing._internal.common_methods_invocations")
modules = pytest.importorskip("torch.testing._internal.common_modules")

F = torch.nn.functional
FLOATS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
WIDER = {torch.bfloat16: torch.float32, torch.float16: torch.float32}


def _samples(dtype):
    torch.manual_seed(0)
    for sample in invocations.sample_inputs_cross_entropy(None, "cpu", dtype, True):
        yield sample.input, sample.args[0], sample.kwargs


@pytest.mark.parametrize("path", ["core", "fallback"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_sample_inputs_give_pytorchs_loss_and_gradients(dtype, path):
    count = 0
    for logits, target, options in _samples(dtype):
        wide = WIDER.get(dtype, dtype)
        inputs = [t for t in (logits, target) if t.requires_grad]
        expected_inputs = [t.detach().to(wide).requires_grad_() for t in inputs]
        expected_target = expected_inputs[1] if len(inputs) > 1 else target
        expected_options = {
            k: v.to(wide) if isinstance(v, torch.Tensor) else v for k, v in options.items()
        }
        expected = F.cross_entropy(expected_inputs[0], expected_target, **expected_options)
        if path == "core":
            found = ct.cross_entropy(logits, target, **options)
        else:
            with fallback_path():
                found = ct.cross_entropy(logits, target, **options)
        assert found.dtype is wide
        torch.testing.assert_close(found, expected)
        incoming = torch.rand_like(expected)
        grads = torch.autograd.grad(found, inputs, incoming)
        expected_grads = torch.autograd.grad(expected, expected_inputs, incoming)
        for grad, true in zip(grads, expected_grads, strict=True):
            torch.testing.assert_close(grad, true.to(dtype))
        count += 1
    assert count == 21


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("training", [True, False])
def test_module_inputs_give_pytorchs_loss(training, dtype):
    torch.manual_seed(0)
    cases = modules.module_inputs_torch_nn_CrossEntropyLoss(
        None, device="cpu", dtype=dtype, requires_grad=True, training=training
    )
    for case in cases:
        options = dict(case.constructor_input.kwargs)
        found = ct.CrossEntropyLoss(**options).train(training)(*case.forward_input.args)
        expected = torch.nn.CrossEntropyLoss(**options)(*case.forward_input.args)
        torch.testing.assert_close(found, expected, equal_nan=True, msg=case.desc)
    assert len(cases) > 50


ERROR_CASES = modules.module_error_inputs_torch_nn_CrossEntropyLoss(
    None, device="cpu", dtype=torch.float32, requires_grad=False, training=True
)
# What is an error there and here, with the type that ours has; None: works here, on purpose.
OURS = {
    "Expected floating point type for target with class probabilities": None,
    "expected target dtype to be Long or Byte": TypeError,
    "Expected input batch_size .* to match target batch_size": ValueError,
    "weight tensor should be defined either for all .* classes or no classes": ValueError,
    "ignore_index is not supported for floating point target": ValueError,
    "label_smoothing must be between 0.0 and 1.0": ValueError,
    "Expected target size": ValueError,
}


@pytest.mark.parametrize("case", ERROR_CASES, ids=lambda case: case.error_regex)
def test_error_inputs_are_errors(case):
    options = case.module_error_input.constructor_input.kwargs
    inputs = case.module_error_input.forward_input.args
    expected = OURS[case.error_regex]
    criterion = ct.CrossEntropyLoss(**options)
    if expected is None:
        assert torch.isfinite(criterion(*inputs))
        return
    with pytest.raises(expected):
        criterion(*inputs)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(ct.cross_entropy, F.cross_entropy), (ct.CrossEntropyLoss, torch.nn.CrossEntropyLoss)],
)
def test_arguments_have_pytorchs_names_order_and_defaults(ours, theirs):
    mine, given = (list(inspect.signature(f).parameters.values()) for f in (ours, theirs))
    for parameter, model in zip(mine, given, strict=False):
        assert (parameter.name, parameter.default) == (model.name, model.default)
    for extra in mine[len(given) :]:
        assert extra.kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize(
    "function",
    [
        ct.cross_entropy,
        ct.CrossEntropyLoss,
        ct.linear_cross_entropy,
        ct.LinearCrossEntropyLoss,
    ],
)
def test_every_option_is_taken_by_its_name_and_with_its_default(function):
    taken = inspect.signature(function).parameters
    defaults = {name: taken[name].default for name in DEFAULTS}
    if defaults["ignore_index"] is None:  # as in PyTorch's linear form
        defaults["ignore_index"] = DEFAULTS["ignore_index"]
    assert defaults == DEFAULTS


def test_modules_hand_every_option_on():
    chosen = {
        "ignore_index": 1, "reduction": "mean", "label_smoothing": 0.1, "z_loss": 0.01,
        "softcap": 3.0, "logit_scale": 0.7, "normalizer": 5.0, "when_empty": "zero",
    }  # fmt: skip
    assert set(chosen) == set(DEFAULTS)
    logits, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 1])
    criterion = ct.CrossEntropyLoss(**chosen)
    assert torch.equal(criterion(logits, target), ct.cross_entropy(logits, target, **chosen))
    criterion = ct.LinearCrossEntropyLoss(3, 5, **chosen)
    expected = ct.linear_cross_entropy(logits, criterion.linear.weight, target, **chosen)
    assert torch.equal(criterion(logits, target), expected)


@pytest.mark.parametrize(
    ("shape", "target", "hint"),
    [
        ((2, 7, 5), (2, 7), r"classes on dim 2, input.movedim\(2, 1\)"),
        ((2, 5), (2, 1), r"target.squeeze\(-1\)"),
        ((2, 7, 5), (14,), r"input.flatten\(0, 1\)"),
        ((2, 5), (3,), r"\(2,\) \(class indices\)"),
    ],
)
def test_shapes_that_do_not_fit_say_how_they_would(shape, target, hint):
    with pytest.raises(ValueError, match=hint):
        ct.cross_entropy(torch.zeros(shape), torch.zeros(target, dtype=torch.int64))


def test_a_bad_label_is_named():
    logits = torch.zeros(2, 5, 3)
    target = torch.zeros(2, 3, dtype=torch.int64)
    target[1, 2] = 5
    message = r"target\[1, 2\] is 5 \(row 5\), not a class: labels start at 0, so 5 classes"
    with pytest.raises(IndexError, match=message):
        ct.cross_entropy(logits, target)
    with fallback_path(), pytest.raises(IndexError, match=message):
        ct.cross_entropy(logits, target)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((torch.zeros(2, 3, dtype=torch.int64), torch.tensor([0, 1])), TypeError, "input.float"),
        ((torch.zeros(2, 3, dtype=torch.complex64), torch.tensor([0, 1])), TypeError, "complex"),
        ((torch.zeros(()), torch.tensor(0)), ValueError, "single number"),
        ((torch.zeros(2, 0), torch.tensor([0, 1])), ValueError, "no classes"),
        (([[0.0]], torch.tensor([0])), TypeError, "input must be a tensor, not list"),
        ((torch.zeros(1, 2), [0]), TypeError, "target must be a tensor, not list"),
        ((torch.zeros(1, 2), torch.tensor([0]), [1.0, 1.0]), TypeError, "weight must be a tensor"),
        (
            (torch.zeros(1, 2), torch.tensor([0]), torch.tensor([1.0, math.nan])),
            ValueError,
            "weight",
        ),
        ((torch.zeros(1, 2), torch.tensor([0]), torch.ones(3)), ValueError, r"shape \(2,\)"),
        (
            (torch.zeros(1, 2), torch.zeros(1, device="meta").long()),
            ValueError,
            "on cpu and target",
        ),
    ],
)
def test_wrong_arguments_are_named(arguments, error, match):
    with pytest.raises(error, match=match):
        ct.cross_entropy(*arguments)


@pytest.mark.parametrize("path", ["core", "fallback"])
def test_a_mean_over_nothing_is_what_when_empty_says(path):
    logits, target = torch.zeros(2, 3, requires_grad=True), torch.full((2,), -100)

    def call(**options):
        if path == "core":
            return ct.cross_entropy(logits, target, **options)
        with fallback_path():
            return ct.cross_entropy(logits, target, **options)

    assert torch.isnan(call())
    assert call(when_empty="zero") == 0
    with pytest.raises(ValueError, match="nothing to divide by"):
        call(when_empty="raise")
    for options in ({}, {"when_empty": "zero"}, {"z_loss": 0.1}):
        (grad,) = torch.autograd.grad(call(**options), logits)
        assert torch.equal(grad, torch.zeros(2, 3))


def _nested():
    rows = [torch.zeros(2), torch.zeros(2)]
    return torch.nested.nested_tensor(rows, layout=torch.jagged)


LAYOUTS = {
    "sparse": (lambda: torch.zeros(2, 3).to_sparse(), "torch.sparse_coo tensor.*input.to_dense"),
    "mkldnn": (lambda: torch.zeros(2, 3).to_mkldnn(), "torch._mkldnn tensor.*input.to_dense"),
    "nested": (_nested, "input is a nested tensor.*to_padded_tensor"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_tensors_without_strides_are_named(name):
    make, message = LAYOUTS[name]
    for function in (ct.cross_entropy, ct.token_scores):
        with pytest.raises(TypeError, match=message):
            function(make(), torch.tensor([0, 1]))
    if name != "nested":
        with pytest.raises(TypeError, match=message.replace("input", "linear_weight")):
            ct.linear_cross_entropy(torch.zeros(4, 3), make(), torch.tensor([0, 1, 0, 1]))


@pytest.mark.parametrize("name", ["sparse", "mkldnn"])
def test_targets_without_strides_are_named(name):
    target = LAYOUTS[name][0]()
    with pytest.raises(TypeError, match="target is a torch.*target.to_dense"):
        ct.cross_entropy(torch.zeros(2, 3), target)


@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning", "ignore::DeprecationWarning")
def test_quantized_logits_are_named():
    quantized = torch.quantize_per_tensor(torch.zeros(2, 3), 1.0, 0, torch.qint8)
    with pytest.raises(TypeError, match="input has dtype torch.qint8; it must be float64"):
        ct.cross_entropy(quantized, torch.tensor([0, 1]))


def test_freed_memory_is_an_error_not_read():
    """As FSDP leaves parameters between uses: a tensor without storage."""
    logits, target, head = torch.zeros(2, 3), torch.tensor([0, 1]), torch.zeros(5, 3)
    freed = torch.zeros(4, 3)[2:]  # an address that is not 0
    freed.untyped_storage().resize_(0)
    for function in (ct.cross_entropy, ct.token_scores):
        with pytest.raises(ValueError, match=r"a tensor of shape \(2, 3\) has no memory"):
            function(freed, target)
    for tensors in ((freed, head), (logits, freed)):
        for function in (ct.linear_cross_entropy, ct.linear_token_scores):
            with pytest.raises(ValueError, match="has no memory"):
                function(*tensors, target)
    freed_target = torch.zeros(2, dtype=torch.int64)
    freed_target.untyped_storage().resize_(0)
    for call in (lambda: ct.cross_entropy(logits, freed_target),
                 lambda: ct.linear_cross_entropy(logits, head, freed_target)):  # fmt: skip
        with pytest.raises(ValueError, match=r"a tensor of shape \(2,\) has no memory"):
            call()
    empty = torch.zeros(0, 3)
    assert torch.isnan(ct.cross_entropy(empty, torch.zeros(0, dtype=torch.int64)))


def test_integer_targets_of_a_single_row_are_one_hot():
    logits = torch.tensor([0.5, 0.0, 1.0])
    expected = ct.cross_entropy(logits, torch.tensor(2))
    assert ct.cross_entropy(logits, torch.tensor([0, 0, 1])) == expected
    assert ct.cross_entropy(logits, torch.tensor([False, False, True])) == expected
    with pytest.raises(ValueError, match=r"one row of 3 classes: .* stack \[0, z\]"):
        ct.cross_entropy(logits, torch.tensor([0, 1, 1]))

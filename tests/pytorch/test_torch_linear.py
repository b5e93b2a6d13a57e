"""The linear form from PyTorch: against whole logits, PyTorch's own samples, every derivative.

N rows, D features, C classes.
"""

from __future__ import annotations

import gc
import inspect
import os
import warnings
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
from covering import covering
from test_torch_memory import _extra_peak
from torch_cases import OPTIONS, fallback_path, torch

import crossent
import crossent.torch as ct
from crossent import _blocks
from crossent.options import Options

invocations = pytest.importorskip("torch.testing._internal.common_methods_invocations")

F = torch.nn.functional
FLOATS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
FORMS = ["index", "ignored", "weighted index", "distribution", "weighted distribution"]
PATHS = {"core": nullcontext, "fallback": fallback_path}
WIDER = {torch.bfloat16: torch.float32, torch.float16: torch.float32}


@contextmanager
def working_memory(size):
    before = crossent.get_working_memory()
    crossent.set_working_memory(size)
    try:
        yield
    finally:
        crossent.set_working_memory(before)


def layer(form="index", rows=9, classes=7, features=5, extents=(), dtype=torch.float64):
    """(input, linear_weight, linear_bias), each requiring grad, target, options."""
    generator = torch.Generator().manual_seed(rows)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    parts = draw(rows, features), draw(classes, *extents, features), draw(classes, *extents)
    more = {"weight": draw(classes).abs()} if "weighted" in form else {}
    if "distribution" in form:
        target = torch.rand((rows, classes, *extents), generator=generator).to(dtype)
    else:
        target = torch.randint(0, classes, (rows, *extents), generator=generator)
        if form != "index":
            target[::3] = -100
    return [part.requires_grad_() for part in parts], target, more


def whole(parts, target, **options):
    """The loss of whole logits."""
    input, linear_weight, linear_bias = parts
    logits = F.linear(input, linear_weight.flatten(0, -2), linear_bias.flatten())
    return ct.cross_entropy(logits.unflatten(1, linear_weight.shape[:-1]), target, **options)


def linear(parts, target, **options):
    return ct.linear_cross_entropy(*parts[:2], target, linear_bias=parts[2], **options)


@covering(3, name=OPTIONS.keys(), form=FORMS, extents=[(), (2, 3)], path=PATHS.keys())
def test_every_option_means_what_it_means_for_whole_logits(name, extents, form, path):
    parts, target, more = layer(form, extents=extents)
    options = OPTIONS[name] | more
    if name == "normalizer":
        options["reduction"] = "mean"
    expected = whole(parts, target, **options)
    incoming = torch.rand_like(expected)
    with working_memory(8 * 7 * 6 * 4), PATHS[path]():
        found = linear(parts, target, **options)
        grads = torch.autograd.grad(found, parts, incoming)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        grads, torch.autograd.grad(expected, parts, incoming), rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "options", [None, torch.nn.LinearCrossEntropyOptions()], ids=["", "chunked"]
)
def test_pytorchs_sample_inputs_give_its_loss_and_gradients(dtype, options):
    torch.manual_seed(0)
    samples = list(
        invocations.sample_inputs_linear_cross_entropy(
            None, "cpu", dtype, True, chunked=options is not None
        )
    )
    assert len(samples) > 10
    wide = WIDER.get(dtype, dtype)
    close = {} if dtype in (torch.float64, torch.float32) else {"rtol": 0.03, "atol": 0.03}
    for sample in samples:
        tensors = [sample.input, *sample.args, sample.kwargs.get("linear_bias")]
        wanted = [t for t in tensors if t is not None and t.requires_grad]

        def widened(value, wanted=wanted):
            if any(value is t for t in wanted):
                return value.detach().to(wide).requires_grad_()
            floating = isinstance(value, torch.Tensor) and value.is_floating_point()
            return value.to(wide) if floating else value

        args = [widened(t) for t in (sample.input, *sample.args)]
        kwargs = {k: widened(v) for k, v in sample.kwargs.items() if k != "options"}
        expected = F.linear_cross_entropy(*args, **kwargs)
        found = ct.linear_cross_entropy(sample.input, *sample.args, **sample.kwargs)
        assert found.dtype is wide
        torch.testing.assert_close(found, expected, **close)
        wide_wanted = [
            t for t in (*args, kwargs.get("linear_bias")) if t is not None and t.requires_grad
        ]
        theirs = torch.autograd.grad(expected.sum(), wide_wanted)
        ours = torch.autograd.grad(found.sum(), wanted)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one.to(wide), other, **close)


def test_pytorchs_error_inputs_are_errors():
    for error in invocations.error_inputs_linear_cross_entropy(None, "cpu"):
        sample = error.sample_input
        with pytest.raises((ValueError, TypeError)):
            ct.linear_cross_entropy(sample.input, *sample.args, **sample.kwargs)


@pytest.mark.parametrize("pair", [
    (F.linear_cross_entropy, ct.linear_cross_entropy),
    (torch.nn.LinearCrossEntropyLoss, ct.LinearCrossEntropyLoss),
], ids=["function", "module"])  # fmt: skip
def test_arguments_have_pytorchs_names_order_and_defaults(pair):
    theirs, ours = (list(inspect.signature(f).parameters.values()) for f in pair)
    for their, our in zip(theirs, ours, strict=False):
        assert (our.name, our.default, our.kind) == (their.name, their.default, their.kind)
    assert all(p.kind is p.KEYWORD_ONLY for p in ours[len(theirs) :])


@pytest.mark.parametrize("bias", [False, True])
def test_the_module_is_pytorchs_module(bias):
    shape = {"out_features": (2,), "bias": bias, "label_smoothing": 0.1, "dtype": torch.float64}
    theirs, ours = (
        m(5, 7, **shape) for m in (torch.nn.LinearCrossEntropyLoss, ct.LinearCrossEntropyLoss)
    )
    ours.load_state_dict(theirs.state_dict())
    input, target = torch.randn(4, 5, dtype=torch.float64), torch.randint(0, 7, (4, 2))
    for module in (theirs, ours):
        module(input, target).backward()
    torch.testing.assert_close(ours(input, target), theirs(input, target))
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_a_single_row_has_a_loss_without_dims():
    (input, linear_weight, linear_bias), target, _ = layer()
    for reduction in ("none", "mean"):
        loss = ct.linear_cross_entropy(
            input[0], linear_weight, target[0], linear_bias=linear_bias, reduction=reduction
        )
        assert loss.shape == ()
    distribution = torch.rand(7, dtype=torch.float64)
    loss = ct.linear_cross_entropy(input[0], linear_weight, distribution)
    torch.testing.assert_close(loss, F.cross_entropy(input[0] @ linear_weight.t(), distribution))


# Derivatives


@pytest.mark.parametrize("name", ["plain", "none", "all"])
@pytest.mark.parametrize("form", ["ignored", "weighted distribution"])
def test_derivatives_are_right_forward_backward_and_twice(form, name):
    parts, target, more = layer(form, rows=3, classes=4, features=2)

    def function(*given):
        return linear(given, target, **OPTIONS[name], **more)

    with working_memory(8 * 4 * 4):  # two rows at most
        assert torch.autograd.gradcheck(function, parts, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(function, parts)


def test_functional_transforms_agree_with_autograd():
    parts, target, _ = layer("ignored", rows=6)

    def function(*given):
        return linear(given, target, softcap=5.0)

    expected = torch.autograd.grad(function(*parts), parts)
    torch.testing.assert_close(torch.func.grad(function, (0, 1, 2))(*parts), expected)
    inputs = torch.stack([parts[0].detach(), 2 * parts[0].detach()])
    batched = torch.func.vmap(torch.func.grad(function), (0, None, None))(inputs, *parts[1:])
    for one, input in zip(batched, inputs, strict=True):
        torch.testing.assert_close(one, torch.func.grad(function)(input, *parts[1:]))
    losses = torch.func.vmap(function, (0, None, None))(inputs, *parts[1:])
    torch.testing.assert_close(losses[1], function(inputs[1], *parts[1:]))
    hessian = torch.func.hessian(function)(*parts)
    double = torch.autograd.functional.hessian(function, tuple(parts))[0][0]
    torch.testing.assert_close(hessian, double)


def test_target_weight_and_scale_have_gradients():
    parts, target, _ = layer("distribution")
    weight = torch.rand(7, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    target.requires_grad_()
    wanted = [*parts, target, weight, scale]
    options = {"weight": weight, "logit_scale": scale}
    expected = torch.autograd.grad(whole(parts, target, **options), wanted)
    with working_memory(2000):
        found = torch.autograd.grad(linear(parts, target, **options), wanted)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", FLOATS)
def test_backward_works_again_and_with_any_incoming_gradient(dtype):
    parts, target, _ = layer("ignored", dtype=dtype)
    loss = linear(parts, target)
    first = torch.autograd.grad(loss * -3, parts, retain_graph=True)
    kept = [grad.clone() for grad in first]
    second = torch.autograd.grad(loss * -3, parts)
    bounds = gradients_and_bounds(parts, target)
    for one, other, after, (exact, off) in zip(kept, second, first, bounds, strict=True):
        assert torch.equal(one, after)
        limit = 3 * (off + torch.finfo(dtype).eps / 2 * abs(exact))  # and multiplied by -3
        for found in (one, other):
            assert (abs(found.double().numpy() + 3 * exact) <= limit).all()


def test_float16_gradients_do_not_underflow_before_a_loss_scale():
    parts, target, _ = layer(dtype=torch.float16)
    wide = [p.detach().double().requires_grad_() for p in parts]
    ours, exact = (
        torch.autograd.grad(linear(each, target, normalizer=1e7) * 65536, each)
        for each in (parts, wide)
    )
    for one, other in zip(ours, exact, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=2e-3, atol=1e-6)


def gradients_and_bounds(parts, target):
    """(gradient, the most that each element may be off) in extended precision, of the mean loss.

    A sum of k terms in any order is off by at most k u times the sum of their sizes, u half an
    epsilon of what sums are made in; logits that are off by d change p by at most p (e^2d - 1).
    In bfloat16, logits, their gradient and every block's product are rounded besides.
    """
    dtype, features = parts[0].dtype, parts[0].shape[1]
    half = torch.finfo(dtype).eps / 2
    u = torch.finfo(WIDER.get(dtype, dtype)).eps / 2
    stored = half if dtype is torch.bfloat16 else 0
    x, w, b = (part.detach().double().numpy().astype(np.longdouble) for part in parts)
    kept = (target != -100).numpy()
    logits, labels = x @ w.T + b, np.where(kept, target, 0)
    share = kept[:, None] / np.longdouble(kept.sum())
    probs = np.exp(logits - logits.max(1, keepdims=True))
    probs *= share / probs.sum(1, keepdims=True)
    grad = probs - share * np.eye(len(w))[labels]
    logits_off = ((features + 1) * u + stored) * (abs(x) @ abs(w).T + abs(b))
    grad_off = probs * np.expm1(2 * logits_off.max(1, keepdims=True))
    grad_off += (4 * u + stored) * abs(grad)  # the core's two units in the last place
    for left, left_off, right in (
        (grad, grad_off, w),
        (grad.T, grad_off.T, x),
        (grad.T, grad_off.T, np.ones(len(x))),
    ):
        exact, terms = left @ right, 2 * left.shape[1]  # within blocks, and across them
        off = left_off @ abs(right) + (terms * u + stored) * (abs(left) @ abs(right))
        yield exact, off + half * abs(exact) + torch.finfo(dtype).smallest_normal * half


@pytest.mark.parametrize("dtype", FLOATS)
def test_gradients_are_summed_over_many_blocks(dtype):
    rows, classes = 300, 200
    parts, target, _ = layer("ignored", rows, classes, dtype=dtype)
    with working_memory(dtype.itemsize * classes * 20):
        found = torch.autograd.grad(linear(parts, target), parts)
    for one, (exact, off) in zip(found, gradients_and_bounds(parts, target), strict=True):
        assert (abs(one.double().numpy() - exact) <= off).all()


def test_tied_weights_accumulate():
    head = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    tokens, target = torch.tensor([1, 2, 6]), torch.tensor([2, 6, 0])
    ct.linear_cross_entropy(F.embedding(tokens, head), head, target).backward()
    found, head.grad = head.grad, None
    F.cross_entropy(F.linear(F.embedding(tokens, head), head), target).backward()
    torch.testing.assert_close(found, head.grad)


def test_frozen_parts_have_no_gradient_and_hold_nothing_back():
    for frozen in range(3):
        parts, target, _ = layer()
        parts[frozen].requires_grad_(False)
        linear(parts, target).backward()
        expected, _, _ = layer()
        linear(expected, target).backward()
        for k, (one, other) in enumerate(zip(parts, expected, strict=True)):
            assert one.grad is None if k == frozen else torch.equal(one.grad, other.grad)


def test_checkpointing_gives_the_same_gradients():
    parts, target, _ = layer("ignored")
    loss = torch.utils.checkpoint.checkpoint(
        lambda *p: linear(p, target), *parts, use_reentrant=False
    )
    expected = torch.autograd.grad(linear(parts, target), parts)
    torch.testing.assert_close(torch.autograd.grad(loss, parts), expected)


@pytest.mark.parametrize("path", ["core", "fallback"])
def test_ignored_rows_spread_no_nan(path):
    parts, target, _ = layer("ignored")
    with torch.no_grad():
        parts[0][target == -100] = float("nan")
    with PATHS[path]():
        grads = torch.autograd.grad(linear(parts, target), parts)
    assert all(torch.isfinite(grad).all() for grad in grads)
    assert (grads[0][target == -100] == 0).all()


@pytest.mark.parametrize("path", ["core", "fallback"])
def test_nothing_that_counts_gives_gradient_0(path):
    for rows in (0, 3):
        parts, target, _ = layer("ignored", rows=rows)
        target.fill_(-100)
        for when_empty, value in (("nan", float("nan")), ("zero", 0.0)):
            with PATHS[path]():
                loss = linear(parts, target, when_empty=when_empty)
            torch.testing.assert_close(loss.item(), value, equal_nan=True)
            assert all((g == 0).all() for g in torch.autograd.grad(loss, parts))
        with pytest.raises(ValueError, match="nothing to divide by"):
            linear(parts, target, when_empty="raise")


# Compiling, autocast, errors, memory


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_it_compiles_into_one_graph_with_the_bits_of_eager_mode(reduction):
    parts, target, _ = layer("ignored", dtype=torch.float32)

    def function(*given):
        return linear(given, target, reduction=reduction, label_smoothing=0.1)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    loss, expected = compiled(*parts), function(*parts)
    assert torch.equal(loss, expected)
    incoming = torch.full_like(loss, -2.5)
    found = torch.autograd.grad(loss, parts, incoming)
    for one, other in zip(found, torch.autograd.grad(expected, parts, incoming), strict=True):
        assert torch.equal(one, other)


def test_the_operators_pass_pytorchs_checks():
    (input, linear_weight, linear_bias), target, _ = layer("ignored")
    options = tuple(Options())
    arguments = (input, linear_weight, linear_bias, target, None)
    torch.library.opcheck(
        torch.ops.crossent.linear_cross_entropy, (*arguments, [True] * 3, *options),
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )  # fmt: skip
    detached = [None if t is None else t.detach() for t in arguments]
    torch.library.opcheck(
        torch.ops.crossent.linear_cross_entropy_grad,
        (torch.tensor(2.0, dtype=torch.float64), [], *detached, [True] * 3, *options),
        test_utils=("test_schema", "test_faketensor"),
    )  # fmt: skip
    torch.library.opcheck(
        torch.ops.crossent.linear_token_scores, (*detached[:4], *Options(reduction="none")),
        test_utils=("test_schema", "test_faketensor"),
    )  # fmt: skip


def test_compiled_second_derivatives_are_refused_not_wrong():
    (input, linear_weight, _), target, _ = layer()
    operator = torch.ops.crossent.linear_cross_entropy
    options = tuple(Options())
    loss = operator(input, linear_weight, None, target, None, [True, True, False], *options)[0]
    (grad,) = torch.autograd.grad(loss, input, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        grad.sum().backward()


def test_autocast_multiplies_in_its_dtype():
    parts, target, _ = layer("ignored", dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear(parts, target)
    narrow = [p.detach().bfloat16() for p in parts]
    assert torch.equal(loss, linear(narrow, target))
    assert all(g.dtype is torch.float32 for g in torch.autograd.grad(loss, parts))


def test_bfloat16_logits_are_those_of_the_linear_layer():
    parts, target, _ = layer("ignored", rows=64, classes=300, dtype=torch.bfloat16)
    torch.testing.assert_close(linear(parts, target), whole(parts, target), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("path", ["core", "fallback"])
def test_bad_labels_are_named(path):
    parts, target, _ = layer()
    target[4] = 7
    for function in (ct.linear_cross_entropy, ct.linear_token_scores):
        with PATHS[path](), pytest.raises(IndexError, match=r"target\[4\] is 7 \(row 4\)"):
            function(*parts[:2], target)


ERRORS = {
    "three dims": (ValueError, "flatten", (torch.zeros(2, 3, 4), torch.zeros(5, 4), torch.zeros(2, 3).long())),
    "dtypes": (TypeError, "must be the same", (torch.zeros(2, 4), torch.zeros(5, 4).double(), torch.zeros(2).long())),
    "features": (ValueError, "must be equal", (torch.zeros(2, 4), torch.zeros(5, 3), torch.zeros(2).long())),
    "no tensor": (TypeError, "must be a tensor", ([[1.0]], torch.zeros(5, 1), torch.zeros(1).long())),
    "target's shape": (ValueError, r"shape \(2,\)", (torch.zeros(2, 4), torch.zeros(5, 4), torch.zeros(3).long())),
    "float labels": (TypeError, "integer dtype", (torch.zeros(2, 4), torch.zeros(5, 4), torch.zeros(2))),
    "integers": (TypeError, "it must be float64", (torch.zeros(2, 4).long(), torch.zeros(5, 4), torch.zeros(2).long())),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_is_wrong(name):
    kind, message, arguments = ERRORS[name]
    with pytest.raises(kind, match=message):
        ct.linear_cross_entropy(*arguments)


@pytest.mark.parametrize("dtype", FLOATS)
def test_scores_are_those_of_whole_logits(dtype):
    parts, target, _ = layer("ignored", dtype=dtype)
    wide = [p.detach().to(WIDER.get(dtype, dtype)).requires_grad_() for p in parts]
    logits = F.linear(*wide)
    expected = ct.token_scores(logits, target, softcap=4.0)
    found = ct.linear_token_scores(*parts[:2], target, linear_bias=parts[2], softcap=4.0)
    close = {} if dtype not in (torch.bfloat16,) else {"rtol": 0.02, "atol": 0.02}
    for name, one, other in zip(found._fields, found, expected, strict=True):
        if name != "argmax":
            torch.testing.assert_close(one, other, **close)
        elif dtype is not torch.bfloat16:
            assert torch.equal(one, other)
    total = sum((each * (k + 1)).sum() for k, each in enumerate(found[:3]))
    wide_total = sum((each * (k + 1)).sum() for k, each in enumerate(expected[:3]))
    for one, other in zip(
        torch.autograd.grad(total, parts), torch.autograd.grad(wide_total, wide), strict=True
    ):
        torch.testing.assert_close(one.to(other.dtype), other, rtol=0.02, atol=0.02)


def test_no_warning_where_pytorch_falls_back_to_whole_logits():
    parts, target, _ = layer(extents=(2,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        linear(parts, target, label_smoothing=0.1, options=torch.nn.LinearCrossEntropyOptions())


@pytest.mark.skipif(
    not os.path.exists("/proc/self/clear_refs"), reason="needs Linux's high-water mark"
)
@pytest.mark.parametrize("dtype", FLOATS)
def test_the_process_stays_within_the_working_memory(dtype):
    rows, classes, memory = 1024, 50_000, 48 << 20  # whole logits take 205 MB in float32
    (input, linear_weight, _), target, _ = layer("ignored", rows, classes, 8, dtype=dtype)
    gradients = (1 if dtype is torch.float64 else 3) * linear_weight.nbytes + input.nbytes

    def step():
        ct.linear_cross_entropy(input, linear_weight, target).backward()

    with working_memory(memory):
        step()  # the product's library keeps buffers of its own from its first use on
        input.grad = linear_weight.grad = None
        gc.collect()
        assert _extra_peak(step) <= 1.05 * memory + gradients


def test_block_sizes_leave_room_for_what_products_keep():
    classes, features, kept, memory = 262_144, 768, 8 << 20, 128 << 20
    with working_memory(memory):
        rows, panel = _blocks.block_sizes(8192, features, classes, 2, kept)
    assert 2 * (rows * classes + 2 * panel * features) + kept <= memory

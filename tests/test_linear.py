"""The linear form against whole logits through the core: every option, any cut into blocks.

N rows, D features, V classes.
"""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from cases import DTYPES, OPTIONS, loss_dtype, options_of
from covering import covering

import crossent

D = 24
SHAPES = [(7, 5), (33, 130), (50, 1030), (3, 1), (1, 16)]  # (N, V)


@contextmanager
def working_memory(size):
    before = crossent.get_working_memory()
    crossent.set_working_memory(size)
    try:
        yield
    finally:
        crossent.set_working_memory(before)


def layer_of(rows, classes, dtype=np.float64, features=D):
    """Inputs, weight and bias: logits of scale about 1."""
    draw = np.random.default_rng([rows, classes])

    def make(*shape):
        return draw.standard_normal(shape).astype(dtype)

    return make(rows, features), (make(classes, features) / 4).astype(dtype), make(classes)


def targets_of(form, rows, classes):
    draw = np.random.default_rng([classes, rows])
    labels = draw.integers(0, classes, rows)
    if form == "indices":
        return labels
    if form == "ignored":
        return np.where(np.arange(rows) % 3 == 1, -100, labels)
    return draw.dirichlet(np.ones(classes), rows)


def whole(inputs, head, bias, targets, **options):
    """Loss and gradients from whole float64 logits; head: the layer's weight."""
    x, w = np.asarray(inputs, np.float64), np.asarray(head, np.float64)
    logits = x @ w.T + (0 if bias is None else np.asarray(bias, np.float64))
    loss, grad = crossent.cross_entropy_and_grad(logits, targets, **options)
    return loss, grad @ w, grad.T @ x, grad.sum(0)


def assert_close(actual, desired, dtype, terms):
    """Within what `terms` roundings of a dtype can do, measured against the largest element."""
    epsilon = float(ml_dtypes.finfo(dtype).eps)
    scale = max(float(np.abs(desired).max(initial=0)), 1e-30)
    error = np.abs(np.asarray(actual, np.float64) - desired).max(initial=0)
    assert error <= terms * epsilon * scale


@covering(
    3,
    name=OPTIONS.keys(),
    shape=SHAPES,
    form=["indices", "ignored", "distributions"],
    reduction=["none", "sum", "mean"],
)
def test_every_option_means_what_it_means_for_whole_logits(name, shape, form, reduction):
    rows, classes = shape
    inputs, weight, bias = layer_of(rows, classes)
    targets = targets_of(form, rows, classes)
    options = options_of(name, classes) | {"reduction": reduction}
    expected = whole(inputs, weight, bias, targets, **options)
    with working_memory(8 * classes * 5):
        loss, grads = crossent.linear_cross_entropy_and_grad(
            inputs, weight, targets, linear_bias=bias, **options
        )
        alone = crossent.linear_cross_entropy(inputs, weight, targets, linear_bias=bias, **options)
    assert np.array_equal(alone, loss, equal_nan=True)
    np.testing.assert_allclose(loss, expected[0], rtol=1e-13, atol=1e-13)
    for actual, desired in zip(grads, expected[1:], strict=True):
        assert_close(actual, desired, np.float64, 200)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_every_dtype_is_summed_in_float32_at_least(dtype):
    rows, classes = 200, 300
    inputs, weight, bias = layer_of(rows, classes, dtype)
    targets = targets_of("ignored", rows, classes)
    expected = whole(inputs, weight, bias, targets)
    with working_memory(4 * classes * 40):
        loss, grads = crossent.linear_cross_entropy_and_grad(
            inputs, weight, targets, linear_bias=bias
        )
    assert loss.dtype == loss_dtype(dtype)
    assert abs(float(loss) / expected[0] - 1) < 20 * np.finfo(loss_dtype(dtype)).eps
    for actual, desired, given in zip(grads, expected[1:], (inputs, weight, bias), strict=True):
        assert actual.dtype == given.dtype
        half = 0.51 * float(ml_dtypes.finfo(dtype).eps) * np.abs(desired)
        tiny = float(ml_dtypes.finfo(dtype).smallest_subnormal)
        sums = 200 * np.finfo(loss_dtype(dtype)).eps * np.abs(desired).max()
        assert (np.abs(actual.astype(np.float64) - desired) <= half + tiny + sums).all()


@pytest.mark.parametrize("size", [1, 5_000, 40_000, 1 << 20, 128 << 20])
def test_any_working_memory_gives_the_same_within_rounding(size):
    inputs, weight, bias = layer_of(37, 501)
    targets = targets_of("ignored", 37, 501)
    expected = whole(inputs, weight, bias, targets)
    with working_memory(size):
        loss, grads = crossent.linear_cross_entropy_and_grad(
            inputs, weight, targets, linear_bias=bias
        )
    np.testing.assert_allclose(loss, expected[0], rtol=1e-14)
    for actual, desired in zip(grads, expected[1:], strict=True):
        assert_close(actual, desired, np.float64, 50)


def test_small_losses_are_right():
    inputs, weight = np.array([[40.0]], np.float32), np.array([[1.0], [0.0]], np.float32)
    loss, grads = crossent.linear_cross_entropy_and_grad(inputs, weight, [0])
    np.testing.assert_allclose(loss, np.exp(-40), rtol=1e-6)
    np.testing.assert_allclose(grads.inputs, -np.exp(-40), rtol=1e-6)


def test_inputs_may_have_any_number_of_axes():
    inputs, weight, _ = layer_of(24, 9)
    targets = targets_of("indices", 24, 9)
    flat = crossent.linear_cross_entropy_and_grad(inputs, weight, targets, reduction="none")
    deep = crossent.linear_cross_entropy_and_grad(
        inputs.reshape(2, 3, 4, D), weight, targets.reshape(2, 3, 4), reduction="none"
    )
    assert np.array_equal(deep[0], flat[0].reshape(2, 3, 4))
    assert np.array_equal(deep[1].inputs, flat[1].inputs.reshape(2, 3, 4, D))
    one = crossent.linear_cross_entropy_and_grad(inputs[0], weight, targets[0])
    np.testing.assert_allclose(one[0], flat[0][0], rtol=1e-14)
    assert one[1].inputs.shape == (D,)


LAYOUTS = {
    "Fortran": np.asfortranarray,
    "backwards": lambda array: array[::-1][::-1].copy()[::-1],
    "every other column": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
    "byte-swapped": lambda array: array.astype(array.dtype.newbyteorder()),
    "read-only": lambda array: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts_change_nothing(layout):
    layer = layer_of(20, 70)
    targets = targets_of("distributions", 20, 70)
    odd = [layout(array) for array in layer]
    plain = [np.ascontiguousarray(array).astype("=f8") for array in odd]
    expected = whole(*plain, targets)
    with working_memory(8 * 70 * 20):
        loss, grads = crossent.linear_cross_entropy_and_grad(
            odd[0], odd[1], layout(targets)[:: 1 if layout is not LAYOUTS["backwards"] else -1],
            linear_bias=odd[2],
        )  # fmt: skip
    np.testing.assert_allclose(loss, expected[0], rtol=1e-13)
    for actual, desired in zip(grads, expected[1:], strict=True):
        assert_close(actual, desired, np.float64, 50)


def test_an_incoming_gradient_multiplies_the_gradients():
    inputs, weight, bias = layer_of(19, 33)
    targets = targets_of("ignored", 19, 33)
    for reduction, incoming in (("mean", -2.5), ("none", np.linspace(-1, 2, 19))):
        options = {"reduction": reduction, "grad_loss": incoming}
        expected = whole(inputs, weight, bias, targets, **options)
        with working_memory(8 * 33 * 5):
            _, grads = crossent.linear_cross_entropy_and_grad(
                inputs, weight, targets, linear_bias=bias, **options
            )
        for actual, desired in zip(grads, expected[1:], strict=True):
            assert_close(actual, desired, np.float64, 50)


def test_ignored_rows_never_reach_a_product():
    inputs, weight, _ = layer_of(9, 11, np.float32)
    targets = targets_of("ignored", 9, 11)
    inputs[targets == -100] = np.nan
    with np.errstate(all="raise"):
        loss, grads = crossent.linear_cross_entropy_and_grad(inputs, weight, targets)
    kept = targets != -100
    assert np.isfinite(loss)
    assert np.isfinite(grads.linear_weight).all()
    assert (grads.inputs[~kept] == 0).all()
    assert (grads.inputs[kept] != 0).any(axis=1).all()


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("rows", [0, 4])
def test_nothing_that_counts_gives_gradient_0(rows, dtype):
    inputs, weight, bias = layer_of(rows, 6, dtype)
    targets = np.full(rows, -100)
    for when_empty, value in (("nan", np.nan), ("zero", 0.0)):
        loss, grads = crossent.linear_cross_entropy_and_grad(
            inputs, weight, targets, linear_bias=bias, when_empty=when_empty
        )
        assert np.array_equal(loss, value, equal_nan=True)
        assert all((np.asarray(grad, np.float32) == 0).all() for grad in grads)
    with pytest.raises(ValueError, match="nothing to divide by"):
        crossent.linear_cross_entropy(inputs, weight, targets, when_empty="raise")
    losses = crossent.linear_cross_entropy(inputs, weight, targets, reduction="none")
    assert np.array_equal(losses, np.zeros(rows))


def test_a_mean_over_class_weights_of_0_is_empty():
    inputs, weight, _ = layer_of(3, 2)
    loss, grads = crossent.linear_cross_entropy_and_grad(
        inputs, weight, [1, 1, 1], weight=[1.0, 0.0], when_empty="zero"
    )
    assert loss == 0
    assert (grads.inputs == 0).all()
    assert (grads.linear_weight == 0).all()


def test_a_bad_label_is_named_and_nothing_is_written():
    inputs, weight, bias = layer_of(40, 7)
    targets = targets_of("indices", 40, 7)
    targets[33], targets[37] = 7, -1
    grads = crossent.LinearGradients(*(np.full_like(array, 5) for array in (inputs, weight, bias)))
    with (
        working_memory(8 * 7 * 5),
        pytest.raises(IndexError, match=r"targets\[33\] is 7 \(row 33\)"),
    ):
        crossent.linear_cross_entropy_and_grad(inputs, weight, targets, linear_bias=bias, out=grads)
    assert all((grad == 5).all() for grad in grads)
    with pytest.raises(IndexError, match="labels start at 0, so 7 classes are 0 .. 6"):
        crossent.linear_cross_entropy(inputs, weight, targets)
    with pytest.raises(IndexError, match="row 33"):
        crossent.linear_token_scores(inputs, weight, targets)
    with pytest.raises(IndexError, match="156"):  # uint8 156 is not -100
        crossent.linear_cross_entropy(inputs, weight, np.full(40, 156, np.uint8))


def test_what_is_not_wanted_is_none():
    inputs, weight, bias = layer_of(5, 6)
    targets = targets_of("indices", 5, 6)
    expected = whole(inputs, weight, bias, targets)
    for names in (("inputs",), ("linear_weight", "linear_bias"), "linear_weight", ()):
        _, grads = crossent.linear_cross_entropy_and_grad(
            inputs, weight, targets, linear_bias=bias, wrt=names
        )
        for name, grad, desired in zip(grads._fields, grads, expected[1:], strict=True):
            if name in ((names,) if isinstance(names, str) else names):
                assert_close(grad, desired, np.float64, 50)
            else:
                assert grad is None


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_batches_in_parts_accumulate_to_the_whole(dtype):
    inputs, weight, bias = layer_of(30, 40, dtype)
    targets = targets_of("indices", 30, 40)
    desired = whole(inputs, weight, bias, targets)
    sums = crossent.LinearGradients(None, np.zeros_like(weight), np.zeros_like(bias))
    for part in (slice(0, 11), slice(11, 30)):
        _, grads = crossent.linear_cross_entropy_and_grad(
            inputs[part], weight, targets[part], linear_bias=bias, normalizer=30, out=sums,
            accumulate=True,
        )  # fmt: skip
        assert grads.linear_weight is sums.linear_weight
        assert grads.linear_bias is sums.linear_bias
    for actual, expected in zip(sums[1:], desired[2:], strict=True):
        assert_close(actual, expected, dtype, 50 if dtype == np.float64 else 4)


def test_nothing_is_added_where_nothing_counts():
    inputs, weight, bias = layer_of(3, 4)
    sums = crossent.LinearGradients(None, np.full_like(weight, 3), np.full_like(bias, 3))
    crossent.linear_cross_entropy_and_grad(
        inputs, weight, [-100] * 3, linear_bias=bias, out=sums, accumulate=True
    )
    assert (sums.linear_weight == 3).all()
    assert (sums.linear_bias == 3).all()


ERRORS = {
    "features": (ValueError, "same D features", {"inputs": np.zeros((2, 3))}),
    "one row of weight": (ValueError, r"\(V, D\)", {"linear_weight": np.zeros(4)}),
    "no classes": (ValueError, "V must be at least 1", {"linear_weight": np.zeros((0, 4))}),
    "weight's dtype": (TypeError, "must be the same", {"linear_weight": np.zeros((5, 4), "f4")}),
    "integer weight": (TypeError, "linear_weight have dtype", {"linear_weight": np.zeros((5, 4), int)}),
    "bias's shape": (ValueError, r"shape \(5,\)", {"linear_bias": np.zeros(4)}),
    "bias's dtype": (TypeError, "linear_bias", {"linear_bias": np.zeros(5, "f4")}),
    "targets": (ValueError, r"must have shape \(2,\)", {"targets": np.zeros(3, int)}),
    "float labels": (TypeError, "must be integers", {"targets": np.zeros(2)}),
    "wrt": (ValueError, "wrt holds 'bias'", {"wrt": ["bias"]}),
    "wrt a bias that is not there": (ValueError, "wrt holds", {"wrt": ["linear_bias"]}),
    "nothing to add to": (ValueError, "np.zeros_like", {"accumulate": True}),
    "out's shape": (ValueError, "out.inputs has shape", {"out": crossent.LinearGradients(np.zeros((3, 4)))}),
    "out's layout": (ValueError, "not C-contiguous", {"out": crossent.LinearGradients(np.zeros((4, 2)).T)}),
    "out is a list": (ValueError, "NumPy array", {"out": crossent.LinearGradients([0])}),
    "normalizer": (ValueError, "normalizer", {"normalizer": 0}),
    "reduction": (ValueError, "reduction", {"reduction": "median"}),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_is_wrong(name):
    kind, message, changes = ERRORS[name]
    call = {"inputs": np.zeros((2, 4)), "linear_weight": np.zeros((5, 4)), "targets": [0, 4]}
    with pytest.raises(kind, match=message):
        crossent.linear_cross_entropy_and_grad(**call | changes)


def test_an_output_that_overlaps_is_refused():
    inputs, weight, _ = layer_of(4, 4, features=4)
    for out in (
        crossent.LinearGradients(inputs=inputs),
        crossent.LinearGradients(linear_weight=weight),
        crossent.LinearGradients(*[np.zeros((4, 4))] * 2),
    ):
        before = weight.copy()
        with pytest.raises(ValueError, match="overlaps"):
            crossent.linear_cross_entropy_and_grad(inputs, weight, [0, 1, 2, 3], out=out)
        assert np.array_equal(weight, before)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_scores_are_those_of_whole_logits(dtype):
    inputs, weight, bias = layer_of(45, 200, dtype)
    targets = targets_of("ignored", 45, 200)
    logits = inputs.astype(float) @ weight.astype(float).T + bias.astype(float)
    expected = crossent.token_scores(logits, targets, softcap=5.0, logit_scale=0.8)
    with working_memory(4 * 200 * 20):
        scores = crossent.linear_token_scores(
            inputs, weight, targets, linear_bias=bias, softcap=5.0, logit_scale=0.8
        )
    for name, actual, desired in zip(scores._fields, scores, expected, strict=True):
        if name == "argmax":
            assert np.array_equal(actual, desired)
        else:
            assert actual.dtype == loss_dtype(dtype)
            np.testing.assert_allclose(actual, desired, rtol=3e-6, atol=3e-6)
    with pytest.raises(ValueError, match="one class a row"):
        crossent.linear_token_scores(inputs, weight, targets_of("distributions", 45, 200))


def test_the_working_memory_is_checked():
    for size, kind in ((0, ValueError), (1.5, TypeError), ("1", TypeError)):
        with pytest.raises(kind, match="working memory"):
            crossent.set_working_memory(size)


def test_any_number_of_threads_gives_the_same_bits():
    inputs, weight, _ = layer_of(64, 3000, np.float32)
    targets = targets_of("indices", 64, 3000)
    before, results = crossent.get_num_threads(), []
    for threads in (1, 2, 5):
        crossent.set_num_threads(threads)
        results.append(crossent.linear_cross_entropy_and_grad(inputs, weight, targets))
    crossent.set_num_threads(before)
    for loss, grads in results[1:]:
        assert loss == results[0][0]
        for one, other in zip(grads[:2], results[0][1][:2], strict=True):
            assert np.array_equal(one, other)


@pytest.mark.skipif(
    not os.path.exists("/proc/self/clear_refs"), reason="needs Linux's high-water mark"
)
def test_the_process_stays_within_the_working_memory():
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("linear_peak.py")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name, (grown, allowed) in json.loads(done.stdout).items():
        assert grown <= allowed, name


def test_a_loss_beyond_float32_is_infinite_without_a_warning(recwarn):
    ones = np.ones((3, 2), np.float32)
    assert crossent.linear_cross_entropy(ones, ones, [0, 1, 2], normalizer=1e-300) == np.inf
    assert not recwarn

"""crossent agrees with crossent.reference: every option, dtype, shape and instruction set.

reference.py says what everything means, in float64; how exact the answers are is for
test_accuracy.py to say.
"""

import numpy as np
import pytest
from cases import (
    CLASSES,
    DTYPES,
    INTEGERS,
    ISAS,
    OPTIONS,
    SEGMENTED,
    labels_of,
    logits_of,
    loss_dtype,
    options_of,
    rows_of,
    soft_targets_of,
    using_isa,
    weights_of,
)
from covering import FULL, covering
from hypothesis import given, settings
from hypothesis import strategies as st

import crossent
from crossent import reference

# ULP that a result of each dtype may be away from the float64 reference, on the scale of its terms.
BARS = {"float64": 64, "float32": 2.5, "float16": 0.51, "bfloat16": 0.51}
SLACK = 1e-12  # of that scale: the reference's own error


def agree(computed, expected, scale):
    """Same nan, same infinities; else within the bar of computed's dtype and SLACK of `scale`."""
    computed, dtype = np.asarray(computed), np.asarray(computed).dtype
    with np.errstate(all="ignore"):
        rounded = np.asarray(expected).astype(dtype).astype(np.float64)
        size = np.maximum(abs(np.asarray(expected, np.float64)), scale)
        spacing = np.spacing(abs(size).astype(dtype)).astype(np.float64)
        tolerance = BARS[dtype.name] * spacing + SLACK * size
        got = computed.astype(np.float64)
        close = abs(got - expected) <= tolerance
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    assert got.shape == rounded.shape
    wrong = ~(same | close)
    assert not wrong.any(), (
        f"{int(wrong.sum())} of {wrong.size} differ, first {np.argwhere(wrong)[0]}: "
        f"{got[wrong][0]!r}, the reference says {rounded[wrong][0]!r}"
    )


def grad_scale(logits, targets, options, grad_loss=1.0):
    """What terms of a row's gradient and product may be of size; coarse: one number a row."""
    o = reference.Options(**options)
    with np.errstate(all="ignore"):
        rows = reference._terms(logits, targets, o)
        size = abs(rows.total).max(-1) * abs(rows.s).max(-1, initial=0)
        size = abs(np.asarray(grad_loss)) * np.nan_to_num(size, posinf=0) / (rows.divisor or 1)
    size = np.where(np.isfinite(size), size, 0)
    return np.expand_dims(np.broadcast_to(size, rows.kept.shape), o.axis)


def assert_all_agree(logits, targets, v, options, grad_loss=None):
    """Loss, gradient and product against the reference's."""
    expected_loss, expected_grad = reference.cross_entropy_and_grad(
        logits, targets, grad_loss=grad_loss, **options
    )
    loss, grad = crossent.cross_entropy_and_grad(logits, targets, grad_loss=grad_loss, **options)
    alone = crossent.cross_entropy(logits, targets, **options)
    assert grad.dtype == logits.dtype
    assert np.asarray(loss).dtype == loss_dtype(logits.dtype)
    assert np.array_equal(loss, alone, equal_nan=True)
    agree(loss, expected_loss, 0.0)
    scale = grad_scale(logits, targets, options, 1.0 if grad_loss is None else grad_loss)
    agree(grad, expected_grad, scale)
    if v is not None:
        expected = reference.cross_entropy_hvp(logits, targets, v, **options)
        product = crossent.cross_entropy_hvp(logits, targets, v, **options)
        with np.errstate(all="ignore"):
            reach = 4 * abs(v.astype(np.float64)).max(initial=0)
            reach *= max(
                1.0, abs(options.get("logit_scale", 1.0)), 1 / (options.get("softcap") or 1)
            )
        agree(product, expected, reach * grad_scale(logits, targets, options))


@covering(3, isa=ISAS, option=OPTIONS.keys(), dtype=DTYPES.keys(), C=[1, 5, 17, 129, 1025])
def test_every_option_gives_what_the_reference_says(isa, C, dtype, option):
    N = rows_of(C)
    logits, v = logits_of((N, C), DTYPES[dtype]), logits_of((N, C), DTYPES[dtype], 1.0, seed=1)
    labels = labels_of(N, C)
    labels[N // 2] = -100
    options = options_of(option, C)
    for reduction in ("none", "sum", "mean"):
        assert_all_agree(logits, labels, v, {**options, "reduction": reduction})
    assert_all_agree(logits, soft_targets_of((N, C)), v, options)


@covering(isa=ISAS, C=[*CLASSES, SEGMENTED], dtype=DTYPES.keys())
def test_every_width_gives_what_the_reference_says(isa, C, dtype):
    for N in {1, rows_of(C), 17 if C < 2000 else 2}:
        logits, labels = logits_of((N, C), DTYPES[dtype]), labels_of(N, C)
        assert_all_agree(logits, labels, None, {})
        assert_all_agree(logits, labels, None, {"label_smoothing": 0.1, "reduction": "none"})
        agree(crossent.softmax(logits), reference.softmax(logits), 0.0)
        agree(crossent.log_softmax(logits), reference.log_softmax(logits), 0.0)
        agree(crossent.logsumexp(logits), reference.logsumexp(logits), abs(logits).max())
        assert_scores_agree(logits, labels, {})


def assert_scores_agree(logits, labels, options):
    scores, expected = (
        module.token_scores(logits, labels, **options) for module in (crossent, reference)
    )
    with np.errstate(all="ignore"):
        size = np.nan_to_num(abs(logits.astype(np.float64)), posinf=0).max(initial=1.0)
    size *= abs(options.get("logit_scale", 1.0))
    agree(scores.nll, expected.nll, 0.0)
    agree(scores.lse, expected.lse, size)
    agree(scores.entropy, expected.entropy, 1.0)
    assert scores.argmax.dtype == np.int64
    assert np.array_equal(scores.argmax, expected.argmax)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("C", [1, 5, 130])
def test_relatives_of_the_softmax_give_what_the_reference_says(isa, C, dtype):
    logits, v = logits_of((3, C), DTYPES[dtype]), logits_of((3, C), DTYPES[dtype], 1.0, seed=1)
    for name in ("softmax_jacobian", "log_softmax_jacobian"):
        agree(getattr(crossent, name)(logits), getattr(reference, name)(logits), 1e-6)
    reach = abs(v.astype(np.float64)).max() * reference.softmax(logits)
    agree(crossent.softmax_jvp(logits, v), reference.softmax_jvp(logits, v), reach)
    probs, labels = crossent.softmax(logits), labels_of(3, C)
    for targets in (labels, soft_targets_of((3, C))):
        agree(
            crossent.grad_wrt_probabilities(probs, targets),
            reference.grad_wrt_probabilities(probs, targets),
            0.0,
        )


# Anything at all

SPECIAL = (0.0, -0.0, np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-30, 88.0, -104.0, 500.0, 2.0**20)
numbers = st.floats(0.01, 100.0)


@st.composite
def problems(draw):
    """(logits, targets, v, options, grad_loss) of any shape, type and combination of options."""
    C = draw(st.sampled_from([1, 2, 3, 7, 16, 33, 64, 100, 128, 129, 200, 600, 1100]))
    outer = tuple(draw(st.lists(st.integers(0, 3), max_size=2)))
    axis = draw(st.integers(0, len(outer)))
    shape = (*outer[:axis], C, *outer[axis:])
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtype = DTYPES[draw(st.sampled_from(["float64", "float64", "float32", "float16", "bfloat16"]))]
    a = rng.standard_normal(shape) * draw(st.sampled_from([0.1, 1.0, 5.0, 30.0]))
    if draw(st.booleans()):
        chosen = draw(st.lists(st.sampled_from(SPECIAL), min_size=1, max_size=4))
        where = rng.random(shape) < draw(st.sampled_from([0.02, 0.3, 0.9]))
        a = np.where(where, rng.choice(chosen, shape), a)
    if draw(st.booleans()):
        a = np.round(a)  # ties
    with np.errstate(all="ignore"):
        logits = a.astype(dtype)
        v = rng.standard_normal(shape).astype(dtype)
    options = draw(any_options(C, rng))
    soft = draw(st.booleans())
    if soft:
        targets = draw(distributions(shape, axis, rng))
    else:
        targets, ignored = draw(labels(outer, C, rng))
        options["ignore_index"] = ignored
    options["axis"] = draw(st.sampled_from([axis, axis - len(shape)]))
    if options["reduction"] == "mean":
        options["when_empty"] = draw(st.sampled_from(["nan", "zero"]))
        if draw(st.booleans()):
            options["normalizer"] = draw(numbers)
    grad_loss = draw(st.none() | st.floats(-100, 100).map(lambda x: round(x, 3)))
    if options["reduction"] == "none" and draw(st.booleans()):
        grad_loss = np.round(rng.standard_normal(outer), 3)
    return logits, targets, v, options, grad_loss


@st.composite
def any_options(draw, C, rng):
    options = {"reduction": draw(st.sampled_from(["none", "sum", "mean"]))}
    if draw(st.booleans()):
        options["weight"] = np.where(rng.random(C) < 0.3, 0.0, 3 * rng.random(C))
    for name, values in {
        "label_smoothing": st.sampled_from([0.0, 0.1, 0.5, 1.0]),
        "z_loss": st.sampled_from([0.0, 1e-4, 0.5]),
        "softcap": st.none() | numbers,
        "logit_scale": st.sampled_from([1.0, 0.5, -1.0, 3.7, 0.0]),
    }.items():
        if draw(st.booleans()):
            options[name] = draw(values)
    return options


@st.composite
def distributions(draw, shape, axis, rng):
    kinds = ["one-hot", "soft", "sparse", "none"]
    if len(shape) > 1:  # integers of a single row are one-hot
        kinds.append("counts")
    kind = draw(st.sampled_from(kinds))
    if kind == "one-hot":
        numbers = rng.random(shape)
        return numbers == numbers.max(axis, keepdims=True)
    if kind == "counts":
        return rng.integers(0, 4, shape).astype(draw(st.sampled_from(INTEGERS)))
    soft = rng.random(shape) * (kind != "none")
    if kind == "sparse":
        soft[rng.random(shape) < 0.8] = 0
    return soft.astype(DTYPES[draw(st.sampled_from(sorted(DTYPES)))])


@st.composite
def labels(draw, shape, C, rng):
    dtype = draw(st.sampled_from([t for t in INTEGERS if np.iinfo(t).max >= C - 1]))
    info = np.iinfo(dtype)
    ignored = draw(st.sampled_from([-100, 0, C - 1, C, info.max, info.min, 2**63, -(2**70)]))
    given = rng.integers(0, C, shape).astype(dtype)
    if info.min <= ignored <= info.max:
        given = np.where(rng.random(shape) < 0.2, np.asarray(ignored, dtype), given)
    return np.asarray(given), ignored


@pytest.mark.parametrize("name", ISAS)
@settings(max_examples=1000 if FULL else 150, deadline=None, derandomize=True)
@given(problem=problems())
def test_any_problem_gives_what_the_reference_says(name, problem):
    with using_isa(name):
        assert_all_agree(*problem)


@pytest.mark.parametrize("name", ISAS)
@settings(max_examples=400 if FULL else 80, deadline=None, derandomize=True)
@given(problem=problems())
def test_any_scores_are_what_the_reference_says(name, problem):
    logits, targets, _, options, _ = problem
    axis = options["axis"]
    chosen = {k: v for k, v in options.items() if k in ("softcap", "logit_scale", "axis")}
    labels = targets
    if targets.shape == logits.shape:
        labels = np.zeros(np.delete(logits.shape, axis), int)
    else:
        chosen["ignore_index"] = options["ignore_index"]
    with using_isa(name):
        assert_scores_agree(logits, labels, chosen)


def test_weights_of_a_single_class_are_used():
    logits = np.zeros((2, 1))
    loss = crossent.cross_entropy(logits, [0, 0], weight=weights_of(1), z_loss=1.0)
    assert loss == 0.0

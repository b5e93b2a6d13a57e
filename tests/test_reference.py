"""The reference is what it says: compared with the definition in 400 digits, and case by case.

The oracle below knows the loss of a row and nothing else. Its gradient and its Hessian are
differences of that loss over a step of 1e-30, which 400 digits can afford.
"""

import ast
from pathlib import Path

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mpmath import mpf

from crossent import reference

INF, NAN = np.inf, np.nan
STEP = mpf("1e-30")


def row_loss(logits, y, weight, label_smoothing=0.0, z_loss=0.0, softcap=None, logit_scale=1.0):
    """The loss of one row, straight from the definition."""
    C, u = len(logits), [mpf(logit_scale) * a for a in logits]
    if softcap is not None:
        u = [softcap * mpmath.tanh(u_k / softcap) for u_k in u]
    lse = mpmath.log(mpmath.fsum(map(mpmath.exp, u)))
    q = [(1 - mpf(label_smoothing)) * mpf(y_k) + mpf(label_smoothing) / C for y_k in y]
    nll = -mpmath.fsum(mpf(w) * q_k * (u_k - lse) for w, q_k, u_k in zip(weight, q, u, strict=True))
    return nll + z_loss * lse**2


def moved(logits, direction, by):
    return [a + by * mpf(v) for a, v in zip(logits, direction, strict=True)]


def slope(function, logits, direction):
    up, down = (function(moved(logits, direction, by)) for by in (STEP, -STEP))
    return (up - down) / (2 * STEP)


def oracle(logits, y, v, weight=None, **options):
    """(loss, gradient, Hessian times v) of every row, as float64."""
    results = []
    weight = np.ones(logits.shape[1]) if weight is None else weight
    with mpmath.workdps(400):
        for a, y_row, v_row in zip(logits, y, v, strict=True):
            a, basis = [mpf(x) for x in a], np.eye(len(a)).tolist()

            def loss(x, y_row=y_row):
                return row_loss(x, y_row, weight, **options)

            def along_v(x, loss=loss, v_row=v_row):
                return slope(loss, x, v_row)

            grad = [float(slope(loss, a, e)) for e in basis]
            results.append((float(loss(a)), grad, [float(slope(along_v, a, e)) for e in basis]))
    return tuple(np.array(part) for part in zip(*results, strict=True))


rng = np.random.default_rng(20)
LOGITS = rng.normal(scale=3, size=(4, 5))
V = rng.normal(size=(4, 5))
LABELS = np.array([3, 0, 4, 4])
WEIGHT = np.array([0.5, 2.0, 0.0, 1.25, 3.0])
TARGETS = {
    "labels": (LABELS, np.eye(5)[LABELS]),
    "one-hot": (np.eye(5, dtype=np.int8)[LABELS], np.eye(5)[LABELS]),
    "soft": ((soft := rng.dirichlet(np.ones(5), size=4)), soft),
    "unnormalized": (3 * soft, 3 * soft),
}
OPTIONS = {
    "plain": {},
    "weight": {"weight": WEIGHT},
    "smoothing": {"label_smoothing": 0.1},
    "smoothing, weight": {"label_smoothing": 0.3, "weight": WEIGHT},
    "smoothing 1": {"label_smoothing": 1.0},
    "z-loss": {"z_loss": 0.2},
    "scale": {"logit_scale": 1.7},
    "negative scale": {"logit_scale": -0.5},
    "softcap": {"softcap": 4.0},
    "all": {
        "weight": WEIGHT,
        "label_smoothing": 0.2,
        "z_loss": 0.1,
        "softcap": 5.0,
        "logit_scale": 0.8,
    },
}
all_targets = pytest.mark.parametrize("targets", TARGETS)
all_options = pytest.mark.parametrize("options", OPTIONS)


def near(expected, tolerance=1e-12):
    return pytest.approx(expected, rel=tolerance, abs=tolerance)


# Against the definition


@all_options
@all_targets
def test_loss_gradient_and_hessian_product_are_those_of_the_definition(targets, options):
    given_targets, y = TARGETS[targets]
    chosen = {**OPTIONS[options], "reduction": "none"}
    loss, grad, hvp = oracle(LOGITS, y, V, **OPTIONS[options])
    computed = reference.cross_entropy_and_grad(LOGITS, given_targets, **chosen)
    assert reference.cross_entropy(LOGITS, given_targets, **chosen) == near(loss)
    assert computed[0] == near(loss)
    assert computed[1] == near(grad)
    assert reference.cross_entropy_hvp(LOGITS, given_targets, V, **chosen) == near(hvp)


@all_options
def test_the_hessian_matrix_times_v_is_the_hessian_product(options):
    chosen = OPTIONS[options]
    for a, t, v in zip(LOGITS, LABELS, V, strict=True):
        product = reference.cross_entropy_hvp(a, t, v, reduction="sum", **chosen)
        matrix = reference.hessian(a, t, **chosen)
        assert matrix @ v == near(product)
        assert (matrix == matrix.T).all()


@pytest.mark.parametrize("margin", [0.0, 1e-9, 1.0, 20.0, 40.0, 103.0, 700.0])
@pytest.mark.parametrize("offset", [0.0, 1024.0, -1e6])
def test_losses_and_gradients_keep_their_digits_at_any_margin(margin, offset):
    logits = np.array([[0.0, -0.5, margin, -2.0]]) + offset
    y = np.array([[0.0, 0.0, 1.0, 0.0]])
    loss, grad, _ = oracle(logits, y, np.zeros((1, 4)))
    computed = reference.cross_entropy_and_grad(logits, [2])
    assert computed[0] == pytest.approx(loss[0], rel=1e-14, abs=0)
    assert computed[1] == pytest.approx(grad, rel=1e-14, abs=0)
    assert reference.cross_entropy_and_grad(logits, y)[1] == pytest.approx(grad, rel=1e-14, abs=0)


def test_a_softcap_keeps_the_slope_of_far_logits():
    logits = np.array([[30.0, -25.0, 3.0]])
    _, grad, hvp = oracle(logits, [[0, 1, 0]], [[1, 2, 3]], softcap=1.0)
    options = {"softcap": 1.0, "reduction": "sum"}
    computed = reference.cross_entropy_and_grad(logits, [1], **options)[1]
    assert computed == pytest.approx(grad, rel=1e-13, abs=0)
    computed = reference.cross_entropy_hvp(logits, [1], [[1, 2, 3]], **options)
    assert computed == pytest.approx(hvp, rel=1e-13, abs=0)


# The softmax and its relatives


def test_softmax_logsumexp_and_log_softmax_are_those_of_the_definition():
    with mpmath.workdps(60):
        for a in (*LOGITS, np.array([0.0, 50.0, -700.0])):
            exps = [mpmath.exp(mpf(x)) for x in a]
            total = mpmath.fsum(exps)
            p = [float(e / total) for e in exps]
            log_p = [float(mpmath.log(e / total)) for e in exps]
            assert reference.softmax(a) == pytest.approx(p, rel=1e-14, abs=0)
            assert reference.log_softmax(a) == pytest.approx(log_p, rel=1e-14, abs=0)
            assert reference.logsumexp(a) == pytest.approx(float(mpmath.log(total)), rel=1e-14)


def test_the_jacobians_are_the_derivatives():
    def log_prob(a, i):
        return a[i] - mpmath.log(mpmath.fsum(map(mpmath.exp, a)))

    of_log, of_prob = reference.log_softmax_jacobian(LOGITS), reference.softmax_jacobian(LOGITS)
    with mpmath.workdps(120):
        for n, j in np.ndindex(4, 5):
            a, e = [mpf(x) for x in LOGITS[n]], np.eye(5)[j]
            for i in range(5):
                assert of_log[n, i, j] == near(float(slope(lambda x, i=i: log_prob(x, i), a, e)))
                by_step = slope(lambda x, i=i: mpmath.exp(log_prob(x, i)), a, e)
                assert of_prob[n, i, j] == near(float(by_step))


def test_the_jvp_of_the_softmax_is_its_jacobian_times_v():
    product = np.einsum("nij,nj->ni", reference.softmax_jacobian(LOGITS), V)
    assert reference.softmax_jvp(LOGITS, V) == near(product)


def test_the_chain_through_the_probabilities_gives_the_gradient():
    p, jacobian = reference.softmax(LOGITS), reference.softmax_jacobian(LOGITS)
    for targets, y in TARGETS.values():
        through = np.einsum("ni,nij->nj", reference.grad_wrt_probabilities(p, targets), jacobian)
        assert through == near(p * y.sum(1, keepdims=True) - y)


def test_the_gradient_by_a_probability_of_zero_is_infinite_only_where_the_target_asks():
    grad = reference.grad_wrt_probabilities([[0.0, 0.0, 1.0]], [[0.0, 0.5, 0.5]])
    assert grad.tolist() == [[0.0, -INF, -0.5]]


def test_logsumexp_of_infinite_logits_is_the_limit():
    rows = [[-INF, -INF], [0.0, INF], [-INF, 2.0], [NAN, INF]]
    assert reference.logsumexp(rows).tolist()[:3] == [-INF, INF, 2.0]
    assert np.isnan(reference.logsumexp(rows)[3])


def test_softmax_rows_without_a_finite_maximum_are_nan():
    rows = np.array([[-INF, -INF], [0.0, INF], [0.0, NAN], [-INF, 2.0]])
    assert np.isnan(reference.softmax(rows)[:3]).all()
    assert np.isnan(reference.log_softmax(rows)[:3]).all()
    assert reference.softmax(rows)[3].tolist() == [0.0, 1.0]
    assert reference.log_softmax(rows)[3].tolist() == [-INF, 0.0]


def test_what_overflows_or_is_undefined_on_the_way_warns_of_nothing():
    assert reference.softmax([1.7e308, -1.7e308]).tolist() == [1, 0]
    assert (reference.hessian([0.0, -INF], 0) == 0).all()
    assert np.isnan(reference.softmax_jvp([0.0, -INF], [1.0, INF])).all()


# Reductions and divisors


@all_options
def test_labels_and_one_hot_agree_under_none_and_sum(options):
    for reduction in ("none", "sum"):
        chosen = {**OPTIONS[options], "reduction": reduction}
        of_labels = reference.cross_entropy_and_grad(LOGITS, LABELS, **chosen)
        of_one_hot = reference.cross_entropy_and_grad(LOGITS, np.eye(5)[LABELS], **chosen)
        assert (of_labels[0] == of_one_hot[0]).all()
        assert (of_labels[1] == of_one_hot[1]).all()


@pytest.mark.parametrize(
    ("targets", "options", "divisor"),
    [
        ("labels", {}, 4),
        ("soft", {}, 4),
        ("labels", {"weight": WEIGHT}, 1.25 + 0.5 + 3 + 3),
        ("soft", {"weight": WEIGHT}, 4),
        ("unnormalized", {}, 4),
        ("labels", {"ignore_index": 4}, 2),
        ("labels", {"ignore_index": 4, "weight": WEIGHT}, 1.25 + 0.5),
        ("labels", {"ignore_index": 4, "weight": WEIGHT, "label_smoothing": 0.5}, 1.25 + 0.5),
        ("labels", {"normalizer": 7.5}, 7.5),
        ("soft", {"normalizer": 7.5, "weight": WEIGHT}, 7.5),
    ],
)
def test_the_mean_is_the_sum_over_the_divisor(targets, options, divisor):
    given_targets, without = TARGETS[targets][0], {**options, "normalizer": None}
    arguments = (LOGITS, given_targets)
    total, grad_of_total = reference.cross_entropy_and_grad(*arguments, **without, reduction="sum")
    mean, grad = reference.cross_entropy_and_grad(*arguments, **options)
    assert reference.cross_entropy(*arguments, **without, reduction="none").sum() == near(total)
    assert mean == near(total / divisor)
    assert grad == near(grad_of_total / divisor)
    hvp_of_total = reference.cross_entropy_hvp(*arguments, V, **without, reduction="sum")
    assert reference.cross_entropy_hvp(*arguments, V, **options) == near(hvp_of_total / divisor)


@all_options
def test_ignoring_rows_is_the_same_as_leaving_them_out(options):
    labels, kept = np.array([3, -100, 4, -100]), [0, 2]
    logits = LOGITS.copy()
    logits[1], logits[3] = NAN, [INF, -INF, 0, NAN, 3e38]
    loss, grad = reference.cross_entropy_and_grad(logits, labels, **OPTIONS[options])
    expected = reference.cross_entropy_and_grad(LOGITS[kept], labels[kept], **OPTIONS[options])
    assert loss == near(expected[0])
    assert grad[kept] == near(expected[1])
    assert (grad[[1, 3]] == 0).all()
    hvp = reference.cross_entropy_hvp(logits, labels, V, **OPTIONS[options])
    assert (hvp[[1, 3]] == 0).all()
    rows = reference.cross_entropy(logits, labels, **OPTIONS[options], reduction="none")
    assert rows[[1, 3]].tolist() == [0, 0]


EMPTY = {
    "no row": (np.zeros((0, 3)), np.zeros(0, int), {}),
    "no row of distributions": (np.zeros((0, 3)), np.zeros((0, 3)), {}),
    "every row ignored": ([[NAN, 0.0, 1.0], [1.0, 2.0, 3.0]], [-100, -100], {}),
    "every kept weight 0": ([[NAN, 0.0], [1.0, 2.0]], [0, 0], {"weight": [0.0, 1.0]}),
    "the same with smoothing": ([[1.0, 2.0]], [0], {"weight": [0, 1], "label_smoothing": 0.5}),
}


@pytest.mark.parametrize("case", EMPTY)
def test_when_empty_rules_where_the_divisor_is_zero(case):
    logits, targets, options = EMPTY[case]
    with pytest.raises(ValueError, match="when_empty"):
        reference.cross_entropy(logits, targets, **options, when_empty="raise")
    for when_empty, expected in {"nan": NAN, "zero": 0.0}.items():
        chosen = {**options, "when_empty": when_empty}
        loss, grad = reference.cross_entropy_and_grad(logits, targets, **chosen)
        assert loss == pytest.approx(expected, abs=0, nan_ok=True)
        assert grad.shape == np.shape(logits)
        assert (grad == 0).all()
        v = np.ones(np.shape(logits))
        assert (reference.cross_entropy_hvp(logits, targets, v, **chosen) == 0).all()


def test_when_empty_is_about_the_mean_and_its_own_divisor_only():
    arguments, options = (LOGITS, np.full(4, -100)), {"when_empty": "raise"}
    assert reference.cross_entropy(*arguments, **options, reduction="sum") == 0
    assert reference.cross_entropy(*arguments, **options, reduction="none").tolist() == [0] * 4
    assert reference.cross_entropy(*arguments, **options, normalizer=2.0) == 0
    assert reference.cross_entropy(LOGITS, LABELS, **options) > 0


def test_the_incoming_gradient_multiplies_each_row():
    incoming = np.array([2.0, -1.0, 0.5, 0.0])
    for targets, _ in TARGETS.values():
        each = reference.cross_entropy_and_grad(LOGITS, targets, reduction="none")[1]
        scaled = reference.cross_entropy_and_grad(
            LOGITS, targets, reduction="none", grad_loss=incoming
        )[1]
        assert scaled == near(incoming[:, None] * each)
        for reduction in ("sum", "mean"):
            once = reference.cross_entropy_and_grad(LOGITS, targets, reduction=reduction)[1]
            thrice = reference.cross_entropy_and_grad(
                LOGITS, targets, reduction=reduction, grad_loss=3.0
            )[1]
            assert thrice == near(3 * once)


def test_an_ignored_row_passes_no_incoming_gradient_whatever_it_is():
    _, grad = reference.cross_entropy_and_grad(
        [[0.0, 1.0], [0.0, 0.0]], [-100, 0], reduction="none", grad_loss=[INF, 1.0]
    )
    assert grad.tolist() == [[0.0, 0.0], [-0.5, 0.5]]


# Labels


@pytest.mark.parametrize("dtype", np.typecodes["AllInteger"])
def test_labels_of_every_integer_type_mean_the_same(dtype):
    expected = reference.cross_entropy_and_grad(LOGITS, LABELS)
    computed = reference.cross_entropy_and_grad(LOGITS, LABELS.astype(dtype))
    assert computed[0] == expected[0]
    assert (computed[1] == expected[1]).all()


@pytest.mark.parametrize(
    "labels",
    [
        np.array([0, 5]),
        np.array([0, -1]),
        np.array([0, 156], np.uint8),  # -100 in a signed byte
        np.array([0, 2**64 - 100], np.uint64),  # -100 in a signed word
        np.array([0, 2**32 + 1]),  # 1 in four bytes
    ],
)
def test_a_label_out_of_range_is_an_error_that_names_the_row(labels):
    with pytest.raises(IndexError, match=rf"label {labels[1]} of row 1 .* 0 \.\. 4"):
        reference.cross_entropy(LOGITS[:2], labels)


def test_the_ignored_label_may_be_any_number():
    expected = reference.cross_entropy(LOGITS[:2], [1, 2])
    for ignored in (-1, 4, 99):
        loss = reference.cross_entropy(LOGITS[:3], [1, 2, ignored], ignore_index=ignored)
        assert loss == expected


# Edge cases: logits, targets, options, and the loss and gradient of every row

THIRD = 1 / 3
EDGES = {
    "one class": ([[7.0]], [0], {}, [0], [[0]]),
    "ties": ([[2.0, 2.0, 2.0]], [1], {}, [np.log(3)], [[THIRD, -2 * THIRD, THIRD]]),
    "smoothing 1": (
        [[0.0, 0.0]],
        [1],
        {"label_smoothing": 1.0},
        [np.log(2)],
        [[0, 0]],
    ),
    "class weight 0": ([[3.0, 1.0]], [0], {"weight": [0, 1]}, [0], [[0, 0]]),
    "class weight 0 on -inf": ([[-INF, 1.0]], [0], {"weight": [0, 1]}, [0], [[0, 0]]),
    "+-3e38": ([[3e38, -3e38, 0.0]], [0], {}, [0], [[0, 0, 0]]),
    "+-3e38, wrong": ([[3e38, -3e38, 0.0]], [1], {}, [6e38], [[1, -1, 0]]),
    "-inf beside the target": ([[0.0, -INF, 0.0]], [0], {}, [np.log(2)], [[-0.5, 0, 0.5]]),
    "-inf beside a one-hot": ([[0.0, -INF, 0]], [[1, 0, 0]], {}, [np.log(2)], [[-0.5, 0, 0.5]]),
    "-inf and z-loss": ([[0.0, -INF]], [0], {"z_loss": 1.0}, [0], [[0, 0]]),
    "target on -inf": ([[0.0, -INF, 0.0]], [1], {}, [INF], [[0.5, -1, 0.5]]),
    "soft target on -inf": ([[0.0, -INF]], [[0.5, 0.5]], {}, [INF], [[0.5, -0.5]]),
    "-inf and smoothing": (
        [[0.0, -INF]],
        [0],
        {"label_smoothing": 0.5},
        [INF],
        [[0.25, -0.25]],
    ),
    "all -inf": ([[-INF, -INF], [0, 0]], [0, 0], {}, [NAN, np.log(2)], [[NAN, NAN], [-0.5, 0.5]]),
    "nan": ([[0, 0], [NAN, 0]], [0, 1], {}, [np.log(2), NAN], [[-0.5, 0.5], [NAN, NAN]]),
    "+inf": ([[0, 0], [INF, 0]], [0, 1], {}, [np.log(2), NAN], [[-0.5, 0.5], [NAN, NAN]]),
    "target on +inf": ([[INF, 0.0]], [0], {}, [NAN], [[NAN, NAN]]),
    "nan and weight 0": ([[NAN, 0.0]], [0], {"weight": [0, 1]}, [NAN], [[NAN, NAN]]),
    "ignored nan": ([[NAN, 0.0]], [-100], {}, [0], [[0, 0]]),
    "ignored inf": ([[INF, -INF]], [-100], {"z_loss": 1.0}, [0], [[0, 0]]),
    "softcap and inf": ([[INF, INF]], [0], {"softcap": 5.0}, [np.log(2)], [[0, 0]]),
    "softcap and -inf": ([[-INF, -INF]], [0], {"softcap": 5.0}, [np.log(2)], [[0, 0]]),
    "softcap, target on -inf": ([[INF, -INF]], [1], {"softcap": 500.0}, [1000], [[0, 0]]),
    "softcap and nan": ([[NAN, 0.0]], [1], {"softcap": 5.0}, [NAN], [[NAN, NAN]]),
    "1e200": ([[1e200, 1e200]], [0], {}, [np.log(2)], [[-0.5, 0.5]]),
    "no mass": ([[1.0, -INF]], [[0, 0]], {}, [0], [[0, 0]]),
}


@pytest.mark.parametrize("case", EDGES)
def test_edge_case(case):
    logits, targets, options, expected_loss, expected_grad = EDGES[case]
    loss, grad = reference.cross_entropy_and_grad(logits, targets, **options, reduction="none")
    assert loss == pytest.approx(expected_loss, rel=1e-15, abs=1e-15, nan_ok=True)
    assert grad == pytest.approx(np.array(expected_grad), rel=1e-15, abs=1e-15, nan_ok=True)
    hvp = reference.cross_entropy_hvp(
        logits, targets, np.ones(np.shape(logits)), **options, reduction="none"
    )
    assert (np.isnan(hvp) == np.isnan(grad)).all()


def test_logits_without_classes_are_an_error():
    for shape in ((2, 0), (0, 0)):
        with pytest.raises(ValueError, match="no classes"):
            reference.cross_entropy(np.zeros(shape), np.zeros(shape[:1], int))


def test_an_unknown_option_is_an_error():
    with pytest.raises(TypeError, match="smoothing"):
        reference.cross_entropy(LOGITS, LABELS, smoothing=0.1)


# What the arrays look like


@pytest.mark.parametrize("axis", [0, 1, 2, -2])
@all_options
def test_the_class_axis_may_stand_anywhere(axis, options):
    logits, v = np.random.default_rng(3).normal(size=(2, 2, 3, 5))
    labels = np.array([[0, 1, -100], [4, 2, 3]])
    last = {**OPTIONS[options], "reduction": "none"}
    elsewhere = {**last, "axis": axis}
    turned, turned_v = np.moveaxis(logits, -1, axis), np.moveaxis(v, -1, axis)
    loss, grad = reference.cross_entropy_and_grad(logits, labels, **last)
    computed = reference.cross_entropy_and_grad(turned, labels, **elsewhere)
    assert computed[0] == near(loss, 1e-14)
    assert np.moveaxis(computed[1], axis, -1) == near(grad, 1e-14)
    hvp = reference.cross_entropy_hvp(turned, labels, turned_v, **elsewhere)
    expected = reference.cross_entropy_hvp(logits, labels, v, **last)
    assert np.moveaxis(hvp, axis, -1) == near(expected, 1e-14)
    of_distributions = reference.cross_entropy(turned, abs(turned_v), **elsewhere)
    assert of_distributions == near(reference.cross_entropy(logits, abs(v), **last), 1e-14)


def test_softmax_and_its_relatives_take_an_axis():
    turned, turned_v = LOGITS.T, V.T
    assert reference.softmax(LOGITS) == near(reference.softmax(turned, axis=0).T, 1e-14)
    assert reference.log_softmax(LOGITS) == near(reference.log_softmax(turned, axis=0).T, 1e-14)
    assert reference.logsumexp(turned, axis=0) == near(reference.logsumexp(LOGITS), 1e-14)
    jvp = reference.softmax_jvp(turned, turned_v, axis=0).T
    assert jvp == near(reference.softmax_jvp(LOGITS, V), 1e-14)
    for jacobian in (reference.softmax_jacobian, reference.log_softmax_jacobian):
        assert jacobian(turned, axis=0) == near(jacobian(LOGITS), 1e-14)
    p = reference.softmax(LOGITS)
    by_p = reference.grad_wrt_probabilities(p.T, LABELS, axis=0).T
    assert by_p == near(reference.grad_wrt_probabilities(p, LABELS), 1e-14)


def test_any_memory_layout_gives_the_same_and_stays_as_it_was():
    wide = np.repeat(LOGITS, 2, axis=1)
    layouts = [
        np.asfortranarray(LOGITS),
        wide[:, ::2],
        LOGITS[::-1][::-1],
        LOGITS.astype(">f8"),
        np.frombuffer(b"." + LOGITS.tobytes(), np.float64, 20, offset=1).reshape(4, 5),
        LOGITS.tolist(),
    ]
    loss, grad = reference.cross_entropy_and_grad(LOGITS, LABELS)
    for logits in layouts:
        before = np.array(logits)
        computed = reference.cross_entropy_and_grad(logits, LABELS)
        assert computed[0] == near(loss, 1e-14)
        assert computed[1] == near(grad, 1e-14)
        assert (np.array(logits) == before).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_narrow_logits_are_widened_first(dtype):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    narrow = LOGITS.astype(getattr(ml_dtypes, dtype, dtype))
    expected = reference.cross_entropy_and_grad(narrow.astype(np.float64), LABELS)
    loss, grad = reference.cross_entropy_and_grad(narrow, LABELS)
    assert grad.dtype == loss.dtype == np.float64
    assert loss == expected[0]
    assert (grad == expected[1]).all()


# Scores of tokens


def test_token_scores_are_those_of_the_definition():
    options = {"softcap": 6.0, "logit_scale": 1.5}
    labels = np.array([3, -100, 4, 4])
    scores = reference.token_scores(LOGITS, labels, **options)
    u = 6 * np.tanh(1.5 * LOGITS / 6)
    p = reference.softmax(u)
    assert scores.lse == near(reference.logsumexp(u))
    assert scores.entropy == near(-(p * np.log(p)).sum(1))
    assert scores.argmax.tolist() == LOGITS.argmax(1).tolist()
    of_target = scores.lse - u[range(4), [3, 0, 4, 4]]
    assert scores.nll == near(np.where(labels == -100, 0, of_target))


def test_token_scores_at_the_edges():
    rows = [[1.0, -INF, 1.0], [-INF, -INF, -INF], [0.0, NAN, 1.0], [80.0, 0.0, 0.0]]
    scores = reference.token_scores(rows, [1, 0, 0, 0])
    assert scores.nll.tolist()[0] == INF
    assert np.isnan(scores.nll[1:3]).all()
    assert scores.nll[3] == pytest.approx(2 * np.exp(-80), rel=1e-14)
    assert scores.entropy[0] == near(np.log(2))
    assert scores.entropy[3] == pytest.approx(2 * 81 * np.exp(-80), rel=1e-14)
    assert scores.lse[:2] == near([1 + np.log(2), -INF])
    assert scores.argmax.tolist() == [0, 0, 1, 0]


def test_the_argmax_sees_through_the_softcap():
    assert reference.token_scores([[1e3, 2e3]], [0], softcap=1.0).argmax.tolist() == [1]


def test_token_scores_take_an_axis():
    for turned, straight in zip(
        reference.token_scores(LOGITS.T, LABELS, axis=0),
        reference.token_scores(LOGITS, LABELS),
        strict=True,
    ):
        assert turned == near(straight, 1e-14)


# The linear form

INPUTS = rng.normal(size=(2, 3, 4))
LINEAR_WEIGHT = rng.normal(size=(5, 4))
LINEAR_BIAS = rng.normal(size=5)
LINEAR_LABELS = np.array([[1, 0, -100], [4, 4, 2]])


@all_options
def test_the_linear_form_is_cross_entropy_of_the_product(options):
    logits = INPUTS @ LINEAR_WEIGHT.T + LINEAR_BIAS
    arguments = (INPUTS, LINEAR_WEIGHT, LINEAR_LABELS)
    chosen = OPTIONS[options]
    loss, grad_logits = reference.cross_entropy_and_grad(logits, LINEAR_LABELS, **chosen)
    computed, grads = reference.linear_cross_entropy_and_grad(
        *arguments, linear_bias=LINEAR_BIAS, **chosen
    )
    again = reference.linear_cross_entropy(*arguments, linear_bias=LINEAR_BIAS, **chosen)
    assert loss == computed == again
    of_inputs, of_weight, of_bias = grads
    assert of_inputs == near(grad_logits @ LINEAR_WEIGHT)
    assert of_weight == near(np.einsum("abv,abd->vd", grad_logits, INPUTS))
    assert of_bias == near(grad_logits.sum((0, 1)))


def test_the_gradients_of_the_linear_form_are_the_slopes_of_its_loss():
    parts = {"inputs": INPUTS, "linear_weight": LINEAR_WEIGHT, "linear_bias": LINEAR_BIAS}
    chosen = {"targets": LINEAR_LABELS, **OPTIONS["all"]}
    _, grads = reference.linear_cross_entropy_and_grad(**parts, **chosen)
    for name, grad in zip(parts, grads, strict=True):
        direction = np.random.default_rng(4).normal(size=grad.shape)
        losses = [
            reference.linear_cross_entropy(**{**parts, name: parts[name] + h * direction}, **chosen)
            for h in (1e-5, -1e-5)
        ]
        assert (grad * direction).sum() == near((losses[0] - losses[1]) / 2e-5, 1e-8)


def test_the_linear_form_without_a_bias_has_no_gradient_for_one():
    arguments = (INPUTS, LINEAR_WEIGHT, LINEAR_LABELS)
    loss, (of_inputs, of_weight, of_bias) = reference.linear_cross_entropy_and_grad(*arguments)
    zero, grads = reference.linear_cross_entropy_and_grad(*arguments, linear_bias=np.zeros(5))
    assert of_bias is None
    assert loss == zero
    assert (of_inputs == grads[0]).all()
    assert (of_weight == grads[1]).all()


@pytest.mark.parametrize("bad", [NAN, INF])
def test_an_ignored_row_of_the_linear_form_spoils_no_gradient(bad):
    inputs = INPUTS.copy()
    inputs[0, 2] = bad  # its label is -100
    expected = reference.linear_cross_entropy_and_grad(
        INPUTS, LINEAR_WEIGHT, LINEAR_LABELS, linear_bias=LINEAR_BIAS
    )
    loss, grads = reference.linear_cross_entropy_and_grad(
        inputs, LINEAR_WEIGHT, LINEAR_LABELS, linear_bias=LINEAR_BIAS
    )
    assert loss == expected[0]
    for grad, expected_grad in zip(grads, expected[1], strict=True):
        assert (grad == expected_grad).all()


# Identities, for logits that nobody chose

any_logits = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.floats(-300, 300)
)
settings.register_profile("reference", deadline=None, derandomize=True, max_examples=60)
few = settings(settings.get_profile("reference"))


@few
@given(any_logits, st.data())
def test_every_row_of_the_gradient_sums_to_zero_and_no_loss_is_negative(logits, data):
    classes = st.integers(0, logits.shape[1] - 1)
    labels = data.draw(st.lists(classes, min_size=len(logits), max_size=len(logits)))
    loss, grad = reference.cross_entropy_and_grad(logits, np.array(labels), reduction="none")
    assert (loss >= 0).all()
    assert grad.sum(1) == near(np.zeros(len(logits)), 1e-14)
    assert (grad[np.arange(len(logits)), labels] <= 0).all()


@few
@given(any_logits, st.integers(-1000, 1000))
def test_a_shift_of_a_row_changes_nothing_but_logsumexp(logits, shift):
    moved_logits = logits + shift
    assert reference.softmax(moved_logits) == near(reference.softmax(logits), 1e-10)
    lse = reference.logsumexp(logits)
    assert reference.logsumexp(moved_logits) == near(lse + shift, 1e-10)


def test_the_reference_imports_nothing_of_ours():
    tree = ast.parse(Path(reference.__file__).read_text(encoding="utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    }
    assert imported == {"__future__", "typing", "numpy"}


def test_the_lines_without_options_say_what_the_rest_says():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(50, 7)), rng.dirichlet(np.ones(7), 50)
    loss, grad = reference.loss_and_gradient(logits, targets)
    expected, expected_grad = reference.cross_entropy_and_grad(logits, targets)
    assert abs(loss - expected) < 1e-14
    assert np.abs(grad - expected_grad).max() < 1e-16

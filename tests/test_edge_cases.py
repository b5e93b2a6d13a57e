"""Edge cases, one test each, for every dtype and kind of row."""

import numpy as np
import pytest
from cases import (
    DTYPES,
    INF,
    INTEGERS,
    ISAS,
    NAN,
    PATHS,
    bits,
    labels_of,
    logits_of,
    loss_dtype,
    near,
    soft_targets_of,
)
from covering import covering

import crossent

dtypes = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
paths = pytest.mark.parametrize("C", PATHS.values(), ids=PATHS)
# Options that lead to the general path, or on it to another branch; they change none of the claims.
ROADS = {
    "plain": {},
    "z-loss": {"z_loss": 1e-3},
    "scale": {"logit_scale": 0.75},
    "softcap": {"softcap": 1e6},
}
roads = pytest.mark.parametrize("options", ROADS.values(), ids=ROADS)
PLAIN_ROADS = ({}, {"z_loss": 1e-3}, {"logit_scale": 0.75})


def both(logits, targets, **options):
    """(loss a row, gradient), with the gradient in place checked to have the same bits."""
    options = {"reduction": "none", **options}
    loss, grad = crossent.cross_entropy_and_grad(logits, targets, **options)
    assert bits(crossent.cross_entropy(logits, targets, **options)) == bits(loss)
    place = logits.copy()
    crossent.cross_entropy_and_grad(place, targets, **options, out=place)
    assert bits(place) == bits(grad)
    return loss, grad


def row_of(C, dtype, *start, rest=0.0):
    """One row of logits that begins with `start`."""
    logits = np.full((1, C), rest, dtype)
    logits[0, : len(start)] = start
    return logits


# N = 0, C = 1, C = 0, nothing kept


@dtypes
@roads
def test_without_rows_the_sum_is_0_and_the_mean_is_when_empty_s(dtype, options):
    for shape in ((0, 4), (3, 0, 4), (0, 0, 200)):
        logits = np.zeros(shape, dtype)
        for targets in (np.zeros(shape[:-1], np.int64), np.zeros(shape)):
            for reduction, expected in (("sum", 0.0), ("mean", NAN)):
                loss, grad = crossent.cross_entropy_and_grad(
                    logits, targets, reduction=reduction, **options
                )
                assert np.array_equal(loss, expected, equal_nan=True)
                assert loss.dtype == loss_dtype(dtype)
                assert (grad.shape, grad.dtype) == (shape, dtype)
            assert crossent.cross_entropy(logits, targets, when_empty="zero") == 0
            loss, _ = both(logits, targets, **options)
            assert loss.shape == shape[:-1]


def test_an_empty_list_of_targets_is_no_targets():
    assert np.isnan(crossent.cross_entropy(np.zeros((0, 3)), []))


@dtypes
@roads
def test_a_single_class_has_loss_0_and_gradient_0(dtype, options):
    logits = np.array([[7.0], [-3e4], [0.0]], dtype)
    options = {k: v for k, v in options.items() if k != "z_loss"}
    for targets in ([0, 0, 0], np.ones((3, 1))):
        loss, grad = both(logits, targets, **options)
        assert (loss == 0).all()
        assert (grad == 0).all()
    assert (crossent.softmax(logits) == 1).all()
    assert (crossent.log_softmax(logits) == 0).all()


@pytest.mark.parametrize("shape", [(2, 0), (0, 0), (0,)])
def test_no_classes_are_an_error(shape):
    for call in (crossent.softmax, crossent.logsumexp, crossent.log_softmax):
        with pytest.raises(ValueError, match="C must be at least 1"):
            call(np.zeros(shape))
    with pytest.raises(ValueError, match="C must be at least 1"):
        crossent.cross_entropy(np.zeros(shape), np.zeros(shape[:-1], int))


EMPTY = {
    "all ignored": ([-100, -100], {}),
    "weights 0": ([0, 0], {"weight": [0.0, 1.0, 1.0]}),
    "ignored or of weight 0": ([-100, 0], {"weight": [0.0, 1.0, 1.0]}),
    "no rows": ([], {}),
}


@pytest.mark.parametrize("case", EMPTY)
@dtypes
def test_a_mean_over_nothing_is_when_empty_s_and_its_gradient_is_0(dtype, case):
    targets, options = EMPTY[case]
    logits = np.full((len(targets), 3), NAN).astype(dtype)
    for when_empty, expected in (("nan", NAN), ("zero", 0.0)):
        loss, grad = crossent.cross_entropy_and_grad(
            logits, targets, when_empty=when_empty, **options
        )
        assert np.array_equal(loss, expected, equal_nan=True)
        assert loss.dtype == loss_dtype(dtype)
        assert (grad == 0).all()
    out = np.full(logits.shape, 7, dtype)
    with pytest.raises(ValueError, match="nothing to divide by"):
        crossent.cross_entropy_and_grad(logits, targets, when_empty="raise", out=out, **options)
    assert (out == 7).all()


def test_when_empty_does_not_rule_a_sum_or_a_normalizer():
    logits = np.zeros((2, 3))
    for when_empty in ("nan", "zero", "raise"):
        options = {"when_empty": when_empty}
        assert crossent.cross_entropy(logits, [-100, -100], reduction="sum", **options) == 0
        assert crossent.cross_entropy(logits, [-100, -100], normalizer=2.0, **options) == 0
        assert crossent.cross_entropy(np.zeros((0, 3)), [], normalizer=2.0, **options) == 0


# Labels


BAD_LABELS = (-1, -2, 5, 6, 10**9, -(2**31), 2**31, 2**40, -(2**63), 2**63 - 1)


@dtypes
@pytest.mark.parametrize("label", BAD_LABELS)
def test_a_label_out_of_range_is_an_error_that_names_it(dtype, label):
    logits = logits_of((7, 5), dtype)
    labels = np.array([0, 1, -100, 4, label, 2, -1])
    before, out = bits(logits), np.full((7, 5), 3, dtype)
    said = rf"targets\[4\] is {label} \(row 4\), not a class: labels start at 0, so 5 classes are 0"
    for call in (crossent.cross_entropy, crossent.token_scores):
        with pytest.raises(IndexError, match=said):
            call(logits, labels)
    for target in (out, logits):
        with pytest.raises(IndexError, match=said):
            crossent.cross_entropy_and_grad(logits, labels, out=target)
        with pytest.raises(IndexError, match=said):
            crossent.cross_entropy_hvp(logits, labels, np.ones((7, 5)), out=target)
    assert bits(logits) == before
    assert (out == 3).all()


def test_the_first_bad_row_is_named_however_many_rows_and_threads(set_num_threads):
    labels = np.zeros(1_000_000, np.int64)
    labels[[999_999, 54_321, 700_000]] = 3
    logits = np.zeros((1_000_000, 3), np.float32)
    for threads in (1, 2, 3):
        set_num_threads(threads)
        with pytest.raises(IndexError, match=r"targets\[54321\] is 3 \(row 54321\)"):
            crossent.cross_entropy(logits, labels)


def test_a_bad_row_of_several_axes_is_named_by_all_of_them():
    labels = np.zeros((2, 3, 4), int)
    labels[1, 2, 0] = 9
    with pytest.raises(IndexError, match=r"targets\[1, 2, 0\] is 9 \(row 20\)"):
        crossent.cross_entropy(np.zeros((2, 5, 3, 4)), labels, axis=1)
    with pytest.raises(IndexError, match=r"targets is 9 \(row 0\)"):
        crossent.cross_entropy(np.zeros(5), 9)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_labels_of_every_integer_dtype_mean_the_same(dtype):
    logits, labels = logits_of((9, 5), np.float32), labels_of(9, 5)
    expected = bits(both(logits, labels)[1])
    assert bits(both(logits, labels.astype(dtype))[1]) == expected


def test_156_in_uint8_is_not_minus_100():
    logits = logits_of((2, 200), np.float32)
    labels = np.array([156, 3], np.uint8)
    loss = crossent.cross_entropy(logits, labels, reduction="none")
    assert bits(loss) == bits(crossent.cross_entropy(logits, [156, 3], reduction="none"))
    assert loss[0] > 0
    with pytest.raises(IndexError, match="is 156"):
        crossent.cross_entropy(logits[:, :5], labels)
    assert crossent.cross_entropy(logits[:, :5], labels, ignore_index=156) > 0


@pytest.mark.parametrize(
    ("dtype", "value", "ignore_index"),
    [
        (np.uint8, 156, -100),
        (np.uint64, 2**64 - 100, -100),
        (np.uint32, 2**32 - 1, -1),
        (np.int8, -1, 255),
        (np.int64, -1, 2**64 - 1),
        (np.int32, 0, 2**32),
    ],
)
def test_ignore_index_is_compared_by_value_before_any_cast(dtype, value, ignore_index):
    logits = np.zeros((1, 3))
    labels = np.array([value], dtype)
    if 0 <= value < 3:
        assert crossent.cross_entropy(logits, labels, ignore_index=ignore_index) > 0
    else:
        with pytest.raises(IndexError, match=f"is {value}"):
            crossent.cross_entropy(logits, labels, ignore_index=ignore_index)


@pytest.mark.parametrize("ignore_index", [-100, 0, 2, 99, 2**63 + 5])
def test_the_ignored_label_may_be_any_number_that_the_labels_hold(ignore_index):
    logits = logits_of((3, 4), np.float64)
    dtype = np.uint64 if ignore_index > 2**62 else np.int64
    labels = np.array([1, ignore_index, 3], dtype)
    loss, grad = both(logits, labels, ignore_index=ignore_index)
    assert loss[1] == 0
    assert (grad[1] == 0).all()
    expected = both(logits[[0, 2]], np.array([1, 3]), ignore_index=-1)
    assert bits(loss[[0, 2]]) == bits(expected[0])
    assert bits(grad[[0, 2]]) == bits(expected[1])


# Infinities and nan


NO_SOFTMAX = ("all -inf", "nan", "+inf", "nan target", "+inf target")


@dtypes
@paths
def test_minus_infinity_has_probability_0_and_without_target_mass_adds_nothing(isa, C, dtype):
    logits, keep = logits_of((3, C), dtype), np.arange(C) % 3 != 1
    logits[:, ~keep] = -INF
    labels = np.array([0, 2, C - 1 - (C - 1) % 3])
    one_hot = np.arange(C) == labels[:, None]
    for options in PLAIN_ROADS:
        for targets in (labels, one_hot):
            _, grad = both(logits, targets, **options)
            assert (grad[:, ~keep] == 0).all()
        loss = crossent.cross_entropy(logits, labels, reduction="none", **options)
        without = np.searchsorted(np.flatnonzero(keep), labels)
        expected = crossent.cross_entropy(logits[:, keep], without, reduction="none", **options)
        assert near(loss, expected, rel=1e-6 if loss.dtype == np.float32 else 1e-14)
    assert (crossent.softmax(logits)[:, ~keep] == 0).all()
    assert (crossent.log_softmax(logits)[:, ~keep] == -INF).all()
    assert np.isfinite(crossent.token_scores(logits, labels).entropy).all()


@dtypes
@paths
def test_with_smoothing_every_class_has_mass_so_minus_infinity_costs_infinity(isa, C, dtype):
    logits = row_of(C, dtype, 1.0, -INF, 2.0)
    for targets in ([0], np.arange(C)[None] == 0):
        loss, grad = both(logits, targets, label_smoothing=0.1)
        assert loss[0] == INF
        assert np.isfinite(grad).all()
        assert near(grad[0, 1], -0.1 / C, rel=2.0**-8)


@dtypes
@paths
def test_a_target_on_minus_infinity_costs_infinity_and_has_gradient_p_minus_y(isa, C, dtype):
    logits = row_of(C, dtype, 1.0, -INF, 2.0)
    for options in PLAIN_ROADS[::2]:
        scale = options.get("logit_scale", 1.0)
        prob = crossent.softmax((scale * logits.astype(np.float64)).astype(dtype))
        y = np.arange(C)[None] == 1
        for targets in ([1], y):
            loss, grad = both(logits, targets, **options)
            assert loss[0] == INF
            assert np.isfinite(grad).all()
            assert grad[0, 1] == -scale
            assert near(grad, scale * (prob.astype(float) - y), rel=0.02, abs=1e-7)
    assert crossent.cross_entropy(logits, [1]) == INF
    assert crossent.token_scores(logits, [1]).nll[0] == INF


@covering(3, isa=ISAS, C=PATHS, dtype=DTYPES, kind=NO_SOFTMAX)
def test_a_row_without_a_softmax_is_nan_and_no_other_row_is_touched(isa, kind, C, dtype):
    logits, labels = logits_of((40 if C < 100 else 3, C), dtype), None
    labels = labels_of(len(logits), C)
    clean = logits.copy()
    bad = {"all -inf": -INF, "nan": NAN, "+inf": INF}[kind.split(" target")[0]]
    where = {
        "all -inf": slice(None),
        "nan target": labels[1],
        "+inf target": labels[1],
    }.get(kind, (labels[1] + C // 2) % C)
    logits[1, where] = bad
    others = np.arange(len(logits)) != 1
    for options in (*PLAIN_ROADS, {"label_smoothing": 0.1}):
        for targets in (labels, np.arange(C) == labels[:, None]):
            loss, grad = both(logits, targets, **options)
            expected_loss, expected_grad = both(clean, targets, **options)
            assert np.isnan(loss[1])
            assert np.isnan(grad[1]).all()
            assert bits(loss[others]) == bits(expected_loss[others])
            assert bits(grad[others]) == bits(expected_grad[others])
    for function in (crossent.softmax, crossent.log_softmax):
        assert np.isnan(function(logits)[1]).all()
        assert bits(function(logits)[others]) == bits(function(clean)[others])
    product = crossent.cross_entropy_hvp(logits, labels, np.ones_like(logits), reduction="none")
    assert np.isnan(product[1]).all()
    assert np.isfinite(product[others]).all()


@covering(3, isa=ISAS, C=PATHS, dtype=DTYPES, bad=[NAN, INF, -INF], options=ROADS)
def test_an_ignored_row_may_hold_anything_and_has_loss_0_and_gradient_0(
    isa, options, bad, C, dtype
):
    logits = logits_of((3, C), dtype)
    logits[1] = bad
    labels = np.array([0, -100, C - 1])
    loss, grad = both(logits, labels, **options)
    assert bits(loss[1]) == bits(loss.dtype.type(0))
    assert bits(grad[1]) == bits(np.zeros(C, dtype))
    assert np.isfinite(loss).all()
    assert np.isfinite(grad).all()
    for reduction in ("sum", "mean"):
        total = crossent.cross_entropy(logits, labels, reduction=reduction, **options)
        kept = crossent.cross_entropy(logits[::2], labels[::2], reduction=reduction, **options)
        assert total == kept
    assert crossent.token_scores(logits, labels).nll[1] == 0
    grad_loss = np.array([1.0, bad, 1.0])
    _, grad = crossent.cross_entropy_and_grad(
        logits, labels, reduction="none", grad_loss=grad_loss, **options
    )
    assert (grad[1] == 0).all()


@dtypes
@paths
def test_logsumexp_of_infinities_is_the_limit(isa, C, dtype):
    logits = np.zeros((4, C), dtype)
    logits[0], logits[1, 1], logits[2, 2], logits[3, 3] = -INF, INF, NAN, -INF
    lse = crossent.logsumexp(logits)
    assert lse[0] == -INF
    assert lse[1] == INF
    assert np.isnan(lse[2])
    assert lse[3] == pytest.approx(np.log(C - 1))
    scores = crossent.token_scores(logits, [0, 0, 0, 0])
    assert bits(scores.lse) == bits(lse)
    assert np.isnan(scores.nll[:3]).all()
    assert np.isnan(scores.entropy[:3]).all()
    assert scores.argmax.tolist() == [0, 1, 2, 0]


@dtypes
@paths
def test_under_a_softcap_infinities_are_the_cap(isa, C, dtype):
    logits = row_of(C, dtype, INF, -INF, 0.0)
    capped = row_of(C, np.float64, 5.0, -5.0, 0.0)
    for label in (0, 1, 2):
        for options in ({}, {"label_smoothing": 0.2}, {"z_loss": 0.1}):
            loss, grad = both(logits, [label], softcap=5.0, **options)
            expected, slope = both(capped, [label], **options)
            assert near(loss, expected, rel=1e-6)
            assert (grad[0, :2] == 0).all()
            assert near(grad[0, 2:], slope[0, 2:], rel=0.01, abs=1e-3 * abs(slope).max())
    all_low = np.full((1, C), -INF, dtype)
    assert near(both(all_low, [0], softcap=5.0)[0], [np.log(C)], rel=1e-6)
    assert (both(all_low, [0], softcap=5.0)[1] == 0).all()


@dtypes
@paths
def test_under_a_softcap_nan_stays_nan(isa, C, dtype):
    loss, grad = both(row_of(C, dtype, NAN), [1], softcap=5.0)
    assert np.isnan(loss[0])
    assert np.isnan(grad).all()


# Large, small, equal


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@paths
@roads
def test_logits_of_3e38_are_safe(isa, options, C, dtype):
    dtype, big = DTYPES[dtype], 1.5e308 if dtype == "float64" else 3e38
    logits = row_of(C, dtype, big, -big, 1.0)
    options = {k: v for k, v in options.items() if k not in ("z_loss", "softcap")}
    scale = options.get("logit_scale", 1.0)
    loss, grad = both(logits, [0], **options)
    assert loss[0] == 0
    assert (grad == 0).all()
    loss, grad = both(logits, [1], **options)
    assert loss[0] == INF
    assert grad[0, :3].tolist() == [scale, -scale, 0]
    loss, _ = both(logits, [2], **options)
    assert loss[0] == pytest.approx(scale * float(logits[0, 0]), rel=1e-6)
    assert crossent.cross_entropy(logits, [1], **options) == INF
    tied = row_of(C, dtype, big, big, -big)
    loss, grad = both(tied, [1], **options)
    assert loss[0] == pytest.approx(np.log(2), rel=1e-6)
    assert grad[0, :3].tolist() == [scale / 2, -scale / 2, 0]


@paths
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("logit_scale", [0.7, -1.9])
def test_logits_of_3e38_are_safe_under_a_scale_that_rounds(isa, logit_scale, dtype, C):
    logits = row_of(C, dtype, *np.sign(logit_scale) * np.array([1e38, 1e38, -1e38]))
    loss, grad = both(logits, [1], logit_scale=logit_scale)
    assert loss[0] == pytest.approx(np.log(2), rel=1e-6)
    half = logit_scale / 2
    assert near(grad[0, :3], [half, -half, 0], rel=1e-6)


@covering(3, isa=ISAS, C=PATHS, dtype=DTYPES, options=ROADS)
def test_ties_share_and_the_first_is_the_argmax(isa, options, C, dtype):
    logits = np.full((2, C), 2.0, dtype)
    logits[1, 0] = -1
    options = {k: v for k, v in options.items() if k != "z_loss"}
    scale = options.get("logit_scale", 1.0)
    loss, grad = both(logits, [1, 1], **options)
    assert loss[0] == pytest.approx(np.log(C), rel=1e-6)
    assert near(np.delete(grad[0], 1), np.full(C - 1, scale / C), rel=2.0**-8)
    scores = crossent.token_scores(logits, [1, 1], **options)
    assert scores.argmax.tolist() == [0, 1]
    assert scores.entropy[0] == pytest.approx(np.log(C), rel=1e-6)


@paths
def test_gradients_too_small_for_float16_become_subnormal_or_0(isa, C):
    logits = row_of(C, np.float16, 0.0, -11.0, -16.0, -18.0, rest=-30.0)
    _, grad = both(logits, [0])
    least = 2.0**-24
    wide = np.exp([-11.0, -16.0, -18.0])
    expected = np.round(wide / (1 + wide.sum()) / least) * least
    assert grad[0, 1:4].tolist() == expected.tolist() == [280 * least, 2 * least, 0]
    assert (grad[0, 4:] == 0).all()


# Class weights, smoothing, distributions


@dtypes
@paths
def test_a_class_of_weight_0_costs_nothing_and_does_not_count(isa, C, dtype):
    logits, weight = logits_of((3, C), dtype), np.ones(C)
    weight[0] = 0
    loss, grad = both(logits, [0, 1, 2], weight=weight)
    assert loss[0] == 0
    assert (grad[0] == 0).all()
    assert crossent.cross_entropy(logits, [0, 1, 2], weight=weight) == pytest.approx(
        crossent.cross_entropy(logits[1:], [1, 2]), rel=1e-6
    )


@dtypes
@paths
def test_a_class_of_weight_0_on_minus_infinity_costs_nothing(isa, C, dtype):
    weight = np.ones(C)
    weight[1] = 0
    logits = row_of(C, dtype, 0.0, -INF)
    for targets in ([1], np.arange(C)[None] == 1):
        loss, grad = both(logits, targets, weight=weight)
        assert loss[0] == 0
        assert (grad == 0).all()


@dtypes
@paths
def test_smoothing_1_forgets_the_target(isa, C, dtype):
    logits = logits_of((3, C), dtype)
    first = both(logits, [0, 0, 0], label_smoothing=1.0)
    second = both(logits, [1, 2, 3], label_smoothing=1.0)
    even = both(logits, np.full((3, C), 1.0 / C), label_smoothing=0.0)
    tolerance = {"rel": 1e-6, "abs": 4 / 1024 / C}
    for got, other, same in zip(first, second, even, strict=True):
        assert near(got, other, **tolerance)
        assert near(got, same, **tolerance)


@dtypes
@paths
def test_a_distribution_without_mass_costs_nothing(isa, C, dtype):
    logits = logits_of((2, C), dtype)
    logits[1, 1] = -INF
    loss, grad = both(logits, np.zeros((2, C)))
    assert (loss == 0).all()
    assert (grad == 0).all()


def test_indices_and_one_hot_rows_agree_and_differ_only_in_a_weighted_mean():
    logits, labels = logits_of((6, 5), np.float64), labels_of(6, 5)
    one_hot, weight = np.eye(5)[labels], np.array([0.5, 2.0, 1.0, 0.0, 3.0])
    for options in ({}, {"weight": weight}, {"weight": weight, "label_smoothing": 0.2}):
        for reduction in ("none", "sum"):
            chosen = {**options, "reduction": reduction}
            assert crossent.cross_entropy(logits, labels, **chosen) == pytest.approx(
                crossent.cross_entropy(logits, one_hot, **chosen), rel=1e-14
            )
    total = crossent.cross_entropy(logits, labels, weight=weight, reduction="sum")
    assert crossent.cross_entropy(logits, labels, weight=weight) == pytest.approx(
        total / weight[labels].sum()
    )
    assert crossent.cross_entropy(logits, one_hot, weight=weight) == pytest.approx(total / 6)


def test_values_of_distributions_are_taken_as_they_are():
    logits = logits_of((4, 6), np.float64)
    y = soft_targets_of((4, 6))
    loss, grad = both(logits, y)
    tripled, grad_of_tripled = both(logits, -3 * y)
    assert tripled == pytest.approx(-3 * loss, rel=1e-14)
    assert grad_of_tripled == pytest.approx(-3 * grad, rel=1e-14)
    poisoned = y.copy()
    poisoned[1, 2] = NAN
    loss_of_nan, _ = both(logits, poisoned)
    assert np.isnan(loss_of_nan).tolist() == [False, True, False, False]
    assert bits(loss_of_nan[[0, 2, 3]]) == bits(loss[[0, 2, 3]])


def test_grad_wrt_probabilities_at_its_edges():
    probs = np.array([[0.0, 1.0, 0.0], [0.25, 0.75, 0.0]])
    grad = crossent.grad_wrt_probabilities(probs, np.array([[1, 0, 0], [0, 3, 0]]))
    assert grad[0].tolist() == [-INF, 0, 0]
    assert grad[1].tolist() == [0, -4, 0]
    assert crossent.grad_wrt_probabilities(probs, [0, 1])[0, 0] == -INF
    tiny = np.array([[2.0**-24, 1.0]], np.float16)
    assert crossent.grad_wrt_probabilities(tiny, [0])[0, 0] == -INF  # 2^24 is beyond float16
    with pytest.raises(IndexError, match=r"targets\[1\] is 3"):
        crossent.grad_wrt_probabilities(probs, [0, 3])

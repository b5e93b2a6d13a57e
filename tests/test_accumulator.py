"""The accumulator: its figures against plain NumPy, and the same bits however rows come to it."""

import itertools
import json
import math
import pickle
import re

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import crossent
from crossent import EvaluationAccumulator
from crossent.evaluation.rows import row_dots
from crossent.evaluation.tallies import ConfusionSketch, LossHistogram, calibration_error

N, C = 3000, 17


def outputs(rows: int = N, classes: int = C, dtype: str = "float32", seed: int = 0):
    """(logits, targets) of a model that is right more often than not."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((rows, classes))
    targets = rng.integers(0, classes, rows)
    logits[np.arange(rows), targets] += 2
    return logits.astype(dtype), targets


def result_of(logits, targets, *, classes: int = C, blocks: int = 1, **settings):
    sums = EvaluationAccumulator(classes, **settings)
    for rows in np.array_split(np.arange(len(targets)), blocks):
        sums.update(logits[rows], targets[rows])
    return sums.result()


def document(result) -> str:
    """Every figure, bit by bit."""
    return json.dumps(result.as_dict())


def plain(logits, targets):
    """softmax and -log p in float64."""
    probs = crossent.softmax(np.asarray(logits, np.float64))
    return probs, -np.log(probs[np.arange(len(targets)), targets])


def test_figures_are_those_of_plain_numpy() -> None:
    logits, targets = outputs()
    probs, nll = plain(logits, targets)
    result = result_of(logits, targets)
    classes = result.classes
    correct = probs.argmax(axis=1) == targets
    confidence = probs.max(axis=1)
    near = {
        "loss": (result.loss, nll.mean()),
        "error": (result.loss_standard_error, nll.std(ddof=1) / math.sqrt(N)),
        "perplexity": (result.perplexity, math.exp(nll.mean())),
        "bits": (result.bits, nll.mean() / math.log(2)),
        "uniform": (classes.uniform_loss, math.log(C)),
        "accuracy": (classes.accuracy, correct.mean()),
        "accuracy error": (classes.accuracy_standard_error, correct.std(ddof=1) / math.sqrt(N)),
        "brier": (classes.brier, ((probs - np.eye(C)[targets]) ** 2).sum(axis=1).mean()),
        "confidence": (classes.confidence, confidence.mean()),
        "calibration": (classes.calibration_error, calibration_error(confidence, correct)),
    }
    for name, (got, wanted) in near.items():
        assert got == pytest.approx(wanted, rel=2e-6), name
    top5 = (np.argsort(-logits, axis=1)[:, :5] == targets[:, None]).any(axis=1)
    assert classes.top5 == pytest.approx(top5.mean(), rel=1e-14)
    share = np.bincount(targets, minlength=C) / N
    assert classes.prior_loss == pytest.approx(-(share * np.log(share)).sum(), rel=1e-13)
    for k in range(C):
        assert classes.loss_of_class[k] == pytest.approx(nll[targets == k].mean(), rel=1e-6)
        assert classes.accuracy_of_class[k] == pytest.approx(correct[targets == k].mean())
    assert classes.rows_of_class.tolist() == np.bincount(targets, minlength=C).tolist()
    assert classes.confusion.sum() == N
    assert np.trace(classes.confusion) == correct.sum()
    assert sum(one.rows for one in classes.ranks) == N
    assert [row.row for row in result.hardest] == np.argsort(-nll, kind="stable")[:10].tolist()
    for row in result.hardest:
        assert row.loss == pytest.approx(nll[row.row], rel=1e-6)
        assert row.label == targets[row.row]
        assert list(row.classes) == np.argsort(-probs[row.row])[:5].tolist()
        assert row.probs == pytest.approx(np.sort(probs[row.row])[::-1][:5], rel=1e-5)


def test_the_loss_is_the_library_s() -> None:
    logits, targets = outputs(dtype="float64")
    options = {
        "weight": np.linspace(0, 2, C), "label_smoothing": 0.1, "z_loss": 1e-3, "softcap": 8.0,
        "logit_scale": 0.7, "ignore_index": 3,
    }  # fmt: skip
    for reduction in ("mean", "sum"):
        wanted = crossent.cross_entropy(logits, targets, reduction=reduction, **options)
        got = result_of(logits, targets, reduction=reduction, **options)
        assert got.loss == pytest.approx(wanted, rel=1e-14)
        assert got.ignored == (targets == 3).sum()
    nll = crossent.cross_entropy(logits, targets, softcap=8.0, logit_scale=0.7, ignore_index=3)
    assert got.nll == pytest.approx(nll, rel=1e-14)
    plain, halved = result_of(logits, targets), result_of(logits, targets, normalizer=2 * N)
    assert halved.loss == pytest.approx(plain.loss / 2)
    assert halved.loss_standard_error == pytest.approx(plain.loss_standard_error / 2)
    total = result_of(logits, targets, reduction="sum")
    assert total.loss_standard_error == pytest.approx(plain.loss_standard_error * N)


def test_a_tiny_loss_is_not_rounded_to_0() -> None:
    result = result_of(np.array([[40.0, 0.0], [100.0, 0.0]]), np.array([0, 0]), classes=2)
    assert result.loss == pytest.approx(0.5 * math.exp(-40), rel=1e-15)
    assert result.classes.brier == pytest.approx(math.exp(-80), rel=1e-12)
    assert result.classes.loss_of_class[0] == pytest.approx(0.5 * math.exp(-40), rel=1e-15)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("classes", [2, 17, 1025, 9001])
def test_blocks_change_no_bit(dtype: str, classes: int, set_num_threads) -> None:
    rows = 60 if classes > 1000 else 900
    logits, targets = outputs(rows, classes, dtype)
    whole = document(result_of(logits, targets, classes=classes))
    for blocks in (3, rows):
        assert document(result_of(logits, targets, classes=classes, blocks=blocks)) == whole
    set_num_threads(1)
    assert document(result_of(logits, targets, classes=classes)) == whole


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 200), max_size=4), st.randoms(), st.booleans())
def test_merging_parts_in_any_order_changes_no_bit(cuts: list[int], random, weighted: bool) -> None:
    logits, targets = outputs(200)
    targets = np.where(np.arange(200) % 7, targets, -100)
    weight = np.random.default_rng(0).random(200) if weighted else None

    def part(begin: int, end: int) -> EvaluationAccumulator:
        sums = EvaluationAccumulator(C, first_row=begin)
        rows = slice(begin, end)
        sums.update(
            logits[rows], targets[rows], row_weight=None if weight is None else weight[rows],
            other_logits=logits[rows, ::-1],
        )  # fmt: skip
        return pickle.loads(pickle.dumps(sums))  # as it travels between processes

    edges = sorted({0, 200, *cuts})
    parts = [part(begin, end) for begin, end in itertools.pairwise(edges)]
    random.shuffle(parts)
    total = EvaluationAccumulator(C)
    for one in parts:
        total.merge(one)
    assert document(total.result()) == document(part(0, 200).result())


def test_bad_rows_are_counted_over_parts_and_the_first_is_named() -> None:
    logits, targets = outputs(90)
    logits[[20, 70]], targets[40] = np.nan, -1
    for order in ((0, 1, 2), (2, 0, 1), (2, 1, 0)):
        total = EvaluationAccumulator(C, skip_bad=True)
        for i in order:
            part = EvaluationAccumulator(C, skip_bad=True, first_row=30 * i)
            part.update(logits[30 * i : 30 * i + 30], targets[30 * i : 30 * i + 30])
            total.merge(part)
        result = total.result()
        assert (result.bad_labels, result.bad_logits, result.first_bad_row) == (1, 2, 20)


def test_rows_after_a_merge_are_numbered_on() -> None:
    whole, part = EvaluationAccumulator(2), EvaluationAccumulator(2, first_row=3)
    whole.update(np.zeros((3, 2)), [0, 1, 0])
    part.update(np.zeros((4, 2)), [0, 1, 0, 1])
    whole.merge(part)
    whole.update([[9.0, 0.0]], [1])
    assert whole.result().hardest[0].row == 7


def test_of_equally_hard_rows_the_first_are_kept() -> None:
    logits, targets = np.zeros((50, 3)), np.zeros(50, int)
    logits[30, 1] = 1
    for blocks in (1, 4, 50):
        rows = result_of(logits, targets, classes=3, blocks=blocks, hardest=4).hardest
        assert [row.row for row in rows] == [30, 0, 1, 2]
    assert result_of(logits, targets, classes=3, hardest=0).hardest == []


def test_merging_into_an_empty_one_and_an_empty_one() -> None:
    logits, targets = outputs(50)
    sums = EvaluationAccumulator(C)
    sums.update(logits, targets)
    wanted = document(sums.result())
    sums.merge(EvaluationAccumulator(C))
    empty = EvaluationAccumulator(C)
    empty.merge(sums)
    assert document(sums.result()) == document(empty.result()) == wanted


def test_accumulators_that_measure_other_losses_do_not_merge() -> None:
    for other in (EvaluationAccumulator(3), EvaluationAccumulator(C, label_smoothing=0.1)):
        with pytest.raises(ValueError, match="cannot be merged"):
            EvaluationAccumulator(C).merge(other)


def test_a_result_may_be_taken_at_any_time() -> None:
    logits, targets = outputs()
    sums = EvaluationAccumulator(C)
    sums.update(logits[:100], targets[:100])
    assert sums.result().rows == 100
    sums.update(logits[100:], targets[100:])
    assert document(sums.result()) == document(result_of(logits, targets))


def test_a_whole_weight_is_a_row_repeated() -> None:
    logits, targets = outputs(40)
    weight = np.arange(40) % 3
    sums = EvaluationAccumulator(C)
    sums.update(logits, targets, row_weight=weight)
    got, rows = sums.result(), np.repeat(np.arange(40), weight)
    wanted = result_of(logits[rows], targets[rows])
    assert got.loss == pytest.approx(wanted.loss, rel=1e-14)
    for name in ("accuracy", "brier", "top5", "calibration_error", "prior_loss", "confidence"):
        assert getattr(got.classes, name) == pytest.approx(getattr(wanted.classes, name)), name
    assert got.classes.loss_of_class == pytest.approx(wanted.classes.loss_of_class, nan_ok=True)
    assert got.rows == np.count_nonzero(weight)
    assert got.ignored == 40 - got.rows


def test_blocks_with_and_without_weights_or_another_model_may_alternate() -> None:
    logits, targets = outputs(90)
    parts = [slice(0, 30), slice(30, 60), slice(60, 90)]
    mixed, apart = EvaluationAccumulator(C), EvaluationAccumulator(C)
    weight = np.arange(30) % 3
    for rows, more in zip(
        parts,
        ({}, {"row_weight": weight}, {"other_logits": logits[60:, ::-1]}),
        strict=True,
    ):
        mixed.update(logits[rows], targets[rows], **more)
        part = EvaluationAccumulator(C, first_row=rows.start)
        part.update(logits[rows], targets[rows], **more)
        apart.merge(part)
    assert document(mixed.result()) == document(apart.result())
    assert mixed.result().divisor == 60 + weight.sum()
    assert mixed.result().comparison is not None


def test_rows_without_weights_have_weight_1_among_others() -> None:
    logits, targets = outputs(90)
    weight = np.where(np.arange(90) < 60, 1.0, np.arange(90) % 3)
    mixed, whole = EvaluationAccumulator(C), EvaluationAccumulator(C)
    mixed.update(logits[:60], targets[:60])
    mixed.update(logits[60:], targets[60:], row_weight=weight[60:])
    whole.update(logits, targets, row_weight=weight)
    assert document(mixed.result()) == document(whole.result())


def test_a_mask_and_ignored_targets_leave_the_same_rows_out() -> None:
    logits, targets = outputs(300)
    mask = np.arange(300) % 5 > 0
    logits[~mask] = np.nan
    masked = EvaluationAccumulator(C)
    masked.update(logits, np.where(mask, targets, 99), row_weight=mask)
    ignored = result_of(logits, np.where(mask, targets, -100))
    assert masked.result().loss == pytest.approx(ignored.loss, rel=1e-15)
    assert masked.result().classes.accuracy == pytest.approx(ignored.classes.accuracy, rel=1e-15)
    assert masked.result().ignored == ignored.ignored == 60


def test_one_hot_targets_give_the_figures_of_indices() -> None:
    logits, targets = outputs(500)
    index, one_hot = result_of(logits, targets), result_of(logits, np.eye(C)[targets])
    assert one_hot.loss == pytest.approx(index.loss, rel=1e-7)
    for name in ("accuracy", "brier", "top5", "calibration_error", "prior_loss", "confidence"):
        assert getattr(one_hot.classes, name) == pytest.approx(getattr(index.classes, name)), name


def test_soft_targets_are_judged_as_distributions() -> None:
    logits, _ = outputs(400)
    soft = crossent.softmax(np.random.default_rng(5).standard_normal((400, C)))
    result = result_of(logits, soft)
    probs = crossent.softmax(logits.astype(np.float64))
    assert result.loss == pytest.approx(-(soft * np.log(probs)).sum(axis=1).mean(), rel=1e-6)
    assert result.classes.brier == pytest.approx(((probs - soft) ** 2).sum(axis=1).mean(), rel=1e-6)
    accuracy = (probs.argmax(axis=1) == soft.argmax(axis=1)).mean()
    assert result.classes.accuracy == pytest.approx(accuracy)
    prior = soft.mean(axis=0)
    assert result.classes.prior_loss == pytest.approx(-(prior * np.log(prior)).sum(), rel=1e-12)
    weight = np.arange(400) % 3
    weighted = EvaluationAccumulator(C)
    weighted.update(logits, soft, row_weight=weight)
    prior = np.average(soft, axis=0, weights=weight)
    entropy = -(prior * np.log(prior)).sum()
    assert weighted.result().classes.prior_loss == pytest.approx(entropy, rel=1e-12)
    blocks = document(result_of(logits, soft, blocks=9))
    assert blocks == document(result)


def test_a_paired_difference_is_that_of_the_losses_row_by_row() -> None:
    logits, targets = outputs()
    other = logits + 0.3 * np.random.default_rng(6).standard_normal(logits.shape).astype(np.float32)
    sums = EvaluationAccumulator(C)
    sums.update(logits, targets, other_logits=other)
    comparison = sums.result().comparison
    losses = [crossent.cross_entropy(a, targets, reduction="none") for a in (logits, other)]
    difference = losses[0].astype(float) - losses[1]
    assert comparison.difference == pytest.approx(difference.mean(), rel=1e-12)
    assert comparison.standard_error == pytest.approx(difference.std(ddof=1) / math.sqrt(N))
    assert comparison.other_loss == pytest.approx(losses[1].mean(dtype=float), rel=1e-9)
    right, other_right = logits.argmax(axis=1) == targets, other.argmax(axis=1) == targets
    assert comparison.both_right == (right & other_right).sum()
    assert comparison.only_this_right == (right & ~other_right).sum()
    assert comparison.only_other_right == (~right & other_right).sum()
    assert comparison.both_wrong == (~right & ~other_right).sum()


def test_a_model_compared_with_itself_differs_by_exactly_0() -> None:
    logits, targets = outputs(100)
    sums = EvaluationAccumulator(C)
    sums.update(logits, targets, other_logits=logits)
    assert sums.result().comparison[:2] == (0.0, 0.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda a, t: t.__setitem__(7, 17),
            r"row 7 of the targets has label 17; labels",
        ),
        (lambda a, t: t.__setitem__(7, -1), r"row 7 of the targets has label -1"),
        (lambda a, t: a.__setitem__((7, 3), np.nan), r"row 7 of the logits has no loss: .*nan"),
        (lambda a, t: a.__setitem__((7, 3), np.inf), r"row 7 of the logits has no loss"),
        (lambda a, t: a.__setitem__(7, -np.inf), r"row 7 of the logits has no loss"),
    ],
)
def test_the_first_bad_row_is_named_and_nothing_is_added(change, message: str) -> None:
    logits, targets = outputs(20)
    logits[12], targets[15] = np.nan, 99
    change(logits, targets)
    sums = EvaluationAccumulator(C)
    with pytest.raises(ValueError, match=message):
        sums.update(logits, targets)
    assert sums.result().rows == 0
    skipping = EvaluationAccumulator(C, skip_bad=True)
    skipping.update(logits, targets)
    result = skipping.result()
    assert (result.rows, result.bad_labels + result.bad_logits, result.first_bad_row) == (17, 3, 7)


def test_a_truth_of_probability_0_makes_the_loss_infinite_and_is_counted() -> None:
    logits, targets = outputs(20)
    logits[4, targets[4]] = -np.inf
    result = result_of(logits, targets)
    assert math.isinf(result.loss)
    assert math.isinf(result.perplexity)
    assert result.infinite_rows == 1
    assert result.hardest[0].row == 4


def test_no_rows_follow_when_empty() -> None:
    logits, targets = outputs(5)
    targets[:] = -100
    assert math.isnan(result_of(logits, targets).loss)
    assert result_of(logits, targets, when_empty="zero").loss == 0
    with pytest.raises(ValueError, match="nothing to divide by"):
        result_of(logits, targets, when_empty="raise")


def test_a_label_of_a_small_type_is_not_taken_for_ignore_index() -> None:
    logits = np.zeros((1, 3))
    with pytest.raises(ValueError, match="label 156"):
        result_of(logits, np.array([156], np.uint8), classes=3)
    with pytest.raises(ValueError, match="label 18446744073709551516"):
        result_of(logits, np.array([2**64 - 100], np.uint64), classes=3)


def laid_out(array: np.ndarray, layout: str) -> np.ndarray:
    """The same numbers in other places or another byte order."""
    if layout == "swapped":
        return array.byteswap().view(array.dtype.newbyteorder(">"))
    if layout == "misaligned":
        memory = np.empty(array.nbytes + 1, np.uint8)[1:]
        memory[:] = np.ascontiguousarray(array).view(np.uint8).ravel()
        return memory.view(array.dtype).reshape(array.shape)
    if layout == "reversed":
        return array[..., ::-1].copy()[..., ::-1]
    return np.asfortranarray(array)


@pytest.mark.parametrize("layout", ["swapped", "misaligned", "reversed", "Fortran"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("soft", [False, True])
def test_layout_and_byte_order_of_the_arrays_change_no_bit(dtype, layout: str, soft: bool) -> None:
    rng = np.random.default_rng(4)
    logits = (3 * rng.standard_normal((60, 7))).astype(dtype)
    targets = rng.random((60, 7)).astype(dtype) if soft else rng.integers(0, 7, 60)
    arrays = [logits, targets, rng.random(60), logits[::-1]]
    plain, other = EvaluationAccumulator(7), EvaluationAccumulator(7)
    plain.update(arrays[0], arrays[1], row_weight=arrays[2], other_logits=arrays[3])
    moved = [laid_out(array, layout) for array in arrays]
    other.update(moved[0], moved[1], row_weight=moved[2], other_logits=moved[3])
    assert document(other.result()) == document(plain.result())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", [1, 7, 1023, 1024, 1025, 8191, 8192, 8193, 20001])
def test_row_dots_depend_on_the_row_alone(classes: int, dtype: type) -> None:
    rng = np.random.default_rng(8)
    a, b = rng.standard_normal((2, 40, classes)).astype(dtype)
    whole = row_dots(a, b)
    for rows in (1, 2, 7, 39):
        assert (
            row_dots(a[1 : 1 + rows].copy(), b[1 : 1 + rows].copy()) == whole[1 : 1 + rows]
        ).all()
    exact = (a.astype(np.longdouble) * b).sum(axis=1)
    scale = np.abs(a.astype(float) * b).sum(axis=1)
    assert (np.abs(whole - exact) <= 20 * np.finfo(dtype).eps * scale).all()


def test_quantiles_are_right_to_two_percent() -> None:
    losses = np.random.default_rng(9).gamma(0.3, 2, 100_001)
    histogram = LossHistogram()
    histogram.add(losses)
    for share, got in zip((0.1, 0.5, 0.99), histogram.quantiles((0.1, 0.5, 0.99)), strict=True):
        assert got == pytest.approx(np.quantile(losses, share), rel=0.02)


def test_the_sketch_finds_the_frequent_mistakes_among_many_classes() -> None:
    rng = np.random.default_rng(10)
    classes, rows = 50_000, 200_000
    label = rng.zipf(1.3, rows) % classes
    predicted = np.where(
        rng.random(rows) < 0.5, (label * 7 + 1) % classes, rng.zipf(1.3, rows) % classes
    )
    sketch, half = ConfusionSketch(classes), ConfusionSketch(classes)
    sketch.add(label[::2], predicted[::2])
    half.add(label[1::2], predicted[1::2])
    sketch.merge(half)
    wrong = label != predicted
    pairs, counts = np.unique(np.stack([label, predicted])[:, wrong], axis=1, return_counts=True)
    best = np.argsort(-counts, kind="stable")[:10]
    for pair, i in zip(sketch.top_pairs(10), best, strict=True):
        assert (pair.label, pair.predicted) == tuple(pairs[:, i])
        assert counts[i] <= pair.times <= counts[i] + 30


def test_probabilities_and_log_probabilities_are_recognised() -> None:
    logits, targets = outputs(100)
    assert result_of(logits, targets).warnings == ()
    probs = crossent.softmax(logits)
    assert re.search("look like probabilities", result_of(probs, targets).warnings[0])
    log_probs = result_of(np.log(probs), targets)
    assert re.search("look like log-probabilities", log_probs.warnings[0])
    assert log_probs.loss == pytest.approx(result_of(logits, targets).loss, rel=1e-6)
    one_odd = np.log(probs)
    one_odd[50] += 0.5
    assert result_of(one_odd, targets).warnings == ()
    with np.errstate(divide="ignore"):
        masked = np.log(np.where(np.arange(C) > 2, probs, 0) / probs[:, 3:].sum(axis=1)[:, None])
    assert "log-probabilities" in result_of(masked, targets).warnings[0]
    half = crossent.softmax(logits.astype(np.float16))
    assert result_of(half, targets).warnings != ()


def test_log_probabilities_of_the_truth_are_enough_for_the_loss() -> None:
    logits, targets = outputs()
    nll = crossent.cross_entropy(logits.astype(float), targets, reduction="none")
    sums = EvaluationAccumulator(None)
    sums.update_logprobs(-nll[:1000])
    sums.update_logprobs(-nll[1000:])
    result, whole = sums.result(), result_of(logits.astype(float), targets)
    assert (result.loss, result.loss_standard_error) == (whole.loss, whole.loss_standard_error)
    assert result.classes is None
    assert [row.row for row in result.hardest] == [row.row for row in whole.hardest]


@pytest.mark.parametrize("bad", [0.5, np.nan])
def test_a_log_probability_above_0_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"row 1 of the log-probabilities is (0\.5|nan)"):
        EvaluationAccumulator(None).update_logprobs(np.array([-1.0, bad]))
    skipping = EvaluationAccumulator(None, skip_bad=True)
    skipping.update_logprobs(np.array([-1.0, bad]))
    assert (skipping.result().rows, skipping.result().bad_logits) == (1, 1)


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_a_row_weight_that_is_none_is_refused(weight: float) -> None:
    logits, targets = outputs(3)
    with pytest.raises(ValueError, match="row 2 of the row weights has weight"):
        EvaluationAccumulator(C).update(logits, targets, row_weight=np.array([1, 0, weight]))


@pytest.mark.parametrize(
    ("settings", "update"),
    [
        ({}, {"logits": np.zeros((2, 5)), "targets": [0, 1]}),
        ({}, {"logits": np.zeros((2, C)), "targets": [0, 1, 2]}),
        ({}, {"logits": np.zeros((2, C)), "targets": [0, 1], "row_weight": [1.0]}),
        ({}, {"logits": np.zeros((2, C)), "targets": [0, 1], "other_logits": np.zeros((1, C))}),
        ({"weight": [1.0, 2.0]}, None),
        ({"label_smoothing": 2}, None),
        ({"reduction": "total"}, None),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict, update: dict | None) -> None:
    with pytest.raises(ValueError, match=r"shape|label_smoothing|reduction"):
        EvaluationAccumulator(C, **settings).update(**update)

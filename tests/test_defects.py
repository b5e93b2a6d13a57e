"""Defects that other implementations shipped, one test each: none of them is ours.

What needs a framework, a linear layer or a compiler is tested with those.
"""

import numpy as np
import pytest
from cases import DTYPES, PATHS, bits, labels_of, logits_of, near, soft_targets_of, weights_of

import crossent
from crossent import reference

dtypes = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
paths = pytest.mark.parametrize("C", PATHS.values(), ids=PATHS)


@paths
def test_gradients_are_right_where_the_incoming_gradient_is_not_1(isa, C):
    logits, incoming = logits_of((4, C), np.float64), np.array([1.0, -2.0, 0.0, 0.3])
    for targets in (labels_of(4, C), soft_targets_of((4, C))):
        each = crossent.cross_entropy_and_grad(logits, targets, reduction="none")[1]
        scaled = crossent.cross_entropy_and_grad(
            logits, targets, reduction="none", grad_loss=incoming
        )[1]
        assert near(scaled, incoming[:, None] * each, rel=1e-13, abs=1e-18)
        for reduction in ("mean", "sum"):
            one = crossent.cross_entropy_and_grad(logits, targets, reduction=reduction)[1]
            other = crossent.cross_entropy_and_grad(
                logits, targets, reduction=reduction, grad_loss=-3.5
            )[1]
            assert near(other, -3.5 * one, rel=1e-13, abs=1e-18)


def test_an_incoming_gradient_of_0_gives_0_also_of_the_product():
    logits = logits_of((3, 6), np.float64)
    for options in ({}, {"softcap": 2.0}, {"label_smoothing": 0.1, "z_loss": 0.1}):
        options = {**options, "grad_loss": [0.0, 1.0, 0.0], "reduction": "none"}
        _, grad = crossent.cross_entropy_and_grad(logits, [1, 2, 3], **options)
        product = crossent.cross_entropy_hvp(logits, [1, 2, 3], logits, **options)
        for result in (grad, product):
            assert (result[[0, 2]] == 0).all()
            assert (result[1] != 0).all()


@dtypes
@paths
def test_a_mean_over_no_kept_row_neither_crashes_nor_spreads_nan(C, dtype):
    logits = logits_of((3, C), dtype)
    for when_empty in ("nan", "zero"):
        loss, grad = crossent.cross_entropy_and_grad(logits, [-100] * 3, when_empty=when_empty)
        assert np.isnan(loss) == (when_empty == "nan")
        assert (grad == 0).all()


@dtypes
@paths
def test_an_ignored_row_that_holds_minus_infinity_has_no_nan_in_its_gradient(C, dtype):
    logits = logits_of((3, C), dtype)
    logits[1] = -np.inf
    for options in ({}, {"label_smoothing": 0.1}, {"softcap": 3.0}, {"z_loss": 0.1}):
        loss, grad = crossent.cross_entropy_and_grad(logits, [0, -100, 1], **options)
        assert np.isfinite(loss)
        assert (grad[1] == 0).all()


@paths
def test_smoothing_with_class_weights_weighs_each_class_of_the_smoothed_target(C):
    logits, labels, weight = logits_of((4, C), np.float64), labels_of(4, C), weights_of(C)
    minus_log = -reference.log_softmax(logits)
    of_target = (weight[labels] * minus_log[np.arange(4), labels]).sum()
    of_all = (weight * minus_log).sum()
    options = {"weight": weight, "label_smoothing": 0.3}
    total = crossent.cross_entropy(logits, labels, reduction="sum", **options)
    assert total == pytest.approx(0.7 * of_target + 0.3 / C * of_all, rel=1e-13)
    mean = crossent.cross_entropy(logits, labels, **options)
    assert mean == pytest.approx(total / weight[labels].sum(), rel=1e-15)


@pytest.mark.parametrize("label", [-1, 5, 2**31, 2**63 - 1, -(2**63)])
def test_a_label_out_of_range_is_an_error_and_reads_and_writes_nothing(label):
    memory = np.full((3, 5), np.nan)
    memory[1] = 0.5
    with pytest.raises(IndexError, match=f"is {label} "):
        crossent.cross_entropy_and_grad(memory[1:2], [label], out=memory[1:2])
    assert (memory[1] == 0.5).all()
    assert np.isnan(memory[[0, 2]]).all()


def test_indices_past_2_to_31_are_not_cut_to_32_bits():
    logits = np.zeros((1, 3))
    for label in (2**32, 2**32 + 1, -(2**32) + 1, 2**33):
        with pytest.raises(IndexError, match=f"is {label}"):
            crossent.cross_entropy(logits, [label])
        assert crossent.cross_entropy([[0.0] * 3] * 2, [label, 1], ignore_index=label) > 1


@dtypes
def test_a_padded_vocabulary_is_sliced_away_and_not_counted(dtype):
    padded = np.full((5, 1024), 9, dtype)
    padded[:, :1000] = logits_of((5, 1000), dtype)
    labels = labels_of(5, 1000)
    for options in ({}, {"label_smoothing": 0.1}, {"weight": weights_of(1000)}):
        got = crossent.cross_entropy_and_grad(padded[:, :1000], labels, **options)
        expected = crossent.cross_entropy_and_grad(padded[:, :1000].copy(), labels, **options)
        assert [bits(x) for x in got] == [bits(x) for x in expected]


@dtypes
@paths
def test_logits_are_written_only_where_asked_and_in_place_ignored_rows_become_0(C, dtype):
    logits, labels = logits_of((3, C), dtype), np.array([0, -100, 1])
    before = bits(logits)
    crossent.cross_entropy(logits, labels)
    crossent.cross_entropy_and_grad(logits, labels)
    crossent.cross_entropy_and_grad(logits, labels, out=np.empty_like(logits))
    assert bits(logits) == before
    crossent.cross_entropy_and_grad(logits, labels, out=logits)
    assert (logits[1] == 0).all()


def test_a_second_backward_works():
    criterion = crossent.CrossEntropyLoss()
    criterion.forward([[2.0, 1.0, 0.1]], [0])
    assert bits(criterion.backward()) == bits(criterion.backward())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_low_precision_does_not_diverge_beyond_250_000_classes(isa, dtype):
    C = 262_147
    logits = np.zeros((2, C), DTYPES[dtype])
    logits[1] = (np.arange(C) % 7).astype(DTYPES[dtype])
    expected = reference.cross_entropy(logits, [0, C - 1], reduction="none")
    loss = crossent.cross_entropy(logits, [0, C - 1], reduction="none")
    assert near(loss, expected, rel=2.0**-23)
    _, grad = crossent.cross_entropy_and_grad(logits.astype(np.float32), [0, C - 1])
    assert abs(grad.sum(1, dtype=np.float64)).max() < 1e-6


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_body_and_tail_of_a_row_use_the_same_exponential(isa, dtype):
    values = logits_of((1, 8), np.float64, 10.0)[0]
    for C in (*range(1, 70), 127, 128, 129, 255, 1023, 1025, 2047):
        row = values[np.arange(C) % 8].astype(dtype)[None]
        prob = crossent.softmax(row)[0]
        for start in range(min(8, C)):
            same = prob[start::8]
            assert (same == same[0]).all(), (C, start)


@dtypes
def test_gradients_accumulate_over_micro_batches_to_those_of_the_whole(dtype):
    logits, labels = logits_of((12, 40), dtype), labels_of(12, 40)
    labels[[1, 2, 3, 9]] = -100  # so that the means of the parts have other divisors
    kept = (labels != -100).sum()
    loss, grad = crossent.cross_entropy_and_grad(logits, labels)
    parts = [slice(0, 4), slice(4, 6), slice(6, 12)]
    results = [
        crossent.cross_entropy_and_grad(logits[part], labels[part], normalizer=kept)
        for part in parts
    ]
    assert sum(float(part_loss) for part_loss, _ in results) == pytest.approx(loss, rel=1e-6)
    for part, (_, part_grad) in zip(parts, results, strict=True):
        assert bits(part_grad) == bits(grad[part])


def test_a_small_loss_is_not_0():
    for dtype in ("float32", "float64"):
        for margin in (20, 40, 95):
            logits = np.array([[margin, 0.0, 0.0]], dtype)
            loss, grad = crossent.cross_entropy_and_grad(logits, [0])
            assert loss == pytest.approx(2 * np.exp(-float(margin)), rel=1e-3)
            assert grad[0, 0] == -loss or margin == 20


def test_a_row_s_gradient_does_not_depend_on_its_neighbours(isa):
    """One row whose factor is out of the ordinary once took the others of its tile another way."""
    classes, rows = 10, 16
    logits = np.random.default_rng(0).normal(size=(rows, classes)) / 10
    logits[6, 0] = 745.3  # the others' probabilities are subnormal
    logits[9, 0] = 1e300  # the factor is 2 z_loss lse
    targets, found = np.zeros(rows, np.int64), set()
    for offset in range(0, 64, 8):
        memory = np.zeros(8 * rows * classes + 128, np.uint8)
        start = -memory.ctypes.data % 64 + offset
        out = memory[start : start + 8 * rows * classes].view(np.float64).reshape(classes, rows)
        options = {"axis": 0, "reduction": "none", "z_loss": 0.01, "out": out}
        crossent.cross_entropy_and_grad(np.ascontiguousarray(logits.T), targets, **options)
        found.add(out.tobytes())
    assert len(found) == 1

"""Exact sums, and the means and standard errors that are made from them."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossent.evaluation.exact_sum import CHUNK, ExactSum, WeightedMean

finite = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None)
@given(st.lists(finite, max_size=40))
def test_sums_are_right_to_the_last_bit(numbers: list[float]) -> None:
    total = ExactSum()
    total.add(np.array(numbers, np.float64))
    try:
        wanted = float(sum((Fraction(x) for x in numbers), Fraction(0)))
    except OverflowError:
        assert math.isinf(total.value())
        return
    assert total.value() == wanted


@settings(deadline=None)
@given(st.lists(finite, min_size=2, max_size=30), st.integers(1, 29), st.randoms())
def test_order_and_splits_and_merging_change_nothing(
    numbers: list[float], cut: int, random
) -> None:
    whole, first, second = ExactSum(), ExactSum(), ExactSum()
    whole.add(np.array(numbers))
    mixed = list(numbers)
    random.shuffle(mixed)
    for x in mixed[:cut]:
        first.add(np.array([x]))
    second.add(np.array(mixed[cut:]))
    second.merge(first)
    assert second.value() == whole.value()
    assert second.fraction() == whole.fraction()


def test_groups_are_summed_apart_and_more_numbers_than_a_chunk_too() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal(2 * CHUNK + 7) * 10.0 ** rng.integers(-30, 30, 2 * CHUNK + 7)
    groups = rng.integers(0, 5, len(numbers))
    sums = ExactSum(5)
    sums.add(numbers, groups)
    wanted = [math.fsum(numbers[groups == group]) for group in range(5)]
    assert sums.values().tolist() == wanted


def test_columns_of_rows_are_summed() -> None:
    rows = np.random.default_rng(1).random((1000, 7)).astype(np.float32)
    sums = ExactSum(7)
    sums.add(rows)
    assert sums.values().tolist() == [math.fsum(column) for column in rows.T.astype(float)]


def test_sums_that_grow_past_a_limb_are_carried() -> None:
    sums, added = ExactSum(2), np.array([(1 << 62) - 1, -(1 << 62)])
    for _ in range(9):
        sums._carry(0, added)
    assert sums.values().tolist() == [9 * one / 2**30 for one in added.tolist()]


def test_infinities_and_nan_come_back() -> None:
    sums = ExactSum(4)
    sums.add(np.array([1.0, np.inf, -np.inf, np.nan, 2.0]), np.array([0, 1, 2, 3, 0]))
    assert np.array_equal(sums.values(), [3.0, np.inf, -np.inf, np.nan], equal_nan=True)
    assert sums.infinities == 1
    both = ExactSum()
    both.add(np.array([np.inf, -np.inf]))
    assert math.isnan(both.value())


def test_the_smallest_and_largest_numbers_are_held() -> None:
    for extreme in (5e-324, 1.7976931348623157e308):
        sums = ExactSum()
        sums.add(np.array([extreme, 1.0, -1.0]))
        assert sums.value() == extreme


def test_a_mean_of_equal_weights_has_the_usual_standard_error() -> None:
    values = np.random.default_rng(2).gamma(2, 1, 999)
    mean = WeightedMean()
    mean.add(values)
    estimate = mean.estimate()
    assert estimate.value == pytest.approx(values.mean(), rel=1e-14)
    assert estimate.standard_error == pytest.approx(values.std(ddof=1) / math.sqrt(999), rel=1e-12)


def test_weights_that_are_equal_change_neither_mean_nor_error() -> None:
    values = np.random.default_rng(3).random(50)
    plain, weighted = WeightedMean(), WeightedMean()
    plain.add(values)
    weighted.add(3 * values, np.full(50, 3.0))
    assert weighted.estimate() == pytest.approx(plain.estimate(), rel=1e-14)


def test_the_error_of_a_ratio_is_that_of_repeated_samples() -> None:
    """The standard error against the spread of the ratio over 4,000 samples."""
    rng = np.random.default_rng(4)
    b = rng.gamma(4, 1, (4000, 200))
    a = b * (1 + rng.standard_normal(b.shape))
    spread = (a.sum(axis=1) / b.sum(axis=1)).std()
    errors = []
    for i in range(100):
        mean = WeightedMean()
        mean.add(a[i], b[i])
        errors.append(mean.estimate().standard_error)
    assert np.mean(errors) == pytest.approx(spread, rel=0.05)


def test_a_large_offset_cancels_without_a_trace() -> None:
    mean = WeightedMean()
    mean.add(2.0**20 + np.array([0.0, 1.0, 2.0]))
    assert mean.estimate().standard_error == pytest.approx(math.sqrt(1 / 3), rel=1e-15)


def test_one_row_has_no_standard_error_and_none_no_mean() -> None:
    mean = WeightedMean()
    assert math.isnan(mean.estimate().value)
    mean.add(np.array([2.5]))
    assert mean.estimate().value == 2.5
    assert math.isnan(mean.estimate().standard_error)

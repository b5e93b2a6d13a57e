"""Sums without rounding, and means from them.

The same bits in whatever order, blocks or threads the numbers come.
"""

from __future__ import annotations

import copy
import math
from fractions import Fraction
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

WIDTH = 36  # bits of a limb: 2^17 of them add up in a float64 without rounding
LOWEST = -30  # limb 0 counts in units of 2^-30; losses below 64 begin there
CHUNK = 1 << (53 - WIDTH)  # numbers that are added before they are carried


class Sums:
    """What is added up over rows: whole numbers, arrays of them and other sums, as attributes."""

    def merge(self, other: Self) -> None:
        """Adds the other's rows; where one has no such sum (None), that of the other is taken."""
        for name, theirs in vars(other).items():
            ours = getattr(self, name)
            if theirs is None:
                continue
            if ours is None:
                setattr(self, name, copy.deepcopy(theirs))
            elif isinstance(ours, Sums):
                ours.merge(theirs)
            else:
                setattr(self, name, ours + theirs)


class ExactSum(Sums):
    """Exact sums of float64 numbers, one sum for each of G groups.

    A sum is a large integer in units of a power of two, held as limbs of 36 bits: limb j counts
    units of 2^(36 j - 30), and only limbs that are needed exist (two for ordinary losses). Adding
    integers is exact, and exact addition is associative: neither the order, nor the split into
    blocks, nor the merging of parts can show in the result.

    Infinities and nan are added apart and come back in ``value``.

    >>> total = ExactSum()
    >>> total.add(np.array([1e100, 1.0, -1e100]))
    >>> total.value()
    1.0
    """

    def __init__(self, groups: int = 1) -> None:
        self.groups = groups
        self.infinities = 0  # how many of the numbers were +inf
        self._limbs: dict[int, NDArray[np.int64]] = {}
        self._not_finite = np.zeros(groups)  # the sum of infinities and nan; 0 where there is none

    def add(self, numbers: Array, group_of: Array | None = None) -> None:
        """Adds each number to its group's sum; true and false count as 1 and 0.

        Args:
            numbers: (n,); or (n, G), whose columns are the groups.
            group_of: (n,), the group of each number; None: there is one, or there are columns.
        """
        step = max(1, CHUNK // self.groups) if numbers.ndim == 2 else CHUNK
        for start in range(0, len(numbers), step):
            piece = slice(start, start + step)
            groups = None if group_of is None else group_of[piece]
            if numbers.dtype == np.bool_:  # ones: 2^30 units of limb 0 each
                self._carry(0, self._per_group(numbers[piece], groups) << -LOWEST)
            else:
                self._add_piece(np.asarray(numbers[piece], np.float64), groups)

    def _add_piece(self, numbers: Array, group_of: Array | None) -> None:
        finite = np.isfinite(numbers)
        if not finite.all():
            self.infinities += int(np.count_nonzero(numbers == np.inf))
            others = np.where(finite, 0.0, numbers)
            with np.errstate(invalid="ignore"):  # inf - inf is nan
                self._not_finite += self._float_per_group(others, group_of)
            numbers = np.where(finite, numbers, 0.0)
        largest = float(np.max(np.abs(numbers), initial=0.0))
        if largest == 0.0:
            return
        level = (math.frexp(largest)[1] - LOWEST - 1) // WIDTH  # counts stay within 2^36 there
        rest = numbers
        while True:
            # 1. Whole units of this level in each number, toward 0: to nearest could overflow.
            unit = WIDTH * level + LOWEST
            count = np.trunc(times_power_of_two(rest, -unit))
            self._carry(level, self._per_group(count, group_of))
            # 2. What is left, below a unit. All these steps are exact.
            rest = rest - times_power_of_two(count, unit)
            if not rest.any():
                break
            level -= 1

    def _per_group(self, count: Array, group_of: Array | None) -> NDArray[np.int64]:
        """Whole numbers below 2^53 in all: a float64 adds them without rounding, in any order."""
        return self._float_per_group(count, group_of).astype(np.int64)

    def _float_per_group(self, numbers: Array, group_of: Array | None) -> Array:
        if group_of is None:
            return np.atleast_1d(numbers.sum(axis=0))
        return np.bincount(group_of, weights=numbers, minlength=self.groups)

    def _carry(self, level: int, amount: NDArray[np.int64]) -> None:
        """Adds to a limb and moves what exceeds 36 bits up, so that no limb can overflow."""
        while amount.any():
            amount = amount + self._limbs.get(level, 0)
            carry = (amount + (1 << (WIDTH - 1))) >> WIDTH  # leaves -2^35 .. 2^35 - 1
            self._limbs[level] = amount - (carry << WIDTH)
            level, amount = level + 1, carry

    def merge(self, other: ExactSum) -> None:
        """Adds the other's sums to these."""
        for level in sorted(other._limbs):
            self._carry(level, other._limbs[level])
        self.infinities += other.infinities
        with np.errstate(invalid="ignore"):
            self._not_finite += other._not_finite

    def _ratios(self) -> list[tuple[int, int]]:
        """The sums of finite numbers as numerators and denominators."""
        lowest = min(self._limbs, default=0)
        totals = np.zeros(self.groups, object)  # Python's integers, of any size
        for level, limb in self._limbs.items():
            totals += limb.astype(object) << (WIDTH * (level - lowest))
        over, under = (Fraction(2) ** (WIDTH * lowest + LOWEST)).as_integer_ratio()
        return [(total * over, under) for total in totals]

    def fraction(self) -> Fraction:
        """The sum of finite numbers, where there is one group."""
        (ratio,) = self._ratios()
        return Fraction(*ratio)

    def value(self) -> float:
        """The sum, rounded once, where there is one group."""
        return self.values().item()

    def values(self) -> NDArray[np.float64]:
        """(G,), every group's sum, rounded once."""
        finite = np.array([rounded(*ratio) for ratio in self._ratios()])
        return np.where(self._not_finite == 0, finite, self._not_finite)


def times_power_of_two(numbers: Array, power: int) -> Array:
    """numbers * 2^power; in steps, since 2^power itself may be too large or small for a float64."""
    while abs(power) > 1000:
        step = 1000 if power > 0 else -1000
        numbers, power = numbers * 2.0**step, power - step
    return numbers * 2.0**power


def rounded(numerator: int, denominator: int) -> float:
    """Their ratio as the nearest float64."""
    try:
        return numerator / denominator
    except OverflowError:
        return math.inf if numerator > 0 else -math.inf


def sum_rounded_once(numbers: Array) -> float:
    """Their sum; where it is beyond float64, or of infinities, what plain addition gives."""
    try:
        return math.fsum(numbers)
    except (OverflowError, ValueError):
        return float(numbers.sum())


class Estimate(NamedTuple):
    """A mean and its standard error."""

    value: float
    standard_error: float


class WeightedMean(Sums):
    """The ratio R = sum_i a_i / sum_i b_i and its standard error, over n rows.

        se(R) = sqrt(n / (n - 1) * sum_i (a_i - R b_i)^2) / sum_i b_i

    With all b_i = 1 that is the mean and the usual standard error s / sqrt(n); with weights it is
    the error of a ratio of two means (Cochran, Sampling Techniques, 1977, section 6.4). The sums
    are exact (``ExactSum``) and the variance is computed from them as a fraction, so nothing
    cancels. A square is rounded once, as it enters its sum.
    """

    def __init__(self) -> None:
        self.rows = 0
        self.of_a, self.of_aa = ExactSum(), ExactSum()
        self.of_b, self.of_bb = ExactSum(), ExactSum()
        self.of_ab_less_a = ExactSum()  # nothing where b is 1

    def add(self, a: Array, b: Array | None = None) -> None:
        """Adds rows; ``b`` None stands for ones. Rows of true and false count as 1 and 0."""
        self.rows += len(a)
        if b is not None or a.dtype != np.bool_:
            a = a.astype(np.float64)
        b = np.ones(len(a), np.bool_) if b is None else b.astype(np.float64)
        with np.errstate(over="ignore"):
            self.of_a.add(a)
            self.of_aa.add(a * a)
            self.of_b.add(b)
            self.of_bb.add(b * b)
            if b.dtype != np.bool_:
                self.of_ab_less_a.add(a * b)
                self.of_ab_less_a.add(-a)

    @property
    def total(self) -> float:
        """sum_i a_i, rounded once."""
        return self.of_a.value()

    @property
    def divisor(self) -> float:
        """sum_i b_i, rounded once."""
        return self.of_b.value()

    @property
    def equal_rows(self) -> float:
        """How many rows of equal weight would tell as much: (sum b)^2 / sum b^2 (Kish, 1965)."""
        squares = self.of_bb.value()
        return self.divisor * (self.divisor / squares) if squares else 0.0

    def estimate(self) -> Estimate:
        """The mean and its standard error; nan where there is nothing to divide by."""
        total, divisor = self.total, self.divisor
        if divisor == 0 or not math.isfinite(total) or not math.isfinite(divisor):
            return Estimate(total / divisor if divisor else math.nan, math.nan)
        a, aa, b, bb = (of.fraction() for of in (self.of_a, self.of_aa, self.of_b, self.of_bb))
        ab = a + self.of_ab_less_a.fraction()
        mean = a / b
        value = rounded(*mean.as_integer_ratio())
        if self.rows < 2 or not math.isfinite(self.of_aa.value()):
            return Estimate(value, math.nan)
        squares = aa - 2 * mean * ab + mean * mean * bb  # sum of (a - mean b)^2
        squares = max(squares, Fraction(0))  # the squares were rounded
        variance = squares * self.rows / (self.rows - 1) / (b * b)
        return Estimate(value, math.sqrt(rounded(*variance.as_integer_ratio())))

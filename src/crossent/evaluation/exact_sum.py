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

    Infinities and nan are counted and come back in ``value``.

    >>> total = ExactSum()
    >>> total.add(np.array([1e100, 1.0, -1e100]))
    >>> total.value()
    1.0
    """

    def __init__(self, groups: int = 1) -> None:
        self.groups = groups
        self._limbs: dict[int, NDArray[np.int64]] = {}
        self._special = np.zeros((3, groups), np.int64)  # how many -inf, +inf, nan

    def add(self, numbers: Array, group_of: Array | None = None) -> None:
        """Adds each number to its group's sum; ``group_of`` None: there is one group."""
        for start in range(0, len(numbers), CHUNK):
            piece = slice(start, start + CHUNK)
            groups = None if group_of is None else group_of[piece]
            self._add_piece(np.asarray(numbers[piece], np.float64), groups)

    def add_rows(self, rows: Array) -> None:
        """Adds (n, G) numbers, each column to its group's sum."""
        step = max(1, CHUNK // (2 * self.groups))
        columns = np.arange(self.groups)
        for start in range(0, len(rows), step):
            piece = np.asarray(rows[start : start + step], np.float64)
            self._add_piece(piece.ravel(), np.tile(columns, len(piece)))

    def _add_piece(self, numbers: Array, group_of: Array | None) -> None:
        finite = np.isfinite(numbers)
        if not finite.all():
            for counts, special in zip(self._special, (-np.inf, np.inf, np.nan), strict=True):
                found = np.isnan(numbers) if np.isnan(special) else numbers == special
                counts += self._per_group(found.astype(np.float64), group_of)
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
        if group_of is None:
            return np.array([count.sum()]).astype(np.int64)
        return np.bincount(group_of, weights=count, minlength=self.groups).astype(np.int64)

    def _carry(self, level: int, amount: NDArray[np.int64]) -> None:
        """Adds to a limb and moves what exceeds 36 bits up, so that no limb can overflow."""
        while amount.any():
            limb = self._limbs.get(level)
            amount = amount if limb is None else limb + amount
            carry = (amount + (1 << (WIDTH - 1))) >> WIDTH  # leaves -2^35 .. 2^35 - 1
            self._limbs[level] = amount - (carry << WIDTH)
            level, amount = level + 1, carry

    def merge(self, other: ExactSum) -> None:
        """Adds the other's sums to these."""
        for level in sorted(other._limbs):
            self._carry(level, other._limbs[level])
        self._special += other._special

    def infinities(self) -> int:
        """How many of the numbers were +inf."""
        return int(self._special[1].sum())

    def _integers(self, groups: slice) -> tuple[list[int], Fraction]:
        """The sums of finite numbers of some groups, as integers, and the unit that they count."""
        totals = [0] * len(range(self.groups)[groups])
        lowest = min(self._limbs, default=0)
        for level in range(max(self._limbs, default=-1), lowest - 1, -1):
            limb = self._limbs.get(level)
            counts = [0] * len(totals) if limb is None else limb[groups].tolist()
            totals = [(total << WIDTH) + n for total, n in zip(totals, counts, strict=True)]
        return totals, Fraction(2) ** (WIDTH * lowest + LOWEST)

    def fraction(self, group: int = 0) -> Fraction:
        """A group's sum of finite numbers."""
        (total,), unit = self._integers(slice(group, group + 1))
        return total * unit

    def value(self, group: int = 0) -> float:
        """A group's sum, rounded once."""
        below, above, nans = self._special[:, group].tolist()
        if nans or (below and above):
            return math.nan
        if below or above:
            return math.inf if above else -math.inf
        return rounded(*self.fraction(group).as_integer_ratio())

    def values(self) -> NDArray[np.float64]:
        """(G,), every group's sum, rounded once."""
        if self._special.any():
            return np.array([self.value(group) for group in range(self.groups)])
        totals, unit = self._integers(slice(None))
        over, under = unit.as_integer_ratio()
        return np.array([rounded(total * over, under) for total in totals])


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
        self.plain_rows, self.of_plain_a = 0, ExactSum()  # where b is 1
        self.of_b, self.of_ab, self.of_bb = ExactSum(), ExactSum(), ExactSum()  # where it is not

    def add(self, a: Array, b: Array | None = None) -> None:
        """Adds rows; ``b`` None stands for ones. Rows of true and false count as 1 and 0."""
        self.rows += len(a)
        if b is None and a.dtype == np.bool_:
            self.plain_rows += len(a)
            true = np.array([float(np.count_nonzero(a))])
            self.of_plain_a.add(true)
            self.of_aa.add(true)
            return
        a = a.astype(np.float64)
        with np.errstate(over="ignore"):
            self.of_aa.add(a * a)
            if b is None:
                self.plain_rows += len(a)
                self.of_plain_a.add(a)
                return
            self.of_a.add(a)
            b = b.astype(np.float64)
            self.of_b.add(b)
            self.of_ab.add(a * b)
            self.of_bb.add(b * b)

    @property
    def total(self) -> float:
        """sum_i a_i, rounded once."""
        both = ExactSum()
        both.merge(self.of_a)
        both.merge(self.of_plain_a)
        return both.value()

    @property
    def divisor(self) -> float:
        """sum_i b_i, rounded once."""
        return rounded(*(self.of_b.fraction() + self.plain_rows).as_integer_ratio())

    @property
    def infinities(self) -> int:
        """How many a_i are +inf."""
        return self.of_a.infinities() + self.of_plain_a.infinities()

    def estimate(self) -> Estimate:
        """The mean and its standard error; nan where there is nothing to divide by."""
        total, divisor = self.total, self.divisor
        if divisor == 0 or not math.isfinite(total) or not math.isfinite(divisor):
            return Estimate(total / divisor if divisor else math.nan, math.nan)
        a, aa, plain_a = (of.fraction() for of in (self.of_a, self.of_aa, self.of_plain_a))
        b, ab, bb = (of.fraction() for of in (self.of_b, self.of_ab, self.of_bb))
        a, ab, b, bb = a + plain_a, ab + plain_a, b + self.plain_rows, bb + self.plain_rows
        mean = a / b
        if self.rows < 2 or not math.isfinite(self.of_aa.value()):
            return Estimate(float(mean), math.nan)
        squares = aa - 2 * mean * ab + mean * mean * bb  # sum of (a - mean b)^2
        squares = max(squares, Fraction(0))  # the squares were rounded
        variance = squares * self.rows / (self.rows - 1) / (b * b)
        return Estimate(float(mean), math.sqrt(variance))

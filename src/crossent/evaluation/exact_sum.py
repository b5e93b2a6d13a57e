"""Sums without rounding: the same bits in whatever order, blocks or threads the numbers come."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

WIDTH = 36  # bits of a limb: 2^17 of them add up in a float64 without rounding
LOWEST = -30  # limb 0 counts in units of 2^-30; losses below 64 begin there
CHUNK = 1 << (53 - WIDTH)  # numbers that are added before they are carried


class ExactSum:
    """Exact sums of float64 numbers, one sum for each of G groups.

    A sum is a large integer in units of a power of two, held as limbs of 36 bits: limb j counts
    units of 2^(36 j - 30), and only limbs that are needed exist (two for ordinary losses). Adding
    integers is exact, and exact addition is associative: neither the order, nor the split into
    blocks, nor the merging of parts can show in the result.

    Infinities and nan are counted and come back in ``values``.

    >>> total = ExactSum()
    >>> total.add(np.array([1e100, 1.0, -1e100]))
    >>> total.value()
    1.0
    """

    def __init__(self, groups: int = 1) -> None:
        self.groups = groups
        self._limbs: dict[int, NDArray[np.int64]] = {}
        self._special: Array | None = None  # (3, groups): how many -inf, +inf, nan

    def add(self, numbers: Array, group_of: Array | None = None) -> None:
        """Adds each number to its group's sum (all to group 0 where ``group_of`` is None)."""
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
            self._count_special(numbers, group_of)
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
            self._add_counts(level, count, group_of)
            # 2. What is left, below a unit. All these steps are exact.
            rest = rest - times_power_of_two(count, unit)
            if not rest.any():
                break
            level -= 1

    def _add_counts(self, level: int, count: Array, group_of: Array | None) -> None:
        """Whole numbers below 2^53 in all: a float64 adds them without rounding, in any order."""
        if group_of is None:
            total = np.array([count.sum()])
        else:
            total = np.bincount(group_of, weights=count, minlength=self.groups)
        self._carry(level, total.astype(np.int64))

    def _carry(self, level: int, amount: NDArray[np.int64]) -> None:
        """Adds to a limb and moves what exceeds 36 bits up, so that no limb can overflow."""
        while amount.any():
            limb = self._limbs.get(level)
            amount = amount if limb is None else limb + amount
            carry = (amount + (1 << (WIDTH - 1))) >> WIDTH  # leaves -2^35 .. 2^35 - 1
            self._limbs[level] = amount - (carry << WIDTH)
            level, amount = level + 1, carry

    def _count_special(self, numbers: Array, group_of: Array | None) -> None:
        if self._special is None:
            self._special = np.zeros((3, self.groups), np.int64)
        groups = np.zeros(len(numbers), np.intp) if group_of is None else group_of
        for counts, where in zip(
            self._special,
            (numbers == -np.inf, numbers == np.inf, np.isnan(numbers)),
            strict=True,
        ):
            counts += np.bincount(groups[where], minlength=self.groups)

    def merge(self, other: ExactSum) -> None:
        """Adds the other's sums to these."""
        for level in sorted(other._limbs):
            self._carry(level, other._limbs[level])
        if other._special is not None:
            if self._special is None:
                self._special = np.zeros((3, self.groups), np.int64)
            self._special += other._special

    def infinities(self) -> int:
        """How many of the numbers were +inf."""
        return 0 if self._special is None else int(self._special[1].sum())

    def fraction(self, group: int = 0) -> tuple[int, int]:
        """A group's sum of finite numbers as (integer, power of two): integer * 2^power."""
        totals, power = self.fractions(slice(group, group + 1))
        return totals[0], power

    def fractions(self, groups: slice = slice(None)) -> tuple[list[int], int]:
        """The sums of finite numbers of some groups as (integers, power of two)."""
        totals = [0] * len(range(self.groups)[groups])
        if not self._limbs:
            return totals, 0
        lowest = min(self._limbs)
        for level in range(max(self._limbs), lowest - 1, -1):
            limb = self._limbs.get(level)
            counts = [0] * len(totals) if limb is None else limb[groups].tolist()
            totals = [(total << WIDTH) + n for total, n in zip(totals, counts, strict=True)]
        return totals, WIDTH * lowest + LOWEST

    def value(self, group: int = 0) -> float:
        """A group's sum, rounded once."""
        if self._special is not None:
            below, above, nans = (int(count) for count in self._special[:, group])
            if nans or (below and above):
                return math.nan
            if below or above:
                return math.inf if above else -math.inf
        return rounded(*self.fraction(group))

    def values(self) -> NDArray[np.float64]:
        """(G,), every group's sum, rounded once."""
        if self._special is not None:
            return np.array([self.value(group) for group in range(self.groups)])
        totals, power = self.fractions()
        return np.array([rounded(total, power) for total in totals])


def times_power_of_two(numbers: Array, power: int) -> Array:
    """numbers * 2^power; in steps, since 2^power itself may be too large or small for a float64."""
    while abs(power) > 1000:
        step = 1000 if power > 0 else -1000
        numbers, power = numbers * 2.0**step, power - step
    return numbers * 2.0**power


def rounded(integer: int, power: int) -> float:
    """integer * 2^power as the nearest float64."""
    try:
        return float(integer << power) if power >= 0 else integer / (1 << -power)
    except OverflowError:
        return math.inf if integer > 0 else -math.inf

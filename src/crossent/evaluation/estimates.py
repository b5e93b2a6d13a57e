"""A mean and how sure it is, from exact sums."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossent.evaluation.exact_sum import ExactSum, Sums, rounded

Array = NDArray[Any]


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

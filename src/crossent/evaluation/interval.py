"""How sure a share of right answers is.

Unlike a standard error it says something where no answer, or every answer, is right.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

LEVEL = 0.95
Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)


class Interval(NamedTuple):
    """From where to where a share may lie."""

    low: float
    high: float


def wilson_interval(share: float, rows: float) -> Interval:
    """Wilson's score interval of a share of n independent rows, at LEVEL.

    The shares p for which the share found is within Z standard errors sqrt(p (1 - p) / n) of p:
    the roots of (share - p)^2 = Z^2 p (1 - p) / n. Source: Wilson, "Probable Inference, the Law of
    Succession, and Statistical Inference", Journal of the American Statistical Association 22
    (1927).

    Args:
        share: that was found, from 0 to 1.
        rows: n; under weights how many rows of equal weight would tell as much.

    Returns:
        Within 0 .. 1, and 0 and 1 themselves where the share is; nan where there is no row.

    >>> "%.4f %.4f" % wilson_interval(0.0, 864)
    '0.0000 0.0044'
    """
    if not (rows > 0 and 0 <= share <= 1):
        return Interval(math.nan, math.nan)
    shrinkage = 1 + Z**2 / rows
    middle = (share + Z**2 / (2 * rows)) / shrinkage
    half = Z * math.sqrt((share * (1 - share) + Z**2 / (4 * rows)) / rows) / shrinkage
    return Interval(
        0.0 if share == 0 else max(0.0, middle - half),
        1.0 if share == 1 else min(1.0, middle + half),
    )

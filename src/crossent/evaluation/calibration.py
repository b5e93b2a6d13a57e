"""How far a classifier's confidence is from how often it is right."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def bin_of_confidence(confidence: NDArray[Any], bins: int) -> NDArray[np.intp]:
    """(N,), which of ``bins`` bins of equal width each confidence from 0 to 1 falls into.

    >>> bin_of_confidence(np.array([0.0, 0.19, 0.2, 1.0]), 5)
    array([0, 0, 1, 4])
    """
    return np.minimum((confidence * bins).astype(np.intp), bins - 1)


def calibration_error(confidence: ArrayLike, correct: ArrayLike, *, bins: int = 15) -> float:
    """The expected calibration error: the mean gap between confidence and accuracy.

        ECE = sum_b (n_b / N) |mean confidence in bin b - share of right answers in bin b|

    over ``bins`` bins of equal width; 0 is perfect. Source: Guo, Pleiss, Sun, Weinberger,
    "On Calibration of Modern Neural Networks" (2017), equation 3.

    Args:
        confidence: (N,), the probability that was given to each predicted class.
        correct: (N,), whether that class was the right one.
        bins: the number of bins.

    Returns:
        A number from 0 to 1; nan when there are no rows.

    Example: three answers given at 0.9 of which two were right.

    >>> round(calibration_error([0.9, 0.9, 0.9], [True, True, False]), 3)
    0.233
    """
    confidences = np.asarray(confidence, dtype=np.float64)
    if confidences.size == 0:
        return float("nan")
    # The counts cancel: n_b |mean confidence - share right| = |sum of (confidence - right)|.
    excess = confidences - np.asarray(correct, dtype=np.float64)
    bin_of_row = bin_of_confidence(confidences, bins)
    return float(np.abs(np.bincount(bin_of_row, weights=excess)).sum() / confidences.size)

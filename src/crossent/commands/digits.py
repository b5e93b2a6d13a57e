"""1,797 real handwritten digits, shipped with the package (origin and licence: data/README.md)."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CREDIT = (
    "Digits: E. Alpaydin, C. Kaynak (1998), Optical Recognition of Handwritten Digits, "
    "UCI Machine Learning Repository, doi:10.24432/C50P49, CC BY 4.0."
)


class Digits(NamedTuple):
    """Images (N, 8, 8), uint8, 0 (paper) to 16 (ink); labels (N,), uint8, 0 to 9."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def load_digits() -> Digits:
    """The handwritten digits as ``(images, labels)``.

    >>> images, labels = load_digits()
    >>> images.shape, labels.shape, int(images.max())
    ((1797, 8, 8), (1797,), 16)
    """
    with np.load(Path(__file__).parent / "data" / "digits.npz") as arrays:
        return Digits(images=arrays["images"], labels=arrays["labels"])

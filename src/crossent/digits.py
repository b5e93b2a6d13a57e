"""1,797 real handwritten digits, shipped with the package, and what models make of them.

The origin and the licence of the images: data/README.md.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CREDIT = (
    "Digits: E. Alpaydin, C. Kaynak (1998), Optical Recognition of Handwritten Digits, "
    "UCI Machine Learning Repository, doi:10.24432/C50P49, CC BY 4.0."
)
FOLDS = 4
DATA = Path(__file__).parent / "data"


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
    with np.load(DATA / "digits.npz") as arrays:
        return Digits(images=arrays["images"], labels=arrays["labels"])


def inputs_of_images(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, 65), what a model sees: 64 pixels from 0 to 1, and a 1 that its bias multiplies."""
    pixels = images.reshape(len(images), -1).astype(np.float32) / 16
    return np.hstack([pixels, np.ones((len(pixels), 1), np.float32)])


def fold_of_images(labels: NDArray[np.uint8]) -> NDArray[np.intp]:
    """(N,), which fold holds an image out: every class is dealt out in turn, so folds are alike.

    >>> fold_of_images(np.array([7, 7, 1, 7, 7, 7], np.uint8))
    array([0, 1, 0, 2, 3, 0])
    """
    fold = np.empty(labels.size, np.intp)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        fold[rows] = np.arange(rows.size) % FOLDS
    return fold


def held_out_outputs() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """(logits, labels) of 1,797 images, each judged by the model that never saw it.

    The models are those that ``crossent demo`` trains, as they were trained once: (FOLDS, 65, 10)
    weights, the last of the 65 being the bias.

    >>> logits, labels = held_out_outputs()
    >>> logits.shape, labels.shape
    ((1797, 10), (1797,))
    """
    digits = load_digits()
    inputs, fold = inputs_of_images(digits.images), fold_of_images(digits.labels)
    logits = np.empty((len(inputs), 10), np.float32)
    with np.load(DATA / "digits_model.npz") as model:
        for number in range(FOLDS):
            logits[fold == number] = inputs[fold == number] @ model["weight"][number]
    return logits, digits.labels

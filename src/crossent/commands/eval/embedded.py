"""Outputs to evaluate for those who have none yet: softmax regression on handwritten digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossent.commands.demo.training import FOLDS, fold_of_images
from crossent.commands.digits import load_digits

MODEL = Path(__file__).parent.parent / "data" / "digits_model.npz"


def digits_outputs() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """(logits, labels) of 1,797 images, each judged by the model that never saw it.

    The models are those that ``crossent demo`` trains, as they were trained once: (FOLDS, 65, 10)
    weights, the last of the 65 being the bias.

    >>> logits, labels = digits_outputs()
    >>> logits.shape, labels.shape
    ((1797, 10), (1797,))
    """
    digits = load_digits()
    pixels = digits.images.reshape(len(digits.images), -1).astype(np.float32) / 16
    images = np.hstack([pixels, np.ones((len(pixels), 1), np.float32)])
    fold = fold_of_images(digits.labels)
    logits = np.empty((len(images), 10), np.float32)
    with np.load(MODEL) as model:
        for number in range(FOLDS):
            logits[fold == number] = images[fold == number] @ model["weight"][number]
    return logits, digits.labels

"""Softmax regression on real handwritten digits, trained with ``cross_entropy_and_grad`` and NumPy.

N images of D pixels, C = 10 classes. The whole of training is ``train`` below.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import crossent
from crossent.digits import FOLDS, Digits, fold_of_images, inputs_of_images, load_digits
from crossent.evaluation.tallies import calibration_error

# Round numbers, and no randomness: the same figures every run. The rate is safe: the curvature of
# the loss is at most half the largest eigenvalue of X^T X / N, 11.4 for these images, and momentum
# descent is stable while rate * curvature < 2 (1 + MOMENTUM) = 3.8.
STEPS = 500
LEARNING_RATE = 0.5
MOMENTUM = 0.9
HARDEST = 10

Array32 = NDArray[np.float32]


class Training(NamedTuple):
    """One trained model and how it got there."""

    weight: Array32  # (D + 1, C); the last row is the bias
    first_step: Array32  # (D + 1, C), what the first step adds to the weight, up to the rate
    training_curve: NDArray[np.float64]  # (STEPS,)
    held_out_curve: NDArray[np.float64]  # (STEPS,)


@dataclass(frozen=True)
class HardDigit:
    """A held-out image and the probability that its model gave to the truth."""

    index: int  # its row in ``load_digits()``
    label: int
    predicted: int
    probability: float  # of the label
    loss: float  # -log(probability)


class HeldOut(NamedTuple):
    """The figures of images that a model never saw."""

    loss: float
    perplexity: float
    accuracy: float
    accuracy_of_folds: list[float]
    calibration_error: float


@dataclass(frozen=True)
class DemoResult:
    """Everything that the demo prints and draws."""

    held_out: HeldOut
    training_loss: float
    training_curves: NDArray[np.float64]  # (FOLDS, STEPS)
    held_out_curves: NDArray[np.float64]  # (FOLDS, STEPS)
    first_step_images: Array32  # (C, 8, 8)
    weight_images: Array32  # (C, 8, 8)
    confusion: NDArray[np.int64]  # (C, C), row: the label, column: the answer
    hardest: list[HardDigit]
    hardest_images: NDArray[np.uint8]  # (HARDEST, 8, 8)
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """The figures without the arrays, for ``--json``."""
        return {
            "images": int(self.confusion.sum()),
            "folds": FOLDS,
            "steps": self.training_curves.size,
            "held_out": self.held_out._asdict(),
            "training": {"loss": self.training_loss},
            "confusion": self.confusion.tolist(),
            "hardest": [asdict(digit) for digit in self.hardest],
            "seconds": self.seconds,
        }


def train(
    images: Array32,
    labels: NDArray[np.uint8],
    held_out_images: Array32,
    held_out_labels: NDArray[np.uint8],
    on_step: Callable[[], None],
) -> Training:
    """Softmax regression by full-batch gradient descent with momentum, from zero weights.

        logits = images @ weight                            (N, C)
        loss   = mean of -log softmax(logits)[label]
        dloss/dlogits = (p - y) / N                         p: the softmax, y: the label one-hot
        dloss/dweight = images^T @ dloss/dlogits            p - y carried back to the pixels

    The held-out images are only looked at, for their curve; nothing is chosen by them.
    """
    weight = np.zeros((images.shape[1], 10), np.float32)
    velocity = np.zeros_like(weight)
    training_curve, held_out_curve = np.empty(STEPS), np.empty(STEPS)
    for step in range(STEPS):
        loss, grad_logits = crossent.cross_entropy_and_grad(images @ weight, labels)
        training_curve[step] = loss
        held_out_curve[step] = crossent.cross_entropy(held_out_images @ weight, held_out_labels)
        grad_weight = images.T @ grad_logits
        if step == 0:
            first_step = -grad_weight
        velocity = MOMENTUM * velocity - LEARNING_RATE * grad_weight
        weight += velocity
        on_step()
    return Training(weight, first_step, training_curve, held_out_curve)


def run_demo(on_step: Callable[[], None] = lambda: None) -> DemoResult:
    """Train ``FOLDS`` models, each without a quarter of the images, and judge each on its quarter.

    So every one of the 1,797 images is held out once and no lucky split can flatter the figures.
    Nothing is random: the same figures every run.

    Args:
        on_step: called after each of the ``FOLDS * STEPS`` steps.
    """
    start = time.perf_counter()
    digits = load_digits()
    images, fold = inputs_of_images(digits.images), fold_of_images(digits.labels)

    logits = np.empty((len(images), 10), np.float32)
    trainings = []
    for number in range(FOLDS):
        held_out = fold == number
        training = train(
            images[~held_out], digits.labels[~held_out],
            images[held_out], digits.labels[held_out], on_step,
        )  # fmt: skip
        logits[held_out] = images[held_out] @ training.weight
        trainings.append(training)
    return judge(digits, fold, logits, trainings, start)


def judge(
    digits: Digits,
    fold: NDArray[np.intp],
    logits: Array32,
    trainings: Sequence[Training],
    start: float,
) -> DemoResult:
    """The figures of held-out logits; `start` is when the work began."""
    scores = crossent.token_scores(logits, digits.labels)  # nll, lse, argmax of each row: one pass
    correct = scores.argmax == digits.labels
    confusion = np.zeros((10, 10), np.int64)
    np.add.at(confusion, (digits.labels, scores.argmax), 1)
    loss = float(np.mean(scores.nll, dtype=np.float64))
    hardest = np.argsort(-scores.nll, kind="stable")[:HARDEST].tolist()
    of_images = (digits.labels, scores.argmax, np.exp(-scores.nll), scores.nll)
    of_folds = zip(*trainings, strict=True)
    weights, first_steps, training_curves, held_out_curves = map(np.array, of_folds)
    return DemoResult(
        held_out=HeldOut(
            loss=loss,
            perplexity=float(np.exp(loss)),
            accuracy=float(correct.mean()),
            accuracy_of_folds=[float(correct[fold == number].mean()) for number in range(FOLDS)],
            calibration_error=calibration_error(np.exp(logits.max(axis=-1) - scores.lse), correct),
        ),
        training_loss=float(training_curves[:, -1].mean()),
        training_curves=training_curves,
        held_out_curves=held_out_curves,
        first_step_images=as_images(first_steps.mean(axis=0)),
        weight_images=as_images(weights.mean(axis=0)),
        confusion=confusion,
        hardest=[HardDigit(row, *(of.item(row) for of in of_images)) for row in hardest],
        hardest_images=digits.images[hardest],
        seconds=time.perf_counter() - start,
    )


def as_images(weight: Array32) -> Array32:
    """(C, 8, 8): the columns of a (D + 1, C) weight as pictures, without the bias."""
    return weight[:-1].T.reshape(-1, 8, 8)

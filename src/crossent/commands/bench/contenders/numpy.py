"""Whoever computes with NumPy arrays: crossent, and its peers the textbook, SciPy, scikit-learn."""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

import crossent
from crossent.commands.bench.arrays import Array, as_bits, as_logits
from crossent.commands.bench.cases import FRESH, IN_PLACE, LOSS, OUT, Case
from crossent.commands.bench.contender import Calls, Contender
from crossent.commands.bench.measure import Call


class Crossent(Contender):
    """The loss alone, and with its gradient in fresh memory, in `out=` and over the logits."""

    name, title, ours = "crossent", "crossent", True
    held, most_held = 2, 3

    def start(self, threads: int) -> int:
        crossent.set_num_threads(threads)
        return crossent.get_num_threads()

    @classmethod
    def why_not(cls, case: Case) -> str | None:
        if case.dtype == "bfloat16" and find_spec("ml_dtypes") is None:
            return "bfloat16 in NumPy needs ml_dtypes: pip install ml_dtypes"
        return super().why_not(case)

    def load(self, case: Case, arrays: Mapping[str, Array]) -> Calls:
        pristine = as_logits(arrays["logits"])
        logits, out = np.array(pristine), np.ones_like(pristine)
        targets, axis = np.array(arrays["targets"]), case.axis
        with_grad = crossent.cross_entropy_and_grad
        return {
            LOSS: Call(lambda: crossent.cross_entropy(logits, targets, axis=axis)),
            FRESH: Call(lambda: with_grad(logits, targets, axis=axis)),
            OUT: Call(lambda: with_grad(logits, targets, axis=axis, out=out)),
            IN_PLACE: Call(
                lambda: with_grad(logits, targets, axis=axis, out=logits),
                restore=lambda: np.copyto(logits, pristine),
            ),
        }

    def rows(self, logits: Array, targets: Array) -> tuple[Array, Array]:
        array = as_logits(logits)
        losses = crossent.cross_entropy(array, targets, reduction="none")
        _, grad = crossent.cross_entropy_and_grad(array, targets, reduction="sum")
        return as_bits(losses), as_bits(grad)


class TextbookLoss:
    """Softmax cross-entropy as courses write it, for logits A and one-hot rows Y (N, C)."""

    def softmax(self, A: Array) -> Array:
        exps = np.exp(A - A.max(axis=1, keepdims=True))
        return exps / exps.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]

    def forward(self, A: Array, Y: Array) -> Any:
        self.probabilities, self.Y = self.softmax(A), Y
        self.losses = (-Y * np.log(self.probabilities)).sum(axis=1)
        return self.losses.sum() / len(A)

    def backward(self) -> Array:
        return (self.probabilities - self.Y) / len(self.Y)


def one_hot_rows(logits: Array, targets: Array) -> Array:
    """Rows of zeros with a one at the target, as the logits in shape (N, C) and type."""
    rows = np.zeros_like(logits)
    np.put_along_axis(rows, targets.reshape(-1, 1), 1, axis=1)
    return rows


class Textbook(Contender):
    """A class that every course has its students write."""

    name, title = "textbook", "textbook NumPy class"
    dtypes = ("float32", "float64")
    any_axis = False
    held, most_held = 2, 6

    def load(self, case: Case, arrays: Mapping[str, Array]) -> Calls:
        A = np.array(arrays["logits"]).reshape(-1, case.classes)
        Y = one_hot_rows(A, arrays["targets"])
        criterion = TextbookLoss()
        functions = {
            LOSS: lambda: criterion.forward(A, Y),
            FRESH: lambda: (criterion.forward(A, Y), criterion.backward()),
        }
        return {task: Call(functions[task], vars(criterion).clear) for task in functions}

    def rows(self, logits: Array, targets: Array) -> tuple[Array, Array]:
        criterion, Y = TextbookLoss(), one_hot_rows(logits, targets)
        with np.errstate(all="ignore"):  # log 0, where a probability rounds to 0
            criterion.forward(logits, Y)
        return criterion.losses, criterion.probabilities - Y


class SciPy(Contender):
    """logsumexp less the target's logit, and softmax less one at the target."""

    name, title, packages = "scipy", "SciPy", ("scipy",)
    dtypes = ("float32", "float64")
    most_held = 7

    def start(self, threads: int) -> int:
        self.special = import_module("scipy.special")
        return 1

    def losses(self, logits: Array, targets: Array, axis: int) -> Any:
        target_logits = np.take_along_axis(logits, targets, axis)
        return self.special.logsumexp(logits, axis=axis) - np.squeeze(target_logits, axis)

    def gradient(self, logits: Array, targets: Array, axis: int) -> Any:
        grad = self.special.softmax(logits, axis=axis)
        prob = np.take_along_axis(grad, targets, axis)
        np.put_along_axis(grad, targets, prob - 1, axis)
        return grad

    def load(self, case: Case, arrays: Mapping[str, Array]) -> Calls:
        targets = np.expand_dims(np.array(arrays["targets"]), case.axis)
        arguments = np.array(arrays["logits"]), targets, case.axis

        def loss_and_gradient() -> Any:
            loss, grad = self.losses(*arguments).mean(), self.gradient(*arguments)
            grad /= targets.size
            return loss, grad

        return {LOSS: Call(lambda: self.losses(*arguments).mean()), FRESH: Call(loss_and_gradient)}

    def rows(self, logits: Array, targets: Array) -> tuple[Array, Array]:
        arguments = (logits, targets[:, None], 1)
        return self.losses(*arguments), self.gradient(*arguments)


class ScikitLearn(Contender):
    """The loss inside LogisticRegression and gradient boosting: compiled, with OpenMP."""

    name, title, packages = "sklearn", "scikit-learn", ("scikit-learn",)
    dtypes = ("float32", "float64")
    any_axis = False
    held, most_held = 2, 3

    def start(self, threads: int) -> int:
        self.loss = import_module("sklearn._loss").HalfMultinomialLoss
        self.threads = threads
        return threads

    def load(self, case: Case, arrays: Mapping[str, Array]) -> Calls:
        logits = np.array(arrays["logits"]).reshape(-1, case.classes)
        targets = arrays["targets"].reshape(-1).astype(logits.dtype)
        arguments = {
            "y_true": targets,
            "raw_prediction": logits,
            "sample_weight": np.full_like(targets, 1 / targets.size),  # makes a sum the mean
            "n_threads": self.threads,
        }
        loss, memory = self.loss(n_classes=case.classes), np.ones_like(logits)

        def with_gradient(out: Array | None) -> Any:
            losses, grad = loss.loss_gradient(gradient_out=out, **arguments)
            return losses.sum(), grad

        return {
            LOSS: Call(lambda: loss.loss(**arguments).sum()),
            FRESH: Call(lambda: with_gradient(None)),
            OUT: Call(lambda: with_gradient(memory)),
        }

    def rows(self, logits: Array, targets: Array) -> tuple[Array, Array]:
        loss, labels = self.loss(n_classes=logits.shape[1]), targets.astype(logits.dtype)
        return loss.loss_gradient(  # type: ignore[no-any-return]
            y_true=labels, raw_prediction=logits, n_threads=self.threads
        )

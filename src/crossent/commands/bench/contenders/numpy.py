"""Peers that compute with NumPy arrays: the textbook's class, SciPy, scikit-learn."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossent.commands.bench.cases import FRESH, LOSS, OUT, Case
from crossent.commands.bench.contender import Contender, Rows

Array = NDArray[Any]


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


class Textbook(Contender):
    """A class that every course has its students write."""

    name, title = "textbook", "textbook NumPy class"
    packages = ()
    dtypes = ("float32", "float64")
    any_axis = False
    held, most_held = 2, 6

    def load(self, case: Case, arrays: Mapping[str, Array]) -> None:
        self.logits = np.array(arrays["logits"]).reshape(-1, case.classes)
        self.one_hot = np.zeros_like(self.logits)
        np.put_along_axis(self.one_hot, arrays["targets"].reshape(-1, 1), 1, axis=1)
        self.criterion = TextbookLoss()

    def call(self, task: str) -> Callable[[], Any]:
        forward, backward = self.criterion.forward, self.criterion.backward
        logits, one_hot = self.logits, self.one_hot
        return {
            LOSS: lambda: forward(logits, one_hot),
            FRESH: lambda: (forward(logits, one_hot), backward()),
        }[task]

    def restore(self, task: str) -> None:
        self.criterion.__dict__.clear()

    def rows(self, logits: Array, targets: Array, dtype: str) -> Rows:
        one_hot = np.zeros_like(logits)
        np.put_along_axis(one_hot, targets[:, None], 1, axis=1)
        criterion = TextbookLoss()
        with np.errstate(all="ignore"):  # log 0, where a probability rounds to 0
            criterion.forward(logits, one_hot)
        return Rows(criterion.losses, dtype, criterion.probabilities - one_hot, dtype)


class SciPy(Contender):
    """logsumexp less the target's logit, and softmax less one at the target."""

    name, title = "scipy", "SciPy"
    modules, packages = ("scipy",), ("scipy",)
    dtypes = ("float32", "float64")
    most_held = 7

    def start(self, threads: int) -> None:
        special = import_module("scipy.special")
        self.logsumexp, self.softmax = special.logsumexp, special.softmax

    def load(self, case: Case, arrays: Mapping[str, Array]) -> None:
        self.logits = np.array(arrays["logits"])
        self.axis = case.axis
        self.targets = np.expand_dims(np.array(arrays["targets"]), case.axis)

    def losses(self, logits: Array, targets: Array, axis: int) -> Any:
        target_logits = np.take_along_axis(logits, targets, axis)
        return self.logsumexp(logits, axis=axis) - np.squeeze(target_logits, axis)

    def gradient(self, logits: Array, targets: Array, axis: int) -> Any:
        grad = self.softmax(logits, axis=axis)
        prob = np.take_along_axis(grad, targets, axis)
        np.put_along_axis(grad, targets, prob - 1, axis)
        return grad

    def call(self, task: str) -> Callable[[], Any]:
        arguments = (self.logits, self.targets, self.axis)
        return {
            LOSS: lambda: self.losses(*arguments).mean(),
            FRESH: lambda: (self.losses(*arguments).mean(), self.mean_gradient(*arguments)),
        }[task]

    def mean_gradient(self, logits: Array, targets: Array, axis: int) -> Any:
        grad = self.gradient(logits, targets, axis)
        grad /= targets.size
        return grad

    def rows(self, logits: Array, targets: Array, dtype: str) -> Rows:
        arguments = (logits, targets[:, None], 1)
        return Rows(self.losses(*arguments), dtype, self.gradient(*arguments), dtype)


class ScikitLearn(Contender):
    """The loss inside LogisticRegression and gradient boosting: compiled, with OpenMP."""

    name, title = "sklearn", "scikit-learn"
    modules, packages = ("sklearn",), ("scikit-learn",)
    dtypes = ("float32", "float64")
    tasks = (LOSS, FRESH, OUT)
    any_axis = False
    held, most_held = 2, 3

    def start(self, threads: int) -> None:
        self.losses = import_module("sklearn._loss").HalfMultinomialLoss
        self.count = threads

    def threads(self) -> int:
        return self.count

    def load(self, case: Case, arrays: Mapping[str, Array]) -> None:
        self.logits = np.array(arrays["logits"]).reshape(-1, case.classes)
        self.targets = arrays["targets"].reshape(-1).astype(self.logits.dtype)
        self.share = np.full_like(self.targets, 1 / self.targets.size)  # makes a sum the mean
        self.out = np.ones_like(self.logits)
        self.loss = self.losses(n_classes=case.classes)

    def call(self, task: str) -> Callable[[], Any]:
        arguments = {
            "y_true": self.targets,
            "raw_prediction": self.logits,
            "sample_weight": self.share,
            "n_threads": self.count,
        }

        def with_gradient(out: Array | None) -> Any:
            losses, grad = self.loss.loss_gradient(gradient_out=out, **arguments)
            return losses.sum(), grad

        return {
            LOSS: lambda: self.loss.loss(**arguments).sum(),
            FRESH: lambda: with_gradient(None),
            OUT: lambda: with_gradient(self.out),
        }[task]

    def rows(self, logits: Array, targets: Array, dtype: str) -> Rows:
        loss = self.losses(n_classes=logits.shape[1])
        losses, grad = loss.loss_gradient(
            y_true=targets.astype(logits.dtype), raw_prediction=logits, n_threads=self.count
        )
        return Rows(losses, dtype, grad, dtype)

"""crossent from NumPy."""

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

import crossent
from crossent.commands.bench.cases import FRESH, IN_PLACE, LOSS, OUT, TASKS, Case
from crossent.commands.bench.contender import Contender, Rows
from crossent.commands.bench.data import from_stored

Array = NDArray[Any]


def as_logits(stored: Array, dtype: str) -> Array:
    """Stored logits in the type that the functions take: ml_dtypes has bfloat16."""
    return stored.view(import_module("ml_dtypes").bfloat16) if dtype == "bfloat16" else stored


class Crossent(Contender):
    """The loss alone, and with its gradient in fresh memory, in `out=` and over the logits."""

    name, title, ours = "crossent", "crossent", True
    tasks = TASKS
    held, most_held = 2, 3

    def start(self, threads: int) -> None:
        crossent.set_num_threads(threads)

    def threads(self) -> int:
        return crossent.get_num_threads()

    def versions(self) -> dict[str, str]:
        return {"crossent": crossent.__version__, "isa": crossent.isa()} | super().versions()

    @classmethod
    def why_not(cls, case: Case) -> str | None:
        if case.dtype == "bfloat16" and find_spec("ml_dtypes") is None:
            return "bfloat16 in NumPy needs ml_dtypes: pip install ml_dtypes"
        return super().why_not(case)

    def load(self, case: Case, arrays: Mapping[str, Array]) -> None:
        self.pristine = arrays["logits"]
        self.stored = np.array(self.pristine)
        self.logits = as_logits(self.stored, case.dtype)
        self.targets = np.array(arrays["targets"])
        self.out = as_logits(np.ones_like(self.stored), case.dtype)
        self.axis = case.axis

    def call(self, task: str) -> Callable[[], Any]:
        logits, targets, axis = self.logits, self.targets, self.axis
        with_grad = crossent.cross_entropy_and_grad
        return {
            LOSS: lambda: crossent.cross_entropy(logits, targets, axis=axis),
            FRESH: lambda: with_grad(logits, targets, axis=axis),
            OUT: lambda: with_grad(logits, targets, axis=axis, out=self.out),
            IN_PLACE: lambda: with_grad(logits, targets, axis=axis, out=logits),
        }[task]

    def restore(self, task: str) -> None:
        if task == IN_PLACE:
            np.copyto(self.stored, self.pristine)

    def rows(self, logits: Array, targets: Array, dtype: str) -> Rows:
        array = as_logits(logits, dtype)
        losses = crossent.cross_entropy(array, targets, reduction="none")
        _, grad = crossent.cross_entropy_and_grad(array, targets, reduction="sum")
        stored = grad.view(np.uint16) if dtype == "bfloat16" else grad
        return Rows(losses, str(losses.dtype), from_stored(stored), dtype)

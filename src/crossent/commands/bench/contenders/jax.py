"""JAX with optax's loss, under jit."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from crossent.commands.bench.cases import FRESH, IN_PLACE, LOSS, Case
from crossent.commands.bench.contender import Contender, Rows
from crossent.commands.bench.contenders.ours import as_logits
from crossent.commands.info import usable_cpus

Array = NDArray[Any]


class Jax(Contender):
    """optax.softmax_cross_entropy_with_integer_labels; in place: the logits' buffer is donated."""

    name, title = "jax", "JAX with optax, jit"
    modules, packages = ("jax", "optax"), ("jax", "optax")
    environment: ClassVar[Mapping[str, str]] = {"JAX_PLATFORMS": "cpu"}
    tasks = (LOSS, FRESH, IN_PLACE)
    most_held = 6

    def start(self, threads: int) -> None:
        self.jax: Any = import_module("jax")
        self.losses = import_module("optax").softmax_cross_entropy_with_integer_labels

    def threads(self) -> int:
        return usable_cpus()  # XLA's pool: what the process may run on

    def array(self, stored: Array, dtype: str) -> Any:
        self.jax.config.update("jax_enable_x64", dtype == "float64")
        return self.jax.numpy.array(as_logits(stored, dtype), copy=True).block_until_ready()

    def load(self, case: Case, arrays: Mapping[str, Array]) -> None:
        self.pristine, self.dtype = arrays["logits"], case.dtype
        self.logits = self.array(self.pristine, case.dtype)
        self.targets = self.jax.numpy.asarray(arrays["targets"].astype(np.int32))
        losses, axis = self.losses, case.axis

        def mean(logits: Any, targets: Any) -> Any:
            return losses(logits, targets, axis=axis).mean()

        with_gradient = self.jax.value_and_grad(mean)
        self.functions = {
            LOSS: self.jax.jit(mean),
            FRESH: self.jax.jit(with_gradient),
            IN_PLACE: self.jax.jit(with_gradient, donate_argnums=0),
        }

    def call(self, task: str) -> Callable[[], Any]:
        function, ready = self.functions[task], self.jax.block_until_ready
        return lambda: ready(function(self.logits, self.targets))

    def restore(self, task: str) -> None:
        if task == IN_PLACE:
            self.logits = self.array(self.pristine, self.dtype)

    def rows(self, logits: Array, targets: Array, dtype: str) -> Rows:
        array, labels = self.array(logits, dtype), self.jax.numpy.asarray(targets.astype(np.int32))
        losses = self.jax.jit(self.losses)(array, labels)
        grad = self.jax.jit(self.jax.grad(lambda a: self.losses(a, labels).sum()))(array)
        kind = str(losses.dtype)
        return Rows(as_numbers(losses), kind, as_numbers(grad), dtype)


def as_numbers(array: Any) -> Array:
    """A JAX array as NumPy has it: bfloat16 becomes float32."""
    return np.asarray(array.astype("float32") if array.dtype == "bfloat16" else array)

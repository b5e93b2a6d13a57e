"""JAX with optax's loss, under jit."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from crossent.commands.bench.cases import FRESH, IN_PLACE, LOSS, Array, Case
from crossent.commands.bench.contender import Calls, Contender, Rows
from crossent.commands.bench.contenders.numpy import as_logits
from crossent.commands.info import usable_cpus


class Jax(Contender):
    """optax.softmax_cross_entropy_with_integer_labels; in place: the logits' buffer is donated."""

    name, title = "jax", "JAX with optax, jit"
    modules, packages = ("jax", "optax"), ("jax", "optax")
    environment: ClassVar[Mapping[str, str]] = {"JAX_PLATFORMS": "cpu"}
    tasks = (LOSS, FRESH, IN_PLACE)
    most_held = 6

    def start(self, threads: int) -> int:
        self.jax: Any = import_module("jax")
        self.losses = import_module("optax").softmax_cross_entropy_with_integer_labels
        return usable_cpus()  # XLA's pool: what the process may run on

    def array(self, stored: Array, dtype: str) -> Any:
        self.jax.config.update("jax_enable_x64", dtype == "float64")
        return self.jax.numpy.array(as_logits(stored, dtype), copy=True).block_until_ready()

    def labels(self, targets: Array) -> Any:
        return self.jax.numpy.asarray(targets.astype(np.int32))

    def load(self, case: Case, arrays: Mapping[str, Array]) -> Calls:
        self.pristine, self.dtype = arrays["logits"], case.dtype
        self.logits = self.array(self.pristine, case.dtype)
        targets = self.labels(arrays["targets"])
        jit, ready = self.jax.jit, self.jax.block_until_ready

        def mean(logits: Any, targets: Any) -> Any:
            return self.losses(logits, targets, axis=case.axis).mean()

        loss, with_gradient = jit(mean), self.jax.value_and_grad(mean)
        fresh, in_place = jit(with_gradient), jit(with_gradient, donate_argnums=0)
        return {
            LOSS: lambda: ready(loss(self.logits, targets)),
            FRESH: lambda: ready(fresh(self.logits, targets)),
            IN_PLACE: lambda: ready(in_place(self.logits, targets)),
        }

    def restore(self, task: str) -> None:
        if task == IN_PLACE:
            self.logits = self.array(self.pristine, self.dtype)

    def rows(self, logits: Array, targets: Array, dtype: str) -> Rows:
        array, labels = self.array(logits, dtype), self.labels(targets)
        losses = self.jax.jit(self.losses)(array, labels)
        grad = self.jax.jit(self.jax.grad(lambda a: self.losses(a, labels).sum()))(array)
        return Rows(as_numbers(losses), str(losses.dtype), as_numbers(grad))


def as_numbers(array: Any) -> Array:
    """A JAX array as NumPy has it: bfloat16 becomes float32."""
    return np.asarray(array.astype("float32") if array.dtype == "bfloat16" else array)

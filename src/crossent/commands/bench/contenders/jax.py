"""JAX with optax's loss, under jit."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from crossent.commands.bench.arrays import Array, as_bits, as_logits
from crossent.commands.bench.cases import FRESH, IN_PLACE, LOSS, Case
from crossent.commands.bench.contender import Calls, Contender
from crossent.commands.bench.measure import Call
from crossent.commands.info import usable_cpus


class Jax(Contender):
    """optax.softmax_cross_entropy_with_integer_labels; in place: the logits' buffer is donated."""

    name, title, packages = "jax", "JAX with optax, jit", ("jax", "optax")
    environment: ClassVar[Mapping[str, str]] = {"JAX_PLATFORMS": "cpu"}
    most_held = 6

    def start(self, threads: int) -> int:
        self.jax: Any = import_module("jax")
        self.losses = import_module("optax").softmax_cross_entropy_with_integer_labels
        return usable_cpus()  # XLA's pool: what the process may run on

    def arrays(self, logits: Array, targets: Array) -> tuple[Any, Any]:
        """Stored logits and targets as JAX has them."""
        self.jax.config.update("jax_enable_x64", logits.dtype == np.float64)
        array = self.jax.numpy.array(as_logits(logits), copy=True).block_until_ready()
        return array, self.jax.numpy.asarray(targets.astype(np.int32))

    def load(self, case: Case, arrays: Mapping[str, Array]) -> Calls:
        logits, targets = self.arrays(**arrays)
        jit, ready = self.jax.jit, self.jax.block_until_ready

        def mean(logits: Any, targets: Any) -> Any:
            return self.losses(logits, targets, axis=case.axis).mean()

        def restore() -> None:
            nonlocal logits
            logits, _ = self.arrays(**arrays)

        loss, with_gradient = jit(mean), self.jax.value_and_grad(mean)
        fresh, in_place = jit(with_gradient), jit(with_gradient, donate_argnums=0)
        return {
            LOSS: Call(lambda: ready(loss(logits, targets))),
            FRESH: Call(lambda: ready(fresh(logits, targets))),
            IN_PLACE: Call(lambda: ready(in_place(logits, targets)), restore),
        }

    def rows(self, logits: Array, targets: Array) -> tuple[Array, Array]:
        array, labels = self.arrays(logits, targets)
        losses = self.jax.jit(self.losses)(array, labels)
        grad = self.jax.jit(self.jax.grad(lambda a: self.losses(a, labels).sum()))(array)
        return as_bits(np.asarray(losses)), as_bits(np.asarray(grad))

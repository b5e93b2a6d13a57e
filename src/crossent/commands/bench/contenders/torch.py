"""Whoever computes with tensors: PyTorch, eager or compiled, with huge pages or without; crossent.

The loss, and its backward pass through autograd.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from crossent.commands.bench.arrays import Array, as_bits
from crossent.commands.bench.cases import FRESH, IN_PLACE, LOSS, Case
from crossent.commands.bench.contender import Calls, Contender
from crossent.commands.bench.measure import Call

# What makes PyTorch ask the system for huge pages: most of its time on large logits goes into
# page faults on fresh memory.
HUGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}
NO_IDLE_HELPERS = {"TORCHINDUCTOR_COMPILE_THREADS": "1"}


class TorchEager(Contender):
    """torch.nn.functional.cross_entropy(logits, targets), then loss.backward()."""

    name, title, packages = "torch", "PyTorch eager", ("torch",)

    def start(self, threads: int) -> int:
        self.torch: Any = import_module("torch")
        self.torch.set_num_threads(threads)
        return int(self.torch.get_num_threads())

    def loss_function(self) -> Callable[..., Any]:
        """The function under test, of (logits, targets, reduction=)."""
        return self.torch.nn.functional.cross_entropy  # type: ignore[no-any-return]

    def tensor(self, stored: Array) -> Any:
        """The stored numbers as a tensor, where they are."""
        if stored.dtype == np.uint16:
            return self.torch.from_numpy(stored.view(np.int16)).view(self.torch.bfloat16)
        return self.torch.from_numpy(stored)

    def own(self, tensor: Any) -> Any:
        """The same in memory that PyTorch allocated, so that its settings count."""
        return self.torch.empty_like(tensor).copy_(tensor)

    def load(self, case: Case, arrays: Mapping[str, Array]) -> Calls:
        pristine = self.tensor(arrays["logits"]).movedim(case.axis, 1)
        plain, targets = self.own(pristine), self.own(self.tensor(arrays["targets"]))
        logits = plain.detach().requires_grad_(True)  # the same memory
        function = self.loss_function()

        def loss_and_gradient(logits: Any, **form: bool) -> Any:
            loss = function(logits, targets, reduction="mean", **form)
            loss.backward()
            return loss

        def in_place() -> Any:
            # Not a leaf, as a layer's output is not.
            return loss_and_gradient(logits.view_as(logits), inplace_backward=True)

        def restore(overwritten: bool) -> None:
            logits.grad = None
            if overwritten:
                plain.copy_(pristine)

        calls = {
            LOSS: Call(lambda: function(plain, targets, reduction="mean")),
            FRESH: Call(lambda: loss_and_gradient(logits), lambda: restore(False)),
        }
        return calls | ({IN_PLACE: Call(in_place, lambda: restore(True))} if self.ours else {})

    def rows(self, logits: Array, targets: Array) -> tuple[Array, Array]:
        tensor = self.own(self.tensor(logits)).requires_grad_(True)
        labels = self.own(self.tensor(targets))
        losses = self.loss_function()(tensor, labels, reduction="none")
        losses.sum().backward()
        return self.stored(losses.detach()), self.stored(tensor.grad)

    def stored(self, tensor: Any) -> Array:
        """A tensor's numbers as the bench stores them."""
        bits = tensor.view(self.torch.int16) if tensor.dtype == self.torch.bfloat16 else tensor
        return as_bits(bits.numpy())


class TorchEagerHuge(TorchEager):
    """The same with huge pages."""

    name, title = "torch-huge", "PyTorch eager, huge pages"
    environment = HUGE_PAGES


class TorchCompiled(TorchEager):
    """The same under torch.compile, for exactly these shapes."""

    name, title = "torch-compiled", "PyTorch compiled"
    environment: ClassVar[Mapping[str, str]] = NO_IDLE_HELPERS
    compiles = True
    most_held = 5

    def loss_function(self) -> Callable[..., Any]:
        function = super().loss_function()

        def loss(logits: Any, targets: Any, reduction: str) -> Any:
            return function(logits, targets, reduction=reduction)

        self.torch.compiler.reset()
        return self.torch.compile(loss, dynamic=False)  # type: ignore[no-any-return]


class TorchCompiledHuge(TorchCompiled):
    """The same with huge pages."""

    name, title = "torch-compiled-huge", "PyTorch compiled, huge pages"
    environment = NO_IDLE_HELPERS | HUGE_PAGES


class CrossentTorch(TorchEager):
    """crossent.torch.cross_entropy, then loss.backward(); in place: inplace_backward=True."""

    name, title, ours = "crossent-torch", "crossent.torch", True
    held, most_held = 2, 3

    def loss_function(self) -> Callable[..., Any]:
        return import_module("crossent.torch").cross_entropy  # type: ignore[no-any-return]

"""Whoever computes with tensors: PyTorch, eager or compiled, with huge pages or without; crossent.

The loss, and its backward pass through autograd.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from crossent.commands.bench.cases import FRESH, IN_PLACE, LOSS, Array, Case
from crossent.commands.bench.contender import Calls, Contender, Rows

# What makes PyTorch ask the system for huge pages: most of its time on large logits goes into
# page faults on fresh memory.
HUGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}
NO_IDLE_HELPERS = {"TORCHINDUCTOR_COMPILE_THREADS": "1"}


class TorchEager(Contender):
    """torch.nn.functional.cross_entropy(logits, targets), then loss.backward()."""

    name, title = "torch", "PyTorch eager"
    modules, packages = ("torch",), ("torch",)

    def start(self, threads: int) -> int:
        self.torch: Any = import_module("torch")
        self.torch.set_num_threads(threads)
        return int(self.torch.get_num_threads())

    def loss_function(self) -> Callable[..., Any]:
        """The function under test, of (logits, targets, reduction=)."""
        return self.torch.nn.functional.cross_entropy  # type: ignore[no-any-return]

    def tensor(self, stored: Array) -> Any:
        """A tensor in memory that PyTorch allocated, so that its settings count."""
        bfloat16 = stored.dtype == np.uint16
        source = self.torch.from_numpy(stored.view(np.int16) if bfloat16 else stored)
        source = source.view(self.torch.bfloat16) if bfloat16 else source
        return self.torch.empty_like(source).copy_(source)

    def load(self, case: Case, arrays: Mapping[str, Array]) -> Calls:
        plain = self.plain = self.tensor(arrays["logits"]).movedim(case.axis, 1)
        self.logits = plain.detach().requires_grad_(True)  # the same memory
        targets = self.targets = self.tensor(arrays["targets"])
        function = self.loss_function()

        def loss_and_gradient() -> Any:
            loss = function(self.logits, targets, reduction="mean")
            loss.backward()
            return loss

        return {LOSS: lambda: function(plain, targets, reduction="mean"), FRESH: loss_and_gradient}

    def restore(self, task: str) -> None:
        self.logits.grad = None

    def rows(self, logits: Array, targets: Array, dtype: str) -> Rows:
        tensor = self.tensor(logits).requires_grad_(True)
        losses = self.loss_function()(tensor, self.tensor(targets), reduction="none")
        losses.sum().backward()
        kind = str(losses.dtype).removeprefix("torch.")
        return Rows(as_array(losses.detach()), kind, as_array(tensor.grad))


def as_array(tensor: Any) -> Array:
    """A tensor as NumPy has it: bfloat16 becomes float32."""
    return np.asarray((tensor if tensor.dtype.itemsize > 2 else tensor.float()).numpy())


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
    tasks = (LOSS, FRESH, IN_PLACE)
    held, most_held = 2, 3

    def loss_function(self) -> Callable[..., Any]:
        return import_module("crossent.torch").cross_entropy  # type: ignore[no-any-return]

    def load(self, case: Case, arrays: Mapping[str, Array]) -> Calls:
        calls = super().load(case, arrays)
        self.pristine = self.plain.clone()
        function = self.loss_function()

        def loss_and_gradient_in_place() -> Any:
            logits = self.logits.view_as(self.logits)  # not a leaf, as a layer's output is not
            loss = function(logits, self.targets, reduction="mean", inplace_backward=True)
            loss.backward()
            return loss

        return calls | {IN_PLACE: loss_and_gradient_in_place}

    def restore(self, task: str) -> None:
        super().restore(task)
        if task == IN_PLACE:
            self.plain.copy_(self.pristine)

"""PyTorch's cross_entropy and its backward pass: eager or compiled, with huge pages or without."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from crossent.commands.bench.cases import FRESH, LOSS, Case
from crossent.commands.bench.contender import Contender, Rows

Array = NDArray[Any]

# What makes PyTorch ask the system for huge pages: most of its time on large logits goes into
# page faults on fresh memory.
HUGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}
NO_IDLE_HELPERS = {"TORCHINDUCTOR_COMPILE_THREADS": "1"}


class TorchEager(Contender):
    """torch.nn.functional.cross_entropy(logits, targets), then loss.backward()."""

    name, title = "torch", "PyTorch eager"
    modules, packages = ("torch",), ("torch",)

    def start(self, threads: int) -> None:
        self.torch: Any = import_module("torch")
        self.torch.set_num_threads(threads)

    def threads(self) -> int:
        return int(self.torch.get_num_threads())

    def loss_function(self) -> Callable[..., Any]:
        """The function under test, of (logits, targets, reduction)."""
        function = self.torch.nn.functional.cross_entropy
        return lambda logits, targets, reduction: function(logits, targets, reduction=reduction)

    def tensor(self, stored: Array) -> Any:
        """A tensor in memory that PyTorch allocated, so that its settings count."""
        bfloat16 = stored.dtype == np.uint16
        source = self.torch.from_numpy(stored.view(np.int16) if bfloat16 else stored)
        source = source.view(self.torch.bfloat16) if bfloat16 else source
        return self.torch.empty_like(source).copy_(source)

    def load(self, case: Case, arrays: Mapping[str, Array]) -> None:
        plain = self.tensor(arrays["logits"]).movedim(case.axis, 1)
        self.plain = plain
        self.logits = plain.detach().requires_grad_(True)  # the same memory
        self.targets = self.tensor(arrays["targets"])
        self.function = self.loss_function()

    def call(self, task: str) -> Callable[[], Any]:
        function, targets = self.function, self.targets
        if task == LOSS:
            return lambda: function(self.plain, targets, "mean")

        def loss_and_gradient() -> Any:
            loss = function(self.logits, targets, "mean")
            loss.backward()
            return loss

        return {FRESH: loss_and_gradient}[task]

    def restore(self, task: str) -> None:
        self.logits.grad = None

    def rows(self, logits: Array, targets: Array, dtype: str) -> Rows:
        tensor = self.tensor(logits).requires_grad_(True)
        losses = self.loss_function()(tensor, self.tensor(targets), "none")
        losses.sum().backward()
        kind = str(losses.dtype).removeprefix("torch.")
        return Rows(as_array(losses.detach()), kind, as_array(tensor.grad), dtype)


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
        self.torch.compiler.reset()
        compiled: Callable[..., Any] = self.torch.compile(super().loss_function(), dynamic=False)
        return compiled


class TorchCompiledHuge(TorchCompiled):
    """The same with huge pages."""

    name, title = "torch-compiled-huge", "PyTorch compiled, huge pages"
    environment = NO_IDLE_HELPERS | HUGE_PAGES

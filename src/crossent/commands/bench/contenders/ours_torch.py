"""crossent from PyTorch: the loss and its backward pass through autograd."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from numpy.typing import NDArray

import crossent
from crossent.commands.bench.cases import FRESH, IN_PLACE, LOSS, Case
from crossent.commands.bench.contenders.torch import TorchEager

Array = NDArray[Any]


class CrossentTorch(TorchEager):
    """crossent.torch.cross_entropy, then loss.backward(); in place: inplace_backward=True."""

    name, title, ours = "crossent-torch", "crossent.torch", True
    tasks = (LOSS, FRESH, IN_PLACE)
    held, most_held = 2, 3

    def versions(self) -> dict[str, str]:
        return {"crossent": crossent.__version__, "isa": crossent.isa()} | super().versions()

    def loss_function(self) -> Callable[..., Any]:
        function = import_module("crossent.torch").cross_entropy
        return lambda logits, targets, reduction, **options: function(
            logits, targets, reduction=reduction, **options
        )

    def load(self, case: Case, arrays: Mapping[str, Array]) -> None:
        super().load(case, arrays)
        self.pristine = self.plain.clone()

    def call(self, task: str) -> Callable[[], Any]:
        if task != IN_PLACE:
            return super().call(task)
        function, targets = self.function, self.targets

        def loss_and_gradient_in_place() -> Any:
            logits = self.logits.view_as(self.logits)  # not a leaf, as a layer's output is not
            loss = function(logits, targets, "mean", inplace_backward=True)
            loss.backward()
            return loss

        return loss_and_gradient_in_place

    def restore(self, task: str) -> None:
        super().restore(task)
        if task == IN_PLACE:
            self.plain.copy_(self.pristine)

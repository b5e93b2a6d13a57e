"""The losses as modules."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from crossent.options import Options, Reduction, WhenEmpty
from crossent.torch import _route
from crossent.torch.linear import linear_cross_entropy
from crossent.torch.loss import cross_entropy

Tensor = torch.Tensor


def _arguments_of(module: type[torch.nn.Module], given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the given arguments that PyTorch's own module takes."""
    return {name: given[name] for name in inspect.signature(module).parameters}


def _keep_options(module: torch.nn.Module, given: Mapping[str, Any]) -> None:
    """The options that PyTorch's own module has not kept become attributes."""
    for name in Options._fields:
        if not hasattr(module, name):
            setattr(module, name, given[name])


def _options_of(module: torch.nn.Module) -> dict[str, Any]:
    return {name: getattr(module, name) for name in Options._fields}


class CrossEntropyLoss(torch.nn.CrossEntropyLoss):
    """`torch.nn.CrossEntropyLoss`, exact and fast, with more options.

    Args:
        weight, size_average, ignore_index, reduce, reduction, label_smoothing, z_loss, softcap,
            logit_scale, normalizer, when_empty, inplace_backward: as for
            `crossent.torch.cross_entropy`. A `torch.nn.Parameter` as logit_scale is learned.

    Example:
        >>> import torch, crossent.torch
        >>> criterion = crossent.torch.CrossEntropyLoss(label_smoothing=0.1)
        >>> loss = criterion(torch.tensor([[2.0, 1.0, 0.1]]), torch.tensor([0]))
        >>> print("%.3f" % loss.item())
        0.514
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: Reduction = "mean",
        label_smoothing: float = 0.0,
        *,
        z_loss: float = 0.0,
        softcap: float | None = None,
        logit_scale: float | Tensor = 1.0,
        normalizer: float | Tensor | None = None,
        when_empty: WhenEmpty = "nan",
        inplace_backward: bool = False,
    ) -> None:
        given = locals()
        super().__init__(**_arguments_of(torch.nn.CrossEntropyLoss, given))
        _keep_options(self, given)
        self.inplace_backward = inplace_backward

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of logits `input` against `target`."""
        return cross_entropy(
            input,
            target,
            self.weight,
            inplace_backward=self.inplace_backward,
            **_options_of(self),
        )


class LinearCrossEntropyLoss(torch.nn.LinearCrossEntropyLoss):
    """`torch.nn.LinearCrossEntropyLoss`, with its logits never whole, and with more options.

    Args:
        in_features, num_classes, out_features, bias, device, dtype, reduction, weight,
            ignore_index, label_smoothing, options: as for `torch.nn.LinearCrossEntropyLoss`.
        z_loss, softcap, logit_scale, normalizer, when_empty: as for
            `crossent.torch.cross_entropy`. A `torch.nn.Parameter` as logit_scale is learned.

    Example:
        >>> import torch, crossent.torch
        >>> criterion = crossent.torch.LinearCrossEntropyLoss(2, 3)
        >>> _ = torch.nn.init.zeros_(criterion.linear.weight)
        >>> print("%.3f" % criterion(torch.ones(4, 2), torch.tensor([0, 1, 2, 0])).item())
        1.099
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        reduction: Reduction = "mean",
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        options: torch.nn.LinearCrossEntropyOptions | None = None,
        z_loss: float = 0.0,
        softcap: float | None = None,
        logit_scale: float | Tensor = 1.0,
        normalizer: float | Tensor | None = None,
        when_empty: WhenEmpty = "nan",
    ) -> None:
        given = locals()
        given["label_smoothing"] = _route.smoothing(label_smoothing)  # PyTorch's rule says less
        super().__init__(**_arguments_of(torch.nn.LinearCrossEntropyLoss, given))
        _keep_options(self, given)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of the layer's logits of `input` against `target`."""
        extents = (self.num_classes, *self.out_features)
        bias = self.linear.bias
        return linear_cross_entropy(
            input,
            self.linear.weight.reshape(*extents, -1),
            target,
            linear_bias=None if bias is None else bias.reshape(extents),
            weight=self.weight,
            options=self.options,
            **_options_of(self),
        )

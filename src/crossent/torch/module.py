"""The loss as a module."""

from __future__ import annotations

import torch

from crossent.torch.loss import cross_entropy

Tensor = torch.Tensor


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
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        *,
        z_loss: float = 0.0,
        softcap: float | None = None,
        logit_scale: float | Tensor = 1.0,
        normalizer: float | Tensor | None = None,
        when_empty: str = "nan",
        inplace_backward: bool = False,
    ) -> None:
        super().__init__(weight, size_average, ignore_index, reduce, reduction, label_smoothing)
        self.z_loss = z_loss
        self.softcap = softcap
        self.logit_scale = logit_scale
        self.normalizer = normalizer
        self.when_empty = when_empty
        self.inplace_backward = inplace_backward

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """The loss of logits `input` against `target`."""
        return cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
            z_loss=self.z_loss,
            softcap=self.softcap,
            logit_scale=self.logit_scale,
            normalizer=self.normalizer,
            when_empty=self.when_empty,
            inplace_backward=self.inplace_backward,
        )

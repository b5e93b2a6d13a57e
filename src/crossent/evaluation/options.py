"""The loss that an evaluation measures: its options, checked, and the class weights beside them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossent import options


class LossOptions(NamedTuple):
    """The options of ``crossent.cross_entropy``, with the same names, meanings and defaults."""

    weight: NDArray[Any] | None
    others: options.Options

    @property
    def is_plain(self) -> bool:
        """Whether the loss is -log p of the target and nothing else."""
        return self.weight is None and self.others.label_smoothing == 0 and self.others.z_loss == 0

    @property
    def is_scaled(self) -> bool:
        """Whether the logits are changed before the softmax."""
        return self.others.softcap is not None or self.others.logit_scale != 1

    def scaling(self) -> dict[str, Any]:
        """The arguments that change the logits."""
        return {"softcap": self.others.softcap, "logit_scale": self.others.logit_scale}

    def of_rows(self) -> dict[str, Any]:
        """The arguments that give each row's loss."""
        smoothing, z_loss = self.others.label_smoothing, self.others.z_loss
        return {
            **self.scaling(),
            "weight": self.weight, "label_smoothing": smoothing, "z_loss": z_loss,
        }  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """The options by name, for JSON and reports."""
        weight = None if self.weight is None else self.weight.astype(np.float64).tolist()
        return {"weight": weight, **self.others._asdict()}


def loss_options(*, weight: ArrayLike | None = None, **others: Any) -> LossOptions:
    """The options of the loss from arguments that were given by name."""
    checked = options.checked(options.Options(**others)._asdict())
    return LossOptions(None if weight is None else np.asarray(weight), checked)

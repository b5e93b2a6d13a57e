"""The options of the loss as an evaluation holds them: checked once, named as everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crossent import _arguments as arguments

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class LossOptions:
    """The options of ``crossent.cross_entropy``, with the same names, meanings and defaults."""

    weight: ArrayLike | None = None
    ignore_index: int = arguments.DEFAULT_IGNORE_INDEX
    reduction: str = "mean"
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    softcap: float | None = None
    logit_scale: float = 1.0
    normalizer: float | None = None
    when_empty: str = "nan"

    def __post_init__(self) -> None:
        arguments.reduction_rule(self.reduction, self.normalizer, self.when_empty)
        arguments.scaling(self.softcap, self.logit_scale)
        arguments.smoothing(self.label_smoothing)
        arguments.z_loss_factor(self.z_loss)
        arguments.ignored(self.ignore_index, arguments.INDICES)
        if self.weight is not None:
            object.__setattr__(self, "weight", np.asarray(self.weight))

    @property
    def is_plain(self) -> bool:
        """Whether the loss is -log p of the target and nothing else."""
        return self.weight is None and self.label_smoothing == 0 and self.z_loss == 0

    @property
    def is_scaled(self) -> bool:
        """Whether the logits are changed before the softmax."""
        return self.softcap is not None or self.logit_scale != 1

    def scaling(self) -> dict[str, Any]:
        """The arguments that change the logits."""
        return {"softcap": self.softcap, "logit_scale": self.logit_scale}

    def of_rows(self) -> dict[str, Any]:
        """The arguments that give each row's loss."""
        return self.scaling() | {
            "weight": self.weight,
            "label_smoothing": self.label_smoothing,
            "z_loss": self.z_loss,
        }

    def as_dict(self) -> dict[str, Any]:
        """The options by name, for JSON and reports."""
        shown = dict(vars(self))
        if self.weight is not None:
            shown["weight"] = np.asarray(self.weight, np.float64).tolist()
        return shown

    def same_as(self, other: LossOptions) -> bool:
        """Whether two evaluations measured the same loss."""
        return self.as_dict() == other.as_dict()

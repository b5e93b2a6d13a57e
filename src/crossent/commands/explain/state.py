"""What the reader can change, and the rows that follow from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

import crossent
from crossent.commands.explain.inputs import Floats
from crossent.commands.explain.view import LARGEST_STEP, View


class Choice(NamedTuple):
    """A number that belongs to one step, and the slider that changes it."""

    parameter: str  # of the page's address
    first: float  # what a page begins with
    low: float
    high: float
    step: float


CHOICES = {  # by their names in the walk
    "kappa": Choice("k", 1000.0, -1000, 1000, 10),  # added to the logits of the overflow table
    "eta": Choice("eta", 1.0, 0, LARGEST_STEP, 0.05),  # the size of the gradient step
    "x": Choice("x", 40.0, 0, 60, 1),  # the lead of the confident right answer
    "keep": Choice("w", 0.7, 0, 1, 0.05),  # what the right class keeps in the soft target
    "eps": Choice("eps", 0.1, 0, 1, 0.01),  # label smoothing
}


@dataclass(frozen=True)
class State:
    """What the reader can change."""

    chosen: int  # place among the shown rows
    logits: tuple[tuple[float, ...], ...]  # of the shown rows and classes
    targets: tuple[int | None, ...]  # places among the shown classes; None: as given
    choices: Mapping[str, float]  # as CHOICES has them

    @classmethod
    def of(cls, view: View) -> Self:
        """The state that a page begins in."""
        logits = tuple(tuple(row.a.tolist()) for row in view.rows)
        targets = tuple(row.target if row.is_one_hot else None for row in view.rows)
        choices = {name: choice.first for name, choice in CHOICES.items()}
        return cls(view.chosen, logits, targets, choices)


@dataclass(frozen=True)
class FullRow:
    """A shown row with all its classes, as the state has it."""

    a: Floats  # (C,)
    y: Floats
    places: NDArray[np.intp]  # of the shown classes
    hidden: NDArray[np.bool_]  # which classes are not shown

    @classmethod
    def of(cls, view: View, state: State, r: int) -> Self:
        shown = view.rows[r]
        a, y = view.problem.row(shown.index)
        places = np.array(shown.classes)
        a[places] = state.logits[r]
        target = state.targets[r]
        if target is not None:
            y = np.zeros_like(y)
            y[places[target]] = 1.0
        return cls(a, y, places, ~np.isin(np.arange(len(a)), places))

    @property
    def target(self) -> int:
        """The shown class with the largest share of the target."""
        return int(self.y[self.places].argmax())

    @property
    def rival(self) -> int:
        """The most probable of the other shown classes; the target where there is none."""
        others = self.a[self.places]
        others[self.target] = -np.inf
        return int(others.argmax())

    def fold(self, values: Floats) -> Floats:
        """The values of the shown classes, and the sum of the others."""
        rest = [values[self.hidden].sum()] if self.hidden.any() else []
        return np.append(values[self.places], rest)

    @property
    def folded_logits(self) -> Floats:
        """The shown logits, and one logit that stands for the others."""
        rest = [crossent.logsumexp(self.a[self.hidden])] if self.hidden.any() else []
        return np.append(self.a[self.places], rest)

"""What the reader can change, and the rows that follow from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import crossent
from crossent.commands.explain.view import View

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class State:
    """What the reader can change."""

    chosen: int  # place among the shown rows
    logits: tuple[tuple[float, ...], ...]  # of the shown rows and classes
    targets: tuple[int | None, ...]  # places among the shown classes; None: as given
    shift: float = 1000.0  # kappa of the overflow table
    step: float = 1.0  # eta
    margin: float = 40.0  # of the confident right answer
    keep: float = 0.7  # share that the right class keeps in the soft target
    smoothing: float = 0.1  # epsilon

    @classmethod
    def of(cls, view: View) -> State:
        """The state that a page begins in."""
        logits = tuple(tuple(float(x) for x in row.a) for row in view.rows)
        targets = tuple(row.target if row.is_one_hot else None for row in view.rows)
        return cls(view.chosen, logits, targets)


@dataclass(frozen=True)
class FullRow:
    """A shown row with all its classes, as the state has it."""

    a: Floats  # (C,)
    y: Floats
    places: NDArray[np.intp]  # of the shown classes
    has_rest: bool

    @classmethod
    def of(cls, view: View, state: State, r: int) -> FullRow:
        shown = view.rows[r]
        a, y = view.problem.row(shown.index)
        places = np.array(shown.classes)
        a[places] = state.logits[r]
        target = state.targets[r]
        if target is not None:
            y = np.zeros_like(y)
            y[places[target]] = 1.0
        return cls(a, y, places, shown.rest is not None)

    @property
    def target(self) -> int:
        """The shown class with the largest share of the target."""
        return int(self.y[self.places].argmax())

    @property
    def rival(self) -> int:
        """The most probable of the other shown classes; the target where there is none."""
        others = np.delete(np.arange(len(self.places)), self.target)
        return int(others[self.a[self.places][others].argmax()]) if len(others) else self.target

    def fold(self, values: Floats) -> Floats:
        """The values of the shown classes, and the sum of the others."""
        if not self.has_rest:
            return values[self.places]
        hidden = np.ones(len(values), dtype=bool)
        hidden[self.places] = False
        return np.append(values[self.places], values[hidden].sum())

    def folded_logits(self) -> Floats:
        """The shown logits, and one logit that stands for the others."""
        if not self.has_rest:
            return self.a[self.places]
        hidden = np.ones(len(self.a), dtype=bool)
        hidden[self.places] = False
        return np.append(self.a[self.places], crossent.logsumexp(self.a[hidden]))

"""The machine's own limits, measured as a contender in the same rounds.

    read        every byte of the logits, once
    scale       the logits multiplied in place
    fill        fresh memory of the gradient's size written to, in huge pages where there are any
    fill_small  the same in pages of the ordinary size
    exp         as many exponentials as there are logits, of data that stays in L1

The loops are native, on all threads, and frozen: a better kernel does not move its own yardstick.
"""

import mmap
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

import crossent
from crossent import _core
from crossent.commands.bench.cases import FRESH, IN_PLACE, LOSS, OUT, Case
from crossent.commands.bench.contender import Contender, Rows

Array = NDArray[Any]

READ, SCALE, FILL, FILL_SMALL, EXP = "read", "scale", "fill", "fill_small", "exp"
LIMITS = (READ, SCALE, FILL, FILL_SMALL, EXP)
# What a task cannot beat: the largest of these. (`out=` moves more than scaling in place does.)
BOUNDS = {
    LOSS: (READ, EXP),
    FRESH: (READ, FILL, EXP),
    OUT: (SCALE, EXP),
    IN_PLACE: (SCALE, EXP),
}


def fresh_memory(size: int, advice: str) -> mmap.mmap:
    """Memory that no page stands behind yet, with the system's advice where it takes any."""
    # Private: shared memory, Python's default, gets no huge pages.
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, advice):
        with suppress(OSError):  # a kernel without huge pages
            memory.madvise(getattr(mmap, advice))
    return memory


class MachineLimits(Contender):
    """Five bare loops."""

    name, title = "limits", "the machine's limits"
    tasks = LIMITS
    held, most_held = 1, 2

    def start(self, threads: int) -> None:
        crossent.set_num_threads(threads)

    def threads(self) -> int:
        return crossent.get_num_threads()

    def load(self, case: Case, arrays: Mapping[str, Array]) -> None:
        self.logits = np.array(arrays["logits"])
        self.case = case
        self.fresh: dict[str, mmap.mmap] = {}
        for task in (FILL, FILL_SMALL):
            self.restore(task)

    def call(self, task: str) -> Callable[[], Any]:
        logits, doubles = self.logits, self.case.dtype == "float64"
        return {
            READ: lambda: self.silent(_core.limit_read(logits)),
            SCALE: lambda: _core.limit_scale(logits, 1.0, doubles),
            FILL: lambda: _core.limit_fill(self.fresh[FILL]),
            FILL_SMALL: lambda: _core.limit_fill(self.fresh[FILL_SMALL]),
            EXP: lambda: self.silent(_core.limit_exp(self.case.elements, doubles)),
        }[task]

    @staticmethod
    def silent(_: float) -> None:
        """Takes a result that is no loss."""

    def restore(self, task: str) -> None:
        advice = {FILL: "MADV_HUGEPAGE", FILL_SMALL: "MADV_NOHUGEPAGE"}.get(task)
        if advice:
            if task in self.fresh:
                self.fresh.pop(task).close()
            self.fresh[task] = fresh_memory(self.case.bytes, advice)

    def rows(self, logits: Array, targets: Array, dtype: str) -> Rows:
        raise NotImplementedError("limits have no loss")

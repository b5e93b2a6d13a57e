"""The machine's own limits, measured as a contender in the same rounds.

    read        every byte of the logits, once
    scale       the logits multiplied in place
    fill        fresh memory of the gradient's size written to, in huge pages where there are any
    fill_small  the same in pages of the ordinary size
    exp         as many exponentials as there are logits, of data that stays in L1

The loops are native, on all threads, and frozen: a better kernel does not move its own yardstick.
"""

import mmap
from collections.abc import Mapping
from contextlib import suppress

import numpy as np

import crossent
from crossent.commands.bench import _limits
from crossent.commands.bench.arrays import Array
from crossent.commands.bench.cases import FRESH, IN_PLACE, LOSS, OUT, Case
from crossent.commands.bench.contender import Calls, Contender
from crossent.commands.bench.measure import Call

READ, SCALE, FILL, FILL_SMALL, EXP = "read", "scale", "fill", "fill_small", "exp"
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
    """Five bare loops, of the instruction set that crossent uses."""

    name, title = "limits", "the machine's limits"
    held, most_held = 1, 2

    def start(self, threads: int) -> int:
        _limits.set_num_threads(threads)
        return threads

    def load(self, case: Case, arrays: Mapping[str, Array]) -> Calls:
        loops, doubles = _limits.limits_of(crossent.isa()), case.dtype == "float64"
        logits = np.array(arrays["logits"])
        return {
            READ: Call(lambda: (None, loops.read(logits))),
            SCALE: Call(lambda: loops.scale(logits, 1.0, doubles)),
            FILL: filling(loops, case.bytes, "MADV_HUGEPAGE"),
            FILL_SMALL: filling(loops, case.bytes, "MADV_NOHUGEPAGE"),
            EXP: Call(lambda: (None, loops.exp(case.elements, doubles))),
        }

    def rows(self, logits: Array, targets: Array) -> tuple[Array, Array]:
        raise NotImplementedError("limits have no loss")


def filling(loops: _limits.Limits, size: int, advice: str) -> Call:
    """Filling fresh memory, each time another."""
    memory = fresh_memory(size, advice)

    def renew() -> None:
        nonlocal memory
        memory.close()
        memory = fresh_memory(size, advice)

    return Call(lambda: loops.fill(memory), renew)

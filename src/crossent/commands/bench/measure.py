"""Within a worker: the time of calls and the memory that they take at their peak."""

import ctypes
import gc
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

# A turn repeats a call for at least so long and so often, unless that takes longer than the last.
TURN_SECONDS, TURN_CALLS, LONG_TURN_SECONDS = 0.02, 5, 0.2


class Call(NamedTuple):
    """What is timed, and what then brings back whatever it overwrote or left behind."""

    function: Callable[[], Any]  # gives the loss, or a tuple that begins with it
    restore: Callable[[], object] = lambda: None


class Turn(NamedTuple):
    """What was found out in a turn of some calls."""

    seconds: float  # of a call: the median
    loss: float | None  # of the last one
    calls: int = 1
    peak_bytes: int | None = None  # None where the system does not say: only Linux does, in /proc


def clocked(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of one call, and its result."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def loss_of(result: Any) -> float | None:
    """The number in a call's result; limits have none."""
    loss = result[0] if isinstance(result, tuple) else result
    return None if loss is None else float(loss)


def timed(call: Call) -> tuple[float, float | None]:
    """Seconds of one call, and its loss. What the call left behind is then put right."""
    seconds, result = clocked(call.function)
    loss = loss_of(result)
    del result
    call.restore()
    return seconds, loss


def take_turn(call: Call) -> Turn:
    """Calls once, then again and again against the clock.

    Since its last turn other processes have used the caches, and a virtual machine may have given
    free memory back to its host: a gradient of half a gigabyte then took 1.5 s instead of 0.15.
    """
    gc.collect()
    gc.disable()  # as timeit does
    try:
        timed(call)
        samples: list[float] = []
        spent = 0.0
        while spent < TURN_SECONDS or (len(samples) < TURN_CALLS and spent < LONG_TURN_SECONDS):
            seconds, loss = timed(call)
            samples.append(seconds)
            spent += seconds
    finally:
        gc.enable()
    return Turn(statistics.median(samples), loss, len(samples))


# --- Memory ---------------------------------------------------------------------------------------

_RESET_PEAK = "5"  # proc_pid_clear_refs(5)
FREEING_SECONDS = 0.05  # for libraries that free memory in a thread of their own, as XLA does


def warm_up(call: Call) -> Turn:
    """Two calls: one compiles and touches memory; of the second the peak memory is measured."""
    timed(call)
    return watch_memory(call)


def watch_memory(call: Call) -> Turn:
    """One call, and the peak of resident memory less what was there before."""
    give_back_freed_memory()
    before = resident("VmRSS") if reset_peak() else None
    seconds, result = clocked(call.function)
    peak = None if before is None else max(0, resident("VmHWM") - before)
    loss = loss_of(result)
    del result
    call.restore()
    return Turn(seconds, loss, peak_bytes=peak)


def reset_peak() -> bool:
    """The peak counts from now on; False where the system has no such thing."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
        return resident("VmHWM") > 0
    return False


def resident(field: str) -> int:
    """Bytes that this process holds: VmRSS now, VmHWM at the peak; 0 where nobody says."""
    return proc_bytes("self/status", field) or 0


def proc_bytes(file: str, field: str) -> int | None:
    """The size that a file of /proc gives, such as "123 kB"; None where it does not."""
    value = proc_value(file, field)
    return int(value.split()[0]) * 1024 if value else None


def proc_value(file: str, field: str) -> str | None:
    """What a file of /proc has behind "field:" in the first such line; None where there is none."""
    for line in system_text(f"/proc/{file}").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return None


def system_text(path: str) -> str:
    """What Linux says in a file of /proc or /sys; nothing where there is no such file."""
    with suppress(OSError):
        return Path(path).read_text()
    return ""


def give_back_freed_memory() -> None:
    """What allocators keep for later goes back to the system, so that using it again counts."""
    gc.collect()
    time.sleep(FREEING_SECONDS)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim(0)

"""How fast evaluating is beside reading: the same file, in the page cache, in turn.

    python examples/reading_speed.py [CLASSES [MIB [ROUNDS]]]

makes a file of float32 logits (1,000 classes, 1,024 MiB) and, 9 times in turn, reads it on one
thread into the same 4 MiB again and again, loads it with NumPy into fresh memory, and evaluates it.
Prints medians: seconds, and seconds of processor time, which other programs hardly disturb.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import crossent


def save(folder: Path, classes: int, size: int) -> tuple[Path, Path]:
    """Logits of about ``size`` bytes and their targets; the model is right more often than not."""
    rows = size // (4 * classes)
    rng = np.random.default_rng(0)
    targets = np.resize(rng.integers(0, classes, min(rows, 4096)), rows)
    some = rng.standard_normal((min(rows, 4096), classes)).astype(np.float32)
    some[np.arange(len(some)), targets[: len(some)]] += 6
    np.save(folder / "targets.npy", targets)
    logits = np.lib.format.open_memmap(folder / "logits.npy", "w+", np.float32, (rows, classes))
    for start in range(0, rows, len(some)):
        logits[start : start + len(some)] = some[: rows - start]
    logits.flush()
    return folder / "logits.npy", folder / "targets.npy"


def read(path: Path) -> None:
    """Reads a file once, into the same 4 MiB."""
    buffer = bytearray(4 << 20)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """(seconds, seconds of processor time) of an action."""
    wall, processor = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - wall, time.process_time() - processor


def main(classes: int = 1000, mebibytes: int = 1024, rounds: int = 9) -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        logits, targets = save(Path(name), classes, mebibytes << 20)
        actions: dict[str, Callable[[], object]] = {
            "reading": lambda: read(logits),
            "np.load": lambda: np.load(logits),
            "evaluating": lambda: crossent.evaluate(logits, targets),
        }
        times = [[timed(action) for action in actions.values()] for _ in range(rounds + 1)]
    print(f"{mebibytes:,} MiB, {classes:,} classes, {crossent.get_num_threads()} threads")
    walls = {}
    for action, of_rounds in zip(actions, zip(*times[1:], strict=True), strict=True):
        wall, processor = map(statistics.median, zip(*of_rounds, strict=True))
        walls[action] = wall
        print(f"{action:12} {wall:.3f} s, {processor:.3f} s of processor time")
    print(f"evaluating has {walls['reading'] / walls['evaluating']:.2f} of the speed of reading")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

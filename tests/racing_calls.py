"""Drives the core from many threads at once, for a build with the thread sanitizer (.ci/run).

Not a test: a program, so that nothing but crossent and NumPy is in the process. Prints the number of
calls; the sanitizer makes the exit code 66 where it saw a race. Forks are left out: a sanitizer's own
threads do not survive them.
"""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from cases import SEGMENTED, labels_of, logits_of

import crossent

CALLERS = 8
SHAPES = [(20_000, 10), (600, 1100), (128, 5000), (10, SEGMENTED)]


def call(number: int) -> None:
    """One of all kinds of calls, on arrays of its own."""
    rows, classes = SHAPES[number % len(SHAPES)]
    logits, labels = logits_of((rows, classes), np.float32), labels_of(rows, classes)
    kind = number // len(SHAPES) % 5
    if kind == 0:
        crossent.cross_entropy_and_grad(logits, labels, out=logits)
    elif kind == 1:
        crossent.cross_entropy(logits, labels, label_smoothing=0.1, softcap=9.0)
    elif kind == 2:
        crossent.token_scores(logits, labels)
    elif kind == 3:
        crossent.cross_entropy_hvp(logits, labels, logits)
    else:
        crossent.evaluate(logits, labels)


def main(seconds: float) -> None:
    """Calls from many threads while another changes how many the pool may use."""
    end, done = time.monotonic() + seconds, threading.Event()

    def change_count() -> None:
        while not done.wait(0.003):
            crossent.set_num_threads(1 + int(1000 * time.monotonic()) % 6)

    changing = threading.Thread(target=change_count)
    changing.start()
    calls = 0
    with ThreadPoolExecutor(CALLERS) as pool:
        while time.monotonic() < end:
            calls += len(list(pool.map(call, range(calls, calls + 100))))
    done.set()
    changing.join()
    print(f"{calls} calls")


if __name__ == "__main__":
    main(float(sys.argv[1]))

"""How long a loss takes right after work of other libraries, whose threads may still spin.

    python examples/alternating.py

prints medians in milliseconds, over float32 logits of 4,096 x 1,000: of `crossent.cross_entropy`
from NumPy and of `crossent.torch.cross_entropy`, alone and each time after something else; the last
line is of one thread.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

import crossent
import crossent.torch

ROWS, CLASSES = 4096, 1000


def milliseconds(call: Callable[[], object], before: Callable[[], object], rounds: int) -> float:
    """The median time of `call`, each time right after `before`."""
    times = []
    for _ in range(rounds):
        before()
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def main(rounds: int = 60) -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((ROWS, CLASSES), np.float32)
    labels = rng.integers(0, CLASSES, ROWS)
    tensors = torch.from_numpy(logits), torch.from_numpy(labels)
    matrix = rng.standard_normal((1000, 1000), np.float32)
    tensor = torch.from_numpy(matrix)
    others = {
        "alone": lambda: None,
        "after a product of PyTorch": lambda: tensor @ tensor,
        "after an exp of PyTorch": lambda: tensor.exp(),
        "after a product of NumPy": lambda: matrix @ matrix,
        "after a pause of 2 ms": lambda: time.sleep(0.002),
    }
    print(f"{'':28s}  NumPy  PyTorch")
    for name, before in others.items():
        numpy_time = milliseconds(lambda: crossent.cross_entropy(logits, labels), before, rounds)
        torch_time = milliseconds(lambda: crossent.torch.cross_entropy(*tensors), before, rounds)
        print(f"{name:28s} {numpy_time:6.2f} {torch_time:8.2f}")
    threads = crossent.get_num_threads()
    crossent.set_num_threads(1)
    alone = milliseconds(lambda: crossent.cross_entropy(logits, labels), lambda: None, rounds)
    crossent.set_num_threads(threads)
    print(f"{'one thread':28s} {alone:6.2f}")


if __name__ == "__main__":
    main()

"""Times the loss of a linear layer and its gradients, beside PyTorch's ways and bare products.

Everyone has a process of its own and they take turns; then comes the most memory that a call takes
beyond what was there before it, gradients included. "products" are the three matrix products alone,
by the library that ours uses, in blocks of 512 rows; "1 product" is the first. Leave the machine
alone meanwhile.

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python examples/linear_speed.py
    python examples/linear_speed.py --dtypes bfloat16 --only crossent,compiled --json
    python examples/linear_speed.py --only crossent --rows 2048,4096,8192 --classes 50257,100514
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import torch

import crossent.torch
from crossent.commands.bench.measure import clocked, give_back_freed_memory, reset_peak, resident

F = torch.nn.functional
BLOCK = 512
Call = Callable[[], Any]


class Case(NamedTuple):
    """A linear layer: N rows, D features, V classes."""

    rows: int
    features: int
    classes: int
    dtype: str


class Layer:
    """The arrays of a case, the same in every process."""

    def __init__(self, case: Case) -> None:
        generator = torch.Generator().manual_seed(0)
        dtype = getattr(torch, case.dtype)
        self.input = torch.randn(case.rows, case.features, generator=generator).to(dtype)
        weight = torch.randn(case.classes, case.features, generator=generator)
        self.weight = weight.mul_(0.05).to(dtype)
        self.target = torch.randint(0, case.classes, (case.rows,), generator=generator)

    def step(self, function: Callable[..., torch.Tensor]) -> Call:
        """A call that makes the loss and both gradients."""
        leaves = [tensor.detach().requires_grad_() for tensor in (self.input, self.weight)]

        def call() -> None:
            function(*leaves, self.target).backward()
            for leaf in leaves:
                leaf.grad = None

        return call

    def numpy_step(self) -> Call:
        """The same from NumPy."""
        arrays = self.input.numpy(), self.weight.numpy(), self.target.numpy()
        return lambda: crossent.linear_cross_entropy_and_grad(*arrays)

    def products(self, count: int) -> Call:
        """The first `count` of a block's three products, over all blocks, into memory at hand."""
        logits = self.input.new_zeros(BLOCK, len(self.weight))
        outs = self.input.new_zeros(BLOCK, self.input.shape[1]), torch.zeros_like(self.weight)
        tensors = self.input, self.weight, logits, *outs
        in_numpy = self.input.dtype is not torch.bfloat16
        multiply: Any = np.matmul if in_numpy else torch.mm
        x, w, g, dx, dw = (t.numpy() for t in tensors) if in_numpy else tensors

        def call() -> None:
            for begin in range(0, len(x), BLOCK):
                part = x[begin : begin + BLOCK]
                block = g[: len(part)]
                multiply(part, w.T, out=block)
                if count == 3:
                    multiply(block, w, out=dx[: len(part)])
                    multiply(block.T, part, out=dw)

        return call


def ours(*arguments: torch.Tensor, **options: Any) -> torch.Tensor:
    """The loss of a layer, its logits never whole."""
    return crossent.torch.linear_cross_entropy(*arguments, **options)


def ours_none(*arguments: torch.Tensor) -> torch.Tensor:
    """The same through a loss for each row: four products."""
    return ours(*arguments, reduction="none").mean()


def whole(input: torch.Tensor, weight: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """PyTorch's loss of whole logits."""
    return F.cross_entropy(F.linear(input, weight), target)


def chunked(*arguments: torch.Tensor) -> torch.Tensor:
    """PyTorch's loss that cuts the work into pieces."""
    return F.linear_cross_entropy(*arguments, options=torch.nn.LinearCrossEntropyOptions())


CONTENDERS: dict[str, Callable[[Layer], Call]] = {
    "crossent": lambda layer: layer.step(ours),
    "crossent none": lambda layer: layer.step(ours_none),
    "crossent numpy": Layer.numpy_step,
    "products": lambda layer: layer.products(3),
    "eager": lambda layer: layer.step(whole),
    "compiled": lambda layer: layer.step(torch.compile(whole, dynamic=False)),
    "chunked": lambda layer: layer.step(chunked),
    "crossent loss": lambda layer: lambda: ours(layer.input, layer.weight, layer.target),
    "1 product": lambda layer: layer.products(1),
}


class Worker:
    """What a contender's own process does; the call is kept there between its turns."""

    call: Call

    @classmethod
    def load(cls, name: str, case: Case) -> int | None:
        """Makes the call, calls it twice, and gives the memory that the second one took."""
        cls.call = CONTENDERS[name](Layer(case))
        cls.call()
        give_back_freed_memory()
        before = resident("VmRSS") if reset_peak() else None
        cls.call()
        return None if before is None else resident("VmHWM") - before

    @classmethod
    def turn(cls) -> float:
        """Seconds of a call; one before it warms the caches and the threads."""
        cls.call()
        return clocked(cls.call)[0]


def measure(case: Case, names: list[str], rounds: int) -> dict[str, dict[str, Any]]:
    """Seconds of every round and bytes of memory, by contender."""
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        processes = {n: stack.enter_context(ProcessPoolExecutor(1, context)) for n in names}
        found: dict[str, dict[str, Any]] = {}
        for name, process in processes.items():
            peak = process.submit(Worker.load, name, case).result()
            found[name] = {"seconds": [], "peak_bytes": peak}
        for number in range(rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                found[name]["seconds"].append(processes[name].submit(Worker.turn).result())
    return found


def show(case: Case, found: dict[str, dict[str, Any]]) -> None:
    """One line for each contender; the last column is the time of ours over theirs."""
    print(f"N = {case.rows:,}, D = {case.features:,}, V = {case.classes:,}, {case.dtype}")
    best = {name: min(each["seconds"]) for name, each in found.items()}
    for name, each in found.items():
        median, peak = statistics.median(each["seconds"]), each["peak_bytes"]
        memory = "?" if peak is None else f"{peak / 2**20:,.0f}"
        beside = f"  {best['crossent'] / best[name]:5.2f}" if "crossent" in best else ""
        times = f"best {best[name]:6.2f} s  median {median:6.2f} s"
        print(f"  {name:<14} {times}  {memory:>6} MiB{beside}", flush=True)


def main() -> None:
    """Every case asked for, one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default="2048")
    parser.add_argument("--features", type=int, default=768)
    parser.add_argument("--classes", default="50257")
    parser.add_argument("--dtypes", default="float32", help="float32,bfloat16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(CONTENDERS))
    parser.add_argument("--json", action="store_true", help="one line of JSON for each case")
    given = parser.parse_args()
    for dtype in given.dtypes.split(","):
        for rows in map(int, given.rows.split(",")):
            for classes in map(int, given.classes.split(",")):
                case = Case(rows, given.features, classes, dtype)
                names = [
                    n for n in given.only.split(",") if dtype != "bfloat16" or "numpy" not in n
                ]
                found = measure(case, names, given.rounds)
                if given.json:
                    print(json.dumps(case._asdict() | {"contenders": found}), flush=True)
                else:
                    show(case, found)


if __name__ == "__main__":
    main()

"""Times the loss of a linear layer and all gradients, beside PyTorch's ways and bare products.

All take turns in one process; the best of the rounds counts. "products" are the three matrix
products alone, by the library that ours uses, in blocks of 512 rows; "1 product" is the first.

    env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE python examples/linear_speed.py
    python examples/linear_speed.py --dtype bfloat16 --only crossent,compiled
    python examples/linear_speed.py --only crossent --rows 2048,4096,8192 --classes 50257,100514
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import crossent.torch

F = torch.nn.functional
BLOCK = 512


def step(function: Callable[..., Any], layer: list[torch.Tensor], target: torch.Tensor) -> Any:
    """A call that makes the loss and both gradients."""

    def call() -> None:
        for tensor in layer:
            tensor.grad = None
        function(*layer, target).backward()

    return call


def products(layer: list[torch.Tensor], count: int) -> Callable[[], None]:
    """The first `count` of a block's three products, over all blocks, into memory that is there."""
    input, weight = (tensor.detach() for tensor in layer)
    logits = input.new_zeros(BLOCK, len(weight))
    outs = input.new_zeros(BLOCK, input.shape[1]), torch.zeros_like(weight)
    in_numpy = input.dtype is not torch.bfloat16
    mm = np.matmul if in_numpy else torch.mm
    x, w, g, *results = ([t.numpy() for t in (input, weight, logits, *outs)] if in_numpy
                         else [input, weight, logits, *outs])  # fmt: skip

    def call() -> None:
        for begin in range(0, len(x), BLOCK):
            part = x[begin : begin + BLOCK]
            block = g[: len(part)]
            mm(part, w.T, out=block)
            if count == 3:
                mm(block, w, out=results[0][: len(part)])
                mm(block.T, part, out=results[1])

    return call


def contenders(layer: list[torch.Tensor], target: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    ours, chunked = crossent.torch.linear_cross_entropy, torch.nn.LinearCrossEntropyOptions()

    def whole(input: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(F.linear(input, weight), labels)

    detached = [tensor.detach() for tensor in layer]
    return {
        "crossent": step(ours, layer, target),
        "crossent none": step(lambda *a: ours(*a, reduction="none").mean(), layer, target),
        "products": products(layer, 3),
        "eager": step(whole, layer, target),
        "compiled": step(torch.compile(whole, dynamic=False), layer, target),
        "chunked": step(lambda *a: F.linear_cross_entropy(*a, options=chunked), layer, target),
        "crossent loss": lambda: ours(*detached, target),
        "1 product": products(layer, 1),
    }


def measure(rows: int, features: int, classes: int, given: argparse.Namespace) -> None:
    """One line for each contender."""
    torch.manual_seed(0)
    dtype = getattr(torch, given.dtype)
    sizes = torch.randn(rows, features), 0.05 * torch.randn(classes, features)
    layer = [tensor.to(dtype).requires_grad_() for tensor in sizes]
    everyone = contenders(layer, torch.randint(0, classes, (rows,)))
    chosen = {n: c for n, c in everyone.items() if not given.only or n in given.only.split(",")}
    times: dict[str, list[float]] = {name: [] for name in chosen}
    for turn in range(given.rounds + 1):
        for name, call in chosen.items():
            begin = time.perf_counter()
            call()
            if turn:  # the first compiles, starts threads and touches memory
                times[name].append(time.perf_counter() - begin)
    print(f"N = {rows:,}, D = {features:,}, V = {classes:,}, {given.dtype}")
    best = {name: min(each) for name, each in times.items()}
    for name, seconds in best.items():
        beside = f"  {best['crossent'] / seconds:5.2f}" if "crossent" in best else ""
        median = sorted(times[name])[len(times[name]) // 2]
        print(f"  {name:<14} best {seconds:6.2f} s  median {median:6.2f} s{beside}", flush=True)


def main() -> None:
    """Every shape asked for; the last column is ours over theirs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="2048")
    parser.add_argument("--features", type=int, default=768)
    parser.add_argument("--classes", default="50257")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    for rows in map(int, given.rows.split(",")):
        for classes in map(int, given.classes.split(",")):
            measure(rows, given.features, classes, given)


if __name__ == "__main__":
    main()

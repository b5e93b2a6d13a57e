"""Prints, as JSON, by how much the linear form raises this process's peak, and by how much it may.

Not a test: a program, so that nothing but crossent and NumPy is in the process. Linux only.
"""

import json

import numpy as np
from cases import DTYPES
from peak_memory import growth

import crossent

N, D, V = 1024, 16, 50_257
MEMORY = 64 << 20  # above what malloc keeps when it is freed; whole logits take 206 MB in float32


def calls(dtype):
    """(name, call, bytes that it may take beyond its arguments)."""
    memory = 1.05 * MEMORY
    draw = np.random.default_rng(0)
    inputs, weight = (draw.standard_normal((n, D), np.float32).astype(dtype) for n in (N, V))
    targets = draw.integers(0, V, N)
    targets[::7] = -100
    gradients = inputs.nbytes + weight.nbytes + (4 * V * D if dtype.itemsize == 2 else 0)
    options = {"label_smoothing": 0.1, "softcap": 30.0}
    rows = 40 * N  # losses, scores, which rows count
    yield "loss", lambda: crossent.linear_cross_entropy(inputs, weight, targets), rows + memory
    yield "scores", lambda: crossent.linear_token_scores(inputs, weight, targets), rows + memory
    for name, chosen in (("gradients", {}), ("gradients, general", options)):
        yield (
            name,
            lambda chosen=chosen: crossent.linear_cross_entropy_and_grad(
                inputs, weight, targets, **chosen
            ),
            rows + memory + gradients,
        )


def main():
    measured = {}
    crossent.set_working_memory(MEMORY)
    for name, dtype in DTYPES.items():
        for call_name, call, allowed in calls(dtype):
            if call_name == "gradients":
                call()  # the product's library keeps buffers of its own from its first use on
            measured[f"{name}, {call_name}"] = growth(call), allowed
    print(json.dumps(measured))


if __name__ == "__main__":
    main()

"""Prints, as JSON, by how much calls of crossent raise this process's peak; see test_memory.py.

Not a test: a program, so that nothing but crossent and NumPy is in the process. Linux only.
"""

import json
from pathlib import Path

import numpy as np
from cases import DTYPES, labels_of

import crossent

N, C = 2048, 4096
GENERAL = {"label_smoothing": 0.1, "softcap": 30.0}


def resident(field):
    """VmRSS or VmHWM of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise LookupError(field)


def growth(call):
    """Bytes between the resident set before a call and its peak during it."""
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    kept = call()
    grown = resident("VmHWM") - before
    del kept
    return grown


def calls(logits, labels, one_hot):
    """(name, call, bytes that it was asked for), in place last."""
    grad, rows = logits.nbytes, 8 * N
    both, alone = crossent.cross_entropy_and_grad, crossent.cross_entropy
    other = np.asfortranarray(logits)
    yield "loss", lambda: alone(logits, labels), rows
    yield "loss a row", lambda: alone(logits, labels, reduction="none"), rows
    yield "loss of one-hot rows", lambda: alone(logits, one_hot), rows
    yield "loss, Fortran order", lambda: alone(other, labels), rows
    yield "scores", lambda: crossent.token_scores(logits, labels), 4 * rows
    yield "gradient", lambda: both(logits, labels), grad + rows
    yield "gradient, one-hot rows", lambda: both(logits, one_hot), grad + rows
    yield "softmax", lambda: crossent.softmax(logits), grad
    yield "in place", lambda: both(logits, labels, out=logits), rows


def main():
    labels, measured = labels_of(N, C), {}
    one_hot = np.zeros((N, C), np.int8)
    one_hot[np.arange(N), labels] = 1
    for dtype_name, dtype in DTYPES.items():
        for options_name, options in (("plain", {}), ("general", GENERAL)):
            logits = np.zeros((N, C), dtype)
            logits[...] = np.linspace(-3, 3, C).astype(dtype)
            crossent.cross_entropy_and_grad(logits[:64].copy(), labels[:64], **options)
            for name, call, asked_for in calls(logits, labels, one_hot):
                measured[f"{dtype_name}, {options_name}, {name}"] = growth(call), asked_for
    print(json.dumps(measured))


if __name__ == "__main__":
    main()

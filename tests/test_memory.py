"""What a call allocates: O(N) for a loss, the gradient alone for a gradient; and 64-bit addresses.

Measured twice: NumPy's allocations by tracemalloc, and everything by the peak of the resident set
of a process of its own, whose high-water mark Linux lets it reset.
"""

import json
import mmap
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from cases import DTYPES, bits, labels_of, logits_of, loss_dtype

import crossent

N, C = 512, 4096
SMALL = 64 * 1024  # bytes: N losses, and whatever Python keeps
OPTIONS = {
    "plain": {},
    "general": {"label_smoothing": 0.1, "softcap": 30.0, "z_loss": 1e-4},
    "weight": {"weight": np.ones(C)},
}
options_by_name = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
dtypes = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)


def allocated(call):
    """The most bytes that Python and NumPy held at once during a call, beside what was there."""
    call()
    tracemalloc.start()
    try:
        kept = call()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    del kept
    return peak


@dtypes
@options_by_name
def test_a_loss_allocates_a_number_a_row(options, dtype):
    logits, labels = logits_of((N, C), dtype), labels_of(N, C)
    for targets in (labels, labels.astype(np.uint16), np.zeros((N, C), np.int8)):
        for reduction in ("none", "sum", "mean"):
            peak = allocated(
                lambda targets=targets, reduction=reduction: crossent.cross_entropy(
                    logits, targets, reduction=reduction, **options
                )
            )
            assert peak < SMALL
    assert allocated(lambda: crossent.token_scores(logits, labels)) < SMALL
    assert allocated(lambda: crossent.logsumexp(logits)) < SMALL


@dtypes
@options_by_name
def test_a_gradient_allocates_itself_and_in_place_nothing(options, dtype):
    logits, labels = logits_of((N, C), dtype), labels_of(N, C)
    one_hot = np.zeros((N, C), np.int8)
    in_out = {**options, "out": np.empty_like(logits)}
    for targets in (labels, one_hot):
        fresh = allocated(lambda t=targets: crossent.cross_entropy_and_grad(logits, t, **options))
        assert logits.nbytes <= fresh < logits.nbytes + SMALL
        given = allocated(lambda t=targets: crossent.cross_entropy_and_grad(logits, t, **in_out))
        assert given < SMALL
    assert allocated(lambda: crossent.cross_entropy_and_grad(logits, labels, out=logits)) < SMALL
    assert allocated(lambda: crossent.softmax(logits, out=logits)) < SMALL


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="only Linux can reset its high-water mark"
)
def test_the_process_grows_by_no_more_than_what_was_asked_for():
    program = Path(__file__).with_name("peak_memory.py")
    # Freed memory goes back to the system at once, so that none of it hides an allocation.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "262144"}
    done = subprocess.run(
        [sys.executable, program],
        capture_output=True, text=True, check=True, timeout=120, env=environment,
    )  # fmt: skip
    measured = json.loads(done.stdout)
    assert len(measured) == 4 * 2 * 9
    for name, (grown, asked_for) in measured.items():
        assert grown <= asked_for + 3 * 2**20, f"{name}: {grown} bytes, of them asked {asked_for}"


# More than 2^31 elements, at the price of a few pages


NO_RESERVE = 0x4000 if sys.platform == "linux" else 0  # mmap.MAP_NORESERVE from Python 3.13 on


def far_apart(shape, dtype, strides):
    """An array over untouched memory of which only its elements' pages ever exist."""
    length = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    memory = mmap.mmap(-1, length + dtype.itemsize, flags=mmap.MAP_PRIVATE | NO_RESERVE)
    return np.ndarray(shape, dtype, memory, 0, strides)


@dtypes
@pytest.mark.parametrize("C", [3, 129])
def test_elements_more_than_2_to_31_apart_are_found(isa, C, dtype):
    size, rows = dtype.itemsize, 3
    step = 2**30 * size + size  # bytes between rows, so that the last is beyond 2^31 elements
    logits, labels = logits_of((rows, C), dtype), labels_of(rows, C)
    expected = crossent.cross_entropy_and_grad(logits, labels)
    for strides in ((step, size), (size, 2**31 // (C - 1) * size + size)):
        far = far_apart((rows, C), dtype, strides)
        far[...] = logits
        got = crossent.cross_entropy_and_grad(far, labels, out=far)
        assert bits(got[0]) == bits(expected[0])
        assert bits(got[1]) == bits(expected[1])
    far_labels = far_apart((rows,), labels.dtype, (2**31,))
    far_labels[...] = labels
    got = crossent.cross_entropy_and_grad(logits, far_labels)
    assert bits(got[1]) == bits(expected[1])


def test_more_than_2_to_31_elements_are_summed():
    row = np.array([0.5, 2.0, -1.0, 0.25, 1.5, 0.0, 0.75, -0.5], np.float32)
    rows = 2**28 + 3
    logits = np.broadcast_to(row, (rows, 8))
    labels = np.broadcast_to(np.uint8(1), rows)
    assert logits.size > 2**31
    total = crossent.cross_entropy(logits, labels, reduction="sum")
    assert total == np.float32(rows * np.float64(crossent.cross_entropy(row.astype(float), 1)))


def test_a_bad_label_beyond_row_2_to_31_is_named():
    rows = 2**31 + 12
    labels = far_apart((rows,), np.dtype(np.uint8), (1,))
    labels[rows - 1] = 7
    logits = np.broadcast_to(np.float32(0), (rows, 1))
    with pytest.raises(IndexError, match=rf"targets\[{rows - 1}\] is 7 \(row {rows - 1}\)"):
        crossent.cross_entropy(logits, labels, reduction="sum")


def test_losses_have_the_width_that_is_promised():
    for dtype in DTYPES.values():
        loss = crossent.cross_entropy(logits_of((3, 4), dtype), [0, 1, 2], reduction="none")
        assert loss.dtype == loss_dtype(dtype)

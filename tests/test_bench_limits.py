"""The yardsticks of the bench: the machine's limits, and the truth that errors are held against."""

import math
import sys

import mpmath
import numpy as np
import pytest

import crossent
from crossent.commands.bench import accuracy
from crossent.commands.bench._limits import limits_of
from crossent.commands.bench.arrays import from_stored
from crossent.commands.bench.contenders.numpy import Crossent, Textbook
from crossent.commands.bench.limits import fresh_memory
from crossent.commands.bench.measure import resident

SIZES = (0, 1, 3, 4, 63, 64, 511, 512, 513, 4099, 300_000)


@pytest.mark.parametrize("size", SIZES)
def test_reading_depends_on_every_byte(isa, size):
    data = np.random.default_rng(0).integers(0, 256, size + 1).astype(np.uint8)[1:]  # misaligned
    read = limits_of(isa).read
    before = read(data)
    for place in {0, size // 2, size - 1} if size else ():
        data[place] ^= 1
        assert read(data) != before
        data[place] ^= 1
    assert read(data) == before


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", SIZES)
def test_scaling_multiplies_everything_in_place(isa, count, dtype):
    data = np.random.default_rng(0).standard_normal(count + 1).astype(dtype)
    wanted = np.concatenate([data[:1], data[1:] * dtype(0.5)])
    limits_of(isa).scale(data[1:], 0.5, dtype is np.float64)
    assert (data == wanted).all()


@pytest.mark.parametrize("count", SIZES)
def test_filling_writes_everything_and_nothing_else(isa, count):
    data = np.zeros(count + 2, np.float32)
    limits_of(isa).fill(data[1:-1])
    assert (data[1:-1] == 1).all()
    assert data[0] == data[-1] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what stands behind memory")
@pytest.mark.parametrize("advice", ["MADV_HUGEPAGE", "MADV_NOHUGEPAGE"])
def test_fresh_memory_is_private_and_no_page_stands_behind_it_yet(advice):
    before = resident("RssAnon")
    with fresh_memory(32 << 20, advice) as memory:
        made = resident("RssAnon")
        limits_of(crossent.isa()).fill(memory)
        filled = resident("RssAnon")
    assert made - before < 4 << 20
    assert filled - made > 28 << 20


@pytest.mark.parametrize("doubles", [False, True])
def test_the_frozen_exp_is_an_exp(isa, doubles):
    dtype = np.float64 if doubles else np.float32
    count = 16384 // dtype().itemsize
    points = np.linspace(-16, 0, count).astype(dtype).astype(np.float64)
    wanted = np.exp(points).sum()
    tolerance = 1e-14 if doubles else 2e-6
    assert limits_of(isa).exp(10 * count, doubles) == pytest.approx(10 * wanted, rel=tolerance)


def test_loops_are_of_an_instruction_set_that_is_named():
    with pytest.raises(ValueError, match="no loops for 8086 run here"):
        limits_of("8086")


def test_limits_take_contiguous_buffers_only():
    limits = limits_of(crossent.isa())
    with pytest.raises(TypeError, match="order='C'"):
        limits.read(np.zeros((4, 4))[:, ::2])
    read_only = np.zeros(4, np.float32)
    read_only.flags.writeable = False
    assert limits.read(read_only) == 0
    with pytest.raises(TypeError, match="incompatible"):
        limits.fill(read_only)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("regime", list(accuracy.REGIMES))
def test_the_truth_is_mpmath_s(regime, dtype):
    if not accuracy.can_judge(dtype):
        pytest.skip(f"np.longdouble is no more precise than {dtype} here")
    rows = accuracy.REGIMES[regime]._replace(rows=1, classes=50)
    stored, targets = accuracy.make_logits(rows, dtype)
    losses, grad = accuracy.truth(stored, targets)
    logits = [float(value) for value in from_stored(stored)[0]]
    with mpmath.workdps(60):
        exps = [mpmath.exp(value) for value in logits]
        loss = mpmath.log(sum(exps)) - logits[targets[0]]
        probs = [exp / sum(exps) for exp in exps]
        probs[targets[0]] -= 1
        assert abs(as_mpf(losses[0]) / loss - 1) < 1e-17
        assert max(abs(as_mpf(g) / p - 1) for g, p in zip(grad[0], probs, strict=True)) < 1e-17


def as_mpf(value):
    head = float(value)
    return mpmath.mpf(head) + mpmath.mpf(float(value - np.longdouble(head)))


@pytest.mark.parametrize(
    ("dtype", "true", "unit"),
    [("float32", 1.5, 2.0**-23), ("float64", 0.75, 2.0**-53), ("bfloat16", 3.0, 2.0**-6),
     ("float32", 1e-45, 2.0**-149)],
)  # fmt: skip
def test_errors_are_in_units_of_the_last_place(dtype, true, unit):
    true = np.array([true, 1.0], np.longdouble)
    got = true + np.array([3 * unit, 0], np.longdouble)
    ulp, relative = accuracy.largest_errors(got, dtype, true)
    assert ulp == pytest.approx(3)
    assert relative == pytest.approx(float(3 * unit / max(true[0], unit)))


def test_a_result_that_is_nan_is_not_taken_for_exact():
    ulp, _ = accuracy.largest_errors(
        np.array([math.nan, 1.0]), "float32", np.ones(2, np.longdouble)
    )
    assert math.isnan(ulp)


def test_ours_is_exact_where_the_textbook_is_not():
    ahead = accuracy.REGIMES["target 20 ahead"]
    ours = accuracy.errors_of(Crossent(), ahead, "float32")
    textbook = accuracy.errors_of(Textbook(), ahead, "float32")
    assert max(ours.loss_ulp, ours.grad_ulp) <= 2
    assert min(textbook.loss_relative, textbook.grad_relative) > 0.1

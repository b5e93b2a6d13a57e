"""Threads, processes and floating-point modes of the caller: none of them changes a bit."""

import ctypes
import ctypes.util
import itertools
import os
import platform
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from cases import ISAS, SEGMENTED, bits, labels_of, logits_of, soft_targets_of
from covering import covering

import crossent

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
needs_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells of threads and CPUs"
)


def run_program(*parts, **environment):
    """The words that a Python program prints; it ends within a minute, without a warning."""
    program = "\n".join(map(textwrap.dedent, parts))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True, text=True, timeout=60, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


# Many callers


PROBLEMS = {  # each large enough for more than one thread
    "short rows": (20_000, 10, {}),
    "rows": (800, 1100, {}),
    "general rows": (100, 1100, {"label_smoothing": 0.1, "softcap": 9.0}),
    "segments": (10, SEGMENTED, {}),
}


def solve(name, place=None):
    """Loss and gradient of one problem; place: where the logits are copied to and overwritten."""
    N, C, options = PROBLEMS[name]
    logits, labels = logits_of((N, C), np.float32), labels_of(N, C)
    if place is not None:
        place[...] = logits
        logits = place
    loss, grad = crossent.cross_entropy_and_grad(logits, labels, out=place, **options)
    return bits(loss), bits(grad)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_many_python_threads_at_once_get_the_same_bits(set_num_threads, threads):
    expected = {name: solve(name) for name in PROBLEMS}
    set_num_threads(threads)
    names = list(PROBLEMS) * 6
    with ThreadPoolExecutor(12) as pool:
        for name, got in zip(names, pool.map(solve, names), strict=True):
            assert got == expected[name], name


def test_the_thread_count_may_change_under_running_calls(set_num_threads):
    expected = {name: solve(name) for name in PROBLEMS}
    names = list(PROBLEMS) * 4
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(solve, name) for name in names]
        for count in (1, 3, 2, 8) * 8:
            set_num_threads(count)
            time.sleep(0.002)
        for name, future in zip(names, running, strict=True):
            assert future.result() == expected[name]


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_long_rows_in_place_do_not_race_for_the_target(set_num_threads, threads):
    """Segments of one row overwrite its logits while others start: all need the target's logit."""
    N, C = 15, 3 * 32768
    logits = logits_of((N, C), np.float32)
    place = np.empty_like(logits)
    for label in (32768, 2 * 32768, C - 1, 0):
        labels = np.full(N, label)
        set_num_threads(1)
        expected = crossent.cross_entropy_and_grad(logits, labels, reduction="none")
        set_num_threads(threads)
        for _ in range(8):
            place[...] = logits
            got = crossent.cross_entropy_and_grad(place, labels, reduction="none", out=place)
            assert bits(got[0]) == bits(expected[0])
            assert bits(place) == bits(expected[1])


def test_the_interpreter_runs_on_during_a_call():
    logits = np.broadcast_to(np.linspace(-1, 1, 1000, dtype=np.float32), (200_000, 1000))
    labels = np.zeros(200_000, int)
    beats, done = itertools.count(), threading.Event()

    def beat():
        while not done.wait(0.001):
            next(beats)

    def beats_during_a_call():
        before = next(beats)
        crossent.cross_entropy(logits, labels)
        return next(beats) - before - 1

    other = threading.Thread(target=beat)
    other.start()
    try:  # with the interpreter's lock held, there is room for a beat before and one after
        assert any(beats_during_a_call() > 3 for _ in range(50))
    finally:
        done.set()
        other.join()


# Counts


def test_set_num_threads_is_what_get_num_threads_says(set_num_threads):
    for count in (1, 2, 5, 1024, np.int64(3)):
        set_num_threads(count)
        assert crossent.get_num_threads() == count


@pytest.mark.parametrize("text", ["1", "2", "7"])
def test_the_environment_sets_the_first_count(text):
    program = "import crossent; print(crossent.get_num_threads())"
    assert run_program(program, CROSSENT_NUM_THREADS=text) == [text]


@pytest.mark.parametrize("text", ["0", "-3", "many", "1e3", "2abc", " 2", "3000", "4294967297"])
def test_an_environment_that_is_no_count_is_an_error_of_whoever_asks(text):
    program = """
        import crossent
        import numpy as np

        crossent.softmax(np.zeros((2, 3)))  # asks for no thread
        for call in crossent.get_num_threads, lambda: crossent.softmax(np.zeros((100_000, 10))):
            try:
                call()
            except ValueError as error:
                print(str(error).replace(" ", "_"))
        crossent.set_num_threads(2)
        print(crossent.get_num_threads())
    """
    said = f"CROSSENT_NUM_THREADS='{text}' must be an integer from 1 to 1024, or unset"
    told = run_program(program, CROSSENT_NUM_THREADS=text)
    assert told == [said.replace(" ", "_")] * 2 + ["2"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no CPU affinity")
def test_the_default_count_is_the_number_of_cpus_that_the_process_may_use():
    program = """
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        import crossent
        print(crossent.get_num_threads())
    """
    environment = {"CROSSENT_NUM_THREADS": ""}
    assert run_program(program, **environment) == ["1"]


# Who wakes whom


@needs_linux
def test_a_small_problem_wakes_no_thread_and_a_large_one_does():
    program = """
        import os
        import numpy as np
        import crossent

        crossent.set_num_threads(2)

        def threads_after(rows):
            before = len(os.listdir("/proc/self/task"))
            crossent.softmax(np.zeros((rows, 10)))
            return len(os.listdir("/proc/self/task")) - before

        print(threads_after(5000), threads_after(100_000), threads_after(100_000))
    """
    assert run_program(program) == ["0", "1", "0"]


@needs_linux
def test_a_thread_that_sleeps_where_its_caller_works_wakes_elsewhere():
    program = """
        import os, time
        import numpy as np
        import crossent

        crossent.set_num_threads(2)
        logits = np.zeros((100_000, 10), np.float32)

        def tasks():
            return set(map(int, os.listdir("/proc/self/task")))

        before = tasks()
        crossent.softmax(logits)
        (helper,) = tasks() - before
        cpus = os.sched_getaffinity(0)
        left = 0
        for cpu in sorted(cpus) * 20:
            os.sched_setaffinity(helper, {cpu})
            crossent.softmax(logits)  # the helper falls asleep there
            os.sched_setaffinity(0, {cpu})
            os.sched_setaffinity(0, cpus)  # the caller is there now, as a rule
            crossent.softmax(logits)
            left += cpu not in os.sched_getaffinity(helper)
        print(left > 0)
    """
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("there is but one CPU")
    assert run_program(program) == ["True"]


# Fork


FORKED = """
    import os, sys, threading, warnings
    import numpy as np
    import crossent

    warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: fork beside threads
    logits = np.random.default_rng(0).standard_normal((6000, 100)).astype(np.float32)
    labels = np.arange(6000) % 100

    def solve():
        loss, grad = crossent.cross_entropy_and_grad(logits, labels)
        return loss.tobytes() + grad.tobytes()

    crossent.set_num_threads(3)
    expected = solve()
"""


@needs_fork
def test_a_child_of_fork_computes_the_same_and_so_does_its_parent():
    program = """
    for _ in range(5):
        child = os.fork()
        if child == 0:
            os._exit(0 if solve() == expected and solve() == expected else 1)
        assert solve() == expected
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status))
    """
    assert run_program(FORKED, program) == ["0"] * 5


@needs_fork
def test_a_fork_while_other_threads_compute_does_not_hang_the_child():
    program = """
    done = False

    def keep_busy():
        while not done:
            solve()

    busy = [threading.Thread(target=keep_busy) for _ in range(2)]
    for thread in busy:
        thread.start()
    for _ in range(10):
        child = os.fork()
        if child == 0:
            os._exit(0 if solve() == expected else 1)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status))
    done = True
    for thread in busy:
        thread.join()
    """
    assert run_program(FORKED, program) == ["0"] * 10


@needs_fork
def test_a_grandchild_computes_the_same():
    program = """
    child = os.fork()
    if child == 0:
        same = solve() == expected
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(0 if solve() == expected else 1)
        _, status = os.waitpid(grandchild, 0)
        os._exit(0 if same and status == 0 else 1)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status))
    """
    assert run_program(FORKED, program) == ["0"]


def test_a_process_that_used_threads_ends():
    program = "import numpy as np, crossent; crossent.set_num_threads(4)\n"
    run_program(program + "crossent.softmax(np.zeros((50_000, 100)))")


# Floating-point modes


FLUSH_TO_ZERO_AND_INPUTS_TOO, ROUND_UP = 0x8040, 0x4000  # of the SSE control register
needs_mxcsr = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or sys.platform != "linux",
    reason="the SSE control register is set through glibc on x86-64 alone",
)


@contextmanager
def control_bits(added):
    """Sets bits of the calling thread's SSE control register, and puts it back."""
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    saved, changed = ctypes.create_string_buffer(32), ctypes.create_string_buffer(32)
    libm.fegetenv(saved)
    libm.fegetenv(changed)
    register = ctypes.cast(ctypes.byref(changed, 28), ctypes.POINTER(ctypes.c_uint32))
    register[0] |= added
    libm.fesetenv(changed)
    try:
        yield
    finally:
        libm.fesetenv(saved)


def subnormal_problems(dtype):
    """(logits, targets, options) that have subnormal numbers in every place."""
    for N, C in ((40, 5), (6, 1100), (2, SEGMENTED)):
        logits, labels = logits_of((N, C), dtype, 1.0), np.zeros(N, int)
        # Confident answers: tiny losses and gradients, exponentials below the normal numbers.
        logits[:, 0] = {8: 740, 4: 100, 2: 14}[logits.dtype.itemsize]
        soft = soft_targets_of((N, C)).astype(np.float32) * np.float32(1e-40)
        for options in ({}, {"z_loss": 1e-310}, {"softcap": 2e3, "label_smoothing": 1e-300}):
            for reduction in ("none", "sum", "mean"):
                yield logits, labels, {**options, "reduction": reduction}
                yield logits, soft, {**options, "reduction": reduction}
        yield logits, labels, {"weight": np.full(C, 1e-310), "reduction": "sum"}
        yield logits, labels, {"grad_loss": np.full(N, 1e-310), "reduction": "none"}


def everything(problems):
    """The bits of all results of all problems."""
    found = []
    for logits, targets, options in problems:
        found += crossent.cross_entropy_and_grad(logits, targets, **options)
        if options.get("reduction") == "sum":
            found.append(crossent.cross_entropy_hvp(logits, targets, logits, **options))
        if not options:
            found += [crossent.softmax(logits), crossent.log_softmax(logits)]
            found += crossent.token_scores(logits, targets)
    return [bits(array) for array in found]


@needs_mxcsr
@covering(
    isa=ISAS,
    threads=[1, 3],
    mode={"flush": FLUSH_TO_ZERO_AND_INPUTS_TOO, "up": ROUND_UP},
    dtype={"float64": np.float64, "float32": np.float32, "float16": np.float16},
)
def test_the_caller_s_floating_point_mode_changes_no_bit(
    isa, set_num_threads, threads, mode, dtype
):
    set_num_threads(threads)
    problems = list(subnormal_problems(dtype))
    expected = everything(problems)
    with control_bits(mode):
        before = np.float64(1e-310) * 1.0, np.float64(1) / 3
        got = everything(problems)
        after = np.float64(1e-310) * 1.0, np.float64(1) / 3
    assert before == after  # the mode was on, and is left on
    assert before != (np.float64(1e-310) * 1.0, np.float64(1) / 3)
    assert [a == b for a, b in zip(got, expected, strict=True)] == [True] * len(expected)


@needs_mxcsr
def test_a_tiny_loss_is_not_flushed_to_zero():
    logits = np.array([[95.0, 0.0, 0.0]], np.float32)
    with control_bits(FLUSH_TO_ZERO_AND_INPUTS_TOO):
        loss = crossent.cross_entropy(logits, [0])
        stored = np.asarray(loss).view(np.int32)
    assert stored > 0
    assert loss == np.float32(2 * np.exp(-95.0))


def test_a_calculation_raises_no_floating_point_error():
    logits = np.array([[np.inf, -np.inf, np.nan], [3e38, -3e38, 0.0], [1e-45, 95, 0]], np.float32)
    with np.errstate(all="raise"):
        for options in ({}, {"softcap": 5.0}, {"label_smoothing": 0.1}, {"reduction": "sum"}):
            crossent.cross_entropy_and_grad(logits, [0, 1, 1], **options)
        crossent.token_scores(logits, [0, 1, 1])
        crossent.softmax(logits)
        crossent.log_softmax(logits)
        crossent.logsumexp(logits)
    with np.errstate(all="raise", under="ignore"):
        crossent.grad_wrt_probabilities(np.array([[0.0, 1e-45]], np.float32), [1])
        crossent.softmax_jacobian(logits)
        crossent.log_softmax_jacobian(logits)

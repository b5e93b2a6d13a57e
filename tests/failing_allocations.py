"""Lets every allocation of every entry point fail once: the core's own, then NumPy's on its behalf.

Not a test: a program under failing_allocations.cc, in a process of its own. A failed call raises
MemoryError and leaves every array as it was; the next call gives the bits that the first one gave.
Of NumPy's allocations only large ones fail: it does not survive that of a small buffer of its own.
Each failure happens in a fork, where no thread of the pool has been started yet; PyTorch's threads
do not survive one, so its calls share a process. Prints how many calls failed as they should.
"""

import ctypes
import os
import pickle
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from cases import SEGMENTED, bits, labels_of, logits_of, soft_targets_of

import crossent

SHAPES = {"short rows": (30_000, 10), "rows": (500, 1100), "segments": (3, SEGMENTED)}


class Case(NamedTuple):
    """A call, and what it may write to beside what it returns."""

    call: Callable[[], Any]
    out: Any = None


def numpy_cases(N: int, C: int) -> dict[str, Case]:
    """Every entry point of NumPy's front-end, on N rows of C classes."""
    logits, labels, shares = logits_of((N, C), np.float32), labels_of(N, C), soft_targets_of((N, C))
    inputs, layer = logits_of((N // 9 + 1, 16), np.float32), logits_of((C, 16), np.float32)
    out, place = np.full_like(logits, 7), logits.copy()
    options = {"label_smoothing": 0.1, "softcap": 9.0, "weight": np.linspace(0.5, 1.5, C)}
    of_rows = {"reduction": "none", "grad_loss": np.linspace(-1, 1, N)}
    gradient, nothing = crossent.cross_entropy_and_grad, {"ignore_index": 0}
    linear = inputs, layer, labels[: len(inputs)]
    return {
        "loss": Case(lambda: crossent.cross_entropy(logits, labels)),
        "distributions": Case(lambda: crossent.cross_entropy(logits, shares)),
        "gradient": Case(lambda: gradient(logits, labels)),
        "gradient in out": Case(lambda: gradient(logits, labels, out=out), out),
        "gradient in place": Case(lambda: gradient(place, labels, out=place), place),
        "options": Case(lambda: gradient(logits, labels, out=out, **options), out),
        "losses of rows": Case(lambda: gradient(logits, labels, out=out, **of_rows), out),
        "nothing counts": Case(lambda: gradient(logits, 0 * labels, out=out, **nothing), out),
        "Hessian": Case(lambda: crossent.cross_entropy_hvp(logits, labels, logits)),
        "scores": Case(lambda: crossent.token_scores(logits, labels)),
        "softmax": Case(lambda: crossent.softmax(logits)),
        "columns": Case(lambda: crossent.log_softmax(logits.T, axis=0)),
        "lse": Case(lambda: crossent.logsumexp(logits)),
        "jvp": Case(lambda: crossent.softmax_jvp(logits, logits)),
        "by probabilities": Case(lambda: crossent.grad_wrt_probabilities(np.exp(logits), labels)),
        "course": Case(lambda: crossent.CrossEntropyLoss().forward(logits, shares)),
        "linear loss": Case(lambda: crossent.linear_cross_entropy(*linear)),
        "linear gradients": Case(lambda: crossent.linear_cross_entropy_and_grad(*linear)),
        "linear scores": Case(lambda: crossent.linear_token_scores(*linear)),
        **({} if C > 10 else evaluation_cases(logits, labels)),  # these hardly know of shapes
    }


def evaluation_cases(logits: Any, labels: Any) -> dict[str, Case]:
    """An evaluation, and one that is fed block by block."""
    total = crossent.EvaluationAccumulator(logits.shape[1])
    return {
        "evaluation": Case(lambda: crossent.evaluate(logits, labels).as_dict()),
        "accumulator": Case(lambda: total.update(logits, labels), total),
    }


def torch_cases(N: int, C: int) -> dict[str, Case]:
    """PyTorch's front-end, forward and backward, on N rows of C classes."""
    import torch

    import crossent.torch as front_end

    def leaf(array: Any) -> Any:
        return torch.from_numpy(array).requires_grad_()

    def gradients(loss: Callable[..., Any], *leaves: Any) -> Callable[[], Any]:
        def call() -> Any:
            value = loss(*leaves)
            return value, *torch.autograd.grad(value, leaves)

        return call

    logits, labels = leaf(logits_of((N, C), np.float32)), torch.from_numpy(labels_of(N, C))
    inputs, layer = logits_of((N // 9 + 1, 16), np.float32), logits_of((C, 16), np.float32)

    def loss(logits: Any, **options: Any) -> Any:
        return front_end.cross_entropy(logits, labels, **options)

    def linear(inputs: Any, layer: Any) -> Any:
        return front_end.linear_cross_entropy(inputs, layer, labels[: len(inputs)])

    return {
        "gradient": Case(gradients(loss, logits)),
        "in place": Case(lambda: loss(logits.detach(), inplace_backward=True)),
        "linear": Case(gradients(linear, leaf(inputs), leaf(layer))),
    }


class Shim:
    """The preloaded library, and the code whose allocations it lets fail."""

    def __init__(self, path: str, watched: str, least_bytes: int) -> None:
        self.library = ctypes.CDLL(path)
        self.library.fail_allocation.argtypes = [ctypes.c_int64]
        self.library.has_failed.restype = ctypes.c_bool
        with open("/proc/self/maps") as maps:
            code = next(line.split()[0] for line in maps if watched in line and " r-xp " in line)
        begin, end = (int(address, 16) for address in code.split("-"))
        self.library.watch(*map(ctypes.c_size_t, (begin, end, least_bytes)))

    def try_one(self, case: Case, expected: Any, n: int) -> str:
        """What came of a call whose n-th allocation fails: "not asked for", "done without it" or
        "raised"; AssertionError where it left a trace or the next call is not as expected."""
        before = contents(case.out)
        self.library.fail_allocation(n)
        try:
            result = case.call()
            raised = False
        except MemoryError:
            raised = True
        failed = self.library.has_failed()
        self.library.fail_allocation(0)
        if raised:
            assert failed, "MemoryError, but no allocation failed"
            assert contents(case.out) == before, "something was written"
            result = case.call()
        assert (contents(result), contents(case.out)) == expected, "other bits"
        return "raised" if raised else "done without it" if failed else "not asked for"


def contents(value: Any) -> Any:
    """What a result or an argument holds, to compare."""
    if isinstance(value, tuple | list):
        return [contents(part) for part in value]
    if isinstance(value, crossent.EvaluationAccumulator):
        return value.next_row, repr(value.result().as_dict())
    if isinstance(value, dict | None):
        return repr(value)
    return bits(value.detach().numpy() if hasattr(value, "detach") else value)


def forked(work: Callable[[], Any]) -> Any:
    """What a function returns in a fork of this process, whose state stays as it is."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with os.fdopen(writer, "wb") as pipe:
            try:
                pickle.dump(work(), pipe)
            except BaseException as error:
                pickle.dump(AssertionError(repr(error)), pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0, f"the process ended with {code}"
    result = pickle.loads(told)
    if isinstance(result, BaseException):
        raise result
    return result


def main(library: str, watched: str, least_bytes: str, front_end: str) -> None:
    """Prints a line for every kind of call, and how many raised."""
    crossent.set_num_threads(3)
    shim = Shim(library, watched, int(least_bytes))
    isolated = forked if front_end == "numpy" else lambda work: work()
    cases_of = numpy_cases if front_end == "numpy" else torch_cases
    total = 0
    for shape, extents in SHAPES.items():
        for name, case in cases_of(*extents).items():
            expected = isolated(lambda case=case: (contents(case.call()), contents(case.out)))
            seen: list[str] = []
            while not seen or seen[-1] != "not asked for":
                n = len(seen) + 1
                try:
                    seen.append(isolated(lambda: shim.try_one(case, expected, n)))
                except AssertionError as error:
                    sys.exit(f"{shape}, {name}: allocation {n}: {error}")
            raised = seen.count("raised")
            total += raised
            print(
                f"{shape}, {name}: {raised} raised, {seen.count('done without it')} done",
                flush=True,
            )
    print(total)


if __name__ == "__main__":
    main(*sys.argv[1:])

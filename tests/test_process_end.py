"""How a process ends: threads that are still inside a call, calls at exit, other interpreters."""

import subprocess
import sys
import textwrap

import pytest

NUMPY = """
    import numpy as np
    import crossent

    crossent.set_num_threads(2)
    logits, labels = np.zeros((20_000, 100), np.float32), np.zeros(20_000, int)
"""
CALLS = {
    "loss and gradient": "crossent.cross_entropy_and_grad(logits, labels)",
    "a short call": "crossent.cross_entropy(logits[:20], labels[:20])",
    "linear": "crossent.linear_cross_entropy(logits, logits[:50], labels)",
    "evaluation": "crossent.evaluate(logits, labels)",
    "an error": "call_that_fails()",
}
FAILING = """
    def call_that_fails():
        try:
            crossent.cross_entropy(logits, labels - 1)
        except IndexError:
            pass
"""
# The core as crossent.torch calls it, on PyTorch's threads. PyTorch itself does not survive a daemon
# thread in its own functions while the process ends, so none of them runs here.
TORCH = """
    import torch
    import crossent.torch
    from crossent import _core

    logits, labels = torch.zeros(20_000, 100), torch.zeros(20_000, dtype=torch.long)
    grad, loss = torch.empty_like(logits), torch.empty(20_000)
    crossent.torch.cross_entropy(logits, labels)  # brings PyTorch's threads

    def described(tensor, type):
        return tensor.data_ptr(), type, tensor.stride(), tuple(tensor.shape)

    floats, integers = _core.Type.float32, _core.Type.int64
    of_logits, of_labels = described(logits, floats), described(labels, integers)
    outputs = {"grad": described(grad, floats), "loss": described(loss, floats)}

    def call():
        _core.solve(_core.Output.LOSS, None, 1, of_logits, of_labels, outputs)
"""


def daemons(call: str, seconds: float) -> str:
    """The part of a program that starts threads which call for ever, and goes on a little later."""
    return f"""
        import threading, time

        def call_for_ever():
            while True:
                {call}

        for _ in range(3):
            threading.Thread(target=call_for_ever, daemon=True).start()
        time.sleep({seconds})
    """


def ending(*parts: str) -> tuple[int, str, str]:
    """How a Python program ends, and what it prints."""
    program = "\n".join(map(textwrap.dedent, parts))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_daemon_threads_inside_a_call_do_not_end_the_process_badly(call):
    for seconds in (0.05, 0.1, 0.12, 0.15):
        assert ending(NUMPY, FAILING, daemons(call, seconds)) == (0, "", "")


def test_daemon_threads_inside_a_call_on_pytorch_s_threads():
    pytest.importorskip("torch")
    for seconds in (0.05, 0.12):
        assert ending(TORCH, daemons("call()", seconds)) == (0, "", "")


def test_calls_at_exit_are_computed():
    at_exit = """
        import atexit

        @atexit.register
        def last():
            print(crossent.cross_entropy_and_grad(logits, labels)[0].round(3))
            print(round(crossent.evaluate(logits, labels).loss, 3))
    """
    expected = (0, "4.605\n4.605\n", "")
    assert ending(NUMPY, at_exit) == expected
    assert ending(NUMPY, at_exit, daemons(CALLS["evaluation"], 0.05)) == expected


def test_a_process_may_exit_from_another_thread_during_calls():
    leave = """
        import os

        def leave():
            time.sleep(0.05)
            os._exit(3)

        threading.Thread(target=leave).start()
        time.sleep(20)
    """
    calling = daemons(CALLS["loss and gradient"], 0.02)
    assert ending(NUMPY, calling, leave) == (3, "", "")


def test_objects_that_compute_when_they_are_deleted_do_so_at_exit():
    deleted = """
        class Late:
            def __del__(self, crossent=crossent, logits=logits, labels=labels):
                print(crossent.cross_entropy(logits, labels).round(3))

        late = Late()
    """
    assert ending(NUMPY, deleted) == (0, "4.605\n", "")


def test_another_interpreter_of_the_process_gets_an_import_error():
    other = """
        import sys
        import warnings

        try:
            import _interpreters as interpreters  # Python 3.13
        except ImportError:
            interpreters = __import__("_xxsubinterpreters")
        warnings.simplefilter("ignore")
        program = f'''if True:
            import sys, warnings
            warnings.simplefilter("ignore")  # NumPy warns of itself
            sys.path[:] = {sys.path!r}
            sys.modules["numpy"] = None  # which may refuse first, in words of its own
            from importlib.util import module_from_spec, spec_from_file_location
            spec = spec_from_file_location("crossent._core", {crossent._core.__file__!r})
            try:
                spec.loader.exec_module(module_from_spec(spec))
                print("imported")
            except ImportError as error:
                print(error, flush=True)
        '''
        interpreters.run_string(interpreters.create(), program)
        print(crossent.cross_entropy(logits, labels).round(3))
    """
    code, printed, _ = ending(NUMPY, other)
    said = (
        "crossent works in a process's main interpreter alone; use threads or processes",
        "module crossent._core does not support loading in subinterpreters",  # from Python 3.13
    )
    (refused, loss), told = printed.splitlines(), f"{code}: {printed}"
    assert refused in said, told
    assert (code, loss) == (0, "4.605"), told

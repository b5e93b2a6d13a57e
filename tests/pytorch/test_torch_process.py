"""Imports, threads and processes."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from torch_cases import problem, torch

import crossent.torch as ct
from crossent.torch import _compute


def _run(code, **environment):
    import os

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
        env={**os.environ, **environment}, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_importing_crossent_does_not_import_torch():
    assert _run("import crossent, sys; print('torch' in sys.modules)") == "False"


def test_importing_the_front_end_loads_no_compiler_no_jax_and_nothing_but_ours():
    code = (
        "import torch, sys; before = set(sys.modules); import crossent.torch; "
        "print(*{m.split('.')[0] for m in set(sys.modules) - before})"
    )
    assert set(_run(code).split()) <= {"crossent", "numpy"}


def test_loops_run_on_pytorchs_threads():
    assert _compute.uses_torch_threads
    code = (
        "import torch, os, crossent.torch as ct; torch.set_num_threads(4); "
        "x, y = torch.randn(4096, 1000), torch.randint(0, 1000, (4096,)); torch.exp(x); "
        "before = len(os.listdir('/proc/self/task')); ct.cross_entropy(x, y); "
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    if sys.platform == "linux":
        assert _run(code) == "0"


def test_a_library_that_is_not_loaded_is_not_used():
    from crossent import _core

    assert not _core.use_torch_threads("/nowhere/libtorch_cpu.so")


def test_many_threads_may_call_at_once():
    logits, target, _ = problem("index", (512, 300), torch.float32)
    expected = ct.cross_entropy(logits, target)
    found = [None] * 8

    def call(k):
        for _ in range(5):
            found[k] = ct.cross_entropy(logits, target)

    workers = [threading.Thread(target=call, args=(k,)) for k in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(torch.equal(loss, expected) for loss in found)


class _Losses(torch.utils.data.Dataset):
    """Every item is a loss that a worker computed."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        logits, target, _ = problem("index", (4096, 40), torch.float32, seed=index)
        return ct.cross_entropy(logits.detach(), target)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_data_loader_workers_compute_the_same_after_fork():
    expected = [_Losses()[k] for k in range(6)]  # the parent has used its threads
    loader = torch.utils.data.DataLoader(_Losses(), num_workers=2, multiprocessing_context="fork")
    found = [batch[0] for batch in loader]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))

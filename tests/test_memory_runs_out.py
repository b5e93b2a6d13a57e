"""Memory that runs out is a MemoryError that changes nothing, whichever allocation fails."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from crossent import _core, options

HERE = Path(__file__).parent
LARGE = "100000"  # bytes


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    """The library of failing_allocations.cc."""
    if shutil.which("g++") is None or sys.platform != "linux":
        pytest.skip("no g++ on Linux to compile the failing allocations with")
    library = tmp_path_factory.mktemp("shim") / "failing_allocations.so"
    source = HERE / "failing_allocations.cc"
    options = ["-O1", "-fPIC", "-shared", "-std=gnu++17", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["g++", *options, source, "-o", library, "-ldl"], check=True, timeout=60)
    return library


@pytest.mark.parametrize(
    ("watched", "least_bytes", "front_end"),
    [
        ("crossent/_core", "0", "numpy"),
        ("_multiarray_umath", LARGE, "numpy"),
        ("crossent/_core", "0", "torch"),
    ],
)
def test_every_allocation_of_every_entry_point_may_fail(shim, watched, least_bytes, front_end):
    if front_end == "torch":
        pytest.importorskip("torch")
    program = [sys.executable, HERE / "failing_allocations.py"]
    environment = {**os.environ, "LD_PRELOAD": str(shim), "PYTHONPATH": str(HERE)}
    done = subprocess.run(
        [*program, shim, watched, least_bytes, front_end],
        capture_output=True, text=True, timeout=600, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-300:] + done.stderr[-3000:]
    assert int(done.stdout.split()[-1]) > 20, done.stdout


def test_no_failed_allocation_of_python_s_ends_the_process():
    """What the binding makes, numbers and tuples, may be refused too."""
    testing = pytest.importorskip("_testcapi", reason="this Python lacks its own testing module")
    logits, labels = np.linspace(-1, 1, 60).reshape(12, 5), np.arange(12) % 5
    loss, mean = np.zeros(()), options.Options(reduction="mean")
    calls = (
        lambda: _core.solve(_core.Output.LOSS, mean, 1, logits, labels, {"loss": loss}),
        lambda: _core.judge(mean, 5, labels),
    )
    for call in calls:
        expected, failures = call(), 0
        for n in range(30):
            testing.set_nomemory(n, n + 1)
            try:
                result = call()
            except MemoryError:
                result = None
            finally:
                testing.remove_mem_hooks()
            failures += result is None
            assert result in (None, expected)
        assert 0 < failures < 30


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how much memory is mapped")
@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["explain", "--text", "--logits", "logits.npy", "--targets", "targets.npy"], "free some"),
        (["eval", "logits.npy", "targets.npy", "--grad", "grad.npy"], "hold less with --memory"),
    ],
)
def test_a_command_without_memory_is_one_line(command, said, tmp_path):
    program = """
        import os, resource, sys
        from pathlib import Path
        from crossent.commands.cli import main

        arguments = sys.argv[1:]
        main(arguments[:1] + ["--text"] * (arguments[0] == "explain"))  # all that it imports
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
        resource.setrlimit(resource.RLIMIT_AS, (mapped + (1 << 20), mapped + (1 << 20)))
        code = main(arguments)
        sys.stdout.flush()
        os._exit(code)
    """
    np.save(tmp_path / "logits.npy", np.zeros((200_000, 100), np.float32))
    np.save(tmp_path / "targets.npy", np.zeros(200_000, int))
    (tmp_path / "grad.npy").write_text("as it was")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *command],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert done.stderr.startswith("crossent: out of memory; ")
    assert said in done.stderr
    assert (tmp_path / "grad.npy").read_text() == "as it was"

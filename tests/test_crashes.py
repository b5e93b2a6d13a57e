"""A crash at every call of the system on an output leaves the old file or the new one, and the next run cleans up."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from covering import FULL
from extras import needs

HERE = Path(__file__).parent


@needs("typer")
@needs("matplotlib")
@pytest.mark.skipif(sys.platform != "linux", reason="what is preloaded is made for Linux")
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to compile what is preloaded")
def test_a_crash_at_any_call_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    library = tmp_path / "failing_calls.so"
    source = HERE / "failing_calls.cc"
    subprocess.run(
        ["g++", "-O1", "-shared", "-fPIC", str(source), "-o", str(library), "-ldl"], check=True
    )
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tmp_path  # syncing disks takes long
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        done = subprocess.run(
            [sys.executable, HERE / "writing_crashes.py", folder, *(["every"] if FULL else [])],
            capture_output=True, text=True, timeout=1800, check=False,
            env=os.environ | {"LD_PRELOAD": str(library), "CROSSENT_NUM_THREADS": "1"},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    crashes, wrong = map(int, re.findall(r"^(\d+) crashes, (\d+) wrong$", done.stdout, re.M)[0])
    assert wrong == 0, done.stdout
    assert crashes > 150

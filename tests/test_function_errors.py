"""exp, log and the softcap of the core are as exact as docs/numerics.md says, measured in C++."""

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from covering import FULL

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "numerics.md"
LINE = r"^(\w.*?) +([0-9.]+) ULP +2\^(-[0-9.]+)$"
FLAGS = {
    "x86_64": {"x86-64-v4": ["-march=x86-64-v4"], "x86-64-v3": ["-march=x86-64-v3"]},
    "aarch64": {"neon": ["-march=armv8-a+simd"]},
}


def native_flags() -> list[str]:
    """The flags of the instruction set in use here."""
    import crossent

    return FLAGS.get(platform.machine(), {}).get(crossent.isa(), [])


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to compile the measurement with")
def test_no_function_is_less_exact_than_the_page_says(tmp_path):
    program = tmp_path / "function_errors"
    source = ROOT / "tests" / "function_errors.cc"
    options = ["-O2", "-std=gnu++17", "-ffp-contract=off", "-Wno-psabi", *native_flags()]
    command = ["g++", *options, "-I", str(ROOT / "csrc"), str(source), "-o", str(program)]
    subprocess.run(command, check=True, timeout=120)
    every = "1" if FULL else "31"  # of the floats
    printed = subprocess.run(
        [program, every], check=True, capture_output=True, text=True, timeout=120
    )
    measured = re.findall(LINE, printed.stdout, re.MULTILINE)
    said = {name: float(ulps) for name, ulps, _ in re.findall(LINE, PAGE.read_text(), re.MULTILINE)}
    assert set(said) == {name for name, _, _ in measured}
    for name, ulps, _ in measured:
        assert float(ulps) <= said[name] + 0.002, name

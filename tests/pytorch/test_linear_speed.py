"""The program that times the linear form runs, and gives what it says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from torch_cases import torch  # noqa: F401 (a named skip where it is not installed)

SCRIPT = Path(__file__).parents[2] / "examples" / "linear_speed.py"
SMALL = ["--rows", "600", "--features", "4", "--classes", "1000", "--rounds", "2"]


def run(*more: str) -> str:
    command = [sys.executable, str(SCRIPT), *SMALL, *more]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_everyone_is_timed_in_every_round(dtype):
    asked = "crossent numpy,products"
    case = json.loads(run("--only", asked, "--dtypes", dtype, "--json"))
    absent = {"crossent numpy"} if dtype == "bfloat16" else set()
    assert set(case["contenders"]) == set(asked.split(",")) - absent
    for each in case["contenders"].values():
        assert len(each["seconds"]) == 2
        assert min(each["seconds"]) > 0
    assert (case["rows"], case["classes"], case["dtype"]) == (600, 1000, dtype)


def test_the_table_compares_with_ours():
    title, ours, theirs = run("--only", "crossent,eager").splitlines()
    assert title == "N = 600, D = 4, V = 1,000, float32"
    assert ours.split()[0] == "crossent"
    assert ours.endswith(" 1.00")
    assert theirs.split()[0] == "eager"

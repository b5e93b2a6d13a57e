"""The program that times the linear form runs, and gives what it says."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

from torch_cases import torch  # noqa: F401 (a named skip where it is not installed)

from crossent.commands.bench.measure import clocked

SCRIPT = Path(__file__).parents[2] / "examples" / "linear_speed.py"
SMALL = ["--rows", "600", "--features", "4", "--classes", "1000", "--rounds", "2"]


def test_everyone_is_timed_in_every_round():
    asked = ["--only", "crossent numpy,products", "--dtypes", "float32,bfloat16", "--json"]
    command = [sys.executable, str(SCRIPT), *SMALL, *asked]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    wide, half = map(json.loads, printed.splitlines())
    assert set(wide["contenders"]) == {"crossent numpy", "products"}
    assert set(half["contenders"]) == {"products"}
    for case, dtype in ((wide, "float32"), (half, "bfloat16")):
        assert (case["rows"], case["classes"], case["dtype"]) == (600, 1000, dtype)
        for each in case["contenders"].values():
            assert len(each["seconds"]) == 2
            assert min(each["seconds"]) > 0


def test_the_table_compares_with_ours(capsys):
    program = runpy.run_path(str(SCRIPT))
    case = program["Case"](600, 4, 1000, "float32")
    found = {}
    for name in ("crossent", "eager"):
        call = program["CONTENDERS"][name](program["Layer"](case))
        found[name] = {"seconds": [clocked(call)[0], 2.0], "peak_bytes": 1 << 20}
    program["show"](case, found)
    title, ours, theirs = capsys.readouterr().out.splitlines()
    assert title == "N = 600, D = 4, V = 1,000, float32"
    assert ours.split()[0] == "crossent"
    assert ours.endswith(" 1.00")
    assert theirs.split()[0] == "eager"

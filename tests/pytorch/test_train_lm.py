"""The example that trains a language model shows what it says: one curve, less time, less memory."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from torch_cases import torch  # noqa: F401 (skips the file where there is none)

SCRIPT = Path(__file__).parents[2] / "examples" / "train_lm.py"
LOSSES = ("torch", "crossent", "crossent in place")


@pytest.fixture(scope="module")
def printed():
    command = [sys.executable, str(SCRIPT), "--steps", "3"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=600).stdout


def test_the_curves_of_all_losses_agree(printed):
    steps = re.findall(r"^ +(\d+) +([\d.]+) +([\d.]+) +([\d.]+)$", printed, re.MULTILINE)
    assert [int(step) for step, *_ in steps] == [0, 2]
    for _, *losses in steps:
        stock, *ours = map(float, losses)
        assert ours == pytest.approx([stock, stock], abs=1e-3)
    assert float(steps[-1][1]) < float(steps[0][1]) - 1  # it learns


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are in other units elsewhere")
def test_peaks_of_memory_are_below_the_stock_losss(printed):
    rows = re.findall(r"^ *([a-z ]+?) +[\d.]+ +[\d.]+ +([\d.]+)$", printed, re.MULTILINE)
    peaks = {name: float(peak) for name, peak in rows}
    assert set(peaks) == set(LOSSES)
    logits = 2048 * 16_384 * 4 / 2**30  # what the stock loss holds three more of, ours one or none
    assert peaks["crossent"] < peaks["torch"] - logits
    assert peaks["crossent in place"] < peaks["crossent"] - logits / 2

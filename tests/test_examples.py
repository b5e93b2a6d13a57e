"""The examples run and show what they say."""

import runpy
from pathlib import Path

import pytest

import crossent

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_dask_over_shards_gives_the_bits_of_one_process(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("dask", reason="dask is not installed")
    runpy.run_path(str(EXAMPLES / "dask_shards.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "the same bits in every figure: True"
    assert lines[0].split("loss")[1] == lines[1].split("loss")[1]


def test_times_after_the_work_of_others_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed")
    before = crossent.get_num_threads()
    runpy.run_path(str(EXAMPLES / "alternating.py"))["main"](rounds=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("alone ")
    assert lines[-1].startswith("one thread ")
    assert crossent.get_num_threads() == before


def test_the_speed_beside_reading_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    program = runpy.run_path(str(EXAMPLES / "reading_speed.py"))
    program["main"](classes=100, mebibytes=2, rounds=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("2 MiB, 100 classes, ")
    assert lines[-1].startswith("evaluating has ")

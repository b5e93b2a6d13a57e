"""Wilson's interval of a share, in the figures, against the equation that it solves."""

import json
import math
from pathlib import Path

import mpmath
import numpy as np
import pytest

import crossent
from crossent.commands import cli
from crossent.evaluation.interval import LEVEL, wilson_interval


@pytest.mark.parametrize(
    ("right", "rows", "low", "high"),
    # Newcombe, "Two-Sided Confidence Intervals for the Single Proportion", Statistics in Medicine
    # 17 (1998), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
     (1, 29, 0.0061, 0.1718)],
)  # fmt: skip
def test_published_intervals(right: int, rows: int, low: float, high: float) -> None:
    assert wilson_interval(right / rows, rows) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("rows", [1, 2, 7, 100, 864, 10**9, 2.5])
def test_its_ends_solve_the_equation_of_the_score_test(rows: float) -> None:
    """(share - p)^2 = z^2 p (1 - p) / n, z the normal quantile, by 50 digits."""
    with mpmath.workdps(50):
        z = mpmath.sqrt(2) * mpmath.erfinv(mpmath.mpf(LEVEL))
        for share in (0.0, 1e-9, 0.1, 0.5, 1 - 1e-9, 1.0):
            n, s = mpmath.mpf(rows), mpmath.mpf(share)
            a, b, c = 1 + z**2 / n, -(2 * s + z**2 / n), s * s
            root = mpmath.sqrt(b * b - 4 * a * c)
            wanted = (float((-b - root) / (2 * a)), float((-b + root) / (2 * a)))
            assert wilson_interval(share, rows) == pytest.approx(wanted, rel=1e-7, abs=1e-15)


def test_its_ends_are_shares_and_hold_what_was_found() -> None:
    for rows in (1, 3, 50, 864, 12345):
        for right in {0, 1, rows // 2, rows - 1, rows}:
            low, high = wilson_interval(right / rows, rows)
            assert 0 <= low <= right / rows <= high <= 1
            assert (low == 0) == (right == 0)
            assert (high == 1) == (right == rows)
            mirrored = wilson_interval((rows - right) / rows, rows)
            assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((low, high), abs=1e-14)


@pytest.mark.parametrize(("share", "rows"), [(math.nan, 5), (0.5, 0), (0.5, math.nan)])
def test_no_rows_have_no_interval(share: float, rows: float) -> None:
    assert all(map(math.isnan, wilson_interval(share, rows)))


def outputs(rows: int = 864, classes: int = 7):
    rng = np.random.default_rng(0)
    logits, targets = rng.standard_normal((rows, classes)), rng.integers(0, classes, rows)
    return logits, targets


def test_no_error_among_864_rows_is_not_certainty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    logits, targets = outputs()
    np.savez("all.npz", logits=logits + 9 * np.eye(7)[targets], targets=targets)
    assert cli.main(["eval", "all.npz"]) == 0
    out = capsys.readouterr().out
    for name in ("accuracy", "top 5"):
        line = next(line for line in out.splitlines() if line.strip().startswith(name))
        told = line.split(name)[1].split(maxsplit=1)
        assert told == ["100.00%", "95% interval: 99.56% to 100.00%"]
    assert max(map(len, out.splitlines())) <= 80
    assert cli.main(["eval", "all.npz", "--json"]) == 0
    classes = json.loads(capsys.readouterr().out)["classes"]
    assert classes["accuracy_standard_error"] == 0
    assert classes["accuracy_interval"]["low"] == pytest.approx(864 / (864 + 3.841459), rel=1e-6)
    assert classes["accuracy_interval"]["high"] == 1
    assert classes["interval_level"] == 0.95


def test_the_figures_have_the_intervals_of_their_counts() -> None:
    logits, targets = outputs()
    other = logits + np.eye(7)[targets]
    result = crossent.evaluate(logits, targets, compare=other)
    classes, compared = result.classes, result.comparison
    assert classes.accuracy_interval == wilson_interval(classes.accuracy, 864)
    assert classes.top5_interval == wilson_interval(classes.top5, 864)
    one = compared.only_this_right + compared.only_other_right
    assert compared.only_this_share == compared.only_this_right / one
    assert compared.only_this_interval == wilson_interval(compared.only_this_share, one)


def test_weights_count_as_the_rows_of_equal_weight_that_tell_as_much() -> None:
    logits, targets = outputs()
    row_weight = np.random.default_rng(1).random(864)
    classes = crossent.evaluate(logits, targets, row_weight=row_weight).classes
    rows = row_weight.sum() ** 2 / (row_weight**2).sum()
    assert classes.accuracy_interval == pytest.approx(wilson_interval(classes.accuracy, rows))
    tripled = crossent.evaluate(logits, targets, row_weight=np.full(864, 3)).classes
    assert tripled.accuracy_interval == wilson_interval(tripled.accuracy, 864)
    masked = crossent.evaluate(logits, targets, row_weight=np.arange(864) < 100).classes
    assert masked.accuracy_interval == wilson_interval(masked.accuracy, 100)


def test_the_verdict_on_confidence_goes_by_the_interval() -> None:
    """Always right and 99.9 % sure is about as sure as it should be."""
    from crossent.commands.eval.text import verdict

    targets = np.arange(864) % 7
    sure = crossent.evaluate(9.0 * np.eye(7)[targets], targets)
    assert "about as sure as it should be: 99.9% sure on average and right 100.0%" in " ".join(
        verdict(sure)
    )
    unsure = crossent.evaluate(5.0 * np.eye(7)[targets], targets)
    assert "less sure than it should be" in " ".join(verdict(unsure))

"""Evaluations of data that no model would write: figures that can be, or one clear error.

CROSSENT_FUZZ=20000 pytest tests/test_hostile_evaluation.py tries as many; the suite tries 120, the
same ones every time. N rows, C classes.
"""

import json
import math
import os
import pickle

import numpy as np
import pytest

import crossent
from crossent.commands.eval.text import format_result
from crossent.evaluation.errors import BadFile, BadOption, BadRow

TRIES = int(os.environ.get("CROSSENT_FUZZ", "120"))
FIRST = 0 if "CROSSENT_FUZZ" not in os.environ else int.from_bytes(os.urandom(5))


def random_logits(rng, shape: tuple[int, int]) -> np.ndarray:
    """Of any size, some of them infinite, nan or as large as they can be."""
    dtype = np.dtype(str(rng.choice(["float64", "float32", "float16"])))
    largest = np.finfo(dtype).max
    with np.errstate(over="ignore"):
        logits = (rng.choice([1e-3, 1, 30, 1e4]) * rng.standard_normal(shape)).astype(dtype)
    for _ in range(int(rng.integers(0, 4)) if shape[0] else 0):
        place = rng.integers(shape[0]), rng.integers(shape[1])
        logits[place] = rng.choice([np.inf, -np.inf, np.nan, largest, -largest, 0])
    return logits


def random_targets(rng, rows: int, classes: int) -> np.ndarray:
    if rng.random() < 0.3:
        soft = rng.random((rows, classes))
        soft /= np.maximum(soft.sum(1, keepdims=True), 1e-9)
        if rows and rng.random() < 0.3:
            soft[rng.integers(rows), 0] = rng.choice([np.nan, np.inf, -1, 1e300])
        return soft
    labels = rng.integers(0, classes, rows)
    if rows and rng.random() < 0.2:
        labels[rng.integers(rows)] = rng.choice([-100, -1, classes, 10**9])
    return labels


def random_settings(rng, rows: int, classes: int) -> dict:
    """Options and settings, each from nothing to far too much."""
    possible = {
        "skip_bad": [True], "temperature": [True], "hardest": [0, 1, 50], "bytes": [1, 10**18],
        "label_smoothing": [0.1, 1.0], "z_loss": [0.1, 1e300], "softcap": [1e-5, 30.0, 1e300],
        "logit_scale": [1e-300, -2.0, 0.0, 1e300], "reduction": ["none", "sum", "mean"],
        "normalizer": [1e-300, 1e300], "when_empty": ["zero", "raise"],
        "weight": [factor * rng.random(classes) for factor in (1, 1e-300, 1e300, 0, -1)],
        "row_weight": [factor * rng.random(rows) for factor in (1, 1e-300, 1e300, 0, 5e-324)]
        + [np.full(rows, bad) for bad in (np.nan, -1.0, np.inf, 1.7e308)],
    }  # fmt: skip
    return {
        name: values[int(rng.integers(len(values)))]
        for name, values in possible.items()
        if rng.random() < (0.4 if name in ("skip_bad", "row_weight") else 0.15)
    }


def check_figures(result) -> None:
    """Shares are shares, and every form in which a result is shown can be made."""
    format_result(result)
    json.dumps(result.as_dict())
    assert len(repr(result)) < 400
    classes = result.classes
    assert classes.rows_of_class.sum() == result.rows
    if not result.rows:
        return
    for share, (low, high) in (
        (classes.accuracy, classes.accuracy_interval),
        (classes.top5, classes.top5_interval),
    ):
        assert math.isnan(share) or -1e-12 <= share <= 1 + 1e-12
        assert math.isnan(low) or low <= share <= high
    assert not classes.brier < 0


def merged(logits, targets, other, settings: dict, cut: int):
    """The same from two parts, pickled and merged from the last to the first."""
    row_weight = settings.get("row_weight")
    options = {
        name: value for name, value in settings.items() if name not in ("row_weight", "bytes")
    }
    parts = []
    for rows in (slice(0, cut), slice(cut, None)):
        part = crossent.EvaluationAccumulator(logits.shape[1], first_row=rows.start, **options)
        part.update(
            logits[rows], targets[rows],
            row_weight=None if row_weight is None else row_weight[rows],
            other_logits=None if other is None else other[rows],
        )  # fmt: skip
        parts.append(pickle.loads(pickle.dumps(part)))
    parts[1].merge(parts[0])
    return parts[1].result()


def check(number: int) -> None:
    rng = np.random.default_rng(number)
    rows, classes = int(rng.choice([0, 1, 2, 3, 20, 200])), int(rng.choice([1, 2, 3, 7, 40, 1100]))
    logits, targets = random_logits(rng, (rows, classes)), random_targets(rng, rows, classes)
    settings = random_settings(rng, rows, classes)
    other = random_logits(rng, (rows, classes)) if rng.random() < 0.3 else None
    try:
        result = crossent.evaluate(logits, targets, compare=other, **settings)
    except ValueError as error:
        wording = ("nothing to divide by", "normalizer divides", "has no meaning")
        is_clear = isinstance(error, BadFile | BadOption | BadRow)
        assert is_clear or any(words in str(error) for words in wording), error
        assert "\n" not in str(error)
        return
    check_figures(result)
    if rows > 1 and not {"temperature", "bytes"} & set(settings):
        again = merged(logits, targets, other, settings, int(rng.integers(1, rows))).as_dict()
        assert json.dumps(again | {"files": {}}) == json.dumps(result.as_dict() | {"files": {}})


def test_hostile_data_give_figures_or_one_clear_error() -> None:
    for number in range(FIRST, FIRST + TRIES):
        try:
            check(number)
        except Exception as error:
            raise AssertionError(f"number {number}: {error}") from error


@pytest.mark.parametrize(
    "settings", [{"z_loss": 1e300}, {"normalizer": 1e-300}, {"row_weight": [1e300, 1e300]}]
)
def test_figures_beyond_float64_are_infinite(settings: dict) -> None:
    result = crossent.evaluate([[4.0, 1e9], [0.0, 1e9]], [0, 1], **settings)
    assert result.loss in (math.inf, pytest.approx(5e8))
    assert result.rows == 2
    check_figures(result)


def test_scaled_logits_that_are_no_number_are_bad_rows() -> None:
    logits = np.array([[1e30, 1.0], [2.0, 1.0], [0.0, 1.0]], np.float32)
    with pytest.raises(BadRow, match="row 0 has no loss"):
        crossent.evaluate(logits, [0, 0, 1], logit_scale=1e20)
    result = crossent.evaluate(logits, [0, 0, 1], logit_scale=1e20, skip_bad=True)
    assert (result.rows, result.bad_logits) == (2, 1)


def test_class_frequencies_of_any_weight_have_an_entropy() -> None:
    result = crossent.evaluate(np.eye(3), [0, 1, 2], row_weight=[1e300, 1e-300, 1e-20])
    assert result.classes.prior_loss == pytest.approx(0, abs=1e-300)

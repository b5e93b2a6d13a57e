"""Ranks, answers and squared lengths of a block, on every instruction set."""

import numpy as np
import pytest

from crossent import _core

N = 50
DTYPES = [np.float32, np.float64]
WIDTHS = [1, 2, 7, 15, 16, 17, 63, 130, 1023, 1024, 1025, 4100]


def stand(logits, residual, label, wanted=None):
    """(rank, answer, squares); of rows that are not wanted rank and answer are 77."""
    rows, classes = logits.shape
    wanted = np.ones(rows, np.bool_) if wanted is None else wanted
    rank, answer, squares = np.full(rows, 77), np.full(rows, 77), np.full(rows, 77.0)
    call = _core.stand_doubles if logits.dtype == np.float64 else _core.stand_floats
    call(logits, residual, label, wanted, rank, answer, squares, classes)
    return rank, answer, squares


def ranks_of(logits, label):
    order = np.argsort(-logits, axis=1, kind="stable")
    return 1 + np.argmax(order == label[:, None], axis=1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", WIDTHS)
@pytest.mark.parametrize("values", [4, 1 << 20], ids=["ties", "few ties"])
def test_ranks_and_answers_take_ties_in_class_order(isa, classes, dtype, values) -> None:
    rng = np.random.default_rng(classes)
    logits = rng.integers(0, values, (N, classes)).astype(dtype) - 3
    logits[rng.random(logits.shape) < 0.1] = -np.inf
    label = rng.integers(0, classes, N)
    rank, answer, _ = stand(logits, logits, label)
    assert (rank == ranks_of(logits, label)).all()
    assert (answer == np.argmax(logits, axis=1)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [*WIDTHS, 20_001])
def test_squares_depend_on_the_row_alone_and_lose_nothing(isa, classes, dtype) -> None:
    residual = np.random.default_rng(8).standard_normal((N, classes)).astype(dtype)
    label = np.zeros(N, np.int64)
    squares = stand(residual, residual, label)[2]
    for rows in (1, 2, 7, 39):
        some = residual[1 : 1 + rows].copy()
        assert (stand(some, some, label[:rows])[2] == squares[1 : 1 + rows]).all()
    exact = (residual.astype(np.longdouble) ** 2).sum(axis=1)
    assert (np.abs(squares - exact) <= 8 * np.finfo(dtype).eps * exact).all()


def test_rows_that_are_not_wanted_are_left_alone_even_where_they_hold_nan(isa) -> None:
    logits = np.full((3, 40), np.nan, np.float32)
    logits[1] = np.arange(40)
    residual = np.ones_like(logits)
    got = stand(logits, residual, np.array([0, 38, 39]), np.array([False, True, False]))
    assert [part.tolist() for part in got] == [[77, 2, 77], [77, 39, 77], [40.0] * 3]


@pytest.mark.parametrize("change", ["label above", "label below", "rows", "classes"])
def test_buffers_that_do_not_fit_are_refused(change: str) -> None:
    logits, label, wanted = np.zeros((2, 3), np.float32), np.zeros(2, int), None
    if change == "label above":
        label[1] = 3
    elif change == "label below":
        label[1] = -1
    elif change == "rows":
        wanted = np.ones(3, np.bool_)
    with pytest.raises(ValueError, match="do not fit"):
        stand(logits, logits[:, :2].copy() if change == "classes" else logits, label, wanted)

"""What the core says of each row of a block: loss, rank, answer, p - y; on every instruction set."""

import numpy as np
import pytest
from cases import ISAS, bits
from covering import covering

import crossent
from crossent import _core

N = 50
DTYPES = {"float32": np.float32, "float64": np.float64}
WIDTHS = [1, 2, 7, 15, 16, 17, 63, 130, 1023, 1024, 1025, 4100]
NEVER = -1.0  # no loss is below it: every row is looked at


def judge(logits, targets, label, surely_right=NEVER):
    """(loss, rank, answer, near, squares)."""
    rows = len(logits)
    loss, near = np.empty(rows, logits.dtype), np.empty(rows, logits.dtype)
    rank, answer, squares = np.empty(rows, int), np.empty(rows, int), np.empty(rows)
    _core.standings(logits, targets, label, loss, rank, answer, near, squares, surely_right)
    return loss, rank, answer, near, squares


def ranks_of(logits, label):
    order = np.argsort(-logits, axis=1, kind="stable")
    return 1 + np.argmax(order == label[:, None], axis=1)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("classes", WIDTHS)
@pytest.mark.parametrize("values", [4, 1 << 20], ids=["ties", "few ties"])
def test_ranks_and_answers_take_ties_in_class_order(isa, classes, dtype, values) -> None:
    rng = np.random.default_rng(classes)
    logits = rng.integers(0, values, (N, classes)).astype(dtype) - 3
    if classes > 2:
        logits[rng.random(logits.shape) < 0.1] = -np.inf
    label = rng.integers(0, classes, N)
    _, rank, answer, _, _ = judge(logits, label, label)
    assert (rank == ranks_of(logits, label)).all()
    assert (answer == np.argmax(logits, axis=1)).all()


@covering(
    isa=ISAS,
    classes=[*WIDTHS, 70_001],
    dtype=DTYPES,
    targets=["indices", "distributions", "one distribution"],
)
def test_losses_and_residuals_are_the_library_s(isa, classes, dtype, targets) -> None:
    rng = np.random.default_rng(classes)
    logits = rng.standard_normal((N, classes)).astype(dtype)
    label = rng.integers(0, classes, N)
    given = label
    if targets == "distributions":
        given = rng.random((classes, N)).astype(np.float16).T
    elif targets == "one distribution":
        given = np.broadcast_to(np.float64(1 / classes), (N, classes))
    loss, _, answer, near, squares = judge(logits, given, label)
    wanted, residual = crossent.cross_entropy_and_grad(logits, given, reduction="none")
    assert bits(loss) == bits(wanted)
    assert bits(near) == bits(residual[np.arange(N), answer])
    exact = (residual.astype(np.longdouble) ** 2).sum(axis=1)
    assert (np.abs(squares - exact) <= 8 * np.finfo(dtype).eps * exact).all()


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("classes", [3, 17, 1025, 20_001])
def test_a_row_s_figures_depend_on_that_row_alone(isa, set_num_threads, classes, dtype) -> None:
    rng = np.random.default_rng(8)
    logits = rng.standard_normal((3000 if classes < 20 else 200, classes)).astype(dtype)
    label = rng.integers(0, classes, len(logits))
    whole = judge(logits, label, label)
    for threads in (1, 4):
        set_num_threads(threads)
        for rows in (slice(1, 2), slice(3, 10), slice(5, 196)):
            some = judge(logits[rows], label[rows], label[rows])
            assert [bits(part) for part in some] == [bits(part[rows]) for part in whole]


def test_rows_that_are_surely_right_are_the_same_unseen(isa) -> None:
    logits = np.random.default_rng(0).standard_normal((N, 9)).astype(np.float32) * 4
    label = np.argmax(logits, axis=1)
    label[::2] = 3
    seen, unseen = judge(logits, label, label), judge(logits, label, label, 0.69)
    assert [bits(part) for part in seen] == [bits(part) for part in unseen]
    assert (seen[0] < 0.69).any()
    lied = judge(logits, label, label, np.inf)
    assert (lied[1] == 1).all()
    assert (lied[2] == label).all()


def test_nan_stays_in_its_row(isa) -> None:
    logits = np.arange(120, dtype=np.float32).reshape(3, 40)
    logits[0] = np.nan
    logits[2, 7] = np.nan
    loss, rank, answer, _, squares = judge(logits, np.array([0, 38, 39]), np.array([0, 38, 39]))
    assert np.isnan(loss).tolist() == np.isnan(squares).tolist() == [True, False, True]
    assert (rank[1], answer[1]) == (2, 39)
    assert (answer >= 0).all()


@pytest.mark.parametrize(
    "change", ["label above", "label below", "rows", "classes", "strides", "type"]
)
def test_buffers_that_do_not_fit_are_refused(change: str) -> None:
    logits, label = np.zeros((2, 3), np.float32), np.zeros(2, int)
    targets = label
    if change == "label above":
        label[1] = 3
    elif change == "label below":
        label[1] = -1
    elif change == "rows":
        targets = np.zeros(3, int)
    elif change == "classes":
        targets = np.zeros((2, 4))
    elif change == "strides":
        logits = np.asfortranarray(logits)
    else:
        label = label.astype(np.int32)
    with pytest.raises(ValueError, match="do not fit"):
        judge(logits, targets, label)

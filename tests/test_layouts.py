"""Memory layouts change no bit: strides, order, alignment, byte order, in place, batches, threads.

The nan around every row of a padded array shows that nothing beyond the rows reaches a result, and
that nothing is written there.
"""

import numpy as np
import pytest
from cases import (
    BFLOAT16,
    DTYPES,
    INTEGERS,
    ISAS,
    NAN,
    NUMBERS,
    SEGMENTED,
    bits,
    labels_of,
    logits_of,
    soft_targets_of,
    weights_of,
)
from covering import covering

import crossent

SHAPES = ((3, 1), (40, 5), (17, 16), (5, 129), (3, 1100))
dtypes = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)


def _empty_at(shape, dtype, offset, row_bytes=None, class_bytes=None):
    """A (N, C) array of nan, `offset` bytes into fresh memory, in rows of `row_bytes`."""
    (N, C), size = shape, dtype.itemsize
    class_bytes = class_bytes or size
    row_bytes = row_bytes or C * abs(class_bytes)
    memory = np.full(offset + N * row_bytes + size, 0xFF, np.uint8)  # nan in every float dtype
    return np.ndarray(shape, dtype, memory, offset, (row_bytes, class_bytes))


def _in(empty):
    """A layout: copies an array into what empty(shape, dtype) gives."""

    def layout(array):
        result = empty(array.shape, array.dtype)
        result[...] = array
        return result

    return layout


def _nan(shape, dtype):
    return np.full(shape, 77 if dtype.kind in "biu" else NAN, dtype)


def _padded(shape, dtype):
    return _nan((shape[0] + 2, shape[1] + 9), dtype)[1:-1, 4:-5]


def _between(shape, dtype):
    return _nan((2 * shape[0], 3 * shape[1]), dtype)[::2, 1::3]


def _swapped(array):
    return array.astype(array.dtype.newbyteorder())


def _read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "padded with nan": _in(_padded),
    "every other element": _in(_between),
    "rows backwards": _in(lambda shape, dtype: np.empty(shape, dtype)[::-1]),
    "classes backwards": _in(lambda shape, dtype: np.empty(shape, dtype)[:, ::-1]),
    "all backwards": _in(lambda shape, dtype: np.empty(shape[::-1], dtype).T[::-1, ::-1]),
    "misaligned": _in(lambda shape, dtype: _empty_at(shape, dtype, 1)),
    "one element late": _in(lambda shape, dtype: _empty_at(shape, dtype, dtype.itemsize)),
    "rows an odd number of bytes apart": _in(
        lambda shape, dtype: _empty_at(shape, dtype, 0, shape[1] * dtype.itemsize + 1)
    ),
    "classes an odd number of bytes apart": _in(
        lambda shape, dtype: _empty_at(shape, dtype, 0, class_bytes=dtype.itemsize + 1)
    ),
    "other byte order": _swapped,
    "other byte order, Fortran order": lambda array: np.asfortranarray(_swapped(array)),
    "other byte order, misaligned": lambda array: _in(lambda s, t: _empty_at(s, t, 1))(
        _swapped(array)
    ),
    "read-only": _read_only,
}
layouts = pytest.mark.parametrize("layout", LAYOUTS)
WRITABLE = [name for name in LAYOUTS if name != "read-only"]

# What is computed of a batch, by name: each a list of arrays.
RESULTS = {
    "plain": lambda a, t, out=None: crossent.cross_entropy_and_grad(
        a, t, reduction="none", out=out
    ),
    "mean": lambda a, t, out=None: crossent.cross_entropy_and_grad(a, t, out=out),
    "general": lambda a, t, out=None: crossent.cross_entropy_and_grad(
        a, t, label_smoothing=0.1, softcap=20.0, reduction="none", out=out
    ),
    "product": lambda a, t, out=None: [
        crossent.cross_entropy_hvp(a, t, np.ones(a.shape), softcap=9.0, reduction="sum", out=out)
    ],
    "softmax": lambda a, t, out=None: [crossent.softmax(a, out=out)],
    "log-softmax": lambda a, t, out=None: [crossent.log_softmax(a, out=out)],
}
results = pytest.mark.parametrize("result", RESULTS)


def all_bits(arrays):
    return [bits(array) for array in arrays]


def batch(N, C, dtype):
    labels = labels_of(N, C)
    labels[N // 2] = -100
    return logits_of((N, C), dtype), labels


@covering(3, isa=ISAS, layout=LAYOUTS.keys(), dtype=DTYPES, result=RESULTS.keys())
def test_the_layout_of_the_logits_changes_no_bit(isa, result, dtype, layout):
    for N, C in SHAPES:
        logits, labels = batch(N, C, dtype)
        laid_out = LAYOUTS[layout](logits)
        got = RESULTS[result](laid_out, labels)
        assert all_bits(got) == all_bits(RESULTS[result](logits, labels)), (N, C)
        assert got[-1].dtype == laid_out.dtype


@covering(3, isa=ISAS, layout=WRITABLE, dtype=DTYPES, result=RESULTS.keys())
def test_in_place_changes_no_bit_in_any_layout(isa, result, dtype, layout):
    for N, C in SHAPES:
        logits, labels = batch(N, C, dtype)
        place = LAYOUTS[layout](logits.copy())
        got = RESULTS[result](place, labels, out=place)
        assert got[-1] is place
        assert all_bits(got) == all_bits(RESULTS[result](logits, labels)), (N, C)


@covering(layout=WRITABLE, dtype=DTYPES, result=RESULTS.keys())
def test_the_layout_of_the_output_changes_no_bit(result, dtype, layout):
    for N, C in SHAPES:
        logits, labels = batch(N, C, dtype)
        out = LAYOUTS[layout](np.full((N, C), 7, dtype))
        given = _swapped(logits) if "byte order" in layout else logits
        got = RESULTS[result](given, labels, out=out)
        assert got[-1] is out
        assert all_bits(got) == all_bits(RESULTS[result](logits, labels)), (N, C)


@dtypes
@results
def test_nothing_beyond_the_rows_is_read_or_written(isa, result, dtype):
    for N, C in SHAPES:
        logits, labels = batch(N, C, dtype)
        expected = all_bits(RESULTS[result](logits, labels))
        for filling in (NAN, np.inf, 0):
            around = np.full((N + 2, C + 2), filling, dtype)
            place = around[1:-1, 1:-1]
            place[...] = logits
            assert all_bits(RESULTS[result](place, labels, out=place)) == expected
            place[...] = filling
            assert bits(around) == bits(np.full((N + 2, C + 2), filling, dtype))


@dtypes
@pytest.mark.parametrize("C", [5, 1100])
def test_a_fresh_gradient_has_the_layout_of_the_logits(dtype, C):
    logits = logits_of((4, C), dtype)
    for given in (logits, np.asfortranarray(logits)):
        _, grad = crossent.cross_entropy_and_grad(given, labels_of(4, C))
        assert grad.strides == given.strides
        assert grad.flags.owndata
        assert grad.flags.writeable
    _, grad = crossent.cross_entropy_and_grad(_between((4, C), dtype), labels_of(4, C))
    assert grad.flags.c_contiguous


@covering(isa=ISAS, dtype=DTYPES, C=[4, 130, 1100], axis=[0, 1, 2, 3, -1, -4])
def test_the_class_axis_may_stand_anywhere(isa, axis, C, dtype):
    logits = logits_of((6, C), dtype)
    labels, weight = labels_of(6, C), weights_of(C)
    soft, incoming = soft_targets_of((6, C)), np.linspace(-1, 2, 6)
    stacked = np.moveaxis(logits.reshape(2, 3, 1, C), -1, axis)
    rows = tuple(np.delete(stacked.shape, axis))
    for targets, given in (
        (labels, labels.reshape(rows)),
        (soft, np.moveaxis(soft.reshape(2, 3, 1, C), -1, axis)),
    ):
        for contiguous in (stacked, np.ascontiguousarray(stacked)):
            chosen = {"weight": weight, "reduction": "none"}
            loss, grad = crossent.cross_entropy_and_grad(
                contiguous, given, axis=axis, grad_loss=incoming.reshape(rows), **chosen
            )
            expected = crossent.cross_entropy_and_grad(
                logits, targets, grad_loss=incoming, **chosen
            )
            assert loss.shape == rows
            assert grad.shape == stacked.shape
            assert bits(loss) == bits(expected[0])
            assert bits(np.moveaxis(grad, axis, -1)) == bits(expected[1])
    for function in (crossent.softmax, crossent.log_softmax):
        assert bits(np.moveaxis(function(stacked, axis=axis), axis, -1)) == bits(function(logits))
    lse = crossent.logsumexp(stacked, axis=axis)
    assert lse.shape == rows
    assert bits(lse) == bits(crossent.logsumexp(logits))
    scores = crossent.token_scores(stacked, labels.reshape(rows), axis=axis)
    for got, expected in zip(scores, crossent.token_scores(logits, labels), strict=True):
        assert got.shape == rows
        assert bits(got) == bits(expected)


@covering(
    3,
    isa=ISAS,
    rows=[7, 16, 37],
    C=[5, 129, 1000, 4096, 4097],
    options=[{}, {"softcap": 5.0}, {"label_smoothing": 0.1}],
    dtype=["float32", "float64"],
)
def test_classes_that_lie_apart_give_the_same_bits_and_sum(isa, rows, C, options, dtype):
    logits = logits_of((2, C, rows), dtype, seed=11)
    targets = labels_of(2 * rows, C, seed=12).reshape(2, rows)
    targets[0, 2] = -100
    contiguous = np.ascontiguousarray(np.moveaxis(logits, 1, -1))
    results = crossent.cross_entropy_and_grad(logits, targets, axis=1, out=logits, **options)
    expected = crossent.cross_entropy_and_grad(contiguous, targets, **options)
    assert bits(results[0]) == bits(expected[0])
    assert bits(np.moveaxis(results[1], 1, -1)) == bits(expected[1])


def test_one_row_without_a_batch_axis_gives_scalars():
    logits = logits_of((1, 6), np.float64)
    loss, grad = crossent.cross_entropy_and_grad(logits[0], 2)
    assert (np.ndim(loss), grad.shape) == (0, (6,))
    assert bits(grad) == bits(crossent.cross_entropy_and_grad(logits, [2])[1])
    assert crossent.cross_entropy(logits[0], 2, reduction="none").shape == ()
    assert np.ndim(crossent.logsumexp(logits[0])) == 0


def test_sixty_axes_are_not_too_many():
    logits = logits_of((8, 5), np.float32)
    many = logits.reshape((1,) * 28 + (2,) + (1,) * 20 + (4,) + (1,) * 9 + (5,))
    labels = labels_of(8, 5)
    loss, grad = crossent.cross_entropy_and_grad(many, labels.reshape(many.shape[:-1]))
    assert bits(grad) == bits(crossent.cross_entropy_and_grad(logits, labels)[1])
    assert grad.shape == many.shape
    assert loss == crossent.cross_entropy(logits, labels)


@dtypes
@pytest.mark.parametrize("C", [5, 1100])
def test_broadcast_logits_and_targets_are_read_in_place(dtype, C):
    row, label = logits_of((1, C), dtype), np.array([3])
    for shape in ((9, C), (2, 3, C)):
        logits = np.broadcast_to(row, shape)
        labels = np.broadcast_to(label, shape[:-1])
        soft = np.broadcast_to(soft_targets_of((1, C)), shape)
        for targets in (labels, soft):
            got = crossent.cross_entropy_and_grad(logits, targets, reduction="none")
            full = crossent.cross_entropy_and_grad(logits.copy(), targets.copy(), reduction="none")
            assert all_bits(got) == all_bits(full)
    flat = np.broadcast_to(row[:, :1], (4, C))  # all classes are one number
    got = crossent.cross_entropy_and_grad(flat, [0, 1, 2, 3])
    assert all_bits(got) == all_bits(crossent.cross_entropy_and_grad(flat.copy(), [0, 1, 2, 3]))


# Targets, weights, incoming gradients


def labels_laid_out(labels):
    yield labels[::-1].copy()[::-1]
    yield np.repeat(labels, 3)[::3]
    yield labels.astype(labels.dtype.newbyteorder())
    for offset in (1, 3):
        memory = np.empty(offset + labels.nbytes, np.uint8)
        view = memory[offset:].view(labels.dtype)
        view[...] = labels
        yield view
        yield view.astype(labels.dtype.newbyteorder())
    packed = np.zeros(len(labels), [("before", "u1"), ("label", labels.dtype)])
    packed["label"] = labels
    yield packed["label"]


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("C", [5, 120, 1100])
def test_the_layout_of_labels_changes_no_bit(isa, C, dtype):
    logits = logits_of((40, C), np.float32)
    labels = (labels_of(40, C) % min(C, 128)).astype(dtype)
    expected = all_bits(crossent.cross_entropy_and_grad(logits, labels))
    for given in labels_laid_out(labels):
        assert all_bits(crossent.cross_entropy_and_grad(logits, given)) == expected
    grid = np.asfortranarray(labels.reshape(8, 5))
    loss, grad = crossent.cross_entropy_and_grad(logits.reshape(8, 5, C), grid)
    assert [bits(loss), bits(grad)] == expected


@covering(dtype=NUMBERS, layout=LAYOUTS.keys(), C=[5, 1100])
def test_dtype_and_layout_of_distributions_change_no_bit(C, layout, dtype):
    logits = logits_of((7, C), np.float32)
    y = soft_targets_of((7, C)) * 3
    y = y > 0.5 if dtype == "bool" else y.astype(DTYPES.get(dtype, dtype))
    wide = crossent.cross_entropy_and_grad(logits, y.astype(np.float64), weight=weights_of(C))
    got = crossent.cross_entropy_and_grad(logits, LAYOUTS[layout](y), weight=weights_of(C))
    assert all_bits(got) == all_bits(wide)


@pytest.mark.parametrize("dtype", NUMBERS)
def test_dtype_and_layout_of_weights_and_incoming_gradients_change_no_bit(dtype):
    logits, labels = logits_of((6, 6), np.float32), labels_of(6, 6)
    numbers = np.array([1, 0, 1, 1, 0, 1]).astype(DTYPES.get(dtype, dtype))
    options = {"reduction": "none"}
    expected = all_bits(
        crossent.cross_entropy_and_grad(
            logits, labels, weight=numbers.astype(float), grad_loss=numbers.astype(float), **options
        )
    )
    misaligned = np.empty(1 + numbers.nbytes, np.uint8)[1:].view(numbers.dtype)
    misaligned[...] = numbers
    for given in (
        numbers,
        numbers[::-1].copy()[::-1],
        np.repeat(numbers, 2)[::2],
        numbers.astype(numbers.dtype.newbyteorder()),
        misaligned,
    ):
        got = crossent.cross_entropy_and_grad(
            logits, labels, weight=given, grad_loss=given, **options
        )
        assert all_bits(got) == expected


@dtypes
@layouts
def test_dtype_and_layout_of_v_change_no_bit(layout, dtype):
    for C in (5, 1100):
        logits, labels = logits_of((4, C), np.float32), labels_of(4, C)
        v = logits_of((4, C), dtype, 1.0, seed=3)
        expected = crossent.cross_entropy_hvp(logits, labels, v.astype(np.float64))
        given = LAYOUTS[layout](v)
        assert bits(crossent.cross_entropy_hvp(logits, labels, given)) == bits(expected)
        assert bits(crossent.softmax_jvp(logits, given)) == bits(
            crossent.softmax_jvp(logits, v.astype(np.float64))
        )


def test_lists_and_subclasses_are_taken_as_arrays():
    rows, labels = [[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]], [1, 0]
    expected = crossent.cross_entropy_and_grad(np.array(rows), np.array(labels))
    assert all_bits(crossent.cross_entropy_and_grad(rows, labels)) == all_bits(expected)
    assert crossent.softmax([[1, 2], [3, 4]]).dtype == np.float64

    class Named(np.ndarray): ...

    loss, grad = crossent.cross_entropy_and_grad(np.array(rows).view(Named), labels)
    assert type(grad) is np.ndarray
    assert all_bits([loss, grad]) == all_bits(expected)


def test_inputs_are_left_as_they_were():
    logits, labels = logits_of((8, 1100), np.float32), labels_of(8, 1100)
    soft, weight = soft_targets_of((8, 1100)), weights_of(1100)
    inputs = (logits, labels, soft, weight)
    before = all_bits(inputs)
    for targets in (labels, soft):
        crossent.cross_entropy_and_grad(logits, targets, weight=weight, softcap=3.0)
        crossent.cross_entropy_hvp(logits, targets, logits, weight=weight)
    crossent.token_scores(logits, labels)
    assert all_bits(inputs) == before


# A row's result depends on that row alone


@covering(
    3,
    isa=ISAS,
    shape=[(61, 5), (61, 33), (23, 129), (20, 1100), (5, SEGMENTED)],
    result=[name for name in RESULTS if name != "mean"],
    dtype=DTYPES,
)
def test_however_a_batch_is_split_each_row_has_the_same_bits(isa, shape, result, dtype):
    N, C = shape
    logits, labels = batch(N, C, dtype)
    whole = RESULTS[result](logits, labels)
    for at in {1, N // 2, N - 1}:
        parts = [RESULTS[result](logits[s], labels[s]) for s in (slice(at), slice(at, None))]
        for one, first, second in zip(whole, *parts, strict=True):
            assert bits(one) == bits(first) + bits(second)


@covering(
    shape=[(20_000, 5), (10_000, 33), (4000, 129), (500, 1100), (8, SEGMENTED)],
    result=RESULTS.keys(),
    dtype=DTYPES,
)
def test_any_number_of_threads_gives_the_same_bits(set_num_threads, shape, result, dtype):
    N, C = shape
    logits, labels = batch(N, C, dtype)
    set_num_threads(1)
    expected = all_bits(RESULTS[result](logits, labels))
    scores = all_bits(crossent.token_scores(logits, labels))
    for threads in (2, 3, 16):
        set_num_threads(threads)
        assert all_bits(RESULTS[result](logits, labels)) == expected
        place = logits.copy()
        assert all_bits(RESULTS[result](place, labels, out=place)) == expected
        assert all_bits(crossent.token_scores(logits, labels)) == scores


def test_the_sum_of_losses_is_rounded_once_from_the_rows(isa):
    for dtype in ("float32", "float64"):
        logits, labels = logits_of((100_000, 3), dtype), labels_of(100_000, 3)
        rows = crossent.cross_entropy(logits, labels, reduction="none").astype(np.longdouble)
        total = crossent.cross_entropy(logits, labels, reduction="sum")
        assert abs(total - rows.sum()) <= 2 * np.spacing(total)


def test_bfloat16_is_recognised_in_either_byte_order():
    logits = logits_of((3, 5), BFLOAT16)
    other = logits.astype(BFLOAT16.newbyteorder())
    assert other.dtype.byteorder != "="
    assert bits(crossent.softmax(other)) == bits(crossent.softmax(logits))

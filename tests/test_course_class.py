"""CrossEntropyLoss as a course hands it out: forward(A, Y), backward(), what students trip on."""

import numpy as np
import pytest
from cases import BFLOAT16, bits, labels_of, logits_of, loss_dtype, soft_targets_of, weights_of

import crossent
from crossent import CrossEntropyLoss, reference

A = np.array([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]])
Y = np.array([[0, 1, 0], [1, 0, 0]])


def test_the_worked_example():
    criterion = CrossEntropyLoss()
    assert round(criterion.forward(A, Y), 3) == 2.019
    assert criterion.backward().round(3).tolist() == [
        [0.330, -0.379, 0.049],
        [-0.464, 0.243, 0.220],
    ]
    assert criterion.probabilities.round(3).tolist() == [
        [0.659, 0.242, 0.099],
        [0.073, 0.487, 0.440],
    ]


def test_the_mean_is_the_default_and_the_other_convention_is_the_sum():
    N = len(A)
    p = reference.softmax(A)
    mean, total = CrossEntropyLoss(), CrossEntropyLoss(reduction="sum")
    assert total.forward(A, Y) == pytest.approx(N * mean.forward(A, Y), rel=1e-15)
    assert mean.backward() == pytest.approx((p - Y) / N, rel=1e-14)
    assert total.backward() == pytest.approx(p - Y, rel=1e-14)


def test_under_none_there_is_a_loss_and_a_gradient_for_every_row():
    each, total = CrossEntropyLoss(reduction="none"), CrossEntropyLoss(reduction="sum")
    losses = each.forward(A, Y)
    assert losses.shape == (2,)
    assert losses.sum() == pytest.approx(total.forward(A, Y), rel=1e-15)
    assert bits(each.backward()) == bits(total.backward())


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, BFLOAT16])
def test_it_computes_what_the_functions_compute(dtype, reduction):
    logits = logits_of((6, 5), dtype)
    options = {"weight": weights_of(5), "label_smoothing": 0.1, "z_loss": 0.01, "softcap": 9.0}
    criterion = CrossEntropyLoss(reduction, **options)
    for targets in (labels_of(6, 5), soft_targets_of((6, 5))):
        loss, grad = crossent.cross_entropy_and_grad(
            logits, targets, reduction=reduction, **options
        )
        got = criterion(logits, targets)
        assert bits(got) == bits(loss)
        assert got.dtype == loss_dtype(np.dtype(dtype))
        assert bits(criterion.backward()) == bits(grad)


def test_calling_it_is_forward():
    criterion = CrossEntropyLoss()
    assert criterion(A, Y) == criterion.forward(A, Y)


def test_a_second_forward_works_and_is_what_backward_then_means():
    criterion = CrossEntropyLoss()
    first = criterion.forward(A, Y)
    grad = criterion.backward()
    assert criterion.forward(A[::-1], Y) != first
    assert bits(criterion.backward()) != bits(grad)
    assert criterion.forward(A, Y) == first
    assert bits(criterion.backward()) == bits(grad)


def test_softmax_stays_a_method_after_forward():
    criterion = CrossEntropyLoss()
    for _ in range(2):
        criterion.forward(A, Y)
        assert bits(criterion.softmax(A)) == bits(crossent.softmax(A))
        criterion.backward()
    assert criterion.softmax([0.0, 0.0]).tolist() == [0.5, 0.5]


def test_a_second_backward_gives_the_same():
    criterion = CrossEntropyLoss()
    criterion.forward(A, Y)
    assert bits(criterion.backward()) == bits(criterion.backward())


def test_backward_and_probabilities_before_forward_are_clear_errors():
    criterion = CrossEntropyLoss()
    with pytest.raises(RuntimeError, match=r"backward needs a forward first: call forward\(A, Y\)"):
        criterion.backward()
    with pytest.raises(RuntimeError, match="probabilities needs a forward first"):
        _ = criterion.probabilities
    assert criterion.A is None
    assert criterion.Y is None


def test_it_keeps_the_arrays_of_the_last_forward_and_no_copy():
    criterion = CrossEntropyLoss()
    criterion.forward(A, Y)
    assert criterion.A is A
    assert criterion.Y is Y


def test_a_forward_that_fails_leaves_the_last_one_in_place():
    criterion = CrossEntropyLoss()
    criterion.forward(A, Y)
    grad = criterion.backward()
    with pytest.raises(ValueError, match="targets have shape"):
        criterion.forward(A, Y[:1])
    with pytest.raises(IndexError, match="labels start at 0"):
        criterion.forward(A, [1, 3])
    assert bits(criterion.backward()) == bits(grad)


def test_labels_may_be_indices_and_the_class_axis_anywhere():
    criterion = CrossEntropyLoss(axis=0)
    loss = criterion.forward(A.T, [1, 0])
    assert loss == pytest.approx(CrossEntropyLoss().forward(A, Y), rel=1e-15)
    assert criterion.backward().shape == (3, 2)
    assert bits(criterion.softmax(A.T).T) == bits(crossent.softmax(A))
    assert bits(criterion.probabilities.T) == bits(crossent.softmax(A))


def test_an_option_that_is_none_or_has_no_such_value_is_an_error_at_once():
    with pytest.raises(
        TypeError, match="no option 'smoothing'; the options are weight, .*label_smoothing"
    ):
        CrossEntropyLoss(smoothing=0.1)
    with pytest.raises(ValueError, match="reduction must be"):
        CrossEntropyLoss("average")
    with pytest.raises(ValueError, match="label_smoothing must be from 0 to 1, not 2"):
        CrossEntropyLoss(label_smoothing=2)

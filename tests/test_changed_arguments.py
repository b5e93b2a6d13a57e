"""Arrays that are changed while a call asks another argument for its value: an error, never a read
beyond them. Each case would otherwise read or write out of bounds, or take bytes for other numbers.
"""

import numpy as np
import pytest

import crossent

N, C, D = 40, 30, 4


class Changes:
    """A number that changes something when its value is asked for."""

    def __init__(self, change, value):
        self.change, self.value = change, value

    def __float__(self):
        self.change()
        return float(self.value)


def _reshape(array):
    array.shape = (*array.shape[::-1], 1)


def _resize(array):
    array.resize((1, *array.shape[1:]), refcheck=False)


def _retype(array):
    array.dtype = np.dtype(f"i{array.itemsize // 2}")


CHANGES = {"shape": _reshape, "size": _resize, "dtype": _retype}


def _arguments():
    return {
        "logits": np.zeros((N, C)), "targets": np.zeros(N, np.int64), "weight": np.ones(C),
        "v": np.zeros((N, C)),
    }  # fmt: skip


def _call(name, given, number):
    logits, targets, weight, v = given.values()
    late = {"grad_loss": number, "weight": weight}
    calls = {
        "cross_entropy": lambda: crossent.cross_entropy(logits, targets, z_loss=number),
        "cross_entropy_and_grad": lambda: crossent.cross_entropy_and_grad(logits, targets, **late),
        "cross_entropy_hvp": lambda: crossent.cross_entropy_hvp(logits, targets, v, **late),
        "linear_cross_entropy_and_grad": lambda: crossent.linear_cross_entropy_and_grad(
            np.zeros((N, D)), np.zeros((C, D)), targets, **late
        ),
    }
    return calls[name]()


CASES = [
    ("cross_entropy", "logits", how) for how in CHANGES
] + [
    ("cross_entropy", "targets", "size"),
    ("cross_entropy_and_grad", "weight", "size"),
    ("cross_entropy_and_grad", "weight", "dtype"),
    ("cross_entropy_and_grad", "targets", "size"),
    ("cross_entropy_hvp", "v", "size"),
    ("cross_entropy_hvp", "v", "shape"),
    ("linear_cross_entropy_and_grad", "weight", "size"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changed", "how"), CASES)
def test_an_array_that_a_number_changes_is_named(name, changed, how):
    given = _arguments()
    number = Changes(lambda: CHANGES[how](given[changed]), 0.5)
    with pytest.raises(ValueError, match="no longer the one that was checked"):
        _call(name, given, number)


def test_an_out_that_lies_about_its_shape_is_not_written_to():
    class Liar(np.ndarray):
        shape = property(lambda self: (N, C))

    memory = np.full(6, 7.0)
    out = memory[:1].view(Liar)
    with pytest.raises(ValueError, match="^out: its shape or dtype"):
        crossent.cross_entropy_and_grad(np.zeros((N, C)), np.zeros(N, np.int64), out=out)
    assert (memory == 7).all()

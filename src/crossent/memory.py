"""How much memory the linear form may hold."""

from __future__ import annotations

from crossent import _arguments as arguments
from crossent import _linear


def get_working_memory() -> int:
    """The bytes that `linear_cross_entropy` and its relatives hold at most, 128 MiB at first.

    Beside arguments and results; half types add one float32 array of the weight's shape where its
    gradient is made. At least one row of logits is held, whatever the number.

    Example:
        >>> import crossent
        >>> crossent.get_working_memory() // 2**20
        128
    """
    return _linear.get_working_memory()


def set_working_memory(size: int) -> None:
    """Sets the bytes that `linear_cross_entropy` and its relatives hold at most.

    More is a little faster, since more rows go into one product; results differ in rounding, as
    sums over rows are cut elsewhere.

    Args:
        size: bytes, at least 1.

    Raises:
        TypeError, ValueError: size is not such an integer.

    Example:
        >>> import crossent
        >>> before = crossent.get_working_memory()
        >>> crossent.set_working_memory(32 << 20)
        >>> crossent.set_working_memory(before)
    """
    _linear.set_working_memory(arguments.working_memory(size))

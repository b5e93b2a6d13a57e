"""How a call runs: threads, instruction set, the memory of the linear form."""

from __future__ import annotations

from crossent import _arguments as arguments
from crossent import _blocks, _core


def get_num_threads() -> int:
    """The most threads that one call uses, the calling thread included.

    At first the environment's CROSSENT_NUM_THREADS, else the number of CPUs that this process may
    run on. Results have the same bits for any number.

    Raises:
        ValueError: CROSSENT_NUM_THREADS is no integer from 1 to 1024. A call that would use threads
            raises it too.

    Example:
        >>> import crossent
        >>> crossent.get_num_threads() >= 1
        True
    """
    return _core.get_num_threads()


def set_num_threads(count: int) -> None:
    """Sets the most threads that one call uses, the calling thread included.

    Args:
        count: from 1 to 1024.

    Raises:
        TypeError, ValueError: count is not such an integer.

    Example:
        >>> import crossent
        >>> before = crossent.get_num_threads()
        >>> crossent.set_num_threads(1)
        >>> crossent.set_num_threads(before)
    """
    _core.set_num_threads(arguments.thread_count(count))


def isa() -> str:
    """The instruction set whose kernels are in use, e.g. "x86-64-v4".

    CROSSENT_ISA in the environment chooses another of `available_isas`.

    Raises:
        ValueError: CROSSENT_ISA names none that is available here. Every call raises it.

    Example:
        >>> import crossent
        >>> crossent.isa() in crossent.available_isas()
        True
    """
    return _core.isa()


def available_isas() -> list[str]:
    """The instruction sets whose kernels this machine can run, best first.

    Example:
        >>> import crossent
        >>> crossent.available_isas()[-1]
        'baseline'
    """
    return _core.available_isas()


def get_working_memory() -> int:
    """The bytes that `linear_cross_entropy` and its relatives hold at most, 128 MiB at first.

    Beside arguments and results; half types add one float32 array of the weight's shape where its
    gradient is made. At least one row of logits is held, whatever the number.

    Example:
        >>> import crossent
        >>> crossent.get_working_memory() // 2**20
        128
    """
    return _blocks.get_working_memory()


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
    _blocks.set_working_memory(arguments.working_memory(size))

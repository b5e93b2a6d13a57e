"""What this machine can do at most: bare loops on all threads over contiguous buffers."""

from typing import Any

class Limits:
    """The loops, compiled for one instruction set."""

    def read(self, buffer: Any) -> int:
        """A number that depends on every byte of the buffer; each is read once."""
    def scale(self, buffer: Any, factor: float, doubles: bool) -> None:
        """Multiplies float32 numbers, or float64 where `doubles`, in place."""
    def fill(self, buffer: Any) -> None:
        """Writes every byte: float32 ones."""
    def exp(self, count: int, doubles: bool) -> float:
        """The sum of `count` exponentials of numbers in L1: evenly spaced blocks on [-16, 0]."""

def limits_of(isa: str) -> Limits:
    """The loops of an instruction set, one of `crossent.available_isas()`; else a ValueError."""

def set_num_threads(count: int) -> None:
    """How many threads the loops use. They have a pool of their own."""

"""What is computed: logits of some shape and type, and the tasks that each contender is timed on.

N rows, C classes.
"""

import math
import re
from dataclasses import dataclass

LOSS, FRESH, OUT, IN_PLACE = "loss", "fresh", "out", "in_place"
GRADIENTS = (FRESH, OUT, IN_PLACE)  # each gives the loss too
TASKS = (LOSS, *GRADIENTS)
TASK_TITLES = {
    LOSS: "loss",
    FRESH: "loss + gradient, fresh",
    OUT: "loss + gradient, out=",
    IN_PLACE: "loss + gradient, in place",
}

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float64": 8}
DTYPES = tuple(ITEM_BYTES)

LOGITS = "logits"  # the kind of case: its arrays are logits and index targets


@dataclass(frozen=True)
class Case:
    """One computation: mean cross-entropy of logits of this shape against class indices."""

    shape: tuple[int, ...]
    dtype: str
    axis: int = -1  # of the classes
    kind: str = LOGITS

    @property
    def classes(self) -> int:
        """C."""
        return self.shape[self.axis]

    @property
    def elements(self) -> int:
        """N C."""
        return math.prod(self.shape)

    @property
    def rows(self) -> tuple[int, ...]:
        """The targets' shape."""
        axis = self.axis % len(self.shape)
        return self.shape[:axis] + self.shape[axis + 1 :]

    @property
    def bytes(self) -> int:
        """Of the logits."""
        return self.elements * ITEM_BYTES[self.dtype]

    @property
    def spelled(self) -> str:
        """As ``--shapes`` takes it."""
        axis = "" if self.axis in (-1, len(self.shape) - 1) else f"/{self.axis}"
        return "x".join(map(str, self.shape)) + axis

    @property
    def title(self) -> str:
        """For people."""
        axis = "" if self.axis in (-1, len(self.shape) - 1) else f", classes on axis {self.axis}"
        return " x ".join(f"{extent:,}" for extent in self.shape) + axis


SHAPES = (
    "65536x1000",
    "4096x32000",
    "1024x128256",
    "1024x262144",
    "1048576x10",
    "262144x100",
    "8x21x512x512/1",
    "256x1000",
    "32x10",
)
QUICK_SHAPES = ("4096x1000", "256x32000", "65536x10", "32x10")


def parse_shape(text: str) -> tuple[tuple[int, ...], int]:
    """Shape and class axis from text such as "4096x32000" or, classes on axis 1, "8x21x512x512/1".

    >>> parse_shape("8x21x512x512/1")
    ((8, 21, 512, 512), 1)

    Raises:
        ValueError: the text is something else.
    """
    if not re.fullmatch(r"\d+(x\d+)+(/\d+)?", text):
        raise ValueError(
            f"{text!r} is not a shape: write rows x classes, such as 4096x32000, "
            "or with the class axis after a slash, such as 8x21x512x512/1"
        )
    extents, _, axis = text.partition("/")
    shape = tuple(int(extent) for extent in extents.split("x"))
    if min(shape) == 0:
        raise ValueError(f"{text!r} has nothing in it: every extent must be at least 1")
    if axis and int(axis) >= len(shape):
        raise ValueError(f"{text!r}: there is no axis {axis}; the last one is {len(shape) - 1}")
    return shape, int(axis) if axis else -1

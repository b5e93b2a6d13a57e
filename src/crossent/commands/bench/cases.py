"""What is computed: logits of some shape and type, and the tasks that are timed.

N rows, C classes.
"""

import math
import re
from dataclasses import dataclass

LOSS, FRESH, OUT, IN_PLACE = "loss", "fresh", "out", "in_place"
GRADIENTS = (FRESH, OUT, IN_PLACE)  # each gives the loss too
TASKS = (LOSS, *GRADIENTS)

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float64": 8}
DTYPES = tuple(ITEM_BYTES)
MOST_ELEMENTS = 1 << 60


@dataclass(frozen=True)
class Case:
    """One computation: mean cross-entropy of logits of this shape against class indices."""

    shape: tuple[int, ...]
    dtype: str
    axis: int = -1  # of the classes
    kind: str = "logits"  # what is computed on; there is no other

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"its dtype is none of {', '.join(DTYPES)}")
        if not self.shape or min(self.shape) < 1:
            raise ValueError(f"{self.spelled!r} has nothing in it: every extent must be at least 1")
        if not -1 <= self.axis < len(self.shape):
            last = len(self.shape) - 1
            raise ValueError(
                f"{self.spelled!r}: there is no axis {self.axis}; the last one is {last}"
            )
        if self.elements >= MOST_ELEMENTS:
            raise ValueError(f"{self.spelled!r} is more than any machine holds")

    @property
    def classes(self) -> int:
        """C."""
        return self.shape[self.axis]

    @property
    def classes_last(self) -> bool:
        """Whether the classes are on the last axis."""
        return self.axis in (-1, len(self.shape) - 1)

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
        return "x".join(map(str, self.shape)) + ("" if self.classes_last else f"/{self.axis}")

    @property
    def title(self) -> str:
        """For people."""
        axis = "" if self.classes_last else f", classes on axis {self.axis}"
        return " x ".join(f"{extent:,}" for extent in self.shape) + axis


SHAPES = (
    "65536x1000", "4096x32000", "1024x128256", "1024x262144", "1048576x10", "262144x100",
    "8x21x512x512/1", "256x1000", "32x10",
)  # fmt: skip
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
    return tuple(int(extent) for extent in extents.split("x")), int(axis or -1)

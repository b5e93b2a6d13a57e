"""What is computed: logits of some shape and type, their arrays, and the tasks that are timed.

N rows, C classes.
"""

import math
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

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


# --- Arrays: made once from a fixed seed, in files that every process maps ------------------------

SEED = 2026
BLOCK = 1 << 22
MEMORY_FOLDER = Path("/dev/shm")


def shared_folder(most_bytes: int) -> Path:
    """A folder for the arrays: in memory where the system has such a one with room enough."""
    if MEMORY_FOLDER.is_dir() and shutil.disk_usage(MEMORY_FOLDER).free > 2 * most_bytes:
        return MEMORY_FOLDER
    return Path(tempfile.gettempdir())


def write_arrays(case: Case, folder: Path) -> None:
    """Logits from a normal distribution and uniform targets, the same for every contender.

    bfloat16 logits are stored as their bits, uint16: NumPy alone has no such type.
    """
    random = np.random.default_rng(SEED)
    stored = np.uint16 if case.dtype == "bfloat16" else case.dtype
    logits = np.lib.format.open_memmap(
        folder / "logits.npy", mode="w+", dtype=stored, shape=case.shape
    ).reshape(-1)
    for start in range(0, logits.size, BLOCK):
        block = random.standard_normal(min(BLOCK, logits.size - start), np.float32)
        logits[start : start + block.size] = as_stored(block, case.dtype)
    np.save(folder / "targets.npy", random.integers(case.classes, size=case.rows))


def read_arrays(folder: Path) -> dict[str, Array]:
    """The arrays under their names; writing to them changes no file."""
    return {path.stem: np.load(path, mmap_mode="c") for path in sorted(folder.glob("*.npy"))}


def as_stored(values: Array, dtype: str) -> Array:
    """Numbers in the type of a case, rounded to nearest; bfloat16 as its bits.

    >>> as_stored(np.array([1.0, -2.0], np.float32), "bfloat16").tolist() == [0x3F80, 0xC000]
    True
    """
    if dtype != "bfloat16":
        return values.astype(dtype)
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))  # ties to even
    return ((bits + half) >> np.uint32(16)).astype(np.uint16)


def from_stored(stored: Array) -> Array:
    """Stored numbers as NumPy computes with them: the bits of bfloat16 become float32.

    >>> from_stored(np.array([0x3F80], np.uint16)).tolist()
    [1.0]
    """
    if stored.dtype != np.uint16:
        return stored
    return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)

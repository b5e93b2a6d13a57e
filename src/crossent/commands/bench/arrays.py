"""The logits and targets of a case: made once from a fixed seed, in files that every process maps.

bfloat16 numbers are stored as their bits, uint16: NumPy alone has no such type.
"""

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossent.commands.bench.cases import Case

Array = NDArray[Any]

SEED = 2026
BLOCK = 1 << 22
MEMORY_FOLDER = Path("/dev/shm")


def shared_folder(most_bytes: int) -> Path:
    """A folder for the arrays: in memory where the system has such a one with room enough."""
    if MEMORY_FOLDER.is_dir() and shutil.disk_usage(MEMORY_FOLDER).free > 2 * most_bytes:
        return MEMORY_FOLDER
    return Path(tempfile.gettempdir())


def write_arrays(case: Case, folder: Path) -> None:
    """Logits from a normal distribution and uniform targets, the same for every contender."""
    random = np.random.default_rng(SEED)
    elements = case.elements

    def logits() -> Iterator[Array]:
        for start in range(0, elements, BLOCK):
            block = random.standard_normal(min(BLOCK, elements - start), np.float32)
            yield as_stored(block, case.dtype)

    stored = np.dtype(np.uint16 if case.dtype == "bfloat16" else case.dtype)
    write_array(folder / "logits.npy", stored, case.shape, logits())
    targets = random.integers(case.classes, size=case.rows)
    write_array(folder / "targets.npy", targets.dtype, targets.shape, [targets])


def write_array(
    path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], blocks: Iterable[Array]
) -> None:
    """An array in a .npy file. It is not mapped: a full disk would kill the process then."""
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    try:
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for block in blocks:
                file.write(block.tobytes())
    except OSError as error:
        error.filename = str(path)
        raise


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


def as_logits(stored: Array) -> Array:
    """Stored numbers in the type that functions of arrays take: ml_dtypes has bfloat16."""
    return stored.view(import_module("ml_dtypes").bfloat16) if stored.dtype == np.uint16 else stored


def as_bits(found: Array) -> Array:
    """Numbers that a contender gives, as they are stored."""
    return found.view(np.uint16) if found.dtype.itemsize == 2 else found


def dtype_of(stored: Array) -> str:
    """The type of stored numbers, by name."""
    return "bfloat16" if stored.dtype == np.uint16 else str(stored.dtype)

"""The .npy format: a header in Python's notation, then the numbers. Pickles are never loaded.

Format: numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crossent.evaluation.array_file import BFLOAT16, ArrayFile, FileBytes, check_size
from crossent.evaluation.errors import BadFile
from crossent.evaluation.plain_file import PlainFile

MAGIC = b"\x93NUMPY"
LONGEST_HEADER = 10_000  # NumPy's own limit: Python's parser is not safe with longer text
NUMBER_TYPE = re.compile(r"[<>=|]?(f2|f4|f8|i1|i2|i4|i8|u1|u2|u4|u8|b1)")
TWO_BYTES = re.compile(r"[<>=|]?V2")  # what NumPy writes for ml_dtypes' bfloat16
LARGEST_EXTENT = 1 << 62


class NpyHeader(NamedTuple):
    """What a .npy header says, and where the numbers begin."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_bfloat16: bool
    is_fortran: bool
    start: int


def parse_npy_header(name: str, read: Callable[[int, int], bytes]) -> NpyHeader:
    """The header of .npy data.

    Args:
        name: how messages call it.
        read: (offset, count) to bytes, fewer where the data end.

    Raises:
        BadFile: the header is cut off, or does not describe an array of plain numbers.
    """
    start = read(0, 12)
    if start[:6] != MAGIC:
        raise BadFile(f"{name}: is not a .npy file: it does not begin as one; save it with np.save")
    if len(start) < 12:
        raise BadFile(f"{name}: is truncated: its header is cut off; save or copy it again")
    width = 2 if start[6] == 1 else 4
    if start[6] not in (1, 2, 3):
        raise BadFile(f"{name}: has .npy version {start[6]}; save it with np.save of NumPy 1 or 2")
    length = int.from_bytes(start[8 : 8 + width], "little")
    if length > LONGEST_HEADER:
        raise BadFile(f"{name}: its header claims {length:,} bytes, not one of an array of numbers")
    text = read(8 + width, length)
    if len(text) < length:
        raise BadFile(f"{name}: is truncated: its header is cut off; save or copy it again")
    try:
        fields = ast.literal_eval(text.decode("latin1").strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        raise BadFile(f"{name}: its header cannot be read; save or copy it again") from None
    return checked_header(name, fields, 8 + width + length)


def checked_header(name: str, fields: Any, start: int) -> NpyHeader:
    """The header's dictionary as an ``NpyHeader``."""
    if not isinstance(fields, dict) or set(fields) != {"descr", "fortran_order", "shape"}:
        raise BadFile(f"{name}: its header cannot be read; save or copy it again")
    descr, shape = fields["descr"], fields["shape"]
    if (
        not isinstance(shape, tuple)
        or not all(type(extent) is int and 0 <= extent < LARGEST_EXTENT for extent in shape)
        or type(fields["fortran_order"]) is not bool
        or len(shape) > 32
    ):
        raise BadFile(f"{name}: its header cannot be read; save or copy it again")
    is_bfloat16 = isinstance(descr, str) and TWO_BYTES.fullmatch(descr) is not None
    if not is_bfloat16 and not (isinstance(descr, str) and NUMBER_TYPE.fullmatch(descr)):
        if isinstance(descr, str) and descr.lstrip("<>=|").startswith("O"):
            raise BadFile(
                f"{name}: holds Python objects in a pickle, which is never loaded; save numbers, "
                "e.g. np.save(path, np.stack(rows))"
            )
        raise BadFile(
            f"{name}: holds {str(descr)[:40]!r}, not plain numbers; save floats or integers"
        )
    dtype = BFLOAT16 if is_bfloat16 else np.dtype(descr)
    if is_bfloat16 and descr[0] == ">":
        dtype = dtype.newbyteorder(">")
    is_fortran = fields["fortran_order"] and len(shape) > 1
    return NpyHeader(shape, dtype, is_bfloat16, is_fortran, start)


def open_npy(path: Path, file: PlainFile) -> ArrayFile:
    """The array in a .npy file."""
    header = parse_npy_header(str(path), file.bytes_at)
    check_size(str(path), header.shape, header.dtype.itemsize, file.size - header.start)
    return ArrayFile(
        str(path), FileBytes(file, header.start), header.shape, header.dtype,
        is_bfloat16=header.is_bfloat16, is_fortran=header.is_fortran,
    )  # fmt: skip


def npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """The bytes before the numbers of a .npy file in C order, a multiple of 64 of them."""
    fields = repr({"descr": dtype.str, "fortran_order": False, "shape": shape})
    text = fields.encode("ascii")
    text += b" " * (-(10 + len(text) + 1) % 64) + b"\n"
    return MAGIC + b"\x01\x00" + len(text).to_bytes(2, "little") + text

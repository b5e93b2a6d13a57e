"""The .npy format: a header in Python's notation, then the numbers. Pickles are never loaded.

Format: numpy.org/doc/stable/reference/generated/numpy.lib.format.html. NumPy writes the headers;
they are read here, since its own reader tells all damage by one error, takes negative extents and
objects, and warns on standard error.
"""

from __future__ import annotations

import ast
import io
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from crossent.evaluation.errors import BadFile, check_held, damaged
from crossent.evaluation.readers.array_file import BFLOAT16, ArrayFile, Bytes, PlainFile

MAGIC = npy_format.MAGIC_PREFIX
LONGEST_HEADER = 10_000  # NumPy's own limit: Python's parser is not safe with longer text
BEGINNING = 16_384  # bytes that hold any header that is accepted
NUMBER_TYPE = re.compile(r"[<>=|]?(f2|f4|f8|i1|i2|i4|i8|u1|u2|u4|u8|b1)")
TWO_BYTES = re.compile(r"[<>=|]?V2")  # what NumPy writes for ml_dtypes' bfloat16
LARGEST_EXTENT = 1 << 62
CUT_OFF = "is truncated: its header is cut off"


def open_npy(path: Path, file: PlainFile) -> ArrayFile:
    """The array in a .npy file."""
    return npy_array(str(path), file.bytes_at(0, BEGINNING), file.size, file, file)


def npy_array(name: str, beginning: bytes, size: int, source: Bytes, file: PlainFile) -> ArrayFile:
    """The array in .npy data.

    Args:
        name: how messages call it.
        beginning: the data's first ``BEGINNING`` bytes, or all.
        size: how many bytes there are in all.
        source: the data.
        file: that holds them.

    Raises:
        BadFile: the header is cut off, does not describe an array of plain numbers, or promises
            another number of bytes than there are.
    """
    fields, start = parse_header(name, beginning)
    if not is_header(fields):
        raise damaged(name)
    descr, shape = fields["descr"], fields["shape"]
    dtype, is_bfloat16 = number_type(name, descr)
    promised, held = math.prod(shape) * dtype.itemsize, size - start
    said = f"shape {shape} of {dtype.itemsize} bytes each, {promised:,} bytes,"
    check_held(name, promised, held, said)
    is_fortran = fields["fortran_order"] and len(shape) > 1
    return ArrayFile(
        name, source, shape, dtype, start, file, is_bfloat16=is_bfloat16, is_fortran=is_fortran
    )


def parse_header(name: str, beginning: bytes) -> tuple[Any, int]:
    """What the header says, and where it ends."""
    if beginning[:6] != MAGIC:
        raise BadFile(f"{name}: is not a .npy file: it does not begin as one; save it with np.save")
    if len(beginning) < 12:
        raise damaged(name, CUT_OFF)
    version = beginning[6]
    if version not in (1, 2, 3):
        raise BadFile(f"{name}: has .npy version {version}; save it with np.save of NumPy 1 or 2")
    start = 10 if version == 1 else 12
    length = int.from_bytes(beginning[8:start], "little")
    if length > LONGEST_HEADER:
        raise BadFile(f"{name}: its header claims {length:,} bytes, not one of an array of numbers")
    if len(beginning) < start + length:
        raise damaged(name, CUT_OFF)
    text = beginning[start : start + length].decode("latin1")
    try:
        return ast.literal_eval(text.strip()), start + length
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        raise damaged(name) from None


def is_header(fields: Any) -> bool:
    """Whether what a header says could be said of an array."""
    return (
        isinstance(fields, dict)
        and set(fields) == {"descr", "fortran_order", "shape"}
        and type(fields["fortran_order"]) is bool
        and isinstance(fields["shape"], tuple)
        and len(fields["shape"]) <= 32
        and all(type(n) is int and 0 <= n < LARGEST_EXTENT for n in fields["shape"])
    )


def number_type(name: str, descr: Any) -> tuple[np.dtype[Any], bool]:
    """The dtype that a header names, and whether it stands for bfloat16."""
    if isinstance(descr, str) and NUMBER_TYPE.fullmatch(descr):
        return np.dtype(descr), False
    if isinstance(descr, str) and TWO_BYTES.fullmatch(descr):
        return BFLOAT16.newbyteorder(">" if descr[0] == ">" else "="), True
    if isinstance(descr, str) and descr.lstrip("<>=|").startswith("O"):
        raise BadFile(
            f"{name}: holds Python objects in a pickle, which is never loaded; save numbers, "
            "e.g. np.save(path, np.stack(rows))"
        )
    raise BadFile(f"{name}: holds {str(descr)[:40]!r}, not plain numbers; save floats or integers")


def npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """The bytes before the numbers of a .npy file in C order, a multiple of 64 of them."""
    fields = {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    header = io.BytesIO()
    npy_format.write_array_header_1_0(header, fields)
    return header.getvalue()

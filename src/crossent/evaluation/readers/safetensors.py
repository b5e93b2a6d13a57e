"""The .safetensors format: the header's length, a JSON header, then the numbers.

Format: github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from crossent.evaluation.errors import BadFile, check_held, damaged
from crossent.evaluation.readers.array_file import ArrayFile, PlainFile

LONGEST_HEADER = 16 << 20
TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "|b1", "I64": "<i8",
    "I32": "<i4", "I16": "<i2", "I8": "|i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1",
}  # fmt: skip


class TensorEntry(NamedTuple):
    """What the header says of one tensor."""

    type_name: str
    shape: tuple[int, ...]
    begin: int  # of its bytes, counted from the end of the header
    end: int


def read_entries(path: Path, file: PlainFile) -> dict[str, TensorEntry]:
    """What a .safetensors file holds, by the arrays' names."""
    length = int.from_bytes(file.bytes_at(0, 8), "little")
    if file.size < 8 or length > file.size - 8:
        raise BadFile(
            f"{path}: is truncated, or no .safetensors file: its header claims {length:,} bytes "
            f"and {max(0, file.size - 8):,} are there; save or copy it again"
        )
    if length > LONGEST_HEADER:
        raise BadFile(f"{path}: its header claims {length:,} bytes; at most 16 MiB are read")
    return parse_header(path, file.bytes_at(8, length), file.size - 8 - length)


def open_tensor(
    path: Path, file: PlainFile, name: str, entries: dict[str, TensorEntry]
) -> ArrayFile:
    """One array of a file. The numbers of all are at its end."""
    entry, held = entries[name], max(one.end for one in entries.values())
    if entry.type_name not in TYPES:
        raise BadFile(f"{path}:{name}: holds {entry.type_name}; save it as F32 or BF16")
    start, is_bfloat16 = file.size - held + entry.begin, entry.type_name == "BF16"
    dtype = np.dtype(TYPES[entry.type_name])
    return ArrayFile(
        f"{path}:{name}", file, entry.shape, dtype, start, file, is_bfloat16=is_bfloat16
    )


def parse_header(path: Path, text: bytes, held: int) -> dict[str, TensorEntry]:
    """The tensors that a header describes, all of whose bytes are there, each once."""
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise damaged(str(path))
    header.pop("__metadata__", None)
    entries = {name: parse_entry(path, name, fields) for name, fields in header.items()}
    reached = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].begin):
        if entry.begin != reached:
            raise BadFile(f"{path}:{name}: its header lies about where it is; save it again")
        reached = entry.end
    check_held(str(path), reached, held, f"{reached:,} bytes")
    return entries


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object in which no key may come twice."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key comes twice")
    return fields


def parse_entry(path: Path, name: str, fields: Any) -> TensorEntry:
    """One tensor's part of the header, its sizes agreeing with one another."""
    try:
        type_name, shape = fields["dtype"], fields["shape"]
        begin, end = fields["data_offsets"]
        if not all(type(n) is int and 0 <= n < 1 << 62 for n in (begin, end, *shape)):
            raise ValueError
        if type(type_name) is not str or len(shape) > 32:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise BadFile(f"{path}:{name}: its header cannot be read; save it again") from None
    held = end - begin
    of_each = np.dtype(TYPES[type_name]).itemsize if type_name in TYPES else None
    if held < 0 or (of_each is not None and math.prod(shape) * of_each != held):
        raise BadFile(
            f"{path}:{name}: its header lies: shape {tuple(shape)} of {type_name} does not take "
            f"{held:,} bytes; save it again"
        )
    return TensorEntry(type_name, tuple(shape), begin, end)


def safetensors_header(name: str, shape: tuple[int, ...], type_name: str, nbytes: int) -> bytes:
    """The bytes before the numbers of a file with one tensor, a multiple of 8 of them."""
    entry = {"dtype": type_name, "shape": list(shape), "data_offsets": [0, nbytes]}
    text = json.dumps({name: entry}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text

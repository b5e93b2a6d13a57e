"""From what a user names to arrays on disk: a path, a pattern, or an array in an archive."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

from crossent._arguments import as_array
from crossent.evaluation.errors import BadFile
from crossent.evaluation.readers.array_file import ArrayFile, PlainFile, in_memory
from crossent.evaluation.readers.npy import MAGIC, open_npy
from crossent.evaluation.readers.npz import open_member, read_members
from crossent.evaluation.readers.safetensors import open_tensor, read_entries

ARCHIVE_SUFFIXES = (".npz", ".safetensors")
PICKLE_SUFFIXES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib")
ZIP_MAGIC = b"PK\x03\x04"


def open_arrays(given: Any, wanted: tuple[str, ...]) -> list[ArrayFile]:
    """The arrays that a path, a pattern or a list of them names, in order.

    Args:
        given: paths; patterns such as "logits-*.npy", whose matches come in the order of their
            numbers; in archives "outputs.npz:logits" where they hold several arrays. Anything else
            is an array itself.
        wanted: what an array of an archive with several is called where none is named.

    Raises:
        BadFile: a file is missing, damaged, or has no such array.
    """
    named = [given] if isinstance(given, str | os.PathLike) else given
    is_path = isinstance(named, Sequence) and len(named) and isinstance(named[0], str | os.PathLike)
    if not is_path:
        return [in_memory(as_array(wanted[0], given), wanted[0])]
    with ExitStack() as opened:
        arrays = []
        for path, name in chain.from_iterable(expand(os.fspath(one)) for one in named):
            arrays.append(open_array(Path(path), name, wanted))
            opened.callback(arrays[-1].close)
        opened.pop_all()  # they stay open where none is refused
    return arrays


def is_archive(given: Any) -> bool:
    """Whether a path or pattern names files that hold several arrays, and none of these."""
    return isinstance(given, str | os.PathLike) and os.fsdecode(given).endswith(ARCHIVE_SUFFIXES)


def expand(named: str) -> list[tuple[str, str | None]]:
    """The (path, array's name) that a path or pattern stands for, in natural order."""
    path, colon, name = named.rpartition(":")
    if not (colon and name and path.endswith(ARCHIVE_SUFFIXES)) or os.path.exists(named):
        path, name = named, ""
    if os.path.exists(path) or not glob.has_magic(path):
        return [(path, name or None)]
    found = sorted(glob.glob(path), key=natural_order)
    if not found:
        raise BadFile(f"{path}: no file matches this pattern; is the path right?")
    return [(one, name or None) for one in found]


def natural_order(path: str) -> list[tuple[int, str]]:
    """A key that sorts part-2 before part-10.

    >>> sorted(["part-10", "part-2"], key=natural_order)
    ['part-2', 'part-10']
    """
    parts = re.split(r"(\d+)", path)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts if part]


def open_array(path: Path, name: str | None, wanted: tuple[str, ...]) -> ArrayFile:
    """One array of a file, whose format its first bytes tell."""
    file = PlainFile(path)
    try:
        magic = file.bytes_at(0, 6)
        if magic == MAGIC:
            return open_npy(path, file)
        if path.suffix == ".npy":
            what = "is empty" if not magic else "is not a .npy file, though named like one"
            raise BadFile(f"{path}: {what}; save it with np.save")
        if path.suffix == ".safetensors":
            entries = read_entries(path, file)
            return open_tensor(path, file, choose(path, name, wanted, entries), entries)
        if path.suffix == ".npz" or (magic[:4] == ZIP_MAGIC and path.suffix not in PICKLE_SUFFIXES):
            archive, members = read_members(path, file)
            return open_member(path, file, archive, members[choose(path, name, wanted, members)])
        if path.suffix in PICKLE_SUFFIXES:
            raise BadFile(
                f"{path}: looks like a pickle, and pickles are never loaded: they can run "
                "anything. Save the array with np.save or safetensors"
            )
        raise BadFile(f"{path}: is no .npy, .npz or .safetensors file; save it with np.save")
    except BaseException:
        file.close()
        raise


def choose(path: Path, name: str | None, wanted: tuple[str, ...], held: Collection[str]) -> str:
    """The array of an archive that is named, or the only one, or one with a usual name."""
    usual = [one for one in wanted if one in held]
    if name is None and len(held) == 1:
        usual = list(held)
    chosen = name or next(iter(usual), None)
    if chosen is not None and chosen in held:
        return chosen
    shown = ", ".join(sorted(held)[:8]) or "no array"
    missing = f"has no array {name!r}" if name else f"has no array called {wanted[0]}"
    raise BadFile(f"{path}: {missing}; it holds {shown}: name one as {path}:NAME")

"""Readers of .npy, .npz and .safetensors: the same numbers as their own libraries read."""

import json
import os
import struct
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from crossent.evaluation.errors import BadFile
from crossent.evaluation.readers.array_file import ArrayFile, in_memory
from crossent.evaluation.readers.npy import npy_header
from crossent.evaluation.readers.opening import expand, open_array, open_arrays
from crossent.evaluation.readers.safetensors import safetensors_header
from crossent.evaluation.readers.table import Table, joined_shape

DTYPES = ["<f8", "<f4", "<f2", ">f8", ">f4", "<i8", ">i4", "<i2", "|i1", "<u8", "<u4", "|u1", "|b1"]


def numbers(shape: tuple[int, ...], dtype: str = "<f4") -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.standard_normal(shape) * 50).astype(dtype)


def save_safetensors(path: Path, **arrays: np.ndarray) -> None:
    """Written by hand, so that our reader is not judged by our writer."""
    names = {"f8": "F64", "f4": "F32", "f2": "F16", "i8": "I64", "u1": "U8", "V2": "BF16"}
    header, data = {}, b""
    for name, array in arrays.items():
        kind = "BF16" if array.dtype == ml_dtypes.bfloat16 else names[array.dtype.str[1:]]
        offsets = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": offsets}
        data += array.tobytes()
    text = json.dumps({"__metadata__": {"made": "by hand"}} | header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def read_all(part: ArrayFile) -> np.ndarray:
    out = np.empty(int(np.prod(part.shape)), part.dtype)
    part.read_into(out, 0)
    part.close()
    return out.reshape(part.shape, order="F" if part.is_fortran else "C")


def rows_of(parts: list[ArrayFile], axis: int | None, step: int) -> np.ndarray:
    """All rows of a table, read in pieces."""
    table = Table(parts, joined_shape(parts), axis)
    width = () if axis is None else (table.classes,)
    out = np.empty((table.rows, *width), table.dtype)
    for start in range(0, table.rows, step):
        stop = min(start + step, table.rows)
        table.read(start, stop, out[start:stop])
    return out


@pytest.mark.parametrize("dtype", DTYPES)
def test_npy_holds_what_numpy_saved(tmp_path: Path, dtype: str) -> None:
    array = numbers((7, 5), dtype)
    np.save(tmp_path / "a.npy", array)
    part = open_array(tmp_path / "a.npy", None, ("logits",))
    assert (part.shape, part.dtype) == ((7, 5), np.dtype(dtype))
    assert np.array_equal(read_all(part), array)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_npy_is_read(tmp_path: Path, version: tuple[int, int]) -> None:
    array = numbers((3, 4))
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array(file, array, version=version)
    assert np.array_equal(read_all(open_array(tmp_path / "a.npy", None, ())), array)


@pytest.mark.parametrize("shape", [(), (3,), (0, 5), (2, 3, 4), (1, 1, 1, 2)])
def test_what_we_write_numpy_reads(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = numbers(shape)
    header = npy_header(shape, array.dtype)
    assert len(header) % 64 == 0
    (tmp_path / "a.npy").write_bytes(header + array.tobytes())
    assert np.array_equal(np.load(tmp_path / "a.npy", allow_pickle=False), array)


def test_bfloat16_is_read_from_npy_and_safetensors(tmp_path: Path) -> None:
    array = numbers((6, 3)).astype(ml_dtypes.bfloat16)
    np.save(tmp_path / "a.npy", array)
    save_safetensors(tmp_path / "a.safetensors", logits=array)
    for name in ("a.npy", "a.safetensors"):
        part = open_array(tmp_path / name, None, ("logits",))
        assert part.is_bfloat16
        assert part.type_name == "bfloat16"
        assert np.array_equal(read_all(part).view(ml_dtypes.bfloat16), array)
    assert in_memory(array, "logits").is_bfloat16


@pytest.mark.parametrize("compressed", [False, True])
def test_npz_is_read_in_any_pieces_and_again(tmp_path: Path, compressed: bool) -> None:
    array = numbers((5000, 9))
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / "a.npz", logits=array, other=array[:2])
    parts = open_arrays(tmp_path / "a.npz", ("logits",))
    for step in (5000, 613):
        assert np.array_equal(rows_of(parts, 1, step), array)


def test_safetensors_agrees_with_its_own_library(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    array, targets = numbers((8, 3)), numbers((8,), "<i8")
    library.save_file({"logits": array, "targets": targets}, tmp_path / "a.safetensors")
    for name, wanted in (("logits", array), ("targets", targets)):
        part = open_array(tmp_path / "a.safetensors", name, ())
        assert np.array_equal(read_all(part), wanted)
    header = safetensors_header("grad", (8, 3), "F32", array.nbytes)
    (tmp_path / "b.safetensors").write_bytes(header + array.tobytes())
    assert np.array_equal(library.load_file(tmp_path / "b.safetensors")["grad"], array)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("shape", "axis"), [((40, 6), 1), ((6, 40), 0), ((4, 5, 6), 2), ((3, 6, 4, 5), 1), ((6,), 0)]
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_classes_on_any_axis_come_as_rows(
    tmp_path: Path, shape: tuple[int, ...], axis: int, order: str, suffix: str
) -> None:
    array = np.asarray(numbers(shape, ">f4"), order=order)
    if order == "F" and len(shape) > 2:
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(BadFile, match="Fortran order"):
            rows_of(open_arrays(tmp_path / "a.npy", ()), axis, 7)
        return
    (np.save if suffix == ".npy" else np.savez)(tmp_path / f"a{suffix}", array)
    wanted = np.moveaxis(array, axis, -1).reshape(-1, shape[axis])
    for step in (1, 7, 1000):
        assert np.array_equal(rows_of(open_arrays(tmp_path / f"a{suffix}", ()), axis, step), wanted)
    for strides in (array, array[::-1], np.asfortranarray(array)):
        rows = np.moveaxis(strides, axis, -1).reshape(-1, shape[axis])
        assert np.array_equal(rows_of([in_memory(strides, "logits")], axis, 7), rows)


def test_shards_follow_one_another_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    array = numbers((47, 3))
    for i, rows in enumerate(np.split(array, [4, 4, 20, 21, 30, 31, 32, 33, 34, 40])):
        np.save(tmp_path / f"part-{i}.npy", rows)
    for named in (str(tmp_path / "part-*.npy"), [tmp_path / f"part-{i}.npy" for i in range(11)]):
        parts = open_arrays(named, ())
        assert len(parts) == 11
        assert np.array_equal(rows_of(parts, 1, 6), array)
    table = Table(parts, joined_shape(parts), 1)
    assert table.place(0) == (str(tmp_path / "part-0.npy"), 0)
    assert table.place(4) == (str(tmp_path / "part-2.npy"), 0)
    assert table.place(46) == (str(tmp_path / "part-10.npy"), 6)


def test_a_pattern_s_characters_in_a_name_that_is_there_are_plain(tmp_path: Path) -> None:
    np.save(tmp_path / "a[1].npy", numbers((2, 2)))
    assert expand(str(tmp_path / "a[1].npy")) == [(str(tmp_path / "a[1].npy"), None)]
    np.save(tmp_path / "b.npz:c.npy", numbers((2, 2)))
    assert expand(str(tmp_path / "b.npz:c.npy")) == [(str(tmp_path / "b.npz:c.npy"), None)]


def test_an_array_of_an_archive_is_named_or_guessed(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, logits=numbers((2, 3)), labels=np.array([0, 1]))
    assert open_array(path, None, ("logits",)).shape == (2, 3)
    assert open_array(path, None, ("targets", "labels")).shape == (2,)
    assert open_arrays(f"{path}:labels", ("logits",))[0].shape == (2,)
    np.savez(path, anything=numbers((2, 3)))
    assert open_array(path, None, ("logits",)).shape == (2, 3)
    np.savez(path, a=numbers((2, 3)), b=numbers((2, 3)))
    with pytest.raises(BadFile, match=r"has no array called logits; it holds a, b: name one as"):
        open_array(path, None, ("logits",))
    with pytest.raises(BadFile, match="has no array 'c'"):
        open_arrays(f"{path}:c", ("logits",))


# --- What is refused ------------------------------------------------------------------------------


def good_npy() -> bytes:
    array = numbers((4, 3))
    return npy_header((4, 3), array.dtype) + array.tobytes()


def with_header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + bytes(48)


HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 3), }"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"hello", "is not a .npy file"),
        (good_npy()[:-1], r"is truncated: its header promises shape \(4, 3\)"),
        (good_npy() + b"x", "has bytes that no header explains"),
        (good_npy()[:40], "its header is cut off"),
        (good_npy()[:9], "its header is cut off"),
        (b"\x93NUMPY\x09\x00" + good_npy()[8:], "has .npy version 9"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(99), "claims 4,294,967,295 bytes"),
        (with_header("{'descr'"), "its header cannot be read"),
        (with_header("(" * 3000), "its header cannot be read"),
        (with_header("-" * 9000 + "1"), "its header cannot be read"),
        (with_header("__import__('os').system('true')"), "its header cannot be read"),
        (with_header(HEADER.replace("(4, 3)", "(4, -3)")), "its header cannot be read"),
        (with_header(HEADER.replace("(4, 3)", "(True, 3)")), "its header cannot be read"),
        (with_header(HEADER.replace("(4, 3)", "(9223372036854775807, 3)")), "cannot be read"),
        (with_header(HEADER.replace("(4, 3)", "(4611686018427387903, 4)")), "is truncated"),
        (with_header(HEADER.replace("(4, 3)", "4")), "its header cannot be read"),
        (with_header(HEADER.replace("False", "0")), "its header cannot be read"),
        (with_header(HEADER.replace("<f4", "|O")), "Python objects in a pickle, which is never"),
        (with_header(HEADER.replace("<f4", "<c8")), "holds '<c8', not plain numbers"),
        (with_header(HEADER.replace("'<f4'", "[('a', '<f4')]")), "not plain numbers"),
        (with_header(HEADER.replace("<f4", "<M8[ns]")), "not plain numbers"),
    ],
)
def test_npy_that_lies_is_refused_in_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(data)
    with pytest.raises(BadFile, match=message) as caught:
        open_array(path, None, ("logits",))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    np.save(tmp_path / "a.npy", np.array([Bomb(), 1], object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", logits=np.array([Bomb(), 1], object))
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.npz").read_bytes())
    for name in ("a.npy", "a.npz", "a.pt"):
        with pytest.raises(BadFile, match="pickle"):
            open_array(tmp_path / name, None, ("logits",))
    assert not (tmp_path / "ran").exists()


def tensors(header: object, data: bytes = bytes(48)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


ENTRY = {"dtype": "F32", "shape": [4, 3], "data_offsets": [0, 48]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is truncated"),
        (bytes(7), "is truncated"),
        (struct.pack("<Q", 1 << 60) + bytes(99), "its header claims"),
        (tensors(b"{" * 5000), "its header cannot be read"),
        (tensors(b"\xff\xfe"), "its header cannot be read"),
        (tensors([1, 2]), "its header cannot be read"),
        (tensors({"logits": 5}), "its header cannot be read"),
        (tensors({"logits": {**ENTRY, "shape": [4, -3]}}), "its header cannot be read"),
        (tensors({"logits": {**ENTRY, "shape": [4, 3.0]}}), "its header cannot be read"),
        (tensors({"logits": {**ENTRY, "data_offsets": [0]}}), "its header cannot be read"),
        (tensors({"logits": {**ENTRY, "data_offsets": [48, 0]}}), "its header lies"),
        (tensors({"logits": {**ENTRY, "shape": [4, 4]}}), "its header lies: shape"),
        (tensors({"logits": {**ENTRY, "data_offsets": [8, 56]}}, bytes(56)), "lies about where"),
        (tensors({"a": ENTRY, "logits": ENTRY}), "lies about where it is"),
        (tensors({"logits": ENTRY}, bytes(47)), "is truncated: its header promises 48 bytes"),
        (tensors({"logits": ENTRY}, bytes(49)), "has bytes that no header explains"),
        (tensors(b'{"a":%s,"a":%s}' % ((json.dumps(ENTRY).encode(),) * 2)), "cannot be read"),
        (tensors({"logits": {**ENTRY, "dtype": "F8_E5M2"}}), "holds F8_E5M2; save it as F32"),
    ],
)
def test_safetensors_that_lies_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(BadFile, match=message) as caught:
        open_array(path, None, ("logits",))
    assert str(path) in str(caught.value)


def test_a_header_too_long_to_be_one_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", 17 << 20))
    os.truncate(path, (17 << 20) + 8)
    with pytest.raises(BadFile, match="claims 17,825,792 bytes; at most 16 MiB are read"):
        open_array(path, None, ("logits",))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_two_arrays_of_one_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("logits.npy", good_npy())
        archive.writestr("logits.npy", good_npy())
    with pytest.raises(BadFile, match="has two arrays of one name"):
        open_array(path, None, ("logits",))


def test_a_damaged_archive_is_refused_at_the_latest_at_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, logits=numbers((200, 3)))
    whole = path.read_bytes()
    place = whole.index(numbers((200, 3)).tobytes()[:32]) + 500
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(BadFile, match=r"is damaged \(Bad CRC-32"):
        rows_of(open_arrays(path, ("logits",)), 1, 50)
    path.write_bytes(whole[:-30])
    with pytest.raises(BadFile, match="is damaged"):
        open_array(path, None, ("logits",))
    np.savez_compressed(path, logits=numbers((200, 3)))
    whole = path.read_bytes()
    place = whole.index(b"PK\x01\x02") + 16  # of the checksum in the archive's list
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(BadFile, match=r"is damaged \(Bad CRC-32"):
        rows_of(open_arrays(path, ("logits",)), 1, 200)
    path.write_bytes(whole[:-30])
    with pytest.raises(BadFile, match="is damaged"):
        open_array(path, None, ("logits",))


def test_an_archive_s_member_that_is_no_array_hurts_only_those_who_ask_for_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, logits=numbers((2, 3)), names=np.array(["a", "b"], object))
    assert open_array(path, None, ("logits",)).shape == (2, 3)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more.npy", b"nothing")
    assert open_array(path, None, ("logits",)).shape == (2, 3)
    with pytest.raises(BadFile, match=r"more: is not a \.npy file"):
        open_array(path, "more", ())


@pytest.mark.parametrize("other", [numbers((2, 4)), numbers((2, 3, 1)), numbers((2, 3), "<f8")])
def test_shards_that_do_not_go_on_are_refused(tmp_path: Path, other: np.ndarray) -> None:
    np.save(tmp_path / "0.npy", numbers((2, 3)))
    np.save(tmp_path / "1.npy", other)
    with pytest.raises(BadFile, match=r"1\.npy: (has shape|holds float64)"):
        joined_shape(open_arrays([tmp_path / "0.npy", tmp_path / "1.npy"], ()))


@pytest.mark.parametrize("name", ["none.npy", "none-*.npy", ".", "pipe", "text.txt"])
def test_what_is_no_file_of_ours_is_refused(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text.txt").write_text("1 2 3")
    with pytest.raises(
        BadFile, match=r"no such file|no file matches|is a folder|not a regular file|is no .npy"
    ):
        open_arrays(str(tmp_path / name), ("logits",))


def test_files_are_closed_when_one_of_several_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", numbers((2, 3)))
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    with pytest.raises(BadFile):
        open_arrays([tmp_path / "0.npy", tmp_path / "none.npy"], ())
    if before:
        assert len(os.listdir("/proc/self/fd")) == before

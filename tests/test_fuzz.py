"""Random damage to files and random arguments to the core: an answer or a clear error, never more.

CROSSENT_FUZZ=20000 pytest tests/test_fuzz.py tries 20,000 of each kind; the suite tries 120, the
same ones every time.
"""

import io
import json
import os
import struct
import tempfile
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_surroundings import saved_run

import crossent
from crossent import reference
from crossent.commands import cli
from crossent.evaluation.errors import BadFile
from crossent.evaluation.readers.npy import npy_header
from crossent.evaluation.readers.opening import open_array

TRIES = int(os.environ.get("CROSSENT_FUZZ", "120"))
fuzz = settings(
    max_examples=TRIES, deadline=None, derandomize="CROSSENT_FUZZ" not in os.environ,
    suppress_health_check=list(HealthCheck), database=None,
)  # fmt: skip

ROWS, CLASSES = 6, 3
LOGITS = np.random.default_rng(0).standard_normal((ROWS, CLASSES)).astype(np.float32)
TARGETS = np.arange(ROWS) % CLASSES


def npy(array: np.ndarray) -> bytes:
    return npy_header(array.shape, array.dtype) + array.tobytes()


def npz(*, compressed: bool) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, logits=LOGITS, targets=TARGETS)
    return buffer.getvalue()


def safetensors() -> bytes:
    header, data = {}, b""
    for name, kind, array in (("logits", "F32", LOGITS), ("targets", "I64", TARGETS)):
        offsets = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": offsets}
        data += array.tobytes()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


WHOLE = {
    ".npy": npy(LOGITS), ".npz": npz(compressed=False), " compressed.npz": npz(compressed=True),
    ".safetensors": safetensors(),
}  # fmt: skip
TELLING = [b"\x00" * 8, b"\xff" * 8, b"<f8", b">f4", b"|O", b"True", b"(6, 3, 1)", b"(0, 3)", b"-1",
           b"99999999999999999999", b'"F64"', b"[]", b"{", b"PK\x05\x06", b"nan"]  # fmt: skip


@st.composite
def damage(draw, whole: bytes) -> bytes:
    """A file with a few bytes changed, cut out, put in or moved."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["flip", "cut", "insert", "overwrite", "end", "move"]))
        if kind == "flip" and place < len(data):
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del data[place : place + draw(st.integers(1, 40))]
        elif kind == "insert":
            data[place:place] = draw(st.sampled_from(TELLING) | st.binary(max_size=20))
        elif kind == "overwrite":
            some = draw(st.sampled_from(TELLING) | st.binary(max_size=20))
            data[place : place + len(some)] = some
        elif kind == "end":
            del data[place:]
        else:
            data += data[place : place + draw(st.integers(1, 60))]
    return bytes(data)


@pytest.mark.parametrize("suffix", WHOLE)
def test_a_damaged_file_is_read_as_what_it_says_or_refused(suffix: str) -> None:
    @fuzz
    @given(damage(WHOLE[suffix]))
    def check(data: bytes) -> None:
        path = folder / f"a{suffix}"
        path.write_bytes(data)
        try:
            part = open_array(path, None, ("logits",))
        except BadFile as error:
            assert str(path) in str(error)
            assert "\n" not in str(error)
            return
        try:
            rows = np.empty(int(np.prod(part.shape, dtype=object)), part.dtype)
            assert part.is_sequential or rows.nbytes <= len(data)
            part.read_into(rows, 0)
        except BadFile:
            pass
        finally:
            part.close()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        check()


@pytest.mark.parametrize("suffix", WHOLE)
def test_a_damaged_file_is_evaluated_or_refused(suffix: str) -> None:
    @fuzz
    @given(damage(WHOLE[suffix]))
    def check(data: bytes) -> None:
        path = folder / f"a{suffix}"
        path.write_bytes(data)
        targets = path if suffix.endswith(("npz", "safetensors")) else TARGETS
        with np.errstate(all="ignore"):
            try:
                result = crossent.evaluate(path, targets, grad=folder / "grad.npy")
            except ValueError as error:
                assert "\n" not in str(error)
                assert not (folder / "grad.npy").exists()
                return
        assert np.load(folder / "grad.npy").size >= result.rows
        (folder / "grad.npy").unlink()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        check()


def outcome(arguments: list[str]) -> tuple[int, str, str]:
    """The exit code of a command, what it prints and what it says; all of it printable."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = cli.main(arguments)
    assert (out.getvalue() + err.getvalue()).replace("\n", "").isprintable()
    assert err.getvalue().count("\n") == (code != 0)
    assert "CROSSENT_TRACEBACK" not in err.getvalue(), err.getvalue()
    return code, out.getvalue(), err.getvalue()


TABLES = {
    ".npy": npy(LOGITS.astype(np.float64)),
    ".csv": b"1, 2, 3\n-4, 5e3, 6\n7, 8, 9\n0, 0, 0\n0, 1, .5\n1, 0, 0\n",
}


@pytest.mark.parametrize("option", ["--logits", "--targets"])
@pytest.mark.parametrize("suffix", TABLES)
def test_a_damaged_table_is_walked_through_or_refused(suffix: str, option: str) -> None:
    @fuzz
    @given(damage(TABLES[suffix]))
    def check(data: bytes) -> None:
        path = folder / f"a{suffix}"
        path.write_bytes(data)
        given = {"--logits": str(folder / "logits.npy"), "--targets": "0,1,2,0,1,2"}
        given[option] = str(path)
        arguments = [word for pair in given.items() for word in pair]
        code, _, said = outcome(["explain", "--json", *arguments])
        assert code == 0 or str(path) in said or (option, code) == ("--logits", 2)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "logits.npy").write_bytes(TABLES[".npy"])
        check()


def test_a_damaged_run_of_the_bench_is_shown_or_refused() -> None:
    @fuzz
    @given(damage(json.dumps(saved_run()).encode()), st.sampled_from(["--json", "--markdown", ""]))
    def check(data: bytes, form: str) -> None:
        path = folder / "run.json"
        path.write_bytes(data)
        code, _, said = outcome(["bench", "--from", str(path), *filter(None, [form])])
        assert code in (0, 1)
        assert code == 0 or str(path) in said

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        check()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 1 << 70) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["dtype", "shape", "data_offsets", "a"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "I64", "F8", "", None]),
        "shape": st.lists(st.integers(-2, 1 << 40), max_size=4) | json_values,
        "data_offsets": st.lists(st.integers(-2, 200), max_size=3) | json_values,
    }
)


@fuzz
@given(
    st.dictionaries(st.text(max_size=6), entries | json_values, max_size=3), st.binary(max_size=99)
)
def test_any_json_for_a_header_is_read_or_refused(header: dict, data: bytes) -> None:
    text = json.dumps(header).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        path.write_bytes(struct.pack("<Q", len(text)) + text + data)
        try:
            open_array(path, None, ("logits",)).numbers.close()
        except BadFile as error:
            assert str(path) in str(error)


python_values = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 1 << 70) | st.text(max_size=5)
    | st.sampled_from(["<f4", "|O", "V2", ">i8", "S10", "f4,f4", "<M8[s]"]),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=6,
)  # fmt: skip


@fuzz
@given(
    st.dictionaries(
        st.sampled_from(["descr", "fortran_order", "shape", "more"]), python_values, max_size=4
    )
    | st.fixed_dictionaries(
        {"descr": st.just("<f4"), "fortran_order": st.booleans(), "shape": python_values}
    )
)
def test_any_python_for_a_header_is_read_or_refused(fields: dict) -> None:
    text = repr(fields).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npy"
        path.write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text + bytes(64))
        try:
            part = open_array(path, None, ("logits",))
        except BadFile:
            return
        assert part.nbytes == 64
        part.close()


def test_a_bomb_in_an_archive_is_not_unpacked() -> None:
    """A gigabyte of zeros in a megabyte: what the header does not promise is not read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npz"
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open("logits.npy", "w", force_zip64=True) as member,
        ):
            member.write(npy(LOGITS))
            for _ in range(64):
                member.write(bytes(1 << 20))
        with pytest.raises(BadFile, match="has bytes that no header explains"):
            open_array(path, None, ("logits",))


# --- The core's arguments -------------------------------------------------------------------------

DTYPES = ["f8", "f4", "f2", ">f4", "i4", "i8", "u1", "?", "c8", "O", "U3"]
shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
numbers = st.none() | st.booleans() | st.integers(-300, 300) | st.floats() | st.just("mean")


@st.composite
def arrays(draw, shape: tuple[int, ...], dtypes: list[str]) -> np.ndarray:
    """An array with any values and any strides."""
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    values = draw(st.sampled_from([0, 1, -1, 2, 127, 300, -100, 1e-30, 88.5, 3e38, np.inf, np.nan]))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    base = rng.integers(0, 5, shape) if dtype.kind in "iu" else rng.standard_normal(shape)
    with np.errstate(all="ignore"):
        array = np.array(base).astype(dtype) if dtype.kind != "O" else np.array(base, dtype)
        if array.size and dtype.kind in "fiu?":
            some = tuple(draw(st.integers(0, n - 1)) for n in shape)
            array[some] = np.array(values).astype(dtype) if dtype.kind != "f" else values
    layout = draw(st.sampled_from(["C", "F", "reversed", "broadcast", "read-only"]))
    if layout == "F":
        array = np.asfortranarray(array)
    elif layout == "reversed" and array.ndim:
        array = array[::-1]
    elif layout == "broadcast" and array.ndim and len(array):
        array = np.broadcast_to(array[:1], array.shape)
    elif layout == "read-only":
        array.flags.writeable = False
    return array


@st.composite
def calls(draw) -> tuple[np.ndarray, object, dict]:
    """(logits, targets, options), fitting or not."""
    shape = draw(shapes)
    logits = draw(arrays(shape, ["f8", "f4", "f2"] * 6 + DTYPES))
    axis = draw(st.integers(-5, 5))
    fitting = shape
    if shape and draw(st.integers(0, 9)):
        axis = draw(st.integers(-len(shape), len(shape) - 1))
        place = axis % len(shape)
        fitting = draw(st.sampled_from([shape, shape[:place] + shape[place + 1 :]]))
    targets = draw(arrays(fitting, ["i4", "i8", "u1", "f4"] * 3 + DTYPES) | numbers)
    options = draw(
        st.fixed_dictionaries(
            {"axis": st.just(axis)},
            optional={
                "ignore_index": st.sampled_from([-100, 0, 255, 2**63, None, 1.5]),
                "reduction": st.sampled_from(["none", "sum", "mean", "mean", "Mean", None]),
                "label_smoothing": st.sampled_from([0.0, 0.1, 1.0]) | numbers,
                "z_loss": st.sampled_from([0.0, 0.01]) | numbers,
                "softcap": st.sampled_from([None, 5.0]) | numbers,
                "logit_scale": st.sampled_from([1.0, 0.5, 0.0, -1.0]) | numbers,
                "normalizer": st.sampled_from([None, 7.0]) | numbers,
                "when_empty": st.sampled_from(["nan", "zero", "raise", "none"]),
                "weight": st.none() | arrays(draw(shapes), ["f8"]) | st.just([1.0, 2.0]),
            },
        )
    )
    return logits, targets, options


@fuzz
@given(calls())
def test_any_arguments_give_a_loss_or_a_clear_error(call: tuple) -> None:
    logits, targets, options = call
    before = logits.copy()
    out = np.full(logits.shape, 7, logits.dtype) if logits.dtype.kind == "f" else None
    try:
        with np.errstate(all="ignore"):
            loss, grad = crossent.cross_entropy_and_grad(logits, targets, out=out, **options)
    except (TypeError, ValueError, IndexError) as error:
        assert str(error)
        assert "\n" not in str(error).strip()
        assert out is None or (out == 7).all()
        return
    finally:
        np.testing.assert_array_equal(logits, before)
    assert grad is out
    assert crossent.cross_entropy(logits, targets, **options) == pytest.approx(loss, nan_ok=True)
    rows = np.delete(np.array(logits.shape), options["axis"])
    assert np.shape(loss) == (tuple(rows) if options.get("reduction") == "none" else ())


@fuzz
@given(calls())
def test_what_the_core_computes_is_what_the_reference_computes(call: tuple) -> None:
    logits, targets, options = call
    options = options | {"reduction": "none", "normalizer": None}
    if not np.isfinite(np.asarray(logits, float) if logits.dtype.kind == "f" else np.nan).all():
        return
    try:
        loss, grad = crossent.cross_entropy_and_grad(logits, targets, **options)
    except (TypeError, ValueError, IndexError):
        return
    with np.errstate(all="ignore"):
        wanted = [
            np.asarray(part) for part in reference.cross_entropy_and_grad(
                np.asarray(logits, float), np.asarray(targets), **options
            )
        ]  # fmt: skip
    coarse = logits.dtype == np.float16
    for got, true in zip((loss, grad), wanted, strict=True):
        held = np.abs(true) < (6e4 if coarse else 1e37)  # beyond, the type overflows
        held |= np.isnan(true)
        scale = np.abs(np.nan_to_num(true[held])).max(initial=1)
        assert np.allclose(
            np.asarray(got, float)[held], true[held], rtol=2e-3 if coarse else 1e-4,
            atol=scale * (2e-3 if coarse else 1e-5), equal_nan=True,
        )  # fmt: skip

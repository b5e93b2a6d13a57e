"""``crossent.evaluate``: files and arrays, blocks, threads, options, temperature, memory, speed."""

import json
import math
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import crossent
from crossent.commands.demo.training import train
from crossent.digits import fold_of_images, held_out_outputs, load_digits
from crossent.evaluation import passes
from crossent.evaluation.outputs import bfloat16_bits
from crossent.evaluation.readers.npy import BEGINNING

N, C = 700, 11


def outputs(dtype=np.float32, classes: int = C, rows: int = N, seed: int = 0):
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((rows, classes))
    targets = rng.integers(0, classes, rows)
    logits[np.arange(rows), targets] += 2
    return logits.astype(dtype), targets


def document(result, *, with_files: bool = False) -> str:
    parts = result.as_dict()
    if not with_files:
        del parts["files"]
    return json.dumps(parts)


def save(folder: Path, **arrays) -> dict[str, Path]:
    paths = {name: folder / f"{name}.npy" for name in arrays}
    for name, array in arrays.items():
        np.save(paths[name], array)
    return paths


def test_the_embedded_digits_are_evaluated_when_nothing_is_given() -> None:
    result = crossent.evaluate()
    assert result.rows == 1797
    assert result.classes.accuracy == pytest.approx(0.969, abs=1e-3)
    assert result.loss == pytest.approx(0.1055, abs=1e-3)


def test_the_embedded_model_is_the_demo_s() -> None:
    """The weights in the package are those that the demo arrives at, here for its first model."""
    images, labels = load_digits()
    pixels = np.hstack([images.reshape(-1, 64) / 16, np.ones((1797, 1))]).astype(np.float32)
    held_out = fold_of_images(labels) == 0
    model = train(
        pixels[~held_out], labels[~held_out], pixels[held_out], labels[held_out], lambda: None
    )
    assert held_out_outputs()[0][held_out] == pytest.approx(
        pixels[held_out] @ model.weight, abs=1e-3
    )


@pytest.mark.parametrize("kind", [str, Path])
def test_an_archive_alone_holds_logits_and_targets(tmp_path: Path, kind: type) -> None:
    logits, targets = outputs()
    np.savez(tmp_path / "all.npz", logits=logits, targets=targets)
    got = crossent.evaluate(kind(tmp_path / "all.npz"))
    assert document(got) == document(crossent.evaluate(logits, targets))
    np.savez(tmp_path / "half.npz", logits=logits, more=logits)
    with pytest.raises(ValueError, match=r"half.npz: has no array called targets"):
        crossent.evaluate(kind(tmp_path / "half.npz"))
    with pytest.raises(ValueError, match="logits need targets"):
        crossent.evaluate(kind(tmp_path / "logits.npy"))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_another_model_s_probabilities_are_recognised(dtype) -> None:
    logits, targets = outputs(dtype)
    probs = crossent.softmax(logits)
    (warning,) = crossent.evaluate(logits, targets, compare=probs).warnings
    assert warning.startswith("the other model's logits: these look like probabilities")
    assert crossent.evaluate(logits, targets, compare=logits).warnings == ()
    mixed = np.where(np.arange(N)[:, None] < N - 1, probs, logits)
    assert crossent.evaluate(logits, targets, compare=mixed).warnings == ()


def test_a_result_shows_itself_in_a_line() -> None:
    result = crossent.evaluate(*outputs(classes=1000))
    assert repr(result) == (
        f"EvaluationResult(rows=700, loss={result.loss!r}, "
        f"loss_standard_error={result.loss_standard_error!r}, perplexity={result.perplexity!r}, "
        f"classes=Classes(count=1000, accuracy={result.classes.accuracy!r}, "
        f"brier={result.classes.brier!r}, "
        f"calibration_error={result.classes.calibration_error!r}, ...), ...)"
    )
    assert len(repr(result)) < 300


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_files_and_arrays_give_the_same_bits(tmp_path: Path, dtype, suffix: str) -> None:
    logits, targets = outputs(dtype)
    wanted = document(crossent.evaluate(logits, targets))
    if suffix == ".npz":
        np.savez_compressed(tmp_path / "all.npz", logits=logits, targets=targets)
        got = crossent.evaluate(tmp_path / "all.npz", tmp_path / "all.npz")
    else:
        paths = save(tmp_path, logits=logits, targets=targets)
        got = crossent.evaluate(paths["logits"], str(paths["targets"]))
        assert got.files == {"logits": [str(paths["logits"])], "targets": [str(paths["targets"])]}
    assert document(got) == wanted


FEW = 300  # rows, each of which may be a block


@cache
def figures_of_few() -> dict:
    return document(crossent.evaluate(*outputs(rows=FEW), temperature=True, **everything()))


def everything() -> dict:
    weight, other = np.random.default_rng(1).random(FEW), outputs(rows=FEW)[0][:, ::-1].copy()
    return {"row_weight": weight, "compare": other, "label_smoothing": 0.1}


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("block", [1, 3000, 1 << 20])
def test_no_bit_depends_on_blocks_threads_or_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_num_threads, threads: int, block: int
) -> None:
    logits, targets = outputs(rows=FEW)
    wanted = figures_of_few()
    for i, rows in enumerate(np.array_split(np.arange(FEW), 3)):
        np.save(tmp_path / f"l{i}.npy", logits[rows])
    for i, rows in enumerate(np.array_split(np.arange(FEW), 5)):
        np.save(tmp_path / f"t{i}.npy", targets[rows])
    set_num_threads(threads)
    monkeypatch.setattr(passes, "BLOCK", block)
    got = crossent.evaluate(
        str(tmp_path / "l*.npy"), [tmp_path / f"t{i}.npy" for i in range(5)], temperature=True,
        **everything(),
    )  # fmt: skip
    assert document(got) == wanted


@pytest.mark.parametrize("axis", [1, -3, 0])
def test_classes_on_another_axis(tmp_path: Path, axis: int) -> None:
    rng = np.random.default_rng(2)
    shape = (C, 30, 4) if axis == 0 else (6, C, 5, 4)
    logits = rng.standard_normal(shape).astype(np.float32)
    place = axis % len(shape)
    targets = rng.integers(0, C, shape[:place] + shape[place + 1 :])
    paths = save(tmp_path, logits=logits, targets=targets)
    rows = np.moveaxis(logits, axis, -1).reshape(-1, C)
    wanted = document(crossent.evaluate(rows, targets.ravel()))
    grad, losses = tmp_path / "grad.npy", tmp_path / "losses.npy"
    got = crossent.evaluate(
        paths["logits"], paths["targets"], axis=axis, grad=grad, losses=losses, memory=26 << 20
    )
    assert document(got) == wanted
    loss_of_rows = crossent.cross_entropy(logits, targets, axis=axis, reduction="none")
    assert np.array_equal(np.load(losses), loss_of_rows)
    assert np.array_equal(
        np.load(grad), crossent.cross_entropy_and_grad(logits, targets, axis=axis)[1]
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reduction": "sum"},
        {"reduction": "none"},
        {"weight": np.linspace(0.5, 2, C), "label_smoothing": 0.1, "z_loss": 1e-3},
        {"softcap": 5.0, "logit_scale": 0.5, "ignore_index": 4},
        {"normalizer": 123.0},
    ],
)
def test_the_gradient_on_disk_is_the_library_s_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype, options: dict
) -> None:
    logits, targets = outputs(dtype)
    paths = save(tmp_path, logits=logits, targets=targets)
    monkeypatch.setattr(passes, "BLOCK", 4000)
    grad = tmp_path / "grad.npy"
    crossent.evaluate(paths["logits"], paths["targets"], grad=grad, **options)
    _, wanted = crossent.cross_entropy_and_grad(logits, targets, **options)
    got = np.load(grad)
    assert got.dtype == wanted.dtype
    if "weight" in options:  # the divisor is summed in another order
        assert np.abs(got - wanted).max() <= 4 * np.finfo(dtype).eps * np.abs(wanted).max()
    else:
        assert np.array_equal(got, wanted)


def test_the_gradient_of_bfloat16_logits(tmp_path: Path) -> None:
    logits, targets = outputs(ml_dtypes.bfloat16)
    paths = save(tmp_path, logits=logits, targets=targets)
    for suffix in (".npy", ".safetensors"):
        crossent.evaluate(paths["logits"], paths["targets"], grad=tmp_path / f"grad{suffix}")
    wide = crossent.cross_entropy_and_grad(logits.astype(np.float32), targets)[1]
    assert np.array_equal(np.load(tmp_path / "grad.npy"), wide)
    bits = (tmp_path / "grad.safetensors").read_bytes()[-2 * logits.size :]
    narrow = np.frombuffer(bits, ml_dtypes.bfloat16).reshape(logits.shape)
    assert np.array_equal(narrow, wide.astype(ml_dtypes.bfloat16))
    assert np.array_equal(narrow, crossent.cross_entropy_and_grad(logits, targets)[1])


def test_bfloat16_is_rounded_to_nearest_ties_to_even() -> None:
    tails = np.array([0x0000, 0x0001, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    heads = np.array([0x0000, 0x0001, 0x3F80, 0x3F81, 0x7F7F, 0x8000, 0xBF81], np.uint32)
    numbers = (heads[:, None] << 16 | tails).view(np.float32)
    wanted = numbers.astype(ml_dtypes.bfloat16)
    assert np.array_equal(bfloat16_bits(numbers), wanted.view(np.uint16))


def test_row_weights_enter_the_gradient_and_rows_left_out_have_none(tmp_path: Path) -> None:
    logits, targets = outputs(np.float64)
    weight = np.arange(N) % 4 / 2
    logits[8] = np.nan  # of weight 0
    targets[9] = -100
    grad = tmp_path / "grad.npy"
    result = crossent.evaluate(logits, targets, row_weight=weight, grad=grad)
    factor = weight / weight[targets != -100].sum()
    wanted = crossent.cross_entropy_and_grad(
        np.nan_to_num(logits), targets, reduction="none", grad_loss=factor
    )[1]
    got = np.load(grad)
    assert got == pytest.approx(wanted, rel=1e-15)
    assert (got[weight == 0] == 0).all()
    assert (got[9] == 0).all()
    assert result.divisor == weight[targets != -100].sum()


@pytest.mark.parametrize("soft", [False, True])
def test_skipped_rows_have_no_gradient_and_no_loss(tmp_path: Path, soft: bool) -> None:
    logits, targets = outputs(np.float64)
    logits[3, 2] = np.nan
    bad = [3]
    if soft:
        targets = np.eye(C)[targets]
        targets[5, 0] = np.nan
        bad.append(5)
    else:
        targets[7] = C
        bad.append(7)
    grad, losses = tmp_path / "grad.npy", tmp_path / "losses.npy"
    result = crossent.evaluate(logits, targets, skip_bad=True, grad=grad, losses=losses)
    kept = np.setdiff1d(np.arange(N), bad)
    loss, wanted = crossent.cross_entropy_and_grad(logits[kept], targets[kept])
    assert result.loss == pytest.approx(loss, rel=1e-14)
    assert (result.rows, result.first_bad_row) == (N - 2, 3)
    assert np.load(grad)[kept] == pytest.approx(wanted, rel=1e-14)
    assert (np.load(grad)[bad] == 0).all()
    assert (np.load(losses)[bad] == 0).all()


def test_a_gradient_over_no_row_is_0(tmp_path: Path) -> None:
    logits, targets = outputs()
    targets[:] = -100
    result = crossent.evaluate(logits, targets, grad=tmp_path / "grad.npy")
    assert math.isnan(result.loss)
    assert (np.load(tmp_path / "grad.npy") == 0).all()


def test_no_rows_at_all(tmp_path: Path) -> None:
    grad = tmp_path / "grad.npy"
    result = crossent.evaluate(np.zeros((0, 3)), np.zeros(0, int), grad=grad)
    assert result.rows == 0
    assert np.load(grad).shape == (0, 3)


@pytest.mark.parametrize("scale", [0.2, 1.0, 3.0])
def test_the_temperature_found_is_where_the_loss_is_least(scale: float) -> None:
    logits, targets = outputs(np.float64)
    result = crossent.evaluate(scale * logits, targets, temperature=True)
    fit = result.temperature
    assert not fit.at_limit
    assert fit.passes < 12

    def loss_at(temperature: float) -> float:
        return crossent.cross_entropy(scale * logits / temperature, targets)

    assert fit.nll == pytest.approx(loss_at(fit.temperature), rel=1e-9)
    for factor in (0.999, 1.001):
        assert loss_at(fit.temperature * factor) > fit.nll
    assert fit.temperature == pytest.approx(
        crossent.evaluate(logits, targets, temperature=True).temperature.temperature * scale,
        rel=1e-5,
    )


def test_a_temperature_without_a_minimum_is_said_to_have_none() -> None:
    logits = np.eye(5)[np.arange(50) % 5] * 3
    fit = crossent.evaluate(logits, np.arange(50) % 5, temperature=True).temperature
    assert fit.at_limit
    assert fit.temperature < 0.2
    assert fit.passes < 12


def test_classes_that_are_masked_out_do_not_hurt_the_temperature() -> None:
    logits, targets = outputs(np.float64)
    masked = np.concatenate([logits, np.full((N, 2), -np.inf)], axis=1)
    wanted = crossent.evaluate(logits, targets, temperature=True).temperature
    got = crossent.evaluate(masked, targets, temperature=True).temperature
    assert got == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("weight", [None, np.linspace(1, 5, C)])
def test_bits_per_byte_are_the_bits_of_all_rows_over_the_bytes(weight) -> None:
    logits, targets = outputs()
    result = crossent.evaluate(logits, targets, bytes=2 * N, weight=weight, label_smoothing=0.1)
    bits = crossent.cross_entropy(logits, targets, reduction="sum") / np.log(2)
    assert result.bits_per_byte == pytest.approx(bits / (2 * N), rel=1e-6)


def test_logprobs_stand_in_for_logits(tmp_path: Path) -> None:
    logits, targets = outputs(np.float64)
    nll = crossent.cross_entropy(logits, targets, reduction="none")
    paths = save(tmp_path, logprobs=-nll, other=-nll - 0.5)
    wanted = crossent.evaluate(logits, targets)
    got = crossent.evaluate(
        logprobs=paths["logprobs"], compare=paths["other"], losses=tmp_path / "losses.npy", bytes=99
    )
    assert (got.loss, got.loss_standard_error) == (wanted.loss, wanted.loss_standard_error)
    assert got.comparison.difference == pytest.approx(-0.5)
    assert got.classes is None
    assert np.array_equal(np.load(tmp_path / "losses.npy"), nll)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"logits": "a.npy"}, "logits need targets"),
        ({"targets": [1]}, "need logits"),
        ({"logprobs": [-1.0], "logits": [[1.0]], "targets": [0]}, "in place of"),
        ({"logprobs": [-1.0], "grad": "g.npy"}, "need logits"),
        ({"logprobs": [-1.0], "label_smoothing": 0.1}, "label_smoothing needs logits"),
        ({"temperature": True, "softcap": 3.0}, "temperature of capped"),
        ({"bytes": 0}, "bytes must be at least 1"),
        ({"grad": "grad.txt"}, "end its name in .npy or .safetensors"),
        ({"grad": "none/grad.npy"}, "there is no folder"),
        ({"losses": "."}, "is a folder"),
        ({"memory": 1000}, r"memory of 1 MiB is too little: .* need \d+ MiB"),
        ({"weight": [1.0]}, "weight has shape"),
        ({"logits": [[0.0, 1.0]], "targets": [0], "row_weight": [1, 2]}, "holds 2 row weights"),
        ({"logits": [[0, 1]], "targets": [0]}, "logits have dtype int64"),
        ({"logits": [[0.0, 1.0]], "targets": [0.0]}, "class indices, so they must be integers"),
        ({"logits": [[0.0, 1.0]], "targets": [0], "compare": [[0.0]]}, "to be compared"),
        ({"logits": [[0.0, 1.0]], "targets": [[0.0, 1.0]], "ignore_index": 1}, "no meaning"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict, message: str) -> None:
    arguments = {
        name: np.array(value) if isinstance(value, list) and value[0] == [0, 1] else value
        for name, value in arguments.items()
    }
    with pytest.raises(ValueError, match=message):
        crossent.evaluate(**arguments)


def test_dir_names_what_is_imported_when_it_is_asked_for() -> None:
    code = (
        "import sys, crossent; assert set(crossent.__all__) <= set(dir(crossent)); "
        "assert dir(crossent) == sorted(set(dir(crossent))); "
        "assert 'crossent.evaluation' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_crossent_does_not_import_the_evaluation() -> None:
    program = "import sys, crossent; print([m for m in sys.modules if 'evaluation' in m])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        crossent.evalute  # noqa: B018


# --- Memory and speed -----------------------------------------------------------------------------

PEAK = """
import resource, sys, numpy as np, crossent
crossent.evaluate(np.eye(3), [0, 1, 2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
crossent.evaluate(sys.argv[1], sys.argv[2], memory=int(sys.argv[3]), grad=sys.argv[4] or None)
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


def save_large(folder: Path, rows: int, classes: int, dtype=np.float32) -> tuple[Path, Path]:
    """Logits on disk, written in pieces."""
    rng = np.random.default_rng(0)
    targets = np.resize(rng.integers(0, classes, 4096), rows)
    np.save(folder / "targets.npy", targets)
    some = rng.standard_normal((min(rows, 4096), classes)).astype(dtype)
    some[np.arange(len(some)), targets[: len(some)]] += 6
    logits = np.lib.format.open_memmap(folder / "logits.npy", "w+", dtype, (rows, classes))
    for start in range(0, rows, len(some)):
        logits[start : start + len(some)] = some[: rows - start]
    logits.flush()
    return folder / "logits.npy", folder / "targets.npy"


@pytest.mark.parametrize(
    ("rows", "classes", "memory", "grad"),
    [
        (60_000, 1000, 64 << 20, False),
        (1800, 32_000, 64 << 20, False),
        (30_000, 1000, 64 << 20, True),
    ],
)
def test_peak_memory_stays_within_its_bound_whatever_the_file(
    tmp_path: Path, rows: int, classes: int, memory: int, grad: bool
) -> None:
    if sys.platform != "linux":
        pytest.skip("the unit of ru_maxrss is known on Linux")
    logits, targets = save_large(tmp_path, rows, classes)
    assert logits.stat().st_size > (1.5 if grad else 3) * memory
    peak = subprocess.run(
        [sys.executable, "-c", PEAK, logits, targets, str(memory),
         str(tmp_path / "grad.npy") if grad else ""],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert int(peak) < memory


def test_files_are_never_mapped(tmp_path: Path) -> None:
    if not os.path.exists("/proc/self/maps"):
        pytest.skip("this system does not show what a process has mapped")
    logits, targets = outputs()
    paths = save(tmp_path, logits=logits, targets=targets)
    seen = []

    def watch(description: str, total: int):
        seen.append(Path("/proc/self/maps").read_text("utf-8"))
        return passes.no_progress(description, total)

    crossent.evaluate(paths["logits"], paths["targets"], progress=watch)
    assert len(seen) == 1
    assert str(tmp_path) not in seen[0]


@pytest.mark.skipif(not hasattr(os, "preadv"), reason="this system reads by other calls")
def test_evaluating_reads_every_byte_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How fast that is, docs/reliability.md says."""
    logits, targets = save_large(tmp_path, 5_000, 1000)
    preadv, counts = os.preadv, []

    def counted(handle: int, buffers: list[memoryview], offset: int) -> int:
        counts.append(preadv(handle, buffers, offset))
        return counts[-1]

    monkeypatch.setattr(os, "preadv", counted)
    crossent.evaluate(logits, targets)
    size = logits.stat().st_size + targets.stat().st_size
    beginnings = 2 * (6 + BEGINNING)  # of the files: what they are, and their headers
    assert size - 256 <= sum(counts) <= size + beginnings


def test_errors_of_arrays_speak_of_arguments() -> None:
    """Each argument is named once, and the remedy is one of Python's."""
    logits = np.zeros((3, 2))
    with pytest.raises(ValueError, match="^targets have shape"):
        crossent.evaluate(logits, np.zeros((3, 4)))
    with pytest.raises(ValueError, match="^logits have dtype int64"):
        crossent.evaluate(np.zeros((3, 2), int), [0, 1, 0])
    with pytest.raises(ValueError, match="^compare: has shape"):
        crossent.evaluate(logits, [0, 1, 0], compare=np.zeros((3, 4)))
    with pytest.raises(
        ValueError, match="with skip_bad=True, or one value of them with ignore_ind"
    ):
        crossent.evaluate(logits, [0, 1, 2])


def test_the_quantiles_of_losses_of_0_are_0() -> None:
    quantiles = crossent.evaluate(np.zeros((3, 1)), [0, 0, 0]).quantiles
    assert quantiles == {"median": 0, "p90": 0, "p99": 0}


def test_an_output_is_a_path_or_one_line(tmp_path: Path) -> None:
    for name in ("grad", "losses"):
        with pytest.raises(TypeError, match=f"^{name} must be a path, not int$"):
            crossent.evaluate(np.zeros((3, 2)), [0, 1, 0], **{name: 3})
    path = os.fsencode(tmp_path / "losses.npy")
    crossent.evaluate(np.zeros((3, 2)), [0, 1, 0], losses=path)
    assert np.load(os.fsdecode(path)).shape == (3,)


def none_to_be_had(*of_thread):
    raise RuntimeError("can't start new thread")


def dies_as_it_starts(*of_thread):
    return 0


@pytest.mark.parametrize("start", [none_to_be_had, dies_as_it_starts])
def test_threads_that_are_not_to_be_had_are_done_without(start, monkeypatch, set_num_threads):
    """As where memory runs out while they start; a pool that waits for them would hang."""
    logits, labels = outputs(classes=100, rows=60_000)
    expected = crossent.evaluate(logits, labels).as_dict()
    set_num_threads(4)
    monkeypatch.setattr(passes, "PATIENCE", 0.01)
    monkeypatch.setattr(passes._thread, "start_new_thread", start)
    assert crossent.evaluate(logits, labels).as_dict() == expected

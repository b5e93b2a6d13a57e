"""What an evaluation writes: whole or not at all, whatever ends the run."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from extras import needs

import crossent
from crossent import _safe_file as safe_file
from crossent._safe_file import SafeFile
from crossent.commands import cli
from crossent.evaluation import evaluator
from crossent.evaluation.errors import BadFile

COMMAND = [sys.executable, "-m", "crossent", "eval"]
OLD = b"what was there before"


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Path]:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "logits.npy", rng.standard_normal((300, 7)).astype(np.float32))
    np.save(tmp_path / "targets.npy", rng.integers(0, 7, 300))
    (tmp_path / "out").mkdir()
    return {
        "logits": tmp_path / "logits.npy", "targets": tmp_path / "targets.npy",
        "grad": tmp_path / "out" / "grad.npy",
    }  # fmt: skip


@pytest.fixture(params=["unnamed", "named"])
def way(request, monkeypatch: pytest.MonkeyPatch) -> str:
    """Files without a name where the system has them, and as on systems that have none."""
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    elif not hasattr(os, "O_TMPFILE"):
        pytest.skip("this system has no files without a name")
    return request.param


def test_a_file_appears_whole_with_the_mode_of_new_files(tmp_path: Path, way: str) -> None:
    with SafeFile(tmp_path / "a", 6) as file:
        file.write_at(3, b"def")
        file.write_at(0, b"abc")
        seen = sorted(os.listdir(tmp_path))
        file.commit()
    assert seen == [] if way == "unnamed" else len(seen) == 1
    assert (tmp_path / "a").read_bytes() == b"abcdef"
    assert os.listdir(tmp_path) == ["a"]
    plain = tmp_path / "plain"
    plain.touch()
    assert (tmp_path / "a").stat().st_mode == plain.stat().st_mode


def test_a_file_that_is_replaced_keeps_its_mode_and_its_links(tmp_path: Path, way: str) -> None:
    target = tmp_path / "a"
    target.write_bytes(OLD)
    target.chmod(0o640)
    (tmp_path / "link").symlink_to(target)
    with SafeFile(tmp_path / "link", 3) as file:
        file.write_at(0, b"new")
        assert target.read_bytes() == OLD
        file.commit()
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "link").is_symlink()


def test_without_commit_nothing_is_left_and_nothing_changed(tmp_path: Path, way: str) -> None:
    target = tmp_path / "a"
    target.write_bytes(OLD)
    with SafeFile(target, 3) as file:
        file.write_at(0, b"new")
    assert target.read_bytes() == OLD
    with pytest.raises(RuntimeError), SafeFile(target, 3):
        raise RuntimeError
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_any_step_harms_nothing(
    paths: dict[str, Path], way: str, call: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths["grad"].write_bytes(OLD)

    def fail(*arguments, **options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(BadFile, match=r"grad\.npy: (no room for|cannot be written).*Nothing was"):
        crossent.evaluate(paths["logits"], paths["targets"], grad=paths["grad"])
    monkeypatch.undo()
    assert paths["grad"].read_bytes() == OLD
    assert os.listdir(paths["grad"].parent) == ["grad.npy"]


def test_the_folder_is_synced_after_the_rename(
    paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths["grad"].write_bytes(OLD)
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, name=name, real=real, **k: (calls.append(name), real(*a, **k))[1]
        )
    crossent.evaluate(paths["logits"], paths["targets"], grad=paths["grad"])
    assert calls == ["fsync", "replace", "fsync"]


@needs("typer")
def test_a_full_disk_is_found_before_the_work(paths: dict[str, Path]) -> None:
    """A file-size limit stands for a full disk: no privilege is needed to set one."""
    paths["grad"].write_bytes(OLD)
    done = subprocess.run(
        [*COMMAND, paths["logits"], paths["targets"], "--grad", paths["grad"]],
        capture_output=True, text=True, timeout=60, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(f"crossent: {paths['grad']}: no room for 8,528 bytes (")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert paths["grad"].read_bytes() == OLD
    assert os.listdir(paths["grad"].parent) == ["grad.npy"]


def test_a_disk_that_is_really_full(paths: dict[str, Path]) -> None:
    folder = paths["grad"].parent
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "none", str(folder)]
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a small disk needs root")
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this system lets no small disk be mounted")
    try:
        with pytest.raises(BadFile, match=r"no room for 8,528 bytes \(No space left"):
            crossent.evaluate(paths["logits"], paths["targets"], grad=paths["grad"])
        assert os.listdir(folder) == []
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_bad_label_in_the_last_row_is_found_before_the_first_byte(paths: dict[str, Path]) -> None:
    paths["grad"].write_bytes(OLD)
    targets = np.load(paths["targets"])
    targets[-1] = 7
    np.save(paths["targets"], targets)
    with pytest.raises(ValueError, match=r"targets\.npy: row 299 has label 7; labels are 0 \.\. 6"):
        crossent.evaluate(paths["logits"], paths["targets"], grad=paths["grad"])
    assert paths["grad"].read_bytes() == OLD
    assert os.listdir(paths["grad"].parent) == ["grad.npy"]


def test_an_input_is_never_overwritten(paths: dict[str, Path]) -> None:
    before = paths["logits"].read_bytes()
    link = paths["grad"].parent / "link.npy"
    link.symlink_to(paths["logits"])
    for output in (paths["logits"], link):
        with pytest.raises(ValueError, match="is one of the inputs"):
            crossent.evaluate(paths["logits"], paths["targets"], grad=output)
    assert paths["logits"].read_bytes() == before


@pytest.mark.parametrize("option", ["--grad", "--losses", "--report"])
@pytest.mark.parametrize("read", ["logits", "targets", "weight", "rows", "other"])
def test_no_option_names_an_input_for_an_output(
    paths: dict[str, Path], option: str, read: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not the class weights either, and not through a link whose name ends as an output's."""
    folder = paths["grad"].parent
    inputs = {name: paths[name] for name in ("logits", "targets")}
    for name, array in (("weight", np.ones(7)), ("rows", np.ones(300)), ("other", None)):
        inputs[name] = folder / f"{name}.npy"
        np.save(inputs[name], np.load(paths["logits"]) if array is None else array)
    output = inputs[read]
    if option == "--report":
        output = folder / "report.html"
        output.symlink_to(inputs[read])
    before = inputs[read].read_bytes()
    arguments = [inputs["logits"], inputs["targets"], "--weight", inputs["weight"],
                 "--row-weight", inputs["rows"], "--compare", inputs["other"]]  # fmt: skip
    assert cli.main(["eval", *map(str, [*arguments, option, output])]) == 2
    assert capsys.readouterr().err == (
        f"crossent: {output}: is one of the inputs; name another file\n"
    )
    assert inputs[read].read_bytes() == before


# A run that stands still in the writing pass, for a signal to meet it there.
SLOW = """
import os, signal, sys, time
from crossent.evaluation import outputs, passes
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells make background jobs ignore it
passes.BLOCK = 1000
real = outputs.gradient_of
def slow(*arguments):
    os.write(1, b"writing\\n")  # whole, from any thread
    time.sleep(0.3)
    return real(*arguments)
outputs.gradient_of = slow
if sys.argv[1] == "named":
    del os.O_TMPFILE
from crossent.commands.cli import main
sys.exit(main(["eval", *sys.argv[2:]]))
"""


def stopped_by(number: int, paths: dict[str, Path], way: str) -> subprocess.CompletedProcess:
    """A run that is sent a signal while it writes the gradient."""
    running = subprocess.Popen(
        [sys.executable, "-c", SLOW, way, *map(str, [paths["logits"], paths["targets"], "--grad"]),
         str(paths["grad"])],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert running.stdout is not None
    assert running.stdout.readline() == "writing\n"
    time.sleep(0.05)
    running.send_signal(number)
    out, err = running.communicate(timeout=30)
    return subprocess.CompletedProcess(running.args, running.returncode, out, err)


@needs("typer")
@pytest.mark.parametrize("kind", ["unnamed", "named"])
def test_ctrl_c_ends_with_130_one_line_and_no_half_file(paths: dict[str, Path], kind: str) -> None:
    if kind == "unnamed" and not hasattr(os, "O_TMPFILE"):
        pytest.skip("this system has no files without a name")
    paths["grad"].write_bytes(OLD)
    done = stopped_by(signal.SIGINT, paths, kind)
    assert done.returncode == 130
    assert done.stderr == "crossent: interrupted: no output was left half written\n"
    assert paths["grad"].read_bytes() == OLD
    assert os.listdir(paths["grad"].parent) == ["grad.npy"]


@needs("typer")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_is_killed_leaves_nothing_at_all(paths: dict[str, Path], number: int) -> None:
    if not hasattr(os, "O_TMPFILE"):
        pytest.skip("this system has no files without a name")
    paths["grad"].write_bytes(OLD)
    done = stopped_by(number, paths, "unnamed")
    assert done.returncode == -number
    assert paths["grad"].read_bytes() == OLD
    assert os.listdir(paths["grad"].parent) == ["grad.npy"]


@needs("typer")
def test_a_run_that_is_killed_where_files_need_names_harms_no_target(
    paths: dict[str, Path],
) -> None:
    paths["grad"].write_bytes(OLD)
    stopped_by(signal.SIGKILL, paths, "named")
    assert paths["grad"].read_bytes() == OLD
    left = [name for name in os.listdir(paths["grad"].parent) if name != "grad.npy"]
    assert all(name.startswith(".grad.npy.") and name.endswith(".part") for name in left)


def test_a_file_that_changes_between_the_passes_is_noticed(
    paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = evaluator.write_outputs

    def write_later(*arguments):
        targets = np.load(paths["targets"])
        np.save(paths["targets"], targets[::-1].copy())
        os.utime(paths["targets"], ns=(0, 0))
        real(*arguments)

    monkeypatch.setattr(evaluator, "write_outputs", write_later)
    with pytest.raises(BadFile, match=r"targets\.npy: changed while it was read"):
        crossent.evaluate(paths["logits"], paths["targets"], grad=paths["grad"])
    assert os.listdir(paths["grad"].parent) == []


def test_a_folder_that_cannot_be_synced_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    safe_file.sync_folder(tmp_path / "none")
    monkeypatch.setattr(
        os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.EINVAL, ""))
    )
    safe_file.sync_folder(tmp_path)

"""One rule for what every command writes: no input, no other output, not where output is printed to."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_surroundings import saved_run

from crossent import _safe_file as safe_file
from crossent._safe_file import SafeFile, is_one_file, remove_leftovers, write_file
from crossent.commands import cli

WAYS = {
    "itself": lambda path, link: str(path),
    "symlink": lambda path, link: (link.symlink_to(path), str(link))[1],
    "hard link": lambda path, link: (os.link(path, link), str(link))[1],
    "dots": lambda path, link: f"{path.parent}/../{path.parent.name}/./{path.name}",
    "relative": lambda path, link: os.path.relpath(path),
    "link to a link": lambda path, link: (
        (link.parent / "first").symlink_to(os.path.relpath(path, link.parent)),
        link.symlink_to("first"),
        str(link),
    )[2],
}
# By the option of each command that names a file to write: the files that it reads there.
READ = {
    "explain --out": {"--logits": "logits.npy", "--targets": "targets.npy", "--classes": "names.txt"},
    "bench --plot": {"--from": "run.json"},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.save("logits.npy", rng.standard_normal((6, 3)).astype(np.float32))
    np.save("targets.npy", rng.integers(0, 3, 6))
    Path("names.txt").write_text("a\nb\nc\n")
    Path("run.json").write_text(json.dumps(saved_run()))
    return tmp_path


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of arguments that are refused, and nothing is changed by."""
    before = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    assert cli.main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert {path: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before
    return shown.err


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("option", "flag"), [(option, flag) for option, read in READ.items() for flag in read]
)
def test_no_output_is_a_file_that_is_read(
    option: str, flag: str, way: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, output = option.split()
    if command == "bench":
        Path("run.png").write_bytes(Path("run.json").read_bytes())
        READ[option]["--from"] = "run.png"  # a picture's name, to get as far
    path = Path(READ[option][flag])
    written = WAYS[way](folder / path, folder / "link.png")
    given = [argument for name, file in READ[option].items() for argument in (name, file)]
    assert "is one of the inputs" in refused([command, *given, output, written], capsys)


PAIRS = {
    "symlink": ("a.npy", "link.npy"), "dots": ("a.npy", "../{here}/a.npy"),
    "case": ("a.npy", "A.npy"), "new": ("b.npy", "./b.npy"), "hard link": ("a.npy", "hard.npy"),
}  # fmt: skip


@pytest.mark.parametrize("pair", PAIRS)
def test_no_two_outputs_are_one_file(
    pair: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grad, losses = (name.format(here=folder.name) for name in PAIRS[pair])
    if pair != "case":
        Path("a.npy").write_bytes(b"")
        Path("link.npy").symlink_to("a.npy")
        os.link("a.npy", "hard.npy")
    arguments = ["eval", "logits.npy", "targets.npy", "--grad", grad, "--losses", losses]
    assert "is named for the gradient and the losses; name two" in refused(arguments, capsys)


def test_names_that_differ_in_case_are_two_files_where_both_are_there(folder: Path) -> None:
    Path("a.npy").touch()
    Path("A.npy").touch()
    assert is_one_file(Path("a.npy"), Path("A.npy")) == (len(list(folder.glob("[aA].npy"))) == 1)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("path", ["printed.npy", "/proc/self/fd/{}", "/dev/fd/{}", "link.npy"])
def test_no_output_is_where_output_is_printed_to(folder: Path, number: int, path: str) -> None:
    Path("link.npy").symlink_to("printed.npy")
    command = ["eval", "logits.npy", "targets.npy", "--grad", path]
    if path.startswith("/"):
        command = ["explain", "--text", "--out", path.format(number)]
    with open("printed.npy", "w") as printed:
        streams = {1: {"stdout": printed, "stderr": -1}, 2: {"stderr": printed, "stdout": -1}}
        done = subprocess.run(
            [sys.executable, "-m", "crossent", *command], **streams[number], timeout=60, check=False
        )
    said = (done.stderr or b"").decode() + Path("printed.npy").read_text()
    assert done.returncode == 2
    assert ("is where standard output goes", "is where standard error goes")[number - 1] in said


def test_a_pipe_or_a_device_takes_what_is_written(folder: Path) -> None:
    command = [sys.executable, "-m", "crossent", "explain", "--latex", "--out", "/dev/stdout"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.count("\\subsection*") > 5
    assert done.stdout.endswith("Written: /dev/stdout\n")


@pytest.mark.parametrize("option", ["--out", "--plot"])
def test_a_full_disk_leaves_the_old_file_and_is_blamed_on_the_new_one(
    option: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", fail)
    Path("old.png").write_bytes(b"old")
    arguments = {"--out": ["explain"], "--plot": ["bench", "--from", "run.json"]}[option]
    assert cli.main([*arguments, option, "old.png"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"crossent: {folder}/old.png: no room for ")
    assert said.count("\n") == 1
    assert Path("old.png").read_bytes() == b"old"


# --- What killed runs leave -----------------------------------------------------------------------


def leave(path: Path, *, locked: bool) -> int:
    """A hidden file as a writer has it; its handle."""
    handle = os.open(path, os.O_CREAT | os.O_RDWR)
    os.write(handle, b"half")
    if locked:
        fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def test_what_a_dead_writer_left_is_removed_and_told_of(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing else: not what a living one writes, not other files' or a user's own."""
    dead = folder / ".walk.0123456789ab.part"
    os.close(leave(dead, locked=False))
    others = [".walk.0123456789ac.part", ".walk2.0123456789ab.part", ".walk.part", ".walk.x.part",
              ".walk.0123456789abc.part", "walk.0123456789ab.part"]  # fmt: skip
    living, *closed = [leave(folder / name, locked=name == others[0]) for name in others]
    (folder / ".walk.0123456789ad.part").mkdir()
    (folder / ".walk.0123456789ae.part").symlink_to("logits.npy")
    os.mkfifo(folder / ".walk.0123456789af.part")
    assert cli.main(["explain", "--text", "--out", "walk"]) == 0
    said = capsys.readouterr().err
    assert said == f"crossent: removed {dead}, which a run that was killed had left\n"
    assert not dead.exists()
    kept = {*others, *(f".walk.0123456789a{end}.part" for end in "def")}
    assert kept <= set(os.listdir())
    for handle in (living, *closed):
        os.close(handle)


def test_a_writer_whose_file_was_taken_for_a_leftover_makes_another(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run may come between the creation of a hidden file and its lock."""
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    real, taken = fcntl.flock, []

    def flock(handle: int, operation: int) -> None:
        if not taken:
            taken.append(True)
            taken.extend(remove_leftovers(folder / "a"))
        real(handle, operation)

    monkeypatch.setattr(safe_file.fcntl, "flock", flock)
    with SafeFile(folder / "a", 3) as file:
        file.write_at(0, b"new")
        file.commit()
    assert len(taken) == 2
    assert Path("a").read_bytes() == b"new"
    assert [name for name in os.listdir() if name.endswith(".part")] == []


@pytest.mark.parametrize("named", [False, True])
def test_a_living_writer_s_file_is_never_removed(
    named: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if named:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    with SafeFile(folder / "a", 3) as first, SafeFile(folder / "a", 3) as second:
        assert second.removed == []
        for file, data in ((first, b"one"), (second, b"two")):
            file.write_at(0, data)
            assert remove_leftovers(folder / "a") == []
            file.commit()
    assert Path("a").read_bytes() == b"two"
    assert [name for name in os.listdir() if name.endswith(".part")] == []


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("call", ["open", "link", "posix_fallocate", "pwrite", "fsync", "replace"])
def test_ctrl_c_right_after_any_call_leaves_nothing_hidden(
    call: str, named: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a").write_bytes(b"old")
    if named:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    real, handles = getattr(os, call), []

    def interrupted(*arguments: object, **options: object) -> None:
        handles.append(real(*arguments, **options))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, call, interrupted)
        try:
            write_file(folder / "a", b"new")
        except KeyboardInterrupt:
            assert handles
        else:
            assert (named, call) == (True, "link")  # a file that has a name needs none
    assert Path("a").read_bytes() in (b"old", b"new")
    assert [name for name in os.listdir() if name.endswith(".part")] == []
    if call == "open":
        os.close(handles[0])

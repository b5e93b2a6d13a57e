"""Crashes at every call of the system that touches an output: python tests/writing_crashes.py FOLDER [every]

Runs with failing_calls.cc preloaded; tests/test_crashes.py starts it. Commands run in children of this warm process.
Prints a line for each thing that is wrong, and in the end how many crashes there were.
"""

import ctypes
import errno
import io
import itertools
import json
import os
import signal
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
from test_surroundings import saved_run

from crossent.commands import cli
from crossent.commands.bench import chart
from crossent.commands.demo import command as demo_command
from crossent.commands.demo import figure
from crossent.commands.eval import report
from crossent.commands.explain import command as explain_command

LIBRARY = ctypes.CDLL(None)
OLD = b"what was there before"
FAILURES = {"killed": 0, "full": errno.ENOSPC, "broken": errno.EIO}
# (command, whether its files have hidden names, whether there is an old file, what happens)
SOME = [
    *itertools.product(["page"], (False, True), (True, False), ["killed"]),
    *itertools.product(["page"], (False, True), (True,), ["full", "broken"]),
    *itertools.product(["report", "demo", "chart"], (False,), (True,), ["killed"]),
    ("eval", False, True, "killed"),
]


class Drawn:
    """A figure that has been drawn: what is tried here is how it is written."""

    def savefig(self, file: io.BytesIO, format: str) -> None:
        file.write(format.encode() * 10_000)


def keep_what_is_written() -> None:
    """What takes long to make is made once."""
    result = demo_command.run_demo()
    demo_command.run_demo = lambda **_: result
    figure.demo_figure = chart.chart = lambda _: Drawn()
    report.report_page = lambda _: "page" * 1000
    for form, tell in explain_command.FORMS.items():
        explain_command.FORMS[form] = lambda _, text=tell.__name__ * 1000: text


def commands(folder: Path) -> dict[str, tuple[list[str], list[str]]]:
    """(arguments, outputs) of every command that writes, each in a folder `out` of its own."""
    out = folder / "out"
    inputs = [str(folder / "logits.npy"), str(folder / "targets.npy")]
    explain = ["explain", "--no-open", "--out", str(out / "walk")]
    return {
        "eval": (
            ["eval", *inputs, "--grad", f"{out}/grad.npy", "--losses", f"{out}/losses.npy"],
            ["grad.npy", "losses.npy"],
        ),
        "safetensors": (
            ["eval", *inputs, "--grad", f"{out}/grad.safetensors"],
            ["grad.safetensors"],
        ),
        "report": (["eval", *inputs, "--report", f"{out}/page.html"], ["page.html"]),
        "page": (explain, ["walk"]),
        "text": ([*explain, "--text"], ["walk"]),
        "latex": ([*explain, "--latex"], ["walk"]),
        "numpy": ([*explain, "--numpy"], ["walk"]),
        "json": ([*explain, "--json"], ["walk"]),
        "demo": (["demo", "--out", f"{out}/demo.png"], ["demo.png"]),
        "chart": (
            ["bench", "--from", str(folder / "run.json"), "--plot", f"{out}/bench.svg"],
            ["bench.svg"],
        ),
    }


def run(
    arguments: list[str], folder: Path, n: int, error: int, *, named: bool
) -> tuple[int, str, bool]:
    """(exit code or -signal, standard error, whether the n-th call was reached) of a command."""
    said = folder / "said"
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        if named and hasattr(os, "O_TMPFILE"):
            del os.O_TMPFILE
        LIBRARY.arm(os.fsencode(folder / "out"), ctypes.c_long(n), error)
        code = cli.main(arguments)
        LIBRARY.seen.restype = ctypes.c_long
        os._exit(code + 100 * (LIBRARY.seen() > n >= 0))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    reached = code < 0 or code >= 100
    return code % 100 if code >= 0 else code, said.read_text(), reached


class Trial:
    """One command with an old output or none, in one of the two ways to write."""

    def __init__(self, folder: Path, name: str, *, named: bool, with_old: bool) -> None:
        self.folder, self.out, self.named, self.with_old = folder, folder / "out", named, with_old
        self.arguments, self.outputs = commands(folder)[name]
        self.name, self.crashes, self.wrong = name, 0, 0
        self.reset()
        self.run(-1, 0)
        self.new = {output: (self.out / output).read_bytes() for output in self.outputs}

    def run(self, n: int, error: int) -> tuple[int, str, bool]:
        return run(self.arguments, self.folder, n, error, named=self.named)

    def reset(self) -> None:
        for path in self.out.iterdir():
            path.unlink()
        for output in self.outputs if self.with_old else ():
            (self.out / output).write_bytes(OLD)

    def found(self, output: str) -> str:
        path = self.out / output
        if not path.exists():
            return "third" if self.with_old else "old"
        held = path.read_bytes()
        return (
            "old"
            if self.with_old and held == OLD
            else "new"
            if held == self.new[output]
            else "third"
        )

    def check(self, wanted: bool, *what: object) -> None:
        if not wanted:
            self.wrong += 1
            way, before = ("unnamed", "named")[self.named], ("none", "old")[self.with_old]
            print(self.name, way, before, *what, flush=True)

    def crash(self, n: int, kind: str) -> bool:
        """Crashes at the n-th call; False where there are fewer."""
        self.reset()
        code, said, reached = self.run(n, FAILURES[kind])
        if not reached:
            return False
        self.crashes += 1
        found = [self.found(output) for output in self.outputs]
        left = [name for name in os.listdir(self.out) if name not in self.outputs]
        self.check("third" not in found, kind, n, "an output is neither old nor new", found)
        if kind == "killed":
            self.check(code == -signal.SIGKILL, kind, n, "exit", code)
        else:
            self.check(code in (0, 1, 2), kind, n, "exit", code, said)
            self.check(said.count("\n") == (code != 0), kind, n, "said", said)
            self.check(code != 0 or set(found) == {"new"}, kind, n, "done, but", found)
        code, said, _ = self.run(-1, 0)
        told = [name for name in left if f"{name}, which a run that was killed had left" in said]
        self.check(told == left, kind, n, "the next run did not tell of", left, said)
        self.check(code == 0 and said.count("\n") == len(left), kind, n, "the next run", code, said)
        self.check({*os.listdir(self.out)} == {*self.outputs}, kind, n, os.listdir(self.out))
        self.check(all(self.found(output) == "new" for output in self.outputs), kind, n, "next run")
        return True


def main() -> None:
    folder, every = Path(sys.argv[1]), sys.argv[2:] == ["every"]
    (folder / "out").mkdir()
    rng = np.random.default_rng(0)
    np.save(folder / "logits.npy", rng.standard_normal((30, 5)).astype(np.float32))
    np.save(folder / "targets.npy", rng.integers(0, 5, 30))
    (folder / "run.json").write_text(json.dumps(saved_run()))
    keep_what_is_written()
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        for arguments, _ in commands(folder).values():
            assert cli.main(arguments) == 0
    trials = itertools.product(commands(folder), (False, True), (True, False), FAILURES)
    crashes = wrong = 0
    for name, named, with_old, kind in trials if every else SOME:
        trial = Trial(folder, name, named=named, with_old=with_old)
        n = 0
        while trial.crash(n, kind):
            n += 1
        crashes, wrong = crashes + trial.crashes, wrong + trial.wrong
    print(crashes, "crashes,", wrong, "wrong")


if __name__ == "__main__":
    main()

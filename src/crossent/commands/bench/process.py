"""The other end of a worker's pipes."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from types import TracebackType
from typing import Any

from crossent.commands.bench.contender import Contender

# How libraries are told the number of threads before they are imported.
THREAD_SETTINGS = (
    "CROSSENT_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)
# Set or unset for each contender by the bench itself.
HUGE_PAGES_SETTING = "THP_MEM_ALLOC_ENABLE"


class ContenderError(Exception):
    """A contender could not do what it was asked to. The message is one line."""


class Worker:
    """A contender in a process of its own. Requests are answered one at a time."""

    def __init__(self, contender: type[Contender], threads: int) -> None:
        self.contender = contender
        self.threads = threads
        self._launch()

    def _launch(self) -> None:
        self.alive = True
        environment = os.environ | dict.fromkeys(THREAD_SETTINGS, str(self.threads))
        environment.pop(HUGE_PAGES_SETTING, None)
        name = self.contender.name
        self._complaints = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            # -P: a file in the working directory must not be taken for a library.
            [sys.executable, "-P", "-m", "crossent.commands.bench.worker", name, str(self.threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            env=environment | dict(self.contender.environment),
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._complaints.close()

    def revive(self) -> None:
        """A new process, started, where the last one has died: one failure must not be all.

        Raises:
            ContenderError: it cannot start either.
        """
        if not self.alive:
            self._end()
            self._launch()
            self.ask("start")

    def ask(self, do: str, **more: Any) -> Any:
        """Send a request, wait, and return its answer.

        Raises:
            ContenderError: the worker says that it failed, or has died.
        """
        if not self.alive:
            raise ContenderError("its process has ended")
        self.send(do, **more)
        return self.receive()

    def send(self, do: str, **more: Any) -> None:
        """Send a request without waiting for its answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **more}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # receive says why

    def receive(self) -> Any:
        """The answer to the oldest request that has none."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith("\n"):
            self.alive = False
            raise ContenderError(self._how_it_ended())
        reply = json.loads(line)
        if "error" in reply:
            raise ContenderError(reply["error"])
        return reply["ok"]

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return "its process was killed: out of memory?"
        self._complaints.seek(0)
        lines = self._complaints.read().split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "without a word")
        return f"its process ended with code {code}: {last.strip()}"

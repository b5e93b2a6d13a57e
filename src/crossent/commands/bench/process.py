"""The other end of a worker's pipes."""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from typing import Any

from crossent.commands.bench.contender import Contender

# How libraries are told the number of threads before they are imported.
LIBRARIES = ("CROSSENT", "OMP", "MKL", "OPENBLAS")
THREAD_SETTINGS = tuple(f"{library}_NUM_THREADS" for library in LIBRARIES)
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
            env=environment | dict(self.contender.environment),
        )

    def close(self) -> None:
        """End the process, at once."""
        self._process.kill()
        self._process.communicate()
        self._complaints.close()

    def revive(self) -> None:
        """A new process, started, where the last one has died: one failure must not be all.

        Raises:
            ContenderError: it cannot start either.
        """
        if self._process.returncode is not None:
            self.close()
            self._launch()
            self.ask("start")

    def ask(self, do: str, *more: Any) -> Any:
        """Send a request, wait, and return its answer.

        Raises:
            ContenderError: the worker says that it failed, or has died.
        """
        self.send(do, *more)
        return self.receive()

    def send(self, do: str, *more: Any) -> None:
        """Send a request without waiting for its answer."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # receive says why
            pickle.dump((do, more), self._process.stdin)
            self._process.stdin.flush()

    def receive(self) -> Any:
        """The answer to the oldest request that has none."""
        assert self._process.stdout is not None
        try:
            answer, error = pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError):
            raise ContenderError(self._how_it_ended()) from None
        if error:
            raise ContenderError(error)
        return answer

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return "its process was killed: out of memory?"
        self._complaints.seek(0)
        lines = [line.strip() for line in self._complaints if line.strip()]
        return f"its process ended with code {code}: {lines[-1] if lines else 'without a word'}"

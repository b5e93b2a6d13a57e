"""A process of one contender: ``python -m crossent.commands.bench.worker NAME THREADS``.

Reads pickled requests on standard input, (method of Session, arguments), and answers each with a
pair: the answer, or None and what went wrong in one line. Ends with its input.
"""

import os
import pickle
import sys
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from crossent.commands.bench.accuracy import REGIMES, Errors, errors_of
from crossent.commands.bench.arrays import read_arrays
from crossent.commands.bench.cases import Case
from crossent.commands.bench.contender import Calls, Contender
from crossent.commands.bench.contenders import WORKERS
from crossent.commands.bench.measure import Turn, take_turn, warm_up


class Session:
    """What a worker does, a method a request."""

    def __init__(self, contender: Contender, threads: int) -> None:
        self.contender = contender
        self.threads = threads
        self.calls: Calls = {}

    def start(self) -> dict[str, Any]:
        """Import and answer with versions and threads."""
        threads = self.contender.start(self.threads)
        return {"versions": self.contender.versions(), "threads": threads}

    def load(self, case: Case, folder: Path) -> None:
        """Take the arrays of a case."""
        self.calls = self.contender.load(case, read_arrays(folder))

    def warm_up(self) -> dict[str, Turn]:
        """Every task for the first time; its memory is measured."""
        return {task: warm_up(call) for task, call in self.calls.items()}

    def turn(self) -> dict[str, Turn]:
        """One round's turn of every task."""
        return {task: take_turn(call) for task, call in self.calls.items()}

    def unload(self) -> None:
        """Let go of the case."""
        self.calls = {}

    def errors(self, regime: str, dtype: str) -> Errors:
        """The largest errors in a regime."""
        return errors_of(self.contender, REGIMES[regime], dtype)


def serve(session: Session, requests: BufferedReader, replies: BinaryIO) -> None:
    """Answer requests until there are no more."""
    while requests.peek(1):
        do, arguments = pickle.load(requests)
        answer, failure = None, None
        try:
            answer = getattr(session, do)(*arguments)
        except Exception as error:
            failure = f"{type(error).__name__}: {error}".splitlines()[0]
        pickle.dump((answer, failure), replies)
        replies.flush()


def main() -> None:
    """Take the pipes, keep other threads' processors free, and serve."""
    name, threads = sys.argv[1], int(sys.argv[2])
    # What libraries print must not come between the replies: it goes to standard error.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    if hasattr(os, "sched_setaffinity"):
        processors = sorted(os.sched_getaffinity(0))
        if threads < len(processors):  # XLA takes every processor that it may use
            os.sched_setaffinity(0, processors[:threads])
    serve(Session(WORKERS[name](), threads), os.fdopen(0, "rb", closefd=False), replies)


if __name__ == "__main__":
    main()

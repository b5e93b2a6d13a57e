"""A process of one contender: ``python -m crossent.commands.bench.worker NAME THREADS``.

Reads one JSON request a line on standard input, {"do": ..., more}, and answers each with one line:
{"ok": ...} or {"error": "..."}. Ends with its input.
"""

import json
import os
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from crossent.commands.bench.accuracy import REGIMES, errors_of
from crossent.commands.bench.cases import Case, read_arrays
from crossent.commands.bench.contender import Calls, Contender
from crossent.commands.bench.contenders import WORKERS
from crossent.commands.bench.measure import take_turn, timed, watch_memory


class Session:
    """What a worker does, a method a request."""

    def __init__(self, contender: Contender, threads: int) -> None:
        self.contender = contender
        self.threads = threads
        self.own: set[str] = set()  # attributes that outlast a case
        self.calls: Calls = {}

    def start(self) -> dict[str, Any]:
        """Import and answer with versions and threads."""
        threads = self.contender.start(self.threads)
        self.own = set(vars(self.contender))
        return {"versions": self.contender.versions(), "threads": threads}

    def load(self, case: dict[str, Any], folder: str) -> None:
        """Take the arrays of a case."""
        fields = case | {"shape": tuple(case["shape"])}
        self.calls = self.contender.load(Case(**fields), read_arrays(Path(folder)))

    def warm_up(self, task: str) -> dict[str, Any]:
        """Two calls: one compiles and touches memory; of the second the peak memory is measured."""
        restore = partial(self.contender.restore, task)
        timed(self.calls[task], restore)
        return watch_memory(self.calls[task], restore)._asdict()

    def turn(self, task: str) -> dict[str, Any]:
        """One round's turn of a task."""
        return take_turn(self.calls[task], partial(self.contender.restore, task))._asdict()

    def unload(self) -> None:
        """Let go of the case."""
        self.calls = {}
        for name in set(vars(self.contender)) - self.own:
            delattr(self.contender, name)

    def errors(self, regime: str, dtype: str) -> dict[str, Any]:
        """The largest errors in a regime."""
        return asdict(errors_of(self.contender, REGIMES[regime], dtype))


def serve(session: Session, requests: TextIO, replies: TextIO) -> None:
    """Answer requests until there are no more."""
    for line in requests:
        request = json.loads(line)
        try:
            reply = {"ok": getattr(session, request.pop("do"))(**request)}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(reply), file=replies, flush=True)


def main() -> None:
    """Take the pipes, keep other threads' processors free, and serve."""
    name, threads = sys.argv[1], int(sys.argv[2])
    # What libraries print must not come between the replies: it goes to standard error.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if hasattr(os, "sched_setaffinity"):
        processors = sorted(os.sched_getaffinity(0))
        if threads < len(processors):  # XLA takes every processor that it may use
            os.sched_setaffinity(0, processors[:threads])
    serve(Session(WORKERS[name](), threads), sys.stdin, replies)


if __name__ == "__main__":
    main()

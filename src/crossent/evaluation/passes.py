"""Passes over the data: blocks read and computed on several threads, taken in order on one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, TypeVar

from crossent import settings
from crossent.evaluation.data import Data
from crossent.evaluation.errors import BadOption
from crossent.evaluation.rows import Block, Workspace

T = TypeVar("T")

# (description, bytes to read) to a context that yields advance(bytes)
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]

BLOCK = 4 << 20  # bytes of a block's arrays: small enough for a cache, large enough for a call
FIXED = 24 << 20  # bytes for sums, scores that wait, and stacks


@contextmanager
def no_progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Progress that shows nothing."""
    yield lambda steps: None


class CallingThread(Executor):
    """Runs what is submitted at once, where no other thread is to be had."""

    def submit(self, work: Callable[..., T], /, *given: Any, **named: Any) -> Future[T]:
        """What has already been computed."""
        future: Future[T] = Future()
        future.set_result(work(*given, **named))
        return future


def pool_of(threads: int) -> Executor:
    """Threads to submit work to."""
    try:
        from concurrent.futures import ThreadPoolExecutor

        return ThreadPoolExecutor(threads, "crossent-eval")
    except RuntimeError:  # the interpreter is ending: none can be started any more
        return CallingThread()


def submitted(pool: Executor, work: Callable[..., T], *given: Any) -> Future[T]:
    """Work that a pool does, or else has been done here."""
    try:
        return pool.submit(work, *given)
    except RuntimeError:  # no thread to be had
        return CallingThread().submit(work, *given)


class Own(threading.local):
    """What each thread has of its own."""

    def __init__(self) -> None:
        self.workspace = Workspace()


class Passes(NamedTuple):
    """The data, and how many threads read blocks of how many rows of it."""

    data: Data
    threads: int
    rows: int
    progress: Progress

    def run(
        self,
        description: str,
        compute: Callable[[Block, Workspace], T],
        consume: Callable[[T, int], None],
    ) -> None:
        """Computes blocks of rows, any of them at once, and consumes what came of them in order.

        Args:
            description: for the progress that is shown.
            compute: (block, workspace) to a result that does not use the workspace's memory.
            consume: (result, rows), called in the order of the rows on the calling thread.

        Raises:
            BadFile: a file was not the same all the while.
        """
        data, step = self.data, self.rows
        own = Own()

        def task(start: int, stop: int) -> T:
            return compute(data.read(start, stop, own.workspace), own.workspace)

        waiting: deque[tuple[int, Future[T]]] = deque()
        pool = pool_of(self.threads)
        with pool, self.progress(description, data.logits.rows * data.row_bytes) as advance:

            def consume_next() -> None:
                rows, future = waiting.popleft()
                consume(future.result(), rows)
                advance(rows * data.row_bytes)

            try:
                for start in range(0, data.logits.rows, step):
                    stop = min(start + step, data.logits.rows)
                    waiting.append((stop - start, submitted(pool, task, start, stop)))
                    if len(waiting) > 2 * self.threads:
                        consume_next()
                while waiting:
                    consume_next()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        for file in data.files:
            file.check_unchanged()


def plan_passes(
    data: Data, memory: int, progress: Progress, *, is_scaled: bool, outputs: int
) -> Passes:
    """Passes that stay within ``memory`` bytes.

    Args:
        data: the tables.
        memory: the bytes that there are.
        progress: shows how far a pass is.
        is_scaled: whether the logits are scaled before the softmax.
        outputs: how many arrays like the logits are computed from a block.
    """
    # 1. What a block takes for each row: what is read, and what is computed from it.
    logits, classes = data.logits, data.logits.classes
    computed = outputs * max(4, logits.dtype.itemsize)
    for table in (logits, data.other):
        if table is not None:  # made wider, and scaled
            size = table.dtype.itemsize
            computed += max(4, size) * ((size < 4) + is_scaled)
    if data.targets is not None and data.targets.axis is not None:
        computed += 20  # their kept rows in float64, and in float32 where bfloat16
    row_bytes = data.row_bytes + computed * classes + 256
    # 2. What the sums take, and what is left for blocks.
    sum_bytes = 300 * classes + (24 * classes**2 if classes <= 1024 else 16 << 20)
    room = memory - FIXED - sum_bytes
    if room < row_bytes:
        raise BadOption(
            f"memory of {megabytes(memory)} is too little: rows of {classes:,} classes "
            f"need {megabytes(FIXED + sum_bytes + row_bytes)}"
        )
    threads = settings.get_num_threads()
    if any(table.is_sequential for table in data.tables.values()):
        threads = 1  # blocks must be read in order
    threads = min(threads, max(1, room // max(1, min(row_bytes * logits.rows, BLOCK))))
    rows = min(BLOCK, room // threads) // row_bytes
    return Passes(data, threads, max(1, min(rows, logits.rows)), progress)


def megabytes(count: int) -> str:
    """Bytes in the unit of --memory, rounded up."""
    return f"{-(-count // (1 << 20)):,} MiB"

"""Passes over the data: blocks read and computed on several threads, taken in order on one."""

from __future__ import annotations

import _thread
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, contextmanager, suppress
from queue import SimpleQueue
from threading import Event
from typing import Generic, NamedTuple, TypeVar

from crossent import settings
from crossent.evaluation.data import Data
from crossent.evaluation.errors import BadOption
from crossent.evaluation.rows import Block, Workspace

T = TypeVar("T")

# (description, bytes to read) to a context that yields advance(bytes)
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]

BLOCK = 4 << 20  # bytes of a block's arrays: small enough for a cache, large enough for a call
PATIENCE = 2.0  # seconds in which a thread that was started shows itself
FIXED = 24 << 20  # bytes for sums, scores that wait, and stacks


@contextmanager
def no_progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Progress that shows nothing."""
    yield lambda steps: None


class Helpers(Generic[T]):
    """Threads that compute blocks; where there are none, the calling one does as it submits.

    None are to be had while the interpreter ends, nor where memory runs out as they start, which
    concurrent.futures would wait for without end.
    """

    def __init__(self, count: int, compute: Callable[[int, Workspace], T]) -> None:
        self._compute = compute
        self._tasks: SimpleQueue[tuple[int, Future[T]] | None] = SimpleQueue()
        self._started, self._arrived = 0, Event()
        with suppress(RuntimeError):  # no more are to be had
            while self._started < count:
                _thread.start_new_thread(self._help, ())
                self._started += 1
        has_help = self._started > 0 and self._arrived.wait(PATIENCE)
        self._own = None if has_help else Workspace()  # who comes later finds nothing to do

    def submit(self, start: int) -> Future[T]:
        """The block that begins at a row."""
        future: Future[T] = Future()
        if self._own is None:
            self._tasks.put((start, future))
        else:
            future.set_result(self._compute(start, self._own))
        return future

    def leave(self, waiting: Iterable[Future[T]]) -> None:
        """Ends the threads: what has begun is waited for, nothing else begins."""
        begun = [future for future in waiting if not future.cancel()]
        for _ in range(self._started):
            self._tasks.put(None)
        wait(begun)

    def _help(self) -> None:
        workspace = Workspace()
        self._arrived.set()
        while (task := self._tasks.get()) is not None:
            start, future = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._compute(start, workspace))
            except BaseException as error:
                future.set_exception(error)


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

        def stop_of(start: int) -> int:
            return min(start + step, data.logits.rows)

        def task(start: int, workspace: Workspace) -> T:
            return compute(data.read(start, stop_of(start), workspace), workspace)

        waiting: deque[tuple[int, Future[T]]] = deque()
        with self.progress(description, data.logits.rows * data.row_bytes) as advance:
            helpers = Helpers(self.threads, task)

            def consume_next() -> None:
                start, future = waiting[0]
                rows = stop_of(start) - start
                consume(future.result(), rows)
                waiting.popleft()
                advance(rows * data.row_bytes)

            try:
                for start in range(0, data.logits.rows, step):
                    waiting.append((start, helpers.submit(start)))
                    if len(waiting) > 2 * self.threads:
                        consume_next()
                while waiting:
                    consume_next()
            finally:
                helpers.leave(future for _, future in waiting)
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

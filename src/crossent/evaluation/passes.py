"""Passes over the data: blocks read and computed on several threads, taken in order on one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from queue import SimpleQueue
from typing import NamedTuple, TypeVar

from crossent.evaluation.data import Data
from crossent.evaluation.errors import BadOption
from crossent.evaluation.rows import Workspace

T = TypeVar("T")

# (description, bytes to read) to a context that yields advance(bytes)
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]

BLOCK = 4 << 20  # bytes of a block's arrays: small enough for a cache, large enough for a call
FIXED = 24 << 20  # bytes for sums, scores that wait, and stacks


@contextmanager
def no_progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Progress that shows nothing."""
    yield lambda steps: None


class Plan(NamedTuple):
    """How many threads read blocks of how many rows."""

    threads: int
    rows: int


def plan_blocks(data: Data, memory: int, threads: int, row_bytes: int, fixed: int) -> Plan:
    """A plan that stays within ``memory`` bytes.

    Args:
        data: the tables.
        memory: the bytes that there are.
        threads: the most threads.
        row_bytes: what a block takes for each row.
        fixed: what the sums take beyond ``FIXED``.
    """
    room = memory - FIXED - fixed
    if data_is_sequential(data):
        threads = 1
    threads = min(threads, max(1, room // max(1, min(row_bytes * data.logits.rows, BLOCK))))
    if room < row_bytes:
        raise BadOption(
            f"memory of {megabytes(memory)} is too little: rows of {data.logits.classes:,} classes "
            f"need {megabytes(FIXED + fixed + row_bytes)}"
        )
    rows = min(BLOCK, room // threads) // row_bytes
    return Plan(threads, max(1, min(rows, data.logits.rows)))


def megabytes(count: int) -> str:
    """Bytes in the unit of --memory, rounded up."""
    return f"{-(-count // (1 << 20)):,} MiB"


def data_is_sequential(data: Data) -> bool:
    """Whether blocks must be read in order."""
    return any(table.is_sequential for table in data.tables)


def run_pass(
    data: Data,
    plan: Plan,
    compute: Callable[[int, int, Workspace], T],
    consume: Callable[[T, int], None],
) -> None:
    """Computes blocks of rows, any of them at once, and consumes what came of them in order.

    Args:
        data: what is read; found unchanged at the end.
        plan: threads and rows of a block.
        compute: (start, stop, workspace) to a result that does not use the workspace's memory.
        consume: (result, rows), called in the order of the rows on the calling thread.
    """
    spaces: SimpleQueue[Workspace] = SimpleQueue()
    for _ in range(plan.threads):
        spaces.put(Workspace())

    def task(start: int, stop: int) -> T:
        workspace = spaces.get()
        try:
            return compute(start, stop, workspace)
        finally:
            spaces.put(workspace)

    waiting: deque[tuple[int, Future[T]]] = deque()
    with ThreadPoolExecutor(plan.threads, thread_name_prefix="crossent-eval") as pool:
        try:
            for start in range(0, data.logits.rows, plan.rows):
                stop = min(start + plan.rows, data.logits.rows)
                waiting.append((stop - start, pool.submit(task, start, stop)))
                if len(waiting) > 2 * plan.threads:
                    rows, future = waiting.popleft()
                    consume(future.result(), rows)
            while waiting:
                rows, future = waiting.popleft()
                consume(future.result(), rows)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    data.check_unchanged()

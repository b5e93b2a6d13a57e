"""One evaluation, spread over the workers of a Dask cluster: a task a shard, then a tree of merges.

    python examples/dask_shards.py

makes eight shards of logits and targets, evaluates them on Dask's local threads, and compares with
one process that reads them in order. Not one bit differs: an accumulator's sums are exact, so how
rows are split and in which order parts are merged cannot show. Any engine that can map and reduce
may stand in Dask's place; the accumulators are pickled on their way.

N rows in all, C classes.
"""

import itertools
import json
import tempfile
from pathlib import Path

import dask
import numpy as np

import crossent

N, C, SHARDS = 40_000, 50, 8


def save_shards(folder: Path) -> list[int]:
    """Writes the shards and returns how many rows each has: not equally many."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, C, N)
    logits = 2 * rng.standard_normal((N, C), dtype=np.float32)
    logits[np.arange(N), targets] += 4
    edges = [0, *sorted(rng.choice(N, SHARDS - 1, replace=False)), N]
    for i, (begin, end) in enumerate(itertools.pairwise(edges)):
        np.save(folder / f"logits-{i}.npy", logits[begin:end])
        np.save(folder / f"targets-{i}.npy", targets[begin:end])
    return np.diff(edges).tolist()


@dask.delayed
def evaluate_shard(folder: Path, i: int, first_row: int) -> crossent.EvaluationAccumulator:
    """Map: a shard to an accumulator. ``first_row`` lets it name its rows as the whole does."""
    sums = crossent.EvaluationAccumulator(C, first_row=first_row)
    logits = np.load(folder / f"logits-{i}.npy", mmap_mode="r")
    targets = np.load(folder / f"targets-{i}.npy")
    for begin in range(0, len(targets), 1000):  # in blocks: a shard may be larger than memory
        rows = slice(begin, begin + 1000)
        sums.update(logits[rows], targets[rows])
    return sums


@dask.delayed
def merge(parts: list[crossent.EvaluationAccumulator]) -> crossent.EvaluationAccumulator:
    """Reduce: several accumulators to one."""
    total = crossent.EvaluationAccumulator(C)
    for part in parts:
        total.merge(part)
    return total


def evaluate_with_dask(folder: Path, rows: list[int]) -> crossent.EvaluationResult:
    """The result of all shards, merged in pairs, pairs of pairs, and so on."""
    firsts = np.cumsum([0, *rows[:-1]]).tolist()
    parts = [evaluate_shard(folder, i, first) for i, first in enumerate(firsts)]
    while len(parts) > 1:
        parts = [merge(parts[i : i + 2]) for i in range(0, len(parts), 2)]
    return parts[0].compute(scheduler="threads").result()


def figures(result: crossent.EvaluationResult) -> str:
    """Every figure, to the last bit."""
    document = result.as_dict()
    del document["files"]
    return json.dumps(document, sort_keys=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spread = evaluate_with_dask(folder, save_shards(folder))
        alone = crossent.evaluate(str(folder / "logits-*.npy"), str(folder / "targets-*.npy"))
    print(f"Dask, {SHARDS} shards   loss {spread.loss!r} +- {spread.loss_standard_error!r}")
    print(f"one process      loss {alone.loss!r} +- {alone.loss_standard_error!r}")
    print("the same bits in every figure:", figures(spread) == figures(alone))


if __name__ == "__main__":
    main()

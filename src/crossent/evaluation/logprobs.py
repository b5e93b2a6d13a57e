"""Log-probabilities of the truth, for those who have no logits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crossent.evaluation.errors import LOGPROBS, OTHER_LOGITS, BadRow
from crossent.evaluation.rows import (
    Array,
    HardRow,
    RowScores,
    Workspace,
    as_float,
    as_float64,
    hardest_rows,
)
from crossent.evaluation.scorer import Block, check_row_weight

SLIGHTLY_POSITIVE = 0.01  # what rounding may leave of a log-probability of 0


def score_logprobs(
    block: Block, workspace: Workspace, *, skip_bad: bool, hardest: int, floor: float
) -> RowScores:
    """The scores of a block whose logits are natural log-probabilities of the truth, (N,)."""
    first_row, row_weight = block.first_row, block.row_weight
    check_row_weight(row_weight, first_row)
    nll = nll_of(block.logits, block.is_bfloat16, workspace, "logits")
    kept: NDArray[np.bool_] = np.ones(len(nll), np.bool_)
    if row_weight is not None:
        kept = row_weight != 0
    bad = kept & ~(nll >= -SLIGHTLY_POSITIVE)
    if bad.any() and not skip_bad:
        refuse(block, nll, bad, LOGPROBS)
    weight = None if row_weight is None else as_float64(row_weight)
    scores = RowScores(
        nll, nll, row_weight=weight, like_logprobs=False, like_probs=False,
        ignored=int(np.count_nonzero(~kept)), bad_logits=int(np.count_nonzero(bad)),
        first_bad_row=first_row + int(np.argmax(bad)) if bad.any() else None,
    )  # fmt: skip
    kept = kept & ~bad
    if block.other is not None:
        other = nll_of(block.other, block.other_is_bfloat16, workspace, "other")
        bad = kept & ~(other >= -SLIGHTLY_POSITIVE)
        if bad.any():
            refuse(block, other, bad, OTHER_LOGITS)
        with np.errstate(invalid="ignore"):
            scores.difference = nll - other
    rows = hardest_rows(nll, kept, floor, hardest)
    scores.hardest = [HardRow(first_row + int(i), None, float(nll[i])) for i in rows]
    scores.keep(kept)
    return scores


def nll_of(logprobs: Array, is_bfloat16: bool, workspace: Workspace, name: str) -> Array:
    """-logprobs, float64."""
    return -as_float(logprobs, is_bfloat16, workspace, name).astype(np.float64) + 0.0


def refuse(block: Block, nll: Array, bad: Array, source: str) -> None:
    """Raises BadRow for the first bad row."""
    i = int(np.argmax(bad))
    reason = f"is {-nll[i]:g}; a natural log-probability is at most 0"
    raise BadRow(block.first_row + i, reason, source)

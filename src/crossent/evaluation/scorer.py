"""Blocks of rows to ``RowScores``: one call of the core for loss and p - y, then a few passes.

N rows of the block, C classes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossent import _arguments as arguments
from crossent import _core
from crossent.evaluation.errors import BadRow, Source
from crossent.evaluation.exact_sum import ExactSum
from crossent.evaluation.rows import (
    Array,
    Block,
    Findings,
    HardRow,
    LossOptions,
    RowScores,
    Workspace,
    as_float,
    largest,
    ones_or,
    scaled,
)
from crossent.loss import cross_entropy
from crossent.options import Options
from crossent.softmax import softmax

Mask = NDArray[np.bool_]

SHOWN_CLASSES = 5  # whose probabilities are kept of a hard row
SURELY_RIGHT = 0.69  # a loss below ln 2: the truth has more than half of the probability
SLIGHTLY_POSITIVE = 0.01  # what rounding may leave of a log-probability of 0
NO_LOSS = "has no loss: it holds nan or +inf, or is all -inf"

# How far a sum of probabilities may be from 1, or a logsumexp from 0, by rounding alone.
NEAR = {"float64": 1e-6, "float32": 1e-3, "float16": 1e-2, "bfloat16": 5e-2}


class Labels(NamedTuple):
    """One class a row: what the targets say, or where distributions are largest."""

    label: NDArray[np.int64]  # 0 where the row is not kept
    kept: Mask  # neither ignored nor of weight 0
    bad: Mask  # kept, but no class
    targets: Array  # as the core takes them
    share: Array | None  # the distributions; None where targets are indices


def read_labels(block: Block, classes: int, options: Options) -> Labels:
    """The labels of a block."""
    targets = block.targets
    assert targets is not None
    share, bad = None, np.zeros(len(targets), np.bool_)
    if targets.ndim == 2:
        share, label, kept = targets, np.argmax(targets, axis=1), ~bad
    else:
        verdict = np.empty(len(targets), np.uint8)
        _core.judge(options, classes, targets, verdict=verdict)
        kept, bad = verdict != _core.Verdict.IGNORED, verdict == _core.Verdict.BAD
        # A copy: the targets' memory is used again.
        targets = label = np.where(kept & ~bad, targets, 0).astype(np.int64)
    if block.row_weight is not None:
        kept = kept & (block.row_weight != 0)
    return Labels(label, kept, bad & kept, targets, share)


class RowScorer:
    """Scores blocks under fixed options. Holds no data, so any number of threads may use it.

    ``classes`` None: the blocks hold log-probabilities of the truth.
    """

    def __init__(
        self, classes: int | None, loss: LossOptions, *, skip_bad: bool, hardest: int
    ) -> None:
        self.classes, self.loss = classes, loss
        self.skip_bad, self.hardest = skip_bad, hardest

    def score(
        self, block: Block, workspace: Workspace, floor: float = -np.inf, *, look: bool = True
    ) -> RowScores:
        """The scores of a block.

        Args:
            block: the rows.
            workspace: memory for what is between.
            floor: rows with a smaller loss are not among the hardest.
            look: whether the rows before, or those of another model, could be log-probabilities
                or probabilities.

        Raises:
            BadRow: a row weight is none; another model's row has no loss; a row has no loss and
                ``skip_bad`` is off.
        """
        check_row_weight(block)
        if self.classes is None:
            return self._score_logprobs(block, workspace, floor)
        # 1. Losses, and what the model answered.
        labels = read_labels(block, self.classes, self.loss.others)
        logits = as_float(block.logits, workspace, "logits")
        u = scaled(logits, self.loss, workspace, "logits")
        of_rows = self._answers(u, labels)
        if self.loss.is_scaled:  # the core carries the error of u; an array of u cannot
            of_rows["nll"] = losses_of_rows(logits, labels.targets, self.loss.scaling())
        if not self.loss.is_plain:
            of_rows["loss"] = losses_of_rows(logits, labels.targets, self.loss.row_arguments())
        if self.loss.weight is not None and labels.share is None:
            of_rows["divisor"] = self.loss.weight.astype(np.float64)[labels.label]
        # 2. Rows that cannot count.
        telling = ("nll", "loss", "confidence")  # the last: scaled logits that are no number
        has_nan = np.any([np.isnan(of_rows[name]) for name in telling if name in of_rows], axis=0)
        unsound = labels.kept & ~labels.bad & has_nan
        bad = labels.bad | unsound
        if bad.any() and not self.skip_bad:
            refuse(block, u, labels, int(np.argmax(bad)))
        kept = labels.kept & ~bad
        # 3. What the rows that count add.
        if block.other is not None:
            self._compare(of_rows, block, block.other, labels, kept, workspace)
        scores = scores_of(block, of_rows, labels.kept, labels.bad, unsound)
        if labels.share is not None:
            scores.found.target_sums = ExactSum(self.classes)
            shares = labels.share[kept].astype(np.float64)
            if block.row_weight is not None:
                shares *= block.row_weight[kept, None]
            scores.found.target_sums.add(shares)
        if look and kept.any():
            self._look(scores.found, block, of_rows["nll"], u, labels, kept)
        for i in self._hardest_rows(of_rows["nll"], kept, floor):
            row, label = block.first_row + i, int(labels.label[i])
            scores.found.hardest.append(hard_row(row, label, float(of_rows["nll"][i]), u[i]))
        return scores

    def _score_logprobs(self, block: Block, workspace: Workspace, floor: float) -> RowScores:
        """The scores of natural log-probabilities of the truth, (N,)."""
        nll = nll_of(block.logits, workspace, "logits")
        kept = ones_or(block.row_weight, len(nll)) != 0
        bad = kept & ~(nll >= -SLIGHTLY_POSITIVE)
        if not self.skip_bad:
            refuse_logprobs(block, nll, bad, Source.LOGPROBS)
        of_rows = {"nll": nll}
        if block.other is not None:
            other = nll_of(block.other, workspace, "other")
            other_bad = kept & ~bad & ~(other >= -SLIGHTLY_POSITIVE)
            refuse_logprobs(block, other, other_bad, Source.OTHER_LOGITS)
            with np.errstate(invalid="ignore"):
                of_rows["difference"] = nll - other
        scores = scores_of(block, of_rows, kept, np.zeros_like(bad), bad)
        for i in self._hardest_rows(nll, kept & ~bad, floor):
            scores.found.hardest.append(HardRow(block.first_row + i, None, float(nll[i])))
        return scores

    def _answers(self, u: Array, labels: Labels) -> dict[str, Array]:
        """Each row's -log p, and its answer. Brier is |p - y|^2: nothing cancels in it."""
        label, rows = labels.label, len(u)
        nll, near = np.empty(rows, u.dtype), np.empty(rows, u.dtype)
        rank, predicted = np.empty(rows, np.int64), np.empty(rows, np.int64)
        brier = np.empty(rows)
        of_indices = labels.share is None
        surely_right = SURELY_RIGHT if of_indices and not self.loss.is_scaled else 0.0
        _core.standings(u, labels.targets, label, nll, rank, predicted, near, brier, surely_right)
        share: Array = predicted == label
        if labels.share is not None:
            share = np.take_along_axis(labels.share, predicted[:, None], 1)[:, 0]
        confidence = np.clip(near.astype(np.float64) + share, 0.0, 1.0)  # p = (p - y) + y
        return {
            "nll": nll, "label": label, "predicted": predicted, "rank": rank,
            "confidence": confidence, "brier": brier,
        }  # fmt: skip

    def _compare(
        self, of_rows: dict[str, Array], block: Block, other: Array, labels: Labels, kept: Mask,
        workspace: Workspace,
    ) -> None:  # fmt: skip
        """Adds the difference to another model's loss of the same row."""
        other = as_float(other, workspace, "other")
        loss = losses_of_rows(other, labels.targets, self.loss.row_arguments()).astype(np.float64)
        bad = np.isnan(loss) & kept
        if bad.any():
            raise BadRow(block.first_row + int(np.argmax(bad)), NO_LOSS, Source.OTHER_LOGITS)
        with np.errstate(invalid="ignore"):  # inf - inf: both gave the truth no chance
            of_rows["difference"] = of_rows.get("loss", of_rows["nll"]).astype(np.float64) - loss
        order = scaled(other, self.loss, workspace, "other")
        of_rows["other_correct"] = np.argmax(order, axis=1) == labels.label

    def _look(
        self, found: Findings, block: Block, nll: Array, u: Array, labels: Labels, kept: Mask
    ) -> None:
        """Whether every row could be log-probabilities (logsumexp 0) or probabilities (sum 1)."""
        found.not_logprobs = found.not_probs = found.other_not_probs = 1
        if self.loss.is_scaled:
            return
        near = NEAR[block.type_name]
        if labels.share is None:
            of_label = u[np.arange(len(u)), labels.label]
            telling = kept & np.isfinite(of_label)
            lse = nll[telling] + of_label[telling]
            found.not_logprobs = int(not (np.abs(lse) <= near).all())
        found.not_probs = int(not are_probs(u, kept, near))
        if block.other is not None:  # its type may be bfloat16, as the block no longer tells
            found.other_not_probs = int(not are_probs(block.other, kept, NEAR["bfloat16"]))

    def _hardest_rows(self, nll: Array, kept: Mask, floor: float) -> list[int]:
        """Which kept rows have the largest losses, none below ``floor``; of equals the earlier."""
        rows = np.flatnonzero(kept & (nll >= floor))
        return [int(i) for i in rows[np.lexsort((rows, -nll[rows]))[: self.hardest]]]


def are_probs(u: Array, kept: Mask, near: float) -> bool:
    """Whether every kept row is >= 0 and sums to 1; most rows that are not tell by the first."""
    first = u[int(np.argmax(kept))]
    if not (first.min() >= 0 and abs(float(first.sum(dtype=np.float64)) - 1) <= near):
        return False
    rows = u[kept]
    sums = rows.sum(axis=1, dtype=np.float64)
    return bool(rows.min() >= 0 and (np.abs(sums - 1) <= near).all())


def hard_row(row: int, label: int, loss: float, u: Array) -> HardRow:
    """A row with its most probable classes."""
    probs = softmax(u)
    shown = largest(probs, SHOWN_CLASSES)
    return HardRow(row, label, loss, tuple(shown), tuple(float(probs[k]) for k in shown))


def losses_of_rows(logits: Array, targets: Array, options: dict[str, Any]) -> Array:
    """(N,), the loss of every row under some of the options."""
    losses: Array = cross_entropy(logits, targets, reduction="none", **options)
    return losses


def scores_of(
    block: Block, of_rows: dict[str, Array], kept: Mask, bad_labels: Mask, unsound: Mask
) -> RowScores:
    """The figures of the rows that count, and how many do not."""
    if block.row_weight is not None:
        of_rows = of_rows | {"row_weight": block.row_weight.astype(np.float64)}
    bad = bad_labels | unsound
    counting = kept & ~bad
    if not counting.all():
        of_rows = {name: array[counting] for name, array in of_rows.items()}
    found = Findings(
        ignored=int(np.count_nonzero(~kept)),
        bad_labels=int(np.count_nonzero(bad_labels)),
        bad_logits=int(np.count_nonzero(unsound)),
        first_bad_row=block.first_row + int(np.argmax(bad)) if bad.any() else None,
    )
    return RowScores(of_rows, found)


def nll_of(logprobs: Array, workspace: Workspace, name: str) -> Array:
    """-logprobs, float64."""
    return -as_float(logprobs, workspace, name).astype(np.float64) + 0.0


def check_row_weight(block: Block) -> None:
    """Raises BadRow for the first weight that is negative or not finite."""
    row_weight = block.row_weight
    if row_weight is None or row_weight.dtype.kind in "bu":
        return
    bad = ~(np.isfinite(row_weight) & (row_weight >= 0))
    if bad.any():
        i = int(np.argmax(bad))
        reason = f"has weight {row_weight[i]}; weights are finite and >= 0"
        raise BadRow(block.first_row + i, reason, Source.ROW_WEIGHTS)


def refuse(block: Block, u: Array, labels: Labels, i: int) -> None:
    """Raises BadRow for row i of the block, which has no loss."""
    row = block.first_row + i
    if labels.bad[i]:
        assert block.targets is not None
        label, classes = block.targets[i], u.shape[1]
        fit = f"labels are 0 .. {classes - 1}"
        if classes == 1:
            fit = f"the only class is 0. {arguments.stack_scores('N')}"
        elif label == classes:
            fit += " (do yours start at 1?)"
        raise BadRow(row, f"has label {label}; {fit}", Source.TARGETS)
    if np.isnan(u[i]).any() or u[i].max() in (np.inf, -np.inf):
        raise BadRow(row, NO_LOSS, Source.LOGITS)
    raise BadRow(row, "has no loss: it holds nan", Source.TARGETS)


def refuse_logprobs(block: Block, nll: Array, bad: Mask, source: Source) -> None:
    """Raises BadRow for the first bad row, if there is one."""
    if bad.any():
        i = int(np.argmax(bad))
        reason = f"is {-nll[i]:g}; a natural log-probability is at most 0"
        raise BadRow(block.first_row + i, reason, source)

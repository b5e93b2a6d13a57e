"""Blocks of logits to ``RowScores``: one call of the core for loss and p - y, then a few passes.

N rows of the block, C classes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import crossent
from crossent import _core
from crossent.evaluation.errors import LOGITS, OTHER_LOGITS, ROW_WEIGHTS, TARGETS, BadRow
from crossent.evaluation.exact_sum import ExactSum
from crossent.evaluation.options import LossOptions
from crossent.evaluation.rows import (
    Answers,
    HardRow,
    RowScores,
    Workspace,
    as_float,
    as_float64,
    hardest_rows,
    largest,
    scaled,
)

Array = NDArray[Any]

SHOWN_CLASSES = 5  # whose probabilities are kept of a hard row
SURELY_RIGHT = 0.69  # a loss below ln 2: the truth has more than half of the probability

# How far a sum of probabilities may be from 1, or a logsumexp from 0, by rounding alone.
NEAR = {"float64": 1e-6, "float32": 1e-3, "float16": 1e-2, "bfloat16": 5e-2}


class Block(NamedTuple):
    """Some rows of the data; logits (N, C) of any floating type, bfloat16 also as uint16 bits."""

    first_row: int
    logits: Array
    targets: Array  # (N,) class indices or (N, C) distributions
    row_weight: Array | None = None  # (N,)
    other: Array | None = None  # another model's logits, (N, C)
    is_bfloat16: bool = False
    other_is_bfloat16: bool = False


class Labels(NamedTuple):
    """One class a row: what the targets say, or where distributions are largest."""

    label: NDArray[np.int64]  # 0 where the row is not kept
    kept: NDArray[np.bool_]  # neither ignored nor of weight 0
    bad: NDArray[np.bool_]  # kept, but no class
    targets: Array  # as the core takes them
    share: Array | None  # the distributions; None where targets are indices


def read_labels(block: Block, classes: int, ignore_index: int) -> Labels:
    """The labels of a block. Values are compared as they are, before any cast."""
    targets = block.targets
    none_bad = np.zeros(len(targets), np.bool_)
    if targets.ndim == 2:
        if targets.dtype.kind == "V":  # bfloat16, which buffers cannot name
            targets = targets.astype(np.float32)
        label = np.argmax(targets, axis=1)
        kept, bad = np.ones(len(targets), np.bool_), none_bad
        share = targets
    else:
        share = None
        kept = targets != ignore_index
        bad = none_bad
        if len(targets) and (targets.min() < 0 or targets.max() >= classes):
            bad = kept & ((targets < 0) | (targets >= classes))
        label = targets.astype(np.int64)  # a copy: the targets' memory is used again
        if bad.any() or not kept.all():
            label = np.where(kept & ~bad, label, 0)
        targets = label
    if block.row_weight is not None:
        kept = kept & (block.row_weight != 0)
        bad = bad & kept
    return Labels(label, kept, bad, targets, share)


class RowScorer:
    """Scores blocks under fixed options. Holds no data, so any number of threads may use it."""

    def __init__(self, classes: int, options: LossOptions, *, skip_bad: bool, hardest: int) -> None:
        self.classes, self.options = classes, options
        self.skip_bad, self.hardest = skip_bad, hardest

    def score(
        self, block: Block, workspace: Workspace, floor: float = -np.inf, *, look: bool = True
    ) -> RowScores:
        """The scores of a block.

        Args:
            block: the rows.
            workspace: memory for what is between.
            floor: rows with a smaller loss are not among the hardest.
            look: whether the rows before could be log-probabilities or probabilities.
        """
        # 1. Losses, and what the model answered.
        check_row_weight(block.row_weight, block.first_row)
        labels = read_labels(block, self.classes, self.options.ignore_index)
        logits = as_float(block.logits, block.is_bfloat16, workspace, "logits")
        u = logits
        if self.options.is_scaled:
            u = scaled(logits, self.options, workspace, "logits")
        nll, answers = self._judge(u, labels)
        if self.options.is_scaled:  # the core carries the error of u; an array of u cannot
            nll = self._loss(logits, labels, **self.options.scaling())
        loss = (
            nll if self.options.is_plain else self._loss(logits, labels, **self.options.of_rows())
        )
        # 2. Rows that cannot count.
        unsound = labels.kept & ~labels.bad & (np.isnan(nll) | np.isnan(loss))
        bad = labels.bad | unsound
        if bad.any() and not self.skip_bad:
            self._refuse(block, labels, u, int(np.argmax(bad)))
        kept = labels.kept & ~bad
        # 3. What the rows that count add.
        weight = None if block.row_weight is None else as_float64(block.row_weight)
        scores = RowScores(
            nll, loss, row_weight=weight, answers=answers,
            ignored=int(np.count_nonzero(~labels.kept)),
            bad_labels=int(np.count_nonzero(labels.bad)),
            bad_logits=int(np.count_nonzero(unsound)),
            first_bad_row=block.first_row + int(np.argmax(bad)) if bad.any() else None,
        )  # fmt: skip
        if self.options.weight is not None and labels.share is None:
            scores.divisor = np.asarray(self.options.weight, np.float64)[labels.label]
        if labels.share is not None:
            scores.target_sums = ExactSum(self.classes)
            shares = as_float64(labels.share[kept])
            scores.target_sums.add_rows(shares if weight is None else shares * weight[kept, None])
        if block.other is not None:
            self._compare(scores, block, labels, kept, workspace)
        scores.like_logprobs = scores.like_probs = look
        if look and kept.any():
            self._look(scores, block, u, labels, kept)
        scores.hardest = self._hardest(scores.nll, labels.label, block.first_row, u, kept, floor)
        scores.keep(kept)
        return scores

    def _loss(self, logits: Array, labels: Labels, **options: Any) -> Array:
        losses: Array = crossent.cross_entropy(logits, labels.targets, reduction="none", **options)
        return losses

    def _refuse(self, block: Block, labels: Labels, u: Array, i: int) -> None:
        row = block.first_row + i
        if labels.bad[i]:
            reason = f"has label {block.targets[i]}; labels are 0 .. {self.classes - 1}"
            if block.targets[i] == self.classes:
                reason += " (do yours start at 1?)"
            raise BadRow(row, reason, TARGETS)
        if np.isnan(u[i]).any() or u[i].max() in (np.inf, -np.inf):
            raise BadRow(row, "has no loss: it holds nan or +inf, or is all -inf", LOGITS)
        raise BadRow(row, "has no loss: it holds nan", TARGETS)

    def _judge(self, u: Array, labels: Labels) -> tuple[Array, Answers]:
        """Each row's -log p, and its answer. Brier is |p - y|^2: nothing cancels in it."""
        label, rows = labels.label, len(u)
        nll, near = np.empty(rows, u.dtype), np.empty(rows, u.dtype)
        rank, predicted = np.empty(rows, np.int64), np.empty(rows, np.int64)
        brier = np.empty(rows)
        of_indices = labels.share is None
        surely_right = SURELY_RIGHT if of_indices and not self.options.is_scaled else 0.0
        _core.standings(u, labels.targets, label, nll, rank, predicted, near, brier, surely_right)
        share: Array = predicted == label
        if labels.share is not None:
            share = np.take_along_axis(labels.share, predicted[:, None], 1)[:, 0]
        confidence = np.clip(as_float64(near) + share, 0.0, 1.0)  # p = (p - y) + y
        return nll, Answers(label, predicted, rank, confidence, brier)

    def _compare(
        self, scores: RowScores, block: Block, labels: Labels, kept: Array, workspace: Workspace
    ) -> None:
        """The difference to another model's loss of the same row."""
        assert block.other is not None
        other = as_float(block.other, block.other_is_bfloat16, workspace, "other")
        loss = self._loss(other, labels, **self.options.of_rows()).astype(np.float64)
        if np.isnan(loss[kept]).any():
            i = int(np.argmax(np.isnan(loss) & kept))
            reason = "has no loss: it holds nan or +inf, or is all -inf"
            raise BadRow(block.first_row + i, reason, OTHER_LOGITS)
        with np.errstate(invalid="ignore"):  # inf - inf: both gave the truth no chance
            scores.difference = scores.loss.astype(np.float64) - loss
        order = other
        if self.options.is_scaled:
            order = scaled(other, self.options, workspace, "other")
        assert scores.answers is not None
        scores.answers.other_correct = np.argmax(order, axis=1) == labels.label

    def _look(self, scores: RowScores, block: Block, u: Array, labels: Labels, kept: Array) -> None:
        """Whether every row could be log-probabilities (logsumexp 0) or probabilities (sum 1)."""
        scores.like_logprobs = scores.like_probs = False
        if self.options.is_scaled:
            return
        near = NEAR["bfloat16" if block.is_bfloat16 else block.logits.dtype.name]
        if labels.share is None:
            of_label = u[np.arange(len(u)), labels.label]
            telling = kept & np.isfinite(of_label)
            lse = scores.nll[telling] + of_label[telling]
            scores.like_logprobs = bool((np.abs(lse) <= near).all())
        first = u[int(np.argmax(kept))]
        if first.min() >= 0 and abs(float(first.sum(dtype=np.float64)) - 1) <= near:
            rows = u[kept]
            sums = rows.sum(axis=1, dtype=np.float64)
            scores.like_probs = bool(rows.min() >= 0 and (np.abs(sums - 1) <= near).all())

    def _hardest(
        self, nll: Array, label: Array, first_row: int, u: Array, kept: Array, floor: float
    ) -> list[HardRow]:
        """The rows with the largest loss, with their most probable classes."""
        rows = hardest_rows(nll, kept, floor, self.hardest)
        found = []
        for i in rows:
            probs = crossent.softmax(u[i])
            classes = largest(probs, SHOWN_CLASSES)
            found.append(
                HardRow(
                    first_row + int(i), int(label[i]), float(nll[i]),
                    tuple(classes), tuple(float(probs[k]) for k in classes),
                )
            )  # fmt: skip
        return found


def check_row_weight(row_weight: Array | None, first_row: int) -> None:
    """Raises BadRow for the first weight that is negative or not finite."""
    if row_weight is None or row_weight.dtype.kind in "bu":
        return
    bad = ~(np.isfinite(row_weight) & (row_weight >= 0))
    if bad.any():
        i = int(np.argmax(bad))
        reason = f"has weight {row_weight[i]}; weights are finite and >= 0"
        raise BadRow(first_row + i, reason, ROW_WEIGHTS)

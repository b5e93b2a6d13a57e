"""Evaluation of saved outputs: from files of any size to loss, gradient and a verdict."""

from crossent.evaluation.accumulator import EvaluationAccumulator
from crossent.evaluation.evaluator import evaluate
from crossent.evaluation.result import EvaluationResult

__all__ = ["EvaluationAccumulator", "EvaluationResult", "evaluate"]

"""Softmax cross-entropy for PyTorch: drop-in for PyTorch's own, exact, fast and frugal.

>>> import torch, crossent.torch
>>> logits = torch.tensor([[2.0, 1.0, 0.1]], requires_grad=True)
>>> crossent.torch.cross_entropy(logits, torch.tensor([1])).backward()
>>> print(logits.grad.numpy().round(3))
[[ 0.659 -0.758  0.099]]
"""

from crossent.torch import _ops as _ops
from crossent.torch.linear import linear_cross_entropy, linear_token_scores
from crossent.torch.loss import TokenScores, cross_entropy, token_scores
from crossent.torch.modules import CrossEntropyLoss, LinearCrossEntropyLoss

__all__ = [
    "CrossEntropyLoss",
    "LinearCrossEntropyLoss",
    "TokenScores",
    "cross_entropy",
    "linear_cross_entropy",
    "linear_token_scores",
    "token_scores",
]

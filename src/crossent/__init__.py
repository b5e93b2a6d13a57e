"""Softmax cross-entropy and its gradient: exact, fast, frugal, and explained.

>>> import crossent
>>> loss, grad = crossent.cross_entropy_and_grad([[2.0, 1.0, 0.1]], [1])
>>> print("%.3f" % loss, grad.round(3))
1.417 [[ 0.659 -0.758  0.099]]
"""

from importlib.metadata import version as _version
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from crossent.course import CrossEntropyLoss
from crossent.linear import (
    LinearGradients,
    linear_cross_entropy,
    linear_cross_entropy_and_grad,
    linear_token_scores,
)
from crossent.loss import (
    TokenScores,
    cross_entropy,
    cross_entropy_and_grad,
    cross_entropy_hvp,
    token_scores,
)
from crossent.settings import (
    available_isas,
    get_num_threads,
    get_working_memory,
    isa,
    set_num_threads,
    set_working_memory,
)
from crossent.softmax import (
    grad_wrt_probabilities,
    log_softmax,
    log_softmax_jacobian,
    logsumexp,
    softmax,
    softmax_jacobian,
    softmax_jvp,
)

if _TYPE_CHECKING:
    from crossent.evaluation import EvaluationAccumulator, EvaluationResult, evaluate

__version__ = _version("crossent")

__all__ = [
    "CrossEntropyLoss",
    "EvaluationAccumulator",
    "EvaluationResult",
    "LinearGradients",
    "TokenScores",
    "available_isas",
    "cross_entropy",
    "cross_entropy_and_grad",
    "cross_entropy_hvp",
    "evaluate",
    "get_num_threads",
    "get_working_memory",
    "grad_wrt_probabilities",
    "isa",
    "linear_cross_entropy",
    "linear_cross_entropy_and_grad",
    "linear_token_scores",
    "log_softmax",
    "log_softmax_jacobian",
    "logsumexp",
    "set_num_threads",
    "set_working_memory",
    "softmax",
    "softmax_jacobian",
    "softmax_jvp",
    "token_scores",
]


def __getattr__(name: str) -> _Any:
    """What reads files is imported when it is first asked for: ``import crossent`` stays light."""
    if name in ("EvaluationAccumulator", "EvaluationResult", "evaluate"):
        from crossent import evaluation

        return getattr(evaluation, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""The compiled core: arrays and options in, outcome out. It has no rules and no messages.

Source: csrc/bind. What each thing means is said in csrc/core/crossent.h.
"""

import enum
from typing import Any, NamedTuple, TypedDict

from numpy.typing import NDArray

from crossent.options import Options

Array = NDArray[Any]

class Output(enum.Enum):
    """What is computed."""

    LOSS = ...  # and, where it is wanted, the gradient
    SOFTMAX = ...
    LOG_SOFTMAX = ...
    SCORES = ...  # nll, lse, entropy, argmax, each where it is wanted
    PRODUCT = ...  # of the Hessian with a vector

class Type(enum.IntEnum):
    """Types of numbers, by the names that NumPy and PyTorch give them."""

    float64 = ...
    float32 = ...
    float16 = ...
    bfloat16 = ...
    int64 = ...
    int32 = ...
    int16 = ...
    int8 = ...
    uint64 = ...
    uint32 = ...
    uint16 = ...
    uint8 = ...
    bool = ...

class Verdict(enum.IntEnum):
    """What a row's index target is."""

    IGNORED = ...
    KEPT = ...
    BAD = ...  # neither ignored nor a class

# An array: a buffer of any strides; one whose bytes are of another type of their size (bfloat16);
# or memory that the caller keeps alive: (address, type, strides in elements[, shape]).
Operand = (
    Array
    | tuple[Array, Type]
    | tuple[int, Type, tuple[int, ...]]
    | tuple[int, Type, tuple[int, ...], tuple[int, ...]]
)

class Judgement(NamedTuple):
    """What targets mean before anything is computed."""

    bad_row: int  # the first, or -1
    divisor: float  # of the sum of the losses; 0 where nothing counts in the mean

class Outcome(NamedTuple):
    """What a solution says beside what it writes."""

    sum: float  # of the losses
    bad_row: int  # not -1: nothing was written
    empty: bool  # nothing counts in the mean; under when_empty "raise" nothing was written

option_names: tuple[str, ...]  # of an Options, in order

def judge(
    options: Options | None,  # None: no index is ignored
    classes: int,
    targets: Operand,  # an address comes with its shape
    axis: int | None = None,  # of the classes, where targets are distributions
    *,
    weight: Operand | None = None,  # C contiguous float64
    verdict: Operand | None = None,  # output, uint8, of the shape of index targets
) -> Judgement:
    """What targets mean: the one place to ask."""

class Operands(TypedDict, total=False):
    """The arrays of a problem beside logits and targets: those that it has."""

    weight: Operand | None  # C contiguous float64
    grad_loss: float | Operand | None  # the incoming gradient: a number, or one a row
    vector: Operand | None  # of the Hessian's product
    loss: Operand | None  # output: one number, or under "none" one a row
    grad: Operand | None  # output, of the logits' shape
    lse: Operand | None  # output
    entropy: Operand | None  # output
    argmax: Operand | None  # output, int64

def solve(
    output: Output,
    options: Options | None,
    axis: int,  # of the classes, not negative
    logits: Operand,  # an address comes with its shape, and is worked on by PyTorch's threads
    targets: Operand | None,  # class indices; distributions where they have the class axis
    operands: dict[str, Any],  # see Operands
    divisor: float | None = None,  # targets have been judged, and this divides; None: judge first
) -> Outcome:
    """Computes `output` into the arrays that are given."""

def use_torch_threads(path: str) -> bool:
    """Whether tensors are worked on by PyTorch's threads from here on; path: of libtorch_cpu."""

def advise_huge_pages(address: int, bytes: int) -> None:
    """Asks for huge pages under fresh memory."""

def isa() -> str: ...
def available_isas() -> list[str]: ...
def select_isa(name: str, /) -> bool: ...
def get_num_threads() -> int: ...
def set_num_threads(count: int, /) -> None: ...
def standings(
    logits: Array,  # (N, C) float32 or float64, contiguous
    targets: Array,  # (N,) class indices, or (N, C) distributions of any type
    label: Array,  # (N,) int64, each a class
    loss: Array,  # output, of the logits' type: -log p of the target
    rank: Array,  # output, int64: of the label; 1 is the largest logit, ties in class order
    answer: Array,  # output, int64: the first largest logit
    near: Array,  # output, of the logits' type: p - y of the answer
    squares: Array,  # output, float64: sum_k (p_k - y_k)^2
    surely_right: float,  # rows of a smaller loss are not looked at: rank 1, answered right
) -> None:
    """What an evaluation asks of each row. p - y is never held for more than a few rows."""

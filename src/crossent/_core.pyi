"""The compiled core: buffers in, buffers out. Rules, defaults and messages are in _arguments.py."""

from typing import Any

Tensor = tuple[int, int, tuple[int, ...]]

def compute(
    output: int,  # 0 loss (and gradient), 1 softmax, 2 log_softmax, 3 scores, 4 Hessian product
    form: int,  # of the targets: 0 none, 1 indices, 2 distributions
    axis: int,  # of the classes, not negative
    bfloat16: int,  # bits: uint16 buffers that are bfloat16; 1 logits and grad, 2 targets, 4 vector
    logits: Any,
    targets: Any | None,
    weight: Any | None,  # C contiguous float64
    grad_loss: Any | None,  # per row
    vector: Any | None,  # of the Hessian product
    loss: Any | None,  # output, one a row; if reduced, one number: their sum / divisor
    grad: Any | None,  # output, of the logits' shape
    lse: Any | None,
    entropy: Any | None,
    argmax: Any | None,  # int64
    ignore_index: int | None,
    reduced: bool,
    mean: bool,
    normalizer: float,  # 0: the divisor is computed
    scale: float,  # multiplies the gradient
    label_smoothing: float,
    z_loss: float,
    softcap: float,  # 0: none
    logit_scale: float,
) -> tuple[float, float, int]:
    """Returns (sum of the losses, divisor, first bad row, or -1, or -2 where the divisor is 0).

    Where a row is bad or the divisor is 0, nothing has been written.
    """

def compute_tensors(
    output: int,  # as for compute, and so is all that is not described here
    form: int,
    axis: int,
    shape: tuple[int, ...],  # of the logits
    logits: Tensor,
    targets: Tensor | None,
    weight: int,  # address of C contiguous float64; 0: none
    grad_loss: Tensor | None,
    vector: Tensor | None,
    total: int,  # address of one number of the loss's type, sum / divisor; 0: not wanted
    loss: Tensor | None,
    grad: Tensor | None,
    lse: Tensor | None,
    entropy: Tensor | None,
    argmax: Tensor | None,
    ignore_index: int | None,
    mean: bool,
    normalizer: float,
    scale: float,
    label_smoothing: float,
    z_loss: float,
    softcap: float,
    logit_scale: float,
) -> tuple[float, float, int]:
    """The same for memory that the caller keeps alive, on PyTorch's threads where they are in use.

    A tensor is (address, type as in csrc/crossent.h, strides in elements).
    """

def use_torch_threads(path: str) -> bool:
    """Whether `compute_tensors` runs on PyTorch's threads from here on; path: of libtorch_cpu."""

def advise_huge_pages(address: int, bytes: int) -> None:
    """Asks for huge pages under fresh memory."""

def isa() -> str: ...
def available_isas() -> list[str]: ...
def select_isa(name: str, /) -> bool: ...
def get_num_threads() -> int: ...
def set_num_threads(count: int, /) -> None: ...
def judge_rows(
    logits: Any,  # (N, C) float32 or float64, contiguous
    targets: Any,  # (N,) class indices, or (N, C) distributions of any type
    label: Any,  # (N,) int64, each a class
    loss: Any,  # output, of the logits' type: -log p of the target
    rank: Any,  # output, int64: of the label; 1 is the largest logit, ties in class order
    answer: Any,  # output, int64: the first largest logit
    near: Any,  # output, of the logits' type: p - y of the answer
    squares: Any,  # output, float64: sum_k (p_k - y_k)^2
    surely_right: float,  # rows of a smaller loss are not looked at: rank 1, answered right
) -> None:
    """What an evaluation asks of each row. p - y is never held for more than a few rows."""

"""The compiled core: buffers in, buffers out. Rules, defaults and messages are in _arguments.py."""

from typing import Any

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
    loss: Any | None,  # outputs, one a row
    grad: Any | None,  # output, of the logits' shape
    lse: Any | None,
    entropy: Any | None,
    argmax: Any | None,  # int64
    ignore_index: int | None,
    mean: bool,
    normalizer: float,  # 0: the divisor is computed
    scale: float,  # multiplies the gradient
    label_smoothing: float,
    z_loss: float,
    softcap: float,  # 0: none
    logit_scale: float,
) -> tuple[float, float, int]:
    """Returns (sum of the losses, divisor, first bad row or -1).

    Where a row is bad or the divisor is 0, nothing has been written.
    """

def isa() -> str: ...
def available_isas() -> list[str]: ...
def select_isa(name: str, /) -> bool: ...
def get_num_threads() -> int: ...
def set_num_threads(count: int, /) -> None: ...

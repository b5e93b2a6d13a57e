"""Tensors to the core and back: addresses, strides and type codes; PyTorch's threads; huge pages.

Nothing here is seen by autograd. N rows, C classes; the class axis is 1, or 0 of a single row.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple, NoReturn

import torch

from crossent import _arguments as arguments
from crossent import _core
from crossent.options import DEFAULTS
from crossent.options import Options as CoreOptions

LOSS, SCORES, PRODUCT = _core.Output.LOSS, _core.Output.SCORES, _core.Output.PRODUCT
_TYPES = {getattr(torch, each.name): each for each in _core.Type}
_HUGE = 4 << 20  # bytes from which huge pages pay


def _libtorch() -> str:
    """The path of the library that holds PyTorch's threads."""
    name = {"darwin": "libtorch_cpu.dylib", "win32": "torch_cpu.dll"}.get(
        sys.platform, "libtorch_cpu.so"
    )
    return os.path.join(os.path.dirname(torch.__file__), "lib", name)


uses_torch_threads: bool = _core.use_torch_threads(_libtorch())


class Answer(NamedTuple):
    """What the core says beside what it writes."""

    total: float  # sum of the losses
    divisor: float  # 0 where the mean has nothing to divide by: nothing was written


class Options(NamedTuple):
    """Checked options, as the core takes them; `reduction` "mean" with normalizer 0 counts rows."""

    ignore_index: int | None = -100
    reduction: str = "mean"
    normalizer: float = 0.0
    when_empty: str = "nan"
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    softcap: float = 0.0
    logit_scale: float = 1.0


def class_axis(logits: torch.Tensor) -> int:
    """Where the classes are, as in PyTorch."""
    return 1 if logits.dim() > 1 else 0


def loss_dtype(logits: torch.Tensor) -> torch.dtype:
    """float64 for float64 logits, else float32: also for half types."""
    return torch.float64 if logits.dtype is torch.float64 else torch.float32


def described(tensor: torch.Tensor) -> tuple[int, _core.Type, tuple[int, ...]]:
    """(address, type, strides in elements): what the core knows of a tensor."""
    return tensor.data_ptr(), _TYPES[tensor.dtype], tensor.stride()


def class_weight(weight: torch.Tensor | None) -> torch.Tensor | None:
    """Class weights as the core takes them: contiguous float64, finite and >= 0."""
    if weight is None:
        return None
    weight = weight.detach().to(torch.float64).contiguous().resolve_neg()
    least, most = torch.aminmax(weight)
    if not (least.item() >= 0 and most.item() < float("inf")):
        arguments.class_weight(weight.numpy(), weight.numel())
    return weight


def fresh_like(
    logits: torch.Tensor, layout: torch.memory_format = torch.preserve_format
) -> torch.Tensor:
    """Memory for a gradient, laid out as the logits are; huge pages where it is large.

    A first write to ordinary pages takes longer than the whole computation (measured: 130 ms for
    half a gigabyte, against 25 with huge pages).
    """
    grad = torch.empty_like(logits, memory_format=layout)
    size = grad.numel() * grad.element_size()
    if size >= _HUGE:
        _core.advise_huge_pages(grad.data_ptr(), size)
    return grad


def row_losses_like(logits: torch.Tensor) -> torch.Tensor:
    """Memory for one number a row."""
    axis = class_axis(logits)
    rows = logits.shape[:axis] + logits.shape[axis + 1 :]
    return logits.new_empty(rows, dtype=loss_dtype(logits))


def run(
    output: _core.Output,
    logits: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None,
    options: Options,
    *,
    scale: float = 1.0,
    grad_loss: torch.Tensor | None = None,
    vector: torch.Tensor | None = None,
    total: torch.Tensor | None = None,
    losses: torch.Tensor | None = None,
    grad: torch.Tensor | None = None,
    lse: torch.Tensor | None = None,
    entropy: torch.Tensor | None = None,
    argmax: torch.Tensor | None = None,
) -> Answer:
    """One call of the core.

    scale or grad_loss (one number a row) multiply the gradient; total takes the reduced loss.

    Raises:
        IndexError: an index target is neither a class nor ignored; nothing was written.
    """
    core_options = CoreOptions(
        DEFAULTS["ignore_index"] if options.ignore_index is None else options.ignore_index,
        options.reduction,
        options.label_smoothing,
        options.z_loss,
        options.softcap or None,
        options.logit_scale,
        options.normalizer or None,
        options.when_empty,
    )
    outcome = _core.solve(
        output,
        core_options,
        1 if logits.dim() > 1 else 0,
        (logits.data_ptr(), _TYPES[logits.dtype], logits.stride(), logits.shape),
        described(target),
        weight=None if weight is None else described(weight),
        grad_loss=scale if grad_loss is None else described(grad_loss),
        vector=None if vector is None else described(vector),
        loss=next((described(each) for each in (total, losses) if each is not None), None),
        grad=None if grad is None else described(grad),
        lse=None if lse is None else described(lse),
        entropy=None if entropy is None else described(entropy),
        argmax=None if argmax is None else described(argmax),
    )
    if outcome.bad_row >= 0:
        raise_bad_target(outcome.bad_row, target, logits)
    return Answer(outcome.sum, outcome.divisor)


def raise_bad_target(row: int, target: torch.Tensor, logits: torch.Tensor) -> NoReturn:
    """The error for the first row whose index target is neither a class nor ignored."""
    labels = target.detach().cpu().numpy()
    axis = class_axis(logits)
    arguments.raise_bad_target(row, labels, logits, axis, "target", arguments.MOVE_CLASSES)


def loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None,
    options: Options,
    grad: torch.Tensor | None = None,
) -> torch.Tensor:
    """The loss, and into `grad` its gradient for an incoming gradient of 1."""
    if options.reduction == "none":
        losses = row_losses_like(logits)
        run(LOSS, logits, target, weight, options, losses=losses, grad=grad)
        return losses
    total = logits.new_empty((), dtype=loss_dtype(logits))
    if run(LOSS, logits, target, weight, options, total=total, grad=grad).divisor == 0:
        if options.when_empty == "raise":
            arguments.raise_empty()
        total.fill_(0.0 if options.when_empty == "zero" else float("nan"))
        if grad is not None:
            grad.zero_()
    return total


def gradient(
    output: _core.Output,
    logits: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None,
    options: Options,
    grad_loss: torch.Tensor,
    vector: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """The gradient by the logits (LOSS) or the Hessian's product with `vector` (PRODUCT).

    grad_loss: the incoming gradient, of the loss's shape. out: where it goes; None: fresh memory.
    """
    grad = fresh_like(logits) if out is None else out
    if options.reduction == "none":
        run(output, logits, target, weight, options, grad_loss=grad_loss, vector=vector, grad=grad)
    else:
        scale = grad_loss.item()
        answer = run(output, logits, target, weight, options, scale=scale, vector=vector, grad=grad)
        if answer.divisor == 0:
            grad.zero_()
    return grad


def scores(
    logits: torch.Tensor, target: torch.Tensor, options: Options
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(nll, lse, entropy, argmax) of every row."""
    nll, lse, entropy = (row_losses_like(logits) for _ in range(3))
    argmax = nll.new_empty(nll.shape, dtype=torch.int64)
    options = options._replace(reduction="none")
    run(SCORES, logits, target, None, options, losses=nll, lse=lse, entropy=entropy, argmax=argmax)
    return nll, lse, entropy, argmax

"""The core on tensors: values and gradients of whole logits, or of a linear layer by blocks.

Nothing here is seen by autograd. N rows, C classes, which are on dim 1, or 0 of a single row; of a
linear layer D features, and C classes at J positions each (J = 1 but for K-dimensional weights): a
block of its logits is (rows, C, J) to the core and (rows, C J) to the products, so that a
K-dimensional weight is one matrix. NumPy's library multiplies, which on many processors is ahead of
PyTorch's in float32; in bfloat16 PyTorch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray

from crossent import _arguments as rules
from crossent import _blocks, _core
from crossent._core import Output
from crossent._solve import mean
from crossent.options import Options
from crossent.torch import _internals
from crossent.torch._memory import INCOMING, described, fresh_like, given, number, plain

Tensor = torch.Tensor
Grads = tuple[Tensor | None, Tensor | None, Tensor | None]
NO_GRADS: Grads = (None, None, None)

_KEPT_ROW = int(_core.Verdict.KEPT)
_LOSS_TYPES = frozenset((torch.float64, torch.float32))
_NUMBERS = {dtype: torch.empty((), dtype=dtype, device="cpu") for dtype in _LOSS_TYPES}
_SUMMED = 256  # classes that are added to a float32 sum at once: PyTorch first makes a float32 copy
_KEPT = 8 << 20  # bytes that PyTorch's bfloat16 products keep from their first use on, about

uses_torch_threads: bool = _core.use_torch_threads(_internals.threads_library())


def class_axis(logits: Tensor) -> int:
    """Where the classes are, as in PyTorch."""
    return 1 if logits.dim() > 1 else 0


def loss_dtype(logits: Tensor) -> torch.dtype:
    """float64 for float64 logits, else float32: also for half types."""
    return torch.float64 if logits.dtype is torch.float64 else torch.float32


def loss_like(logits: Tensor, reduction: str) -> Tensor:
    """Memory for the loss: one number a row under "none", else one."""
    rows = rules.row_shape(logits, class_axis(logits)) if reduction == "none" else ()
    if logits.dtype in _LOSS_TYPES:
        return logits.new_empty(rows)
    return logits.new_empty(rows, dtype=torch.float32)


def class_weight(weight: Tensor | None) -> Tensor | None:
    """Class weights as the core takes them: contiguous float64, finite."""
    if weight is None:
        return None
    given("weight", weight)
    weight = plain("weight", weight.detach().to(torch.float64).contiguous())
    least, most = torch.aminmax(weight)
    if not (least.item() > -math.inf and most.item() < math.inf):
        rules.class_weight(weight.numpy(), weight.numel())  # raises
    return _internals.unwrapped(weight)


def _raise_bad_target(row: int, target: Tensor, shape: torch.Size) -> NoReturn:
    """The error for the first row whose index target is neither a class nor ignored."""
    logits = torch.empty(shape, device="meta")
    rules.raise_bad_target(row, target.numpy(), logits, class_axis(logits), rules.TENSORS)


def judge(
    options: Options,
    target: Tensor,
    shape: torch.Size,
    axis: int | None,
    weight: Tensor | None = None,
    verdict: NDArray[np.uint8] | None = None,
) -> _core.Judgement:
    """What targets mean, for logits of a shape; axis: of the classes, of distributions.

    Raises:
        IndexError: an index target is neither a class nor ignored.
    """
    classes = shape[1 if len(shape) > 1 else 0]
    targets = given("target", target)
    weights = None if weight is None else given("weight", weight := weight.contiguous())
    judgement = _core.judge(options, classes, targets, axis, weight=weights, verdict=verdict)
    if judgement.bad_row >= 0:
        _raise_bad_target(judgement.bad_row, target, shape)
    return judgement


def solve(
    output: _core.Output,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    options: Options,
    *,
    grad_loss: Tensor | None = None,
    divisor: float | None = None,
    **operands: Any,
) -> float:
    """One problem for the core, and the sum of the losses; operands: as `_core.solve` has them.

    grad_loss: the incoming gradient, of the loss's shape; None: 1.

    Raises:
        IndexError: an index target is neither a class nor ignored; nothing was written.
        ValueError: nothing counts in the mean, and when_empty is "raise"; nothing was written.
    """
    if weight is not None:
        weight = weight.contiguous()  # what hooks gave back may not be
        operands["weight"] = given("weight", weight)
    if grad_loss is not None:
        by_row = options.reduction == "none"
        operands["grad_loss"] = (given if by_row else number)(INCOMING, grad_loss)
    shape = logits.shape
    axis = 1 if len(shape) > 1 else 0
    whole = given("input", logits)
    targets = given("target", target)
    outcome = _core.solve(output, options, axis, whole, targets, operands, divisor)
    if outcome.bad_row >= 0:
        _raise_bad_target(outcome.bad_row, target, shape)
    if outcome.empty and options.when_empty == "raise":
        rules.raise_empty()
    return outcome.sum


def loss(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    options: Options,
    grad: Tensor | None = None,
) -> Tensor:
    """The loss, and into `grad` its gradient for an incoming gradient of 1."""
    if options.reduction == "none":
        result = loss_like(logits, "none")
    else:  # a third quicker
        result = torch.empty_like(_NUMBERS[loss_dtype(logits)])
    into = None if grad is None else described(grad)
    solve(Output.LOSS, logits, target, weight, options, loss=described(result), grad=into)
    return result


def gradient(
    output: _core.Output,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    options: Options,
    grad_loss: Tensor,
    vector: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """The gradient by the logits (LOSS) or the Hessian's product with `vector` (PRODUCT).

    grad_loss: the incoming gradient, of the loss's shape. out: where it goes; None: fresh memory.
    """
    if out is None or out.dtype is not logits.dtype or out.shape != logits.shape:
        out = fresh_like(logits)  # also where other data took the logits' place
    grad_loss = like_loss(grad_loss, logits.shape, options)
    _check_fits(target, logits.shape)
    along = None
    if vector is not None:
        vector = like_input(vector, logits)
        along = given("vector", vector)
    into = described(out)
    solve(output, logits, target, weight, options, grad_loss=grad_loss, vector=along, grad=into)
    return out


def like_input(vector: Tensor, logits: Tensor) -> Tensor:
    """The vector of a product with the Hessian as the core takes it; it has the logits' shape."""
    if vector.shape != logits.shape:
        raise ValueError(f"vector has shape {tuple(vector.shape)}, not the input's")
    return plain("vector", vector)


def _check_fits(target: Tensor, shape: torch.Size) -> None:
    """Raises ValueError where other data took the target's place. shape: of the logits."""
    rows = shape[:1] + shape[2:] if len(shape) > 1 else ()
    if target.shape != shape and (target.shape != rows or target.is_floating_point()):
        raise ValueError(
            f"target no longer fits an input of shape {tuple(shape)}: its data was replaced "
            "between forward and backward"
        )


def like_loss(grad_loss: Tensor, shape: torch.Size, options: Options) -> Tensor:
    """An incoming gradient as the core takes it; it has the loss's shape. shape: of the logits."""
    expected = shape[:1] + shape[2:] if len(shape) > 1 else ()
    if grad_loss.shape != (expected if options.reduction == "none" else ()):
        raise ValueError(f"{INCOMING} has shape {tuple(grad_loss.shape)}, not that of the loss")
    return plain(INCOMING, grad_loss)


def scores(
    logits: Tensor, target: Tensor, options: Options
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(nll, lse, entropy, argmax) of every row."""
    nll = loss_like(logits, "none")
    lse, entropy = torch.empty_like(nll), torch.empty_like(nll)
    argmax = torch.empty_like(nll, dtype=torch.int64)
    solve(
        Output.SCORES, logits, target, None, options, loss=described(nll), lse=described(lse),
        entropy=described(entropy), argmax=described(argmax),
    )  # fmt: skip
    return nll, lse, entropy, argmax


# A linear layer, block by block


class Layer(NamedTuple):
    """What makes the logits: (N, D), (C, ..., D) and (C, ...) or None."""

    input: Tensor
    linear_weight: Tensor
    linear_bias: Tensor | None

    @property
    def logits_shape(self) -> torch.Size:
        """(N, C, ...)."""
        return torch.Size((*self.input.shape[:1], *self.linear_weight.shape[:-1]))

    def loss_like(self, reduction: str) -> Tensor:
        """Memory for the loss: one number a row under "none", else one."""
        shape = self.logits_shape
        rows = shape[:1] + shape[2:] if reduction == "none" else ()
        return self.input.new_empty(rows, dtype=loss_dtype(self.input))

    def each(self, function: Callable[[Tensor], Tensor]) -> Layer:
        """The layer of what a function makes of each tensor."""
        return Layer(*(None if part is None else function(part) for part in self))  # type: ignore[arg-type]

    def gradients(self, wants: Sequence[bool], like: Callable[..., Tensor] = fresh_like) -> Grads:
        """Memory for the gradients that are wanted, each contiguous."""
        first, second, third = (
            like(part, memory_format=torch.contiguous_format)
            if wanted and part is not None
            else None
            for part, wanted in zip(self, wants, strict=True)
        )
        return first, second, third


class _Bfloat16Head(_blocks.Head):
    """The layer in bfloat16, by PyTorch's products: these sum in float32 and round each element.

    The logits of a block are those of PyTorch's own linear layer. Products over rows are summed in
    float32 across the blocks.
    """

    def __init__(self, layer: Layer, grads: Grads) -> None:
        self.inputs: Any = layer.input
        self.linear_weight: Any = layer.linear_weight
        self.bias: Any = layer.linear_bias
        self.grads, self.adds = _blocks.Gradients(*grads), False
        self.classes, features = layer.linear_weight.shape
        count, item = len(layer.input), layer.input.dtype.itemsize
        self.sizes = _blocks.block_sizes(count, features, self.classes, item, _KEPT)
        self.has_weight_sum = False
        if grads[1] is not None:
            several = self.sizes.rows < count
            self.weight_sum: Any = torch.empty(self.classes, features) if several else grads[1]
            self.product: Any = layer.input.new_empty(self.sizes.panel, features)
        if grads[2] is not None:
            self.bias_sum: Any = torch.zeros(self.classes)

    def empty_block(self) -> Any:
        return self.inputs.new_empty(self.sizes.rows, self.classes)

    def features(self, rows: _blocks.Selection) -> Any:
        return self.inputs[rows]

    def logits(self, features: Any, block: Any) -> Any:
        out, transposed = block[: len(features)], self.linear_weight.t()
        if self.bias is None:
            return torch.mm(features, transposed, out=out)
        return torch.addmm(self.bias, features, transposed, out=out)

    def _add_bias_gradient(self, grad_logits: Any) -> None:
        for begin in range(0, self.classes, _SUMMED):
            part = slice(begin, begin + _SUMMED)
            self.bias_sum[part] += grad_logits[:, part].sum(0, dtype=torch.float32)

    def _input_gradient(self, grad_logits: Any, rows: _blocks.Selection) -> None:
        self.grads.inputs[rows] = grad_logits @ self.linear_weight

    def _add_weight_gradient(self, grad_logits: Any, features: Any) -> None:
        for part in self._slices():
            held = self.weight_sum[part]
            product = torch.mm(grad_logits[:, part].t(), features, out=self.product[: len(held)])
            if not self.has_weight_sum:
                held.copy_(product)
                continue
            for total, share in zip(held.split(_SUMMED), product.split(_SUMMED), strict=True):
                total += share
        self.has_weight_sum = True


def _head(layer: Layer, grads: Grads) -> _blocks.Head:
    """The layer with a K-dimensional weight as one matrix; gradients are views likewise."""
    for name, tensor in layer._asdict().items():
        if tensor is not None:
            given(name, tensor)

    def flat(input: Any, weight: Any, bias: Any) -> list[Any]:
        return [
            input,
            None if weight is None else weight.flatten(0, -2),
            None if bias is None else bias.reshape(-1),
        ]

    tensors, gradients = flat(*layer), flat(*grads)
    if layer.input.dtype is torch.bfloat16:
        return _Bfloat16Head(Layer(*tensors), tuple(gradients))  # type: ignore[arg-type]
    input, linear_weight, linear_bias = (_array(tensor) for tensor in tensors)
    outputs = _blocks.Gradients(*(_array(gradient) for gradient in gradients))
    return _blocks.Head(input, linear_weight, linear_bias, outputs, False)


def _array(tensor: Any) -> Any:
    """A tensor as an array; after `tensor.numpy()` its storage could never be freed again."""
    if tensor is None:
        return None
    if torch.compiler.is_compiling():  # after a break, and it knows no np.from_dlpack
        return tensor.detach().numpy()
    return np.from_dlpack(tensor.detach())


class _JudgedTargets(NamedTuple):
    """Targets of a linear call, checked."""

    targets: Tensor  # int64 (N, ...), or distributions (N, C, ...)
    kept: NDArray[np.intp] | None  # the rows that count; None: all
    divisor: float  # of the sum of the losses; 1 unless it is a mean


def _judged(
    shape: torch.Size, target: Tensor, weight: Tensor | None, options: Options
) -> _JudgedTargets:
    if target.dim() == len(shape):
        return _JudgedTargets(target, None, judge(options, target, shape, 1).divisor)
    verdict = np.empty(target.shape, np.uint8)
    divisor = judge(options, target, shape, None, weight, verdict).divisor
    counts = verdict == _KEPT_ROW
    if counts.ndim > 1:  # a row is multiplied where one of its positions counts
        counts = counts.any(axis=tuple(range(1, counts.ndim)))
    return _JudgedTargets(target.to(torch.int64), _blocks.kept_rows(counts), divisor)


def linear_loss(
    layer: Layer,
    target: Tensor,
    weight: Tensor | None,
    options: Options,
    grads: Grads = NO_GRADS,
    grad_loss: Tensor | None = None,
) -> Tensor:
    """The loss, and into `grads` its gradients for an incoming gradient; None: 1.

    Raises:
        IndexError: an index target is neither a class nor ignored; nothing was written.
        ValueError: nothing counts in the mean, and when_empty is "raise"; nothing was written.
    """
    shape = layer.logits_shape
    if grad_loss is not None:
        grad_loss = like_loss(grad_loss, shape, options)
        _check_fits(target, shape)
        given(INCOMING, grad_loss)
    rows = _judged(shape, target, weight, options)
    if rows.divisor == 0 and options.when_empty == "raise":
        rules.raise_empty()
    none = options.reduction == "none"
    differentiates = any(grad is not None for grad in grads)
    losses = layer.loss_like(options.reduction).zero_()

    def kernel(block: Any, part: _blocks.Selection) -> float:
        logits = torch.as_tensor(block).view(-1, *shape[1:])
        values = torch.empty_like(losses[part]) if none else None
        total = solve(
            Output.LOSS, logits, rows.targets[part], weight, options, divisor=rows.divisor,
            grad_loss=grad_loss[part] if none and grad_loss is not None else grad_loss,
            loss=None if values is None else described(values),
            grad=described(logits) if differentiates else None,
        )  # fmt: skip
        if values is not None:
            losses[part] = values
        return total

    kept = rows.kept if rows.divisor else np.empty(0, np.intp)
    total = _blocks.run(_head(layer, grads), kernel, kept, differentiates)
    if none:
        return losses
    value = mean(total, rows.divisor, options)
    return losses.copy_(torch.tensor(value, dtype=torch.float64))  # infinite beyond float32


def linear_scores(
    layer: Layer, target: Tensor, options: Options
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(nll, lse, entropy, argmax) of every row."""
    shape = layer.logits_shape
    rows = _judged(shape, target, None, options)
    nll, lse, entropy = (layer.loss_like("none") for _ in range(3))
    argmax = nll.new_empty(nll.shape, dtype=torch.int64)

    def kernel(block: Any, part: _blocks.Selection) -> float:
        logits = torch.as_tensor(block).view(-1, *shape[1:])
        return solve(
            Output.SCORES, logits, rows.targets[part], None, options, divisor=rows.divisor,
            loss=described(nll[part]), lse=described(lse[part]),
            entropy=described(entropy[part]), argmax=described(argmax[part]),
        )  # fmt: skip

    _blocks.run(_head(layer, NO_GRADS), kernel, None, False)
    return nll, lse, entropy, argmax

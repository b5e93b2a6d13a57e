"""The linear form on tensors, a block of rows at a time: values and gradients, no autograd.

N rows, D features, C classes, at J positions each (J = 1 but for K-dimensional weights). A block of
logits is (rows, C, J) to the core and (rows, C J) to the products, so that a K-dimensional weight
is one matrix. NumPy's library multiplies, which on many processors is ahead of PyTorch's in
float32; in bfloat16 PyTorch's.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch

from crossent import _arguments as arguments
from crossent import _blocks
from crossent.torch import _call
from crossent.torch._call import Options

Tensor = torch.Tensor
Grads = tuple[Tensor | None, Tensor | None, Tensor | None]
NO_GRADS: Grads = (None, None, None)
_SUMMED = 256  # classes that are added to a float32 sum at once: PyTorch first makes a float32 copy
_KEPT = 8 << 20  # bytes that PyTorch's bfloat16 products keep from their first use on, about


class Layer(NamedTuple):
    """What makes the logits: (N, D), (C, ..., D) and (C, ...) or None."""

    input: Tensor
    linear_weight: Tensor
    linear_bias: Tensor | None

    @property
    def logits_shape(self) -> tuple[int, ...]:
        """(N, C, ...)."""
        return (*self.input.shape[:1], *self.linear_weight.shape[:-1])


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
        self.plan = _blocks.plan(count, features, self.classes, item, _KEPT)
        self.has_weight_sum = False
        if grads[1] is not None:
            several = self.plan.rows < count
            self.weight_sum: Any = torch.empty(self.classes, features) if several else grads[1]
            self.product: Any = layer.input.new_empty(self.plan.panel, features)
        if grads[2] is not None:
            self.bias_sum: Any = torch.zeros(self.classes)

    def empty_block(self) -> Any:
        return self.inputs.new_empty(self.plan.rows, self.classes)

    def features(self, rows: _blocks.Rows) -> Any:
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

    def _input_gradient(self, grad_logits: Any, rows: _blocks.Rows) -> None:
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
    features = layer.input.shape[-1]

    def flat(input: Any, weight: Any, bias: Any) -> list[Any]:
        return [
            input,
            None if weight is None else weight.reshape(-1, features),
            None if bias is None else bias.reshape(-1),
        ]

    tensors, gradients = flat(*layer), flat(*grads)
    if layer.input.dtype is torch.bfloat16:
        return _Bfloat16Head(Layer(*tensors), tuple(gradients))  # type: ignore[arg-type]
    input, linear_weight, linear_bias = (_array(tensor) for tensor in tensors)
    outputs = _blocks.Gradients(*(_array(gradient) for gradient in gradients))
    return _blocks.Head(input, linear_weight, linear_bias, outputs, False)


def _array(tensor: Any) -> Any:
    return None if tensor is None else tensor.numpy()


class _Rows:
    """Targets of a call, (N, ...) or (N, C, ...), and which rows count."""

    def __init__(self, shape: tuple[int, ...], target: Tensor, options: Options) -> None:
        self.target, self.options = target, options
        self.kept: Any = None
        self.indexed = target.dim() < len(shape)
        self.count = math.prod(shape[:1] + shape[2:])
        if not self.indexed:
            return
        self.labels = labels = target.numpy()
        counts: Any = np.asarray(labels != options.ignore_index)
        bad_row = arguments.bad_label(labels.reshape(-1), counts.reshape(-1), shape[1])
        if bad_row >= 0:
            _call.raise_bad_target(bad_row, target, torch.empty(shape, device="meta"))
        self.count = int(np.count_nonzero(counts))
        self.kept = _blocks.kept_rows(counts.reshape(shape[0], math.prod(shape[2:])).any(axis=1))

    def divisor(self, weight: Tensor | None) -> float:
        """What the sum of the losses is divided by: 1 unless it is a mean."""
        if self.options.reduction != "mean":
            return 1.0
        if self.options.normalizer:
            return self.options.normalizer
        if weight is None or not self.indexed:
            return float(self.count)
        kept = self.labels[self.labels != self.options.ignore_index]
        return float(weight.numpy()[kept.astype(np.intp)].sum())

    def targets(self, part: _blocks.Rows) -> Tensor:
        """Those of some rows; PyTorch cannot index every integer dtype, NumPy can."""
        return torch.from_numpy(self.labels[part]) if self.indexed else self.target[part]


def loss(
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
    """
    shape = layer.logits_shape
    rows = _Rows(shape, target, options)
    divisor = rows.divisor(weight)
    if divisor == 0 and options.when_empty == "raise":
        arguments.raise_empty()
    none = options.reduction == "none"
    differentiates = any(grad is not None for grad in grads)
    losses = layer.input.new_zeros(
        shape[:1] + shape[2:] if none else (), dtype=_call.loss_dtype(layer.input)
    )
    row_options = options if none else options._replace(reduction="mean", normalizer=divisor)
    scale = 1.0 if none or grad_loss is None else grad_loss.item()

    def kernel(block: Any, part: _blocks.Rows) -> float:
        logits = torch.as_tensor(block).view(-1, *shape[1:])
        values = torch.empty_like(losses[part]) if none else None
        answer = _call.run(
            _call.LOSS, logits, rows.targets(part), weight, row_options, losses=values, scale=scale,
            grad_loss=grad_loss[part] if none and grad_loss is not None else None,
            grad=logits if differentiates else None,
        )  # fmt: skip
        if values is not None:
            losses[part] = values
        return answer.total

    kept = rows.kept if divisor else np.empty(0, np.intp)
    total = _blocks.run(_head(layer, grads), kernel, kept, differentiates)
    if none:
        return losses
    if divisor == 0:
        return losses.fill_(0.0 if options.when_empty == "zero" else math.nan)
    return losses.fill_(total / divisor)


def scores(layer: Layer, target: Tensor, options: Options) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(nll, lse, entropy, argmax) of every row."""
    shape = layer.logits_shape
    extents = shape[:1] + shape[2:]
    rows = _Rows(shape, target, options)
    dtype = _call.loss_dtype(layer.input)
    nll, lse, entropy = (layer.input.new_empty(extents, dtype=dtype) for _ in range(3))
    argmax = nll.new_empty(extents, dtype=torch.int64)
    options = options._replace(reduction="none")

    def kernel(block: Any, part: _blocks.Rows) -> float:
        logits = torch.as_tensor(block).view(-1, *shape[1:])
        return _call.run(
            _call.SCORES, logits, rows.targets(part), None, options, losses=nll[part],
            lse=lse[part], entropy=entropy[part], argmax=argmax[part],
        ).total  # fmt: skip

    _blocks.run(_head(layer, NO_GRADS), kernel, None, False)
    return nll, lse, entropy, argmax


def fresh_gradients(layer: Layer, wants: tuple[bool, bool, bool]) -> Grads:
    """Memory for the gradients that are wanted, each contiguous."""
    first, second, third = (
        _call.fresh_like(tensor, torch.contiguous_format) if wanted and tensor is not None else None
        for tensor, wanted in zip(layer, wants, strict=True)
    )
    return first, second, third

"""The linear form on tensors, a block of rows at a time: values and gradients, no autograd.

N rows, D features, C classes, at J positions each (J = 1 but for K-dimensional weights). A block of
logits is (rows, C, J) to the core and (rows, C J) to the products, so that a K-dimensional weight
is one matrix. NumPy's library multiplies: on many processors it is ahead of PyTorch's in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from crossent import _arguments as arguments
from crossent import _core, _linear
from crossent.torch import _call
from crossent.torch._call import Options

Tensor = torch.Tensor
Grads = tuple[Tensor | None, Tensor | None, Tensor | None]
NO_GRADS: Grads = (None, None, None)


class Layer(NamedTuple):
    """What makes the logits: (N, D), (C, ..., D) and (C, ...) or None."""

    input: Tensor
    linear_weight: Tensor
    linear_bias: Tensor | None

    @property
    def logits_shape(self) -> tuple[int, ...]:
        """(N, C, ...)."""
        return (*self.input.shape[:1], *self.linear_weight.shape[:-1])


class _Bfloat16Head(_linear.Head):
    """The layer in bfloat16, which NumPy has not.

    Logits are multiplied in float32, from a panel of the weight after the other, converted: the
    loss does not see bfloat16's rounding of them. The gradients' products take bfloat16 and are
    PyTorch's, which sums in float32; what they give for each block is rounded, and summed in
    float32.
    """

    def __init__(self, layer: Layer, grads: Grads) -> None:
        bias = layer.linear_bias
        self.inputs: Any = layer.input
        self.linear_weight: Any = layer.linear_weight
        self.grads, self.adds, self.dtype = _linear.Gradients(*grads), False, np.dtype(np.float32)
        self.bias = None if bias is None else bias.float().numpy()
        self.classes, features = self.linear_weight.shape
        self.plan = _linear.plan(len(self.inputs), features, self.classes, self.dtype.itemsize)
        self.panel = torch.empty(self.plan.panel, features)
        self.has_weight_sum = False
        if grads[1] is not None:
            self.weight_sum: Any = torch.empty(self.classes, features)
            self.product: Any = torch.empty(self.plan.panel, features, dtype=torch.bfloat16)
        if grads[2] is not None:
            self.bias_sum: Any = torch.zeros(self.classes, dtype=torch.float64)

    def features(self, rows: _linear.Rows) -> Any:
        return self.inputs[rows].float().numpy()

    def _panels(self) -> Iterator[tuple[slice, Any]]:
        for part in self._slices():
            chosen = self.linear_weight[part].contiguous()
            panel = self.panel[: len(chosen)]
            _core.widen(chosen.data_ptr(), chosen.numel(), panel.data_ptr())
            yield part, panel.numpy()

    def add_gradients(self, grad_logits: Any, features: Any, rows: _linear.Rows) -> None:
        if self.grads.linear_bias is not None:
            ones = np.ones(len(grad_logits), self.dtype)
            self.bias_sum += torch.from_numpy(ones @ grad_logits)
        narrow = _narrowed(grad_logits)
        if self.grads.inputs is not None:
            self.grads.inputs[rows] = narrow @ self.linear_weight
        if self.grads.linear_weight is not None:
            self._add_weight_gradient(narrow, torch.from_numpy(features).bfloat16())

    def _add_weight_gradient(self, grad_logits: Any, features: Any) -> None:
        for part in self._slices():
            held = self.weight_sum[part]
            product = torch.mm(grad_logits[:, part].t(), features, out=self.product[: len(held)])
            if self.has_weight_sum:
                held += product
            else:
                held.copy_(product)
        self.has_weight_sum = True


def _narrowed(block: Any) -> Tensor:
    """Rows of float32 in bfloat16, in the first half of each row's memory."""
    rows, columns = block.shape
    tensor = torch.from_numpy(block)
    _core.narrow_rows(tensor.data_ptr(), rows, columns)
    return tensor.view(torch.bfloat16)[:, :columns]


def _head(layer: Layer, grads: Grads) -> _linear.Head:
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
    outputs = _linear.Gradients(*(_array(gradient) for gradient in gradients))
    return _linear.Head(input, linear_weight, linear_bias, outputs, False)


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
        self.kept = _linear.kept_rows(counts.reshape(shape[0], -1).any(axis=1))

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

    def targets(self, part: _linear.Rows) -> Tensor:
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

    def kernel(block: Any, part: _linear.Rows) -> float:
        logits = torch.from_numpy(block).view(-1, *shape[1:])
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
    total = _linear.run(_head(layer, grads), kernel, kept, differentiates)
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

    def kernel(block: Any, part: _linear.Rows) -> float:
        logits = torch.from_numpy(block).view(-1, *shape[1:])
        return _call.run(
            _call.SCORES, logits, rows.targets(part), None, options, losses=nll[part],
            lse=lse[part], entropy=entropy[part], argmax=argmax[part],
        ).total  # fmt: skip

    _linear.run(_head(layer, NO_GRADS), kernel, None, False)
    return nll, lse, entropy, argmax


def fresh_gradients(layer: Layer, wants: tuple[bool, bool, bool]) -> Grads:
    """Memory for the gradients that are wanted, each contiguous."""
    first, second, third = (
        _call.fresh_like(tensor, torch.contiguous_format) if wanted and tensor is not None else None
        for tensor, wanted in zip(layer, wants, strict=True)
    )
    return first, second, third

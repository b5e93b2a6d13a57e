"""The linear layer under the loss, a block of rows at a time: the logits never exist as a whole.

N rows, D features, V classes. Of each block, in memory that is used again for the next:

    logits         = inputs linear_weight^T + linear_bias
    G              = dloss / dlogits                   written over the logits by the core
    dinputs        = G linear_weight
    dlinear_weight = G^T inputs                        summed over the blocks,
    dlinear_bias   = G^T 1                             in float32, or float64 for float64

The products are NumPy's. A front-end hands over arrays, checked, and a kernel: what the core is to
do with a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Selection = slice | NDArray[np.intp]
Kernel = Callable[
    [Any, Selection], float
]  # (logits of some rows, those rows) -> the sum of their losses

_PANEL = 4 << 20  # bytes: rows of linear_weight that are converted, or summed, at once
_STEP = 16  # rows of a block are a multiple of it: no product has a ragged edge but the last
_memory = 128 << 20


def set_working_memory(size: int) -> None:
    """Sets the bytes that the linear form may hold beside its arguments and results."""
    global _memory
    _memory = size


def get_working_memory() -> int:
    """The bytes that the linear form may hold beside its arguments and results."""
    return _memory


class BlockSizes(NamedTuple):
    """How the rows are cut into blocks, and the classes into panels."""

    rows: int  # of a block, at most
    panel: int  # classes of a panel


def block_sizes(count: int, features: int, classes: int, item: int, kept: int = 0) -> BlockSizes:
    """Blocks for `count` rows that fit into the working memory, all of about the same size.

    item: bytes of a number while it is computed with; kept: bytes that the products keep, of which
    at most a sixteenth of the memory counts. At least one row fits, whatever the setting.
    """
    panel = min(classes, max(1, min(_PANEL, _memory // 16) // max(1, features * item)))
    room = _memory - min(kept, _memory // 16) - 2 * panel * features * item
    most = max(
        1, room // ((classes + 3 * features) * item)
    )  # logits; inputs, two of their gradient
    even = -(-count // -(-count // most)) if count else 1
    stepped = -(-even // _STEP) * _STEP
    return BlockSizes(stepped if stepped <= most else even, panel)


def parts(count: int, kept: NDArray[np.intp] | None, rows: int) -> Iterator[Selection]:
    """The rows of each block: slices of all rows, or pieces of those that are kept."""
    size = count if kept is None else len(kept)
    for begin in range(0, size, rows):
        part = slice(begin, min(begin + rows, size))
        yield part if kept is None else kept[part]


def kept_rows(counts: NDArray[np.bool_]) -> NDArray[np.intp] | None:
    """The rows that count, None if all do: those are blocks of consecutive rows, without a copy."""
    return None if counts.all() else np.flatnonzero(counts)


class Gradients(NamedTuple):
    """Arrays of the three gradients; None where one is not wanted."""

    inputs: Any
    linear_weight: Any
    linear_bias: Any


def _as(array: Array, dtype: Any) -> Array:
    """An array as a product takes it: itself, or a contiguous copy in the dtype."""
    return np.require(array, dtype, ["C", "ALIGNED"])


class Head:
    """The layer: inputs (N, D), linear_weight (V, D), linear_bias (V,) or None, and its gradients.

    adds: sums go on top of what the weight's and the bias's gradient hold.
    """

    def __init__(
        self,
        inputs: Array,
        linear_weight: Array,
        linear_bias: Array | None,
        grads: Gradients,
        adds: bool,
    ) -> None:
        self.inputs, self.linear_weight, self.grads, self.adds = inputs, linear_weight, grads, adds
        self.dtype = np.dtype(np.float64 if inputs.dtype.char == "d" else np.float32)
        self.bias = None if linear_bias is None else _as(linear_bias, self.dtype)
        self.classes, features = linear_weight.shape
        self.sizes = block_sizes(len(inputs), features, self.classes, self.dtype.itemsize)
        flags = linear_weight.flags
        self.is_ready = (
            linear_weight.dtype == self.dtype
            and flags.aligned
            and (flags.c_contiguous or flags.f_contiguous)
        )
        if grads.linear_weight is not None:
            in_place = grads.linear_weight.dtype == self.dtype
            self.weight_sum = (
                grads.linear_weight if in_place else np.empty(linear_weight.shape, self.dtype)
            )
            self.has_weight_sum = adds and in_place
            self.product = np.empty((self.sizes.panel, features), self.dtype)
        self.bias_sum = np.zeros(self.classes if grads.linear_bias is not None else 0)

    def empty_block(self) -> Array:
        """Memory for the logits of a block."""
        return np.empty((self.sizes.rows, self.classes), self.dtype)

    def features(self, rows: Selection) -> Array:
        """The inputs of some rows."""
        return _as(self.inputs[rows], self.dtype)

    def _slices(self) -> Iterator[slice]:
        for begin in range(0, self.classes, self.sizes.panel):
            yield slice(begin, min(begin + self.sizes.panel, self.classes))

    def _panels(self) -> Iterator[tuple[slice, Array]]:
        """linear_weight as a product takes it: whole, or a converted panel after the other."""
        if self.is_ready:
            yield slice(0, self.classes), self.linear_weight
        else:
            for part in self._slices():
                yield part, _as(self.linear_weight[part], self.dtype)

    def logits(self, features: Array, block: Array) -> Array:
        """The logits of some rows, in the block's memory."""
        logits = block[: len(features)]
        for part, panel in self._panels():
            np.matmul(features, panel.T, out=logits[:, part])
        if self.bias is not None:
            logits += self.bias
        return logits

    def add_gradients(self, grad_logits: Array, features: Array, rows: Selection) -> None:
        """What the gradient by some rows' logits means for the inputs, the weight and the bias."""
        if self.grads.linear_bias is not None:
            self._add_bias_gradient(grad_logits)
        if self.grads.inputs is not None:
            self._input_gradient(grad_logits, rows)
        if self.grads.linear_weight is not None:
            self._add_weight_gradient(grad_logits, features)

    def _add_bias_gradient(self, grad_logits: Array) -> None:
        self.bias_sum += np.ones(len(grad_logits), self.dtype) @ grad_logits

    def _input_gradient(self, grad_logits: Array, rows: Selection) -> None:
        total: Any = None
        for part, panel in self._panels():
            product = grad_logits[:, part] @ panel
            total = product if total is None else np.add(total, product, out=total)
        self.grads.inputs[rows] = total

    def _add_weight_gradient(self, grad_logits: Array, features: Array) -> None:
        for part in self._slices():
            held = self.weight_sum[part]
            out = self.product[: len(held)] if self.has_weight_sum else held
            np.matmul(grad_logits[:, part].T, features, out=out)
            if self.has_weight_sum:
                held += out
        self.has_weight_sum = True

    def finish(self) -> None:
        """The sums go where the caller wants them."""
        grad_weight, grad_bias = self.grads.linear_weight, self.grads.linear_bias
        if grad_bias is not None:
            grad_bias[...] = self.bias_sum + grad_bias if self.adds else self.bias_sum
        if grad_weight is None:
            return
        if not self.has_weight_sum:
            if not self.adds:
                grad_weight[...] = 0
        elif self.weight_sum is not grad_weight:
            for part in self._slices():
                held = self.weight_sum[part]
                grad_weight[part] = held + grad_weight[part] if self.adds else held


def run(head: Head, kernel: Kernel, kept: NDArray[np.intp] | None, differentiates: bool) -> float:
    """The sum of the losses; where wanted, the gradients too.

    kept: the rows that count, None for all; no other row reaches a product.
    """
    total, block = 0.0, head.empty_block()
    if kept is not None and head.grads.inputs is not None:
        head.grads.inputs[...] = 0
    for rows in parts(len(head.inputs), kept, head.sizes.rows):
        features = head.features(rows)
        logits = head.logits(features, block)
        total += kernel(logits, rows)
        if differentiates:
            head.add_gradients(logits, features, rows)
    head.finish()
    return total

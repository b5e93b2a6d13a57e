"""The memory of tensors: what the core is told of it, and that it is there.

A tensor is a view of storage, which others may free or cut short while the view stays: FSDP does so
with parameters between uses. Whoever then reads it, the core or PyTorch's own operations, reads out
of bounds.
"""

from __future__ import annotations

from typing import NoReturn

import torch

from crossent import _core
from crossent.torch import _internals

Tensor = torch.Tensor
Described = tuple[int, _core.Type, tuple[int, ...]]  # address, type, strides in elements
Given = tuple[int, _core.Type, tuple[int, ...], tuple[int, ...]]  # the same, and the shape

INCOMING = "the incoming gradient"  # its name in messages


class _Types(dict[torch.dtype, _core.Type]):
    """The core's types of numbers by PyTorch's."""

    def __missing__(self, dtype: torch.dtype) -> NoReturn:
        raise TypeError(f"a tensor given to the loss has dtype {dtype}; it must hold real numbers")


_TYPES = _Types({getattr(torch, each.name): each for each in _core.Type})
_HUGE = 4 << 20  # bytes from which huge pages pay


def described(tensor: Tensor) -> Described:
    """What the core knows of a tensor whose memory is there."""
    return tensor.data_ptr(), _TYPES[tensor.dtype], tensor.stride()


def given(name: str, tensor: Tensor) -> Given:
    """The same of a caller's tensor, whose memory is checked here and its shape by the core."""
    address = tensor.data_ptr()
    storage = tensor.untyped_storage()
    is_whole = len(storage) == tensor.nbytes and storage.data_ptr() == address != 0
    if not (is_whole and tensor.is_contiguous()):  # the quick way is sure of these alone
        _check_storage(name, tensor)
    return address, _TYPES[tensor.dtype], tensor.stride(), tensor.shape


def _check_storage(name: str, tensor: Tensor) -> None:
    """Raises ValueError where a tensor's storage was freed or cut short."""
    extents = zip(tensor.stride(), tensor.shape, strict=True)
    last = tensor.storage_offset() + sum(step * (n - 1) for step, n in extents)
    storage = tensor.untyped_storage()
    needed, held = (last + 1) * tensor.itemsize, storage.nbytes()
    if storage.data_ptr() == 0:
        held = 0
    if tensor.numel() == 0 or needed <= held:
        return
    what = f"{name}: a tensor of shape {tuple(tensor.shape)}"
    if held == 0:
        raise ValueError(
            f"{what} has no memory: its storage was freed (resized to 0 bytes, as FSDP does "
            "between uses); gather it first, and keep it until backward is done"
        )
    raise ValueError(
        f"{what} reaches beyond its memory: its storage was resized to {held} bytes, {needed} are "
        "needed; give a tensor that is whole, and keep it until backward is done"
    )


def check(**tensors: Tensor | None) -> None:
    """Raises ValueError where a tensor's storage was freed or cut short.

    Before what the core is not given: PyTorch's own operations would read out of bounds.
    """
    if torch.compiler.is_compiling():
        return
    for name, tensor in tensors.items():
        if tensor is not None and not tensor.is_meta and _internals.holds_memory(tensor):
            _check_storage(name, _internals.unwrapped(tensor))


def plain(name: str, tensor: Tensor) -> Tensor:
    """A tensor as the core takes it: dense, and not by a bit the negative of what its memory holds.

    PyTorch sets that bit in imaginary parts of conjugates, their gradients among them.
    """
    if tensor.layout is not torch.strided:
        return tensor.to_dense()
    if not tensor.is_neg():
        return tensor
    check(**{name: tensor})
    return tensor.resolve_neg()


def number(name: str, tensor: Tensor) -> float:
    """The number that a tensor of one element holds."""
    given(name, tensor)
    return tensor.item()


def fresh_like(
    logits: Tensor, memory_format: torch.memory_format = torch.preserve_format
) -> Tensor:
    """Memory for a gradient, laid out as the logits are; huge pages where it is large.

    A first write to ordinary pages takes longer than the whole computation (measured: 130 ms for
    half a gigabyte, against 25 with huge pages).
    """
    grad = torch.empty_like(logits, memory_format=memory_format)
    size = grad.numel() * grad.element_size()
    if size >= _HUGE:
        _core.advise_huge_pages(grad.data_ptr(), size)
    return grad

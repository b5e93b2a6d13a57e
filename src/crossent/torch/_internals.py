"""What PyTorch keeps private and this front-end needs: each such name stands here and nowhere else.

Each function says which public name would replace what it uses, and what breaks without it. All of
them are there in the versions that the tests run on; a version that drops one fails at import, not
with wrong numbers.
"""

from __future__ import annotations

import os
import sys

import torch
from torch.autograd import forward_ad
from torch.nn import _reduction

Tensor = torch.Tensor

_are_transforms_active = torch._C._are_functorch_transforms_active
_count_modes = torch._C._len_torch_dispatch_stack
_tracing_state = torch._C._get_tracing_state
_functorch = torch._C._functorch
_top_hooks = torch._C._autograd._top_saved_tensors_default_hooks


def is_transforming() -> bool:
    """Whether torch.func or forward mode is at work, so that tensors may be wrapped.

    No public name yet, nor one for `torch.autograd.forward_ad._current_level`.
    Without it, vmap, jvp and functional gradients would reach the core, which sees addresses alone.
    """
    return _are_transforms_active() or forward_ad._current_level >= 0


def is_batched(tensor: Tensor) -> bool:
    """Whether a transform has batched a tensor: vmap, or autograd's own for is_grads_batched.

    No public name yet. Without it, `torch.autograd.grad(..., is_grads_batched=True)` and Jacobians
    with vectorize=True would fail in backward.
    """
    return _are_transforms_active() or _functorch.is_legacy_batchedtensor(tensor)


def is_traced() -> bool:
    """Whether a dispatch mode (fake tensors, counters of operations) or torch.jit.trace looks on.

    Replaced by: a public `torch.utils._python_dispatch.is_in_torch_dispatch_mode`, and
    `torch.jit.is_tracing` where it is as fast. Without it, they would see no operation of ours.
    """
    return bool(_count_modes()) or _tracing_state() is not None


def unwrapped(tensor: Tensor) -> Tensor:
    """What is under the wrappers that transforms put around a tensor.

    Replaced by: a public `torch.func` function of this meaning. Without it, bad labels would go
    unnoticed under transforms.
    """
    while _functorch.is_functorch_wrapped_tensor(tensor):
        tensor = _functorch.get_unwrapped(tensor)
    return tensor


def is_mapped(tensor: Tensor) -> bool:
    """Whether vmap has batched a tensor, at any level of transforms.

    No public name yet. Without it, the error for such an option would be PyTorch's about `.item()`.
    """
    while _functorch.is_functorch_wrapped_tensor(tensor):
        if _functorch.is_batchedtensor(tensor):
            return True
        tensor = _functorch.get_unwrapped(tensor)
    return False


def holds_memory(tensor: Tensor) -> bool:
    """Whether a tensor's elements lie in a storage of its own: not where it wraps other tensors.

    No public name yet for what tells such subclasses apart. Without it, a check of memory would
    look at storage that stands for nothing.
    """
    wraps = type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__
    if wraps or tensor.layout is not torch.strided or tensor.is_nested:
        return False
    return not _functorch.is_legacy_batchedtensor(tensor)


def has_saved_tensor_hooks() -> bool:
    """Whether hooks on saved tensors are at work: checkpointing, offloading.

    No public name yet. Without it, a gradient that is made in forward would escape them, and with
    it the memory that they save.
    """
    return _top_hooks(False) is not None


def reduction_of(size_average: bool | None, reduce: bool | None) -> str:
    """The reduction that PyTorch's two deprecated arguments mean, with its warning.

    Replaced by: nothing; it goes when PyTorch drops the arguments. Without it, drop-in calls of
    old code would fail.
    """
    return _reduction.legacy_get_string(size_average, reduce)


def threads_library() -> str:
    """The path of the library that holds PyTorch's threads; its place in the wheel is not promised.

    Replaced by: a public path of libtorch. Without it, the core runs on threads of its own.
    """
    names = {"darwin": "libtorch_cpu.dylib", "win32": "torch_cpu.dll"}
    name = names.get(sys.platform, "libtorch_cpu.so")
    return os.path.join(os.path.dirname(torch.__file__), "lib", name)

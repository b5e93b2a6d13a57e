"""The loss of Hugging Face's causal language models, with one changed line.

    from crossent.hf import ForCausalLMLoss
    model.loss_function = ForCausalLMLoss

or, which refuses a model that would ignore it or means another loss,

    crossent.hf.set_loss(model)

Nothing of transformers is imported.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any, TypeVar

import torch

from crossent import options as known
from crossent.torch import _memory, _route, cross_entropy

Tensor = torch.Tensor
Model = TypeVar("Model", bound=torch.nn.Module)

_DECIDED = {"ignore_index", "reduction", "normalizer"}  # by transformers
_OPTIONS = {*known.Options._fields, "inplace_backward"} - _DECIDED


def ForCausalLMLoss(
    logits: Tensor,
    labels: Tensor | None,
    vocab_size: int | None = None,
    num_items_in_batch: Tensor | int | None = None,
    ignore_index: int = -100,
    shift_labels: Tensor | None = None,
    **kwargs: Any,
) -> Tensor:
    """The mean loss of predicting each next token: transformers' loss of the same name.

    loss = sum over tokens that are not ignored of (lse - u_target), divided by
    `num_items_in_batch`, else by their number. Same values as transformers' own, within rounding;
    half logits are read as they are, where the stock loss first makes a float32 copy of them.

    Args:
        logits: (..., T, V), of any floating dtype.
        labels: (..., T) class indices, not shifted: logits at t predict label t + 1.
        vocab_size: V, as the model passes it.
        num_items_in_batch: tokens of all batches whose gradients are accumulated together.
        ignore_index: label of tokens that are left out.
        shift_labels: labels that are shifted already, in place of `labels`.
        kwargs: label_smoothing, z_loss, softcap, logit_scale, when_empty and inplace_backward of
            `crossent.torch.cross_entropy`; to set them, use functools.partial. Whatever else a
            model passes on is left alone, as in transformers. With inplace_backward=True the
            model's output logits hold their gradient after backward.

    Returns:
        The loss, one number: float64 for float64 logits, else float32.

    Raises:
        TypeError: the model calls it as the loss of another task.
        ValueError, IndexError: as `crossent.torch.cross_entropy`.

    Example:
        >>> import torch
        >>> from crossent.hf import ForCausalLMLoss
        >>> logits, labels = torch.zeros(1, 3, 4), torch.tensor([[1, 2, -100]])
        >>> print("%.3f" % ForCausalLMLoss(logits, labels, vocab_size=4))
        1.386

    Source: transformers, loss/loss_utils.py.
    """
    ignore_index = known.integer("ignore_index", ignore_index)
    _route.check_int64(ignore_index)
    given = _checked(logits, labels, vocab_size, shift_labels)
    if shift_labels is None:
        last = given.new_full((*given.shape[:-1], 1), ignore_index, dtype=torch.int64)
        given = torch.cat([given[..., 1:], last], -1)
    given = given.to(logits.device)
    if logits.is_contiguous() or logits.shape[-1] != vocab_size:
        logits = logits.reshape(-1, vocab_size)  # type: ignore[arg-type]
        given = given.reshape(-1)
    else:  # no copy: any strides will do
        logits = logits.movedim(-1, 1 if logits.dim() > 1 else 0)
        given = given.reshape(logits.shape[:1] + logits.shape[2:])
    options = {name: kwargs[name] for name in _OPTIONS if name in kwargs}
    loss = partial(cross_entropy, logits, given, ignore_index=ignore_index, **options)
    if num_items_in_batch is None:
        return loss()
    if torch.compiler.is_compiling():
        return loss(normalizer=num_items_in_batch)
    items = _items(num_items_in_batch)
    if items == 0:
        return loss(reduction="sum") / 0  # 0 / 0, as in transformers
    return loss(normalizer=items)


def _checked(logits: Any, labels: Any, vocab_size: Any, shift_labels: Any) -> Tensor:
    """The labels that are given, shifted or not; they go with the logits."""
    name, given = ("labels", labels) if shift_labels is None else ("shift_labels", shift_labels)
    is_integer = hasattr(vocab_size, "__index__") and not isinstance(vocab_size, Tensor)
    if not is_integer or not isinstance(logits, Tensor) or not isinstance(given, Tensor):
        raise TypeError(
            f"{_IS_FOR}, called with logits, labels and vocab_size, not with a "
            f"{type(logits).__name__}, a {type(given).__name__} and a {type(vocab_size).__name__}: "
            "leave the loss of a model of another task as it is"
        )
    _route.check_tensor("logits", logits)
    _route.check_tensor(name, given)
    if given.dim() == 0 or given.numel() * vocab_size != logits.numel():
        raise ValueError(
            f"{name} have shape {tuple(given.shape)} and logits {tuple(logits.shape)}; with "
            f"vocab_size={vocab_size} they must have shapes (..., T) and (..., T, V)"
        )
    _memory.check(**{name: given})
    return given


def _items(given: Any) -> float:
    """The number of items in a batch: not negative, and finite."""
    name = "num_items_in_batch"
    items = _route.number(name, given) if isinstance(given, Tensor) else given
    items = known.number(name, items)
    return items if items == 0 else float(known.OPTIONS["normalizer"].rule(name, items))


_IS_FOR = "ForCausalLMLoss is the loss of causal language models"


def set_loss(model: Model, **options: Any) -> Model:
    """The model, with `ForCausalLMLoss` of these options for its loss.

    The same as `model.loss_function = partial(ForCausalLMLoss, **options)` for a model that uses
    it. Others are refused: those whose forward computes a loss of its own and would ignore it, and
    those of another task.

    Args:
        model: a model of transformers, itself rather than what wraps it.
        options: as the kwargs of `ForCausalLMLoss`.

    Raises:
        TypeError: the model would ignore the loss, or is of another task; or there is no such
            option.
    """
    unknown = options.keys() - _OPTIONS
    if unknown:
        listed = ", ".join(sorted(_OPTIONS))
        raise TypeError(f"ForCausalLMLoss has no option {min(unknown)}; it has {listed}")
    kind = type(model).__name__
    if not isinstance(model, torch.nn.Module):
        given = "the class" if isinstance(model, type) else kind
        raise TypeError(f"model must be a model of transformers, not {given}")
    code = getattr(inspect.unwrap(type(model).forward), "__code__", None)
    if code is None or "loss_function" not in code.co_names:
        raise TypeError(
            f"{kind} would ignore it: its forward does not call self.loss_function. Where it wraps "
            "a model, give that one; else take the loss from the logits, by "
            "crossent.torch.cross_entropy"
        )
    there = getattr(model, "loss_function", None)
    name = getattr(getattr(there, "func", there), "__name__", "not known")
    if name != ForCausalLMLoss.__name__:
        raise TypeError(f"{_IS_FOR}; that of {kind} is {name}: leave it as it is")
    model.loss_function = partial(ForCausalLMLoss, **options)  # type: ignore[assignment]
    return model

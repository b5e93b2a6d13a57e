"""The loss of Hugging Face's causal language models, with one changed line.

    from crossent.hf import ForCausalLMLoss
    model.loss_function = ForCausalLMLoss

Nothing of transformers is imported.
"""

from __future__ import annotations

from typing import Any

import torch

from crossent.options import Options
from crossent.torch import cross_entropy

Tensor = torch.Tensor

_DECIDED = {"ignore_index", "reduction", "normalizer"}  # by transformers
_OPTIONS = {*Options._fields, "inplace_backward"} - _DECIDED


def ForCausalLMLoss(
    logits: Tensor,
    labels: Tensor | None,
    vocab_size: int,
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

    Example:
        >>> import torch
        >>> from crossent.hf import ForCausalLMLoss
        >>> logits, labels = torch.zeros(1, 3, 4), torch.tensor([[1, 2, -100]])
        >>> print("%.3f" % ForCausalLMLoss(logits, labels, vocab_size=4))
        1.386

    Source: transformers, loss/loss_utils.py.
    """
    if shift_labels is None:
        labels = torch.nn.functional.pad(labels, (0, 1), value=ignore_index)  # type: ignore[arg-type]
        shift_labels = labels[..., 1:]
    shift_labels = shift_labels.to(logits.device)
    if logits.is_contiguous():
        logits = logits.view(-1, vocab_size)
        shift_labels = shift_labels.reshape(-1)
    else:  # no copy: any strides will do
        logits = logits.movedim(-1, 1 if logits.dim() > 1 else 0)
        shift_labels = shift_labels.reshape(logits.shape[:1] + logits.shape[2:])
    options = {name: kwargs[name] for name in _OPTIONS if name in kwargs}
    if num_items_in_batch is None:
        return cross_entropy(logits, shift_labels, ignore_index=ignore_index, **options)
    if (
        not torch.compiler.is_compiling() and not num_items_in_batch > 0
    ):  # 0 / 0, as in transformers
        options["reduction"] = "sum"
        return cross_entropy(logits, shift_labels, ignore_index=ignore_index, **options) / 0
    return cross_entropy(
        logits, shift_labels, ignore_index=ignore_index, normalizer=num_items_in_batch, **options
    )

"""Loss and scores of a linear layer's logits, without the logits, as PyTorch's users call them."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import has_torch_function_variadic

from crossent import _arguments as rules
from crossent.options import IGNORE_INDEX, Options, Reduction, WhenEmpty
from crossent.torch import _autograd, _compute, _fallback, _memory, _route
from crossent.torch._compute import Layer
from crossent.torch._route import Path
from crossent.torch.loss import TokenScores

Tensor = torch.Tensor


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: torch.nn.LinearCrossEntropyOptions | None = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
    logit_scale: float | Tensor = 1.0,
    normalizer: float | Tensor | None = None,
    when_empty: WhenEmpty = "nan",
) -> Tensor:
    """Softmax cross-entropy of a linear layer's logits, which are never held as a whole.

    Same as PyTorch's `linear_cross_entropy` (names, order, shapes), with the options and meanings
    of `crossent.torch.cross_entropy`, all of them on the fused path. On the CPU blocks of rows go
    through a matrix product and the core, within `crossent.get_working_memory()`; the gradients are
    made in the same pass for "mean" and "sum", in backward for "none". Derivatives of any order,
    `torch.func`, forward mode and gradients of target, `weight` or a tensor `logit_scale` run
    block by block in ordinary torch operations; `torch.compile(fullgraph=True)` works.

    Args:
        input: (D) or (N, D): float64, float32, float16 or bfloat16.
        linear_weight: (C, D), or (C, d1, ..., D) for a K-dimensional loss.
        target: class indices of any integer dtype, (), (N) or (N, d1, ...); or distributions of
            any real dtype, (C), (N, C) or (N, C, d1, ...).
        linear_bias: of the shape of linear_weight without D.
        weight, reduction, label_smoothing: as in PyTorch.
        ignore_index: as in PyTorch; None is -100. Rows that are ignored are not multiplied.
        options: PyTorch's choice of chunks; accepted and without effect: blocks are as large as
            the working memory allows, sums are float32 at least.
        z_loss, softcap, logit_scale, normalizer, when_empty: as for `cross_entropy`.

    Returns:
        The loss: float64 for float64 input, else float32 (also for half types).

    Raises:
        TypeError, ValueError, IndexError: as `cross_entropy`; also where shapes or dtypes of
            input, linear_weight and linear_bias do not go together.

    Example:
        >>> import torch, crossent.torch
        >>> hidden = torch.tensor([[1.0, 2.0], [0.5, -1.0]], requires_grad=True)
        >>> head = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> loss = crossent.torch.linear_cross_entropy(hidden, head, torch.tensor([2, 0]))
        >>> loss.backward()
        >>> print("%.3f %.3f" % (loss.item(), hidden.grad[0, 1].item()))
        0.436 -0.045

    Source: as `crossent.linear_cross_entropy`.
    """
    given = locals()
    tensors = (input, linear_weight, target, linear_bias, weight)
    if has_torch_function_variadic(*tensors):
        return _route.overridden(linear_cross_entropy, tensors, given)
    layer, target, form, single = _prepared(input, linear_weight, linear_bias, target)
    if weight is not None:
        _route.check_weight(weight, input, linear_weight.shape[0])
    if ignore_index is None:
        given["ignore_index"] = IGNORE_INDEX
    compiling = torch.compiler.is_compiling()
    chosen, scale, divisor = _route.options_of(given, form, compiling)
    path = _route.path_of(layer, target, weight, chosen, scale, compiling)
    if path is Path.FALLBACK:
        _route.check_values(target, layer.logits_shape, weight, chosen)
        loss = _fallback.linear_loss(*layer, target, weight, chosen, scale)
    elif path is Path.OPERATOR:
        ready = _autograd.made_in_forward(layer.input, chosen) and torch.is_grad_enabled()
        wants = _needs_grad(layer) if ready else [False] * 3
        operator = torch.ops.crossent.linear_cross_entropy
        loss = operator(*layer, target, weight, wants, *chosen)[0]
    else:
        loss = _eager_loss(layer, target, weight, chosen)
    if divisor is not None:
        loss = (loss / divisor).to(loss.dtype)
    return loss.squeeze(0) if single and reduction == "none" else loss


def _prepared(
    input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None, target: Tensor
) -> tuple[Layer, Tensor, int, bool]:
    """(layer and target with rows, what the target is, whether there was a single row)."""
    layer = _cast(Layer(input, linear_weight, linear_bias))
    _route.check_layer(*layer)
    shape = torch.Size((*input.shape[:-1], *linear_weight.shape[:-1]))
    form = _route.form_of(layer.input, target, shape)
    single = input.dim() == 1
    if single:
        layer, target = layer._replace(input=layer.input.unsqueeze(0)), target.unsqueeze(0)
    return layer, target, form, single


def _cast(layer: Layer) -> Layer:
    """The layer in the dtype that autocast gives to linear layers, where it is on."""
    if not isinstance(layer.input, Tensor):
        return layer
    device = layer.input.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return layer
    dtype = torch.get_autocast_dtype(device)

    def cast(name: str, tensor: Any) -> Any:
        if not isinstance(tensor, Tensor) or tensor.dtype not in _route.CAST_BY_AUTOCAST:
            return tensor
        _memory.check(**{name: tensor})
        return tensor.to(dtype)

    return Layer(**{name: cast(name, tensor) for name, tensor in layer._asdict().items()})


def _needs_grad(layer: Layer) -> list[bool]:
    return [tensor is not None and tensor.requires_grad for tensor in layer]


def _eager_loss(layer: Layer, target: Tensor, weight: Tensor | None, options: Options) -> Tensor:
    weight = _compute.class_weight(weight)
    _memory.check(**layer._asdict(), target=target)
    layer, target = layer.each(Tensor.resolve_neg), target.resolve_neg()
    if torch.is_grad_enabled() and any(_needs_grad(layer)):
        return _autograd.LinearLoss.apply(*layer, target, weight, options)
    return _compute.linear_loss(layer.each(Tensor.detach), target, weight, options)


def linear_token_scores(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    ignore_index: int = -100,
    softcap: float | None = None,
    logit_scale: float | Tensor = 1.0,
) -> TokenScores:
    """nll, lse, entropy and argmax of every row of a linear layer's logits, without the logits.

    Same as `crossent.linear_token_scores`; differences: PyTorch's names and shapes, and autograd:
    nll, lse and entropy are differentiable, block by block in ordinary torch operations.

    Args:
        input, linear_weight, linear_bias: as for `linear_cross_entropy`.
        target: class indices, as there.
        ignore_index, softcap, logit_scale: as for `token_scores`.

    Returns:
        TokenScores(nll, lse, entropy, argmax), each of the target's shape.

    Raises:
        TypeError, ValueError, IndexError: as `linear_cross_entropy`.

    Example:
        >>> import torch, crossent.torch
        >>> hidden, head, target = torch.tensor([1.0, 2.0]), torch.eye(2), torch.tensor(0)
        >>> scores = crossent.torch.linear_token_scores(hidden, head, target)
        >>> print("%.3f" % scores.nll, scores.argmax.item())
        1.313 1

    Source: as `crossent.token_scores`.
    """
    given = locals()
    tensors = (input, linear_weight, target, linear_bias)
    if has_torch_function_variadic(*tensors):
        return _route.overridden(linear_token_scores, tensors, given)
    layer, target, form, single = _prepared(input, linear_weight, linear_bias, target)
    if form != rules.INDICES:
        shape = layer.logits_shape
        rules.raise_not_for_scores(target, shape[:1] + shape[2:], rules.TENSORS)
    compiling = torch.compiler.is_compiling()
    options, scale, _ = _route.options_of({**_route.OF_SCORES, **given}, form, compiling)
    path = _route.path_of(layer, target, None, options, scale, compiling)
    if path is Path.FALLBACK:
        _route.check_values(target, layer.logits_shape, None, options)
        found = _fallback.linear_scores(*layer, target, options, scale)
    elif path is Path.OPERATOR:
        found = torch.ops.crossent.linear_token_scores(*layer, target, *options)
    else:
        found = _eager_scores(layer, target, options)
    return TokenScores(*(each.squeeze(0) for each in found) if single else found)


def _eager_scores(
    layer: Layer, target: Tensor, options: Options
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _memory.check(**layer._asdict(), target=target)
    layer, target = layer.each(Tensor.resolve_neg), target.resolve_neg()
    if torch.is_grad_enabled() and any(_needs_grad(layer)):
        return _autograd.LinearScores.apply(*layer, target, options)
    return _compute.linear_scores(layer.each(Tensor.detach), target, options)

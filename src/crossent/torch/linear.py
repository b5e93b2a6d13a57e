"""Loss and scores of a linear layer's logits, without the logits, as PyTorch's users call them."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import handle_torch_function, has_torch_function_variadic

from crossent import _arguments as rules
from crossent.torch import _call, _linear, _recomputed
from crossent.torch import _checks as checks
from crossent.torch import _linear_autograd as autograd
from crossent.torch._call import Options
from crossent.torch._checks import Path
from crossent.torch._linear import Layer
from crossent.torch.scores import TokenScores

Tensor = torch.Tensor


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: torch.nn.LinearCrossEntropyOptions | None = None,
    z_loss: float = 0.0,
    softcap: float | None = None,
    logit_scale: float | Tensor = 1.0,
    normalizer: float | Tensor | None = None,
    when_empty: str = "nan",
) -> Tensor:
    """Softmax cross-entropy of a linear layer's logits, which are never held as a whole.

    Same as PyTorch's `linear_cross_entropy` (names, order, shapes), with the options and meanings
    of `crossent.torch.cross_entropy`, all of them on the fused path. On the CPU blocks of rows go
    through a matrix product and the core, within `crossent.get_working_memory()`; the gradients are
    made in the same pass for "mean" and "sum", in backward for "none". Derivatives of any order,
    `torch.func`, forward mode and gradients of target, `weight` or a tensor `logit_scale` run
    block by block in plain torch operations; `torch.compile(fullgraph=True)` works.

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
    tensors = (input, linear_weight, target, linear_bias, weight)
    if has_torch_function_variadic(*tensors):
        return handle_torch_function(
            linear_cross_entropy, tensors, input, linear_weight, target, linear_bias=linear_bias,
            weight=weight, reduction=reduction, ignore_index=ignore_index,
            label_smoothing=label_smoothing, options=options, z_loss=z_loss, softcap=softcap,
            logit_scale=logit_scale, normalizer=normalizer, when_empty=when_empty,
        )  # fmt: skip
    layer, target, form, single = _prepared(input, linear_weight, linear_bias, target)
    if weight is not None:
        checks.check_weight(weight, input, linear_weight.shape[0])
    compiling = torch.compiler.is_compiling()
    divisor = None
    if compiling and isinstance(normalizer, Tensor) and reduction == "mean":
        divisor, normalizer, reduction = normalizer, None, "sum"
    scale, factor = _scale(logit_scale, compiling)
    given = (label_smoothing, z_loss, softcap, normalizer)
    if not compiling:
        names = ("label_smoothing", "z_loss", "softcap", "normalizer")
        given = tuple(map(checks.number, given, names))
    check = checks.check_options if compiling else checks.options
    chosen = check(
        form, -100 if ignore_index is None else ignore_index, reduction, *given[:3], factor,
        given[3], when_empty,
    )  # fmt: skip
    loss = _loss(layer, target, weight, chosen, scale, compiling)
    if divisor is not None:
        loss = (loss / divisor).to(loss.dtype)
    return loss.squeeze(0) if single and reduction == "none" else loss


def _prepared(
    input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None, target: Tensor
) -> tuple[Layer, Tensor, int, bool]:
    """(layer and target with rows, what the target is, whether there was a single row)."""
    layer = _cast(Layer(input, linear_weight, linear_bias))
    checks.check_layer(*layer)
    shape = torch.Size((*input.shape[:-1], *linear_weight.shape[:-1]))
    form = checks.form_of(layer.input, target, shape)
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

    def cast(tensor: Any) -> Any:
        narrow = isinstance(tensor, Tensor) and tensor.dtype in checks.CAST_BY_AUTOCAST
        return tensor.to(dtype) if narrow else tensor

    return Layer(*map(cast, layer))


def _scale(logit_scale: Any, compiling: bool) -> tuple[Tensor | None, Any]:
    """(a logit_scale that may get a gradient, else None; the number that the core takes)."""
    if not isinstance(logit_scale, Tensor):
        return None, logit_scale
    return (logit_scale.reshape(()), 1.0) if compiling else checks.learned_scale(logit_scale)


def _path(
    layer: Layer, target: Tensor, weight: Tensor | None, scale: Tensor | None, compiling: bool
) -> Path:
    if not compiling:
        return checks.path_of(layer.input, target, weight, scale, layer[1:])
    constants = not target.requires_grad and (weight is None or not weight.requires_grad)
    on_core = scale is None and constants and layer.input.device.type == "cpu"
    return Path.OPERATOR if on_core else Path.PLAIN


def _needs_grad(layer: Layer) -> list[bool]:
    return [tensor is not None and tensor.requires_grad for tensor in layer]


def _loss(
    layer: Layer,
    target: Tensor,
    weight: Tensor | None,
    options: Options,
    scale: Tensor | None,
    compiling: bool,
) -> Tensor:
    path = _path(layer, target, weight, scale, compiling)
    if path is Path.PLAIN:
        if not compiling:
            _check_values(layer, target, weight, options)
        return _recomputed.loss(*layer, target, weight, options, scale)
    differentiates = torch.is_grad_enabled() and any(_needs_grad(layer))
    if path is Path.OPERATOR:
        ready = differentiates and autograd.made_in_forward(layer.input, options)
        wants = [ready and needed for needed in _needs_grad(layer)]
        operator = torch.ops.crossent.linear_cross_entropy
        return operator(*layer, target, weight, wants, *options)[0]
    weight = _call.class_weight(weight)
    resolved = Layer(*(None if t is None else t.resolve_neg() for t in layer))  # type: ignore[arg-type]
    target = target.resolve_neg()
    if differentiates:
        return autograd.LinearLoss.apply(*resolved, target, weight, options)
    detached = Layer(*(None if t is None else t.detach() for t in resolved))  # type: ignore[arg-type]
    return _linear.loss(detached, target, weight, options)


def _check_values(layer: Layer, target: Tensor, weight: Tensor | None, options: Options) -> None:
    """What can be seen of the values, before torch operations use them."""
    shape = torch.Size(layer.logits_shape)
    logits = torch.empty(shape, device="meta")
    if weight is not None:
        checks.check_weight_values(weight)
    if target.dim() < len(shape):
        checks.check_labels(target, logits, options.ignore_index)
    if options.when_empty == "raise" and options.reduction == "mean" and not options.normalizer:
        checks.check_divisor(target, logits, weight, options.ignore_index)


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
    nll, lse and entropy are differentiable, block by block in plain torch operations.

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
    tensors = (input, linear_weight, target, linear_bias)
    if has_torch_function_variadic(*tensors):
        return handle_torch_function(  # type: ignore[no-any-return]
            linear_token_scores, tensors, input, linear_weight, target, linear_bias=linear_bias,
            ignore_index=ignore_index, softcap=softcap, logit_scale=logit_scale,
        )  # fmt: skip
    layer, target, form, single = _prepared(input, linear_weight, linear_bias, target)
    if form != rules.INDICES:
        shape = layer.logits_shape
        rules.raise_tensor_not_for_scores(target.shape, shape[:1] + shape[2:])
    compiling = torch.compiler.is_compiling()
    scale, factor = _scale(logit_scale, compiling)
    softcap = softcap if compiling else checks.number(softcap, "softcap")
    check = checks.check_options if compiling else checks.options
    options = check(form, ignore_index, "none", 0.0, 0.0, softcap, factor, None, "nan")
    found = _scores(layer, target, options, scale, compiling)
    return TokenScores(*(each.squeeze(0) for each in found) if single else found)


def _scores(
    layer: Layer, target: Tensor, options: Options, scale: Tensor | None, compiling: bool
) -> tuple[Tensor, ...]:
    path = _path(layer, target, None, scale, compiling)
    if path is Path.PLAIN:
        if not compiling:
            _check_values(layer, target, None, options)
        return _recomputed.scores(*layer, target, options, scale)
    if path is Path.OPERATOR:
        three = options.ignore_index, options.softcap, options.logit_scale
        return torch.ops.crossent.linear_token_scores(*layer, target, *three)
    resolved = Layer(*(None if t is None else t.resolve_neg() for t in layer))  # type: ignore[arg-type]
    if torch.is_grad_enabled() and any(_needs_grad(layer)):
        return autograd.LinearScores.apply(*resolved, target, options)
    detached = Layer(*(None if t is None else t.detach() for t in resolved))  # type: ignore[arg-type]
    return _linear.scores(detached, target, options)

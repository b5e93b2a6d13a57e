"""Loss, scores and linear form as operators of PyTorch, for what traces, fakes or compiles.

`torch.ops.crossent.*`: shapes and dtypes are known without data; every backward is an operator
again; nothing aliases an input. The results have the bits of eager mode. An operator takes its
options one by one, after everything else, in the order of `crossent.options.Options`. Of each there
is what it computes on the CPU, and what that is `like` where there is no data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_type_hints

import torch

from crossent import options as known
from crossent._core import Output
from crossent.options import Options
from crossent.torch import _autograd, _compute, _memory, _route
from crossent.torch._compute import Layer, class_weight

Tensor = torch.Tensor
Function = Callable[..., Any]

_SCHEMA_TYPES: dict[Any, str] = {int: "SymInt", float: "float", float | None: "float?"}
_OPTIONS = ", ".join(
    f"{_SCHEMA_TYPES.get(kind, 'str')} {name}" for name, kind in get_type_hints(Options).items()
)
_COUNT = len(Options._fields)
_NOTHING = (None,) * _COUNT  # gradients of the options

library = torch.library.Library("crossent", "DEF")


def _packed(function: Function) -> Function:
    """A function whose last argument is Options, as a function that takes them one by one."""

    def of_values(*given: Any) -> Any:
        return function(*given[:-_COUNT], Options(*given[-_COUNT:]))

    return of_values


def _packed_and_checked(function: Function) -> Function:
    """The same, for callers of `torch.ops`, whose options may be wrong."""

    def of_values(*given: Any) -> Any:
        return function(*given[:-_COUNT], known.checked(Options(*given[-_COUNT:])._asdict()))

    return of_values


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:-_COUNT])
    ctx.options = inputs[-_COUNT:]


def _define(
    schema: str,
    compute: Function,
    like: Function,
    backward: Function | None = None,
    keep: Function | None = _keep,
) -> None:
    """An operator; its options stand where the schema says OPTIONS."""
    name = schema.split("(")[0]
    library.define(schema.replace("OPTIONS", _OPTIONS))
    library.impl(name, _packed_and_checked(compute), "CPU")
    torch.library.register_fake(f"crossent::{name}", _packed(like), lib=library)
    if backward is not None:
        torch.library.register_autograd(
            f"crossent::{name}", backward, setup_context=keep, lib=library
        )


def _like_argument(place: int) -> Function:
    """What gives a tensor like one of its arguments."""
    return lambda *given: torch.empty_like(given[place])


# The loss. A problem is (logits, target, weight, options).


def _checked(
    logits: Tensor, target: Tensor, weight: Tensor | None, options: Options
) -> tuple[Tensor, Tensor, Tensor | None, Options]:
    _route.form_of(logits, target)
    if weight is not None:
        _route.check_weight(weight, logits, logits.shape[_compute.class_axis(logits)])
    return logits, target, class_weight(weight), options


def _loss(*problem: Any) -> Tensor:
    return _compute.loss(*_checked(*problem))


def _loss_like(logits: Tensor, target: Tensor, weight: Tensor | None, options: Options) -> Tensor:
    return _compute.loss_like(logits, options.reduction)


def _grad(grad_loss: Tensor, *problem: Any) -> Tensor:
    return _compute.gradient(Output.LOSS, *_checked(*problem), grad_loss)


def _hvp(vector: Tensor, grad_loss: Tensor, *problem: Any) -> Tensor:
    return _compute.gradient(Output.PRODUCT, *_checked(*problem), grad_loss, vector)


def _along(vector: Tensor, *problem: Any) -> Tensor:
    checked = _checked(*problem)
    return _autograd.along(_compute.like_input(vector, checked[0]), *checked)


def _along_like(vector: Tensor, *problem: Any) -> Tensor:
    return _loss_like(*problem)


def _loss_backward(ctx: Any, grad_loss: Tensor) -> Any:
    grad = torch.ops.crossent.cross_entropy_grad(grad_loss, *ctx.saved_tensors, *ctx.options)
    return grad, None, None, *_NOTHING


def _grad_backward(ctx: Any, vector: Tensor) -> Any:
    grad_loss, *problem = ctx.saved_tensors
    product = torch.ops.crossent.cross_entropy_hvp(vector, grad_loss, *problem, *ctx.options)
    change = torch.ops.crossent.cross_entropy_along(vector, *problem, *ctx.options)
    return change, product, None, None, *_NOTHING


_PROBLEM = "Tensor logits, Tensor target, Tensor? weight, OPTIONS"
_define(f"cross_entropy({_PROBLEM}) -> Tensor", _loss, _loss_like, _loss_backward)
_define(
    f"cross_entropy_grad(Tensor grad_loss, {_PROBLEM}) -> Tensor",
    _grad,
    _like_argument(1),
    _grad_backward,
)
_define(
    f"cross_entropy_hvp(Tensor vector, Tensor grad_loss, {_PROBLEM}) -> Tensor",
    _hvp,
    _like_argument(2),
)
_define(f"cross_entropy_along(Tensor vector, {_PROBLEM}) -> Tensor", _along, _along_like)


# Scores


def _by_row(options: Options) -> Options:
    """The options of scores, which are one number a row, whatever a caller of `torch.ops` says."""
    return options._replace(reduction="none", normalizer=None)


def _scores(logits: Tensor, target: Tensor, options: Options) -> tuple[Tensor, ...]:
    _route.check_labels(logits, target)
    return _compute.scores(logits, target, _by_row(options))


def _scores_like(logits: Tensor, target: Tensor, options: Options) -> tuple[Tensor, ...]:
    nll, lse, entropy = (_compute.loss_like(logits, "none") for _ in range(3))
    return nll, lse, entropy, nll.long()


def _scores_grad(
    nll: Tensor | None,
    lse: Tensor | None,
    entropy: Tensor | None,
    logits: Tensor,
    target: Tensor,
    options: Options,
) -> Tensor:
    _route.check_labels(logits, target)
    options = _by_row(options)
    grads = tuple(
        None if grad is None else _compute.like_loss(grad, logits.shape, options)
        for grad in (nll, lse, entropy)
    )
    return _autograd.scores_gradient(grads, logits, target, options)


def _keep_scored(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _keep(ctx, inputs, output)
    ctx.mark_non_differentiable(output[3])
    ctx.set_materialize_grads(False)


def _scores_backward(ctx: Any, *grads: Tensor | None) -> Any:
    grad = torch.ops.crossent.token_scores_grad(*grads[:3], *ctx.saved_tensors, *ctx.options)
    return grad, None, *_NOTHING


_FOUR = "(Tensor, Tensor, Tensor, Tensor)"
_ROWS = "Tensor logits, Tensor target, OPTIONS"
_GRADS = "Tensor? grad_nll, Tensor? grad_lse, Tensor? grad_entropy"
_define(
    f"token_scores({_ROWS}) -> {_FOUR}",
    _scores, _scores_like, _scores_backward, _keep_scored,
)  # fmt: skip
_define(f"token_scores_grad({_GRADS}, {_ROWS}) -> Tensor", _scores_grad, _like_argument(3))


# The linear form. An operator gives tensors: an empty one stands for a gradient that is not wanted.


def _filled(grads: Any, input: Tensor) -> tuple[Tensor, ...]:
    return tuple(input.new_empty(0) if grad is None else grad for grad in grads)


def _checked_layer(parts: list[Any], target: Tensor, weight: Tensor | None = None) -> Layer:
    layer = Layer(*parts)
    _route.check_layer(*layer)
    _route.form_of(layer.input, target, layer.logits_shape)
    if weight is not None:
        _route.check_weight(weight, layer.input, layer.linear_weight.shape[0])
    return layer


def _linear_loss(*given: Any) -> tuple[Tensor, ...]:
    *parts, target, weight, wants, options = given
    layer = _checked_layer(parts, target, weight)
    grads = layer.gradients(wants)
    loss = _compute.linear_loss(layer, target, class_weight(weight), options, grads)
    return loss, *_filled(grads, layer.input)


def _linear_loss_like(*given: Any) -> tuple[Tensor, ...]:
    *parts, _, _, wants, options = given
    layer = Layer(*parts)
    grads = layer.gradients(wants, torch.empty_like)
    return layer.loss_like(options.reduction), *_filled(grads, layer.input)


def _linear_grad(grad_loss: Tensor, ready: list[Tensor], *given: Any) -> tuple[Tensor, ...]:
    if ready:
        factor = _memory.number(_memory.INCOMING, grad_loss)
        return tuple(grad * factor for grad in ready)
    *parts, target, weight, wants, options = given
    layer = _checked_layer(parts, target, weight)
    grads = layer.gradients(wants)
    _compute.linear_loss(layer, target, class_weight(weight), options, grads, grad_loss)
    return _filled(grads, layer.input)


def _linear_grad_like(grad_loss: Tensor, ready: list[Tensor], *given: Any) -> tuple[Tensor, ...]:
    return _linear_loss_like(*given)[1:]


def _linear_scores(*given: Any) -> tuple[Tensor, ...]:
    *parts, target, options = given
    return _compute.linear_scores(_checked_layer(parts, target), target, _by_row(options))


def _linear_scores_like(*given: Any) -> tuple[Tensor, ...]:
    *parts, _, _ = given
    nll, lse, entropy = (Layer(*parts).loss_like("none") for _ in range(3))
    return nll, lse, entropy, nll.long()


def _keep_linear(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *problem, wants = inputs[:-_COUNT]
    ctx.options = inputs[-_COUNT:]
    ctx.ready = any(wants) and _autograd.made_in_forward(inputs[0], Options(*ctx.options))
    ctx.save_for_backward(*problem, *(output[1:] if ctx.ready else ()))
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _linear_backward(ctx: Any, grad_loss: Tensor, *_: Any) -> Any:
    problem, ready = ctx.saved_tensors[:5], list(ctx.saved_tensors[5:])
    wants = [bool(needed) for needed in ctx.needs_input_grad[:3]]
    grads = torch.ops.crossent.linear_cross_entropy_grad(
        grad_loss, ready, *problem, wants, *ctx.options
    )
    chosen = (grad if wanted else None for grad, wanted in zip(grads, wants, strict=True))
    return *chosen, None, None, None, *_NOTHING


def _refuse(ctx: Any, *_: Any) -> Any:
    raise RuntimeError(
        "where it is compiled or traced, linear_cross_entropy has no second derivatives, and "
        "linear_token_scores has none: call them in eager mode for those"
    )


_LAYER = "Tensor input, Tensor linear_weight, Tensor? linear_bias, Tensor target"
_LINEAR = f"{_LAYER}, Tensor? weight, bool[3] wants, OPTIONS"
_define(
    f"linear_cross_entropy({_LINEAR}) -> {_FOUR}",
    _linear_loss, _linear_loss_like, _linear_backward, _keep_linear,
)  # fmt: skip
_define(
    f"linear_cross_entropy_grad(Tensor grad_loss, Tensor[] ready, {_LINEAR}) "
    "-> (Tensor, Tensor, Tensor)",
    _linear_grad, _linear_grad_like, _refuse, None,
)  # fmt: skip
_define(
    f"linear_token_scores({_LAYER}, OPTIONS) -> {_FOUR}",
    _linear_scores, _linear_scores_like, _refuse, None,
)  # fmt: skip

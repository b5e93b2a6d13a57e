"""The loss as operators of PyTorch, for what traces, fakes or compiles: torch.ops.crossent.

Shapes and dtypes are known without data; every backward is an operator again; nothing aliases an
input. The results have the bits of eager mode.
"""

from __future__ import annotations

from typing import Any

import torch

from crossent.torch import _call
from crossent.torch._autograd import along, scores_gradient
from crossent.torch._call import Options, class_axis, loss_dtype

Tensor = torch.Tensor

OPTIONS = (
    "SymInt? ignore_index, str reduction, float normalizer, str when_empty, float label_smoothing, "
    "float z_loss, float softcap, float logit_scale"
)
_PROBLEM = f"Tensor logits, Tensor target, Tensor? weight, {OPTIONS}"

library = torch.library.Library("crossent", "DEF")
library.define(f"cross_entropy({_PROBLEM}) -> Tensor")
library.define(f"cross_entropy_grad(Tensor grad_loss, {_PROBLEM}) -> Tensor")
library.define(f"cross_entropy_hvp(Tensor vector, Tensor grad_loss, {_PROBLEM}) -> Tensor")
library.define(f"cross_entropy_along(Tensor vector, {_PROBLEM}) -> Tensor")
library.define(
    "token_scores(Tensor logits, Tensor target, SymInt? ignore_index, float softcap, "
    "float logit_scale) -> (Tensor, Tensor, Tensor, Tensor)"
)
library.define(
    "token_scores_grad(Tensor? grad_nll, Tensor? grad_lse, Tensor? grad_entropy, Tensor logits, "
    "Tensor target, SymInt? ignore_index, float softcap, float logit_scale) -> Tensor"
)


def _loss_like(logits: Tensor, reduction: str) -> Tensor:
    axis = class_axis(logits)
    rows = logits.shape[:axis] + logits.shape[axis + 1 :] if reduction == "none" else ()
    return logits.new_empty(rows, dtype=loss_dtype(logits))


@torch.library.impl("crossent::cross_entropy", "CPU")
def _loss(logits: Tensor, target: Tensor, weight: Tensor | None, *options: Any) -> Tensor:
    return _call.loss(logits, target, _call.class_weight(weight), Options(*options))


@torch.library.register_fake("crossent::cross_entropy")
def _(logits: Tensor, target: Tensor, weight: Tensor | None, *options: Any) -> Tensor:
    return _loss_like(logits, Options(*options).reduction)


@torch.library.impl("crossent::cross_entropy_grad", "CPU")
def _grad(
    grad_loss: Tensor, logits: Tensor, target: Tensor, weight: Tensor | None, *options: Any
) -> Tensor:
    weight = _call.class_weight(weight)
    return _call.gradient(_call.LOSS, logits, target, weight, Options(*options), grad_loss)


@torch.library.register_fake("crossent::cross_entropy_grad")
def _(grad_loss: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(logits)


@torch.library.impl("crossent::cross_entropy_hvp", "CPU")
def _hvp(
    vector: Tensor,
    grad_loss: Tensor,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    *options: Any,
) -> Tensor:
    weight = _call.class_weight(weight)
    return _call.gradient(
        _call.PRODUCT, logits, target, weight, Options(*options), grad_loss, vector
    )


@torch.library.register_fake("crossent::cross_entropy_hvp")
def _(vector: Tensor, grad_loss: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(logits)


@torch.library.impl("crossent::cross_entropy_along", "CPU")
def _along(
    vector: Tensor, logits: Tensor, target: Tensor, weight: Tensor | None, *options: Any
) -> Tensor:
    return along(vector, logits, target, _call.class_weight(weight), Options(*options))


@torch.library.register_fake("crossent::cross_entropy_along")
def _(vector: Tensor, logits: Tensor, target: Tensor, weight: Any, *options: Any) -> Tensor:
    return _loss_like(logits, Options(*options).reduction)


@torch.library.impl("crossent::token_scores", "CPU")
def _scores(
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    softcap: float,
    logit_scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    options = Options(ignore_index, softcap=softcap, logit_scale=logit_scale)
    return _call.scores(logits, target, options)


@torch.library.register_fake("crossent::token_scores")
def _(logits: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows = _loss_like(logits, "none")
    return rows, rows.new_empty(rows.shape), rows.new_empty(rows.shape), rows.long()


@torch.library.impl("crossent::token_scores_grad", "CPU")
def _scores_grad(
    grad_nll: Tensor | None,
    grad_lse: Tensor | None,
    grad_entropy: Tensor | None,
    logits: Tensor,
    target: Tensor,
    ignore_index: int | None,
    softcap: float,
    logit_scale: float,
) -> Tensor:
    options = Options(ignore_index, softcap=softcap, logit_scale=logit_scale)
    return scores_gradient((grad_nll, grad_lse, grad_entropy), logits, target, options)


@torch.library.register_fake("crossent::token_scores_grad")
def _(grad_nll: Any, grad_lse: Any, grad_entropy: Any, logits: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(logits)


def _keep_scored(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.options = inputs[2:]
    ctx.mark_non_differentiable(output[3])
    ctx.set_materialize_grads(False)


def _scores_backward(ctx: Any, *grads: Tensor | None) -> Any:
    grad = torch.ops.crossent.token_scores_grad(*grads[:3], *ctx.saved_tensors, *ctx.options)
    return grad, None, None, None, None


def _keep_problem(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.options = inputs[3:]


def _loss_backward(ctx: Any, grad_loss: Tensor) -> Any:
    grad = torch.ops.crossent.cross_entropy_grad(grad_loss, *ctx.saved_tensors, *ctx.options)
    return grad, None, None, *(None for _ in ctx.options)


def _keep_gradient(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.options = inputs[4:]


def _gradient_backward(ctx: Any, vector: Tensor) -> Any:
    grad_loss, *problem = ctx.saved_tensors
    product = torch.ops.crossent.cross_entropy_hvp(vector, grad_loss, *problem, *ctx.options)
    change = torch.ops.crossent.cross_entropy_along(vector, *problem, *ctx.options)
    return change, product, None, None, *(None for _ in ctx.options)


torch.library.register_autograd(
    "crossent::cross_entropy", _loss_backward, setup_context=_keep_problem, lib=library
)
torch.library.register_autograd(
    "crossent::cross_entropy_grad", _gradient_backward, setup_context=_keep_gradient, lib=library
)
torch.library.register_autograd(
    "crossent::token_scores", _scores_backward, setup_context=_keep_scored, lib=library
)

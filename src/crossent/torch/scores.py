"""What an evaluation asks of every row."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.overrides import handle_torch_function, has_torch_function_variadic

from crossent import _arguments as rules
from crossent.torch import _autograd, _call, _plain
from crossent.torch import _checks as checks
from crossent.torch._checks import Path

Tensor = torch.Tensor


class TokenScores(NamedTuple):
    """What one pass says of every row: tensors of the target's shape."""

    nll: Tensor
    """lse - u_t of the target t: its negative log-probability; 0 where the row is ignored."""
    lse: Tensor
    """log sum_k exp u_k."""
    entropy: Tensor
    """-sum_k p_k log p_k, in nats."""
    argmax: Tensor
    """The most probable class, int64; of several, the first."""


def token_scores(
    input: Tensor,
    target: Tensor,
    *,
    ignore_index: int = -100,
    softcap: float | None = None,
    logit_scale: float | Tensor = 1.0,
) -> TokenScores:
    """nll, lse, entropy and argmax of every row, from one pass over the logits.

    Same as `crossent.token_scores`; differences: PyTorch's names, classes on dim 1 (dim 0 of a
    single row), and autograd: nll, lse and entropy are differentiable. The gradient of nll alone
    is as fast as the loss's; those of lse and entropy take plain torch operations.

    Args:
        input, target, ignore_index, softcap, logit_scale: as for `cross_entropy`.

    Returns:
        TokenScores(nll, lse, entropy, argmax), each of the target's shape.

    Raises:
        TypeError, ValueError, IndexError: as `cross_entropy`.

    Example:
        >>> import torch, crossent.torch
        >>> scores = crossent.torch.token_scores(torch.tensor([[2.0, 1.0, 0.1]]), torch.tensor([1]))
        >>> print("%.3f %.3f %.3f" % (scores.nll, scores.lse, scores.entropy), scores.argmax.item())
        1.417 2.417 0.847 0

    Source: as `crossent.token_scores`.
    """
    if has_torch_function_variadic(input, target):
        return handle_torch_function(  # type: ignore[no-any-return]
            token_scores, (input, target), input, target, ignore_index=ignore_index,
            softcap=softcap, logit_scale=logit_scale,
        )  # fmt: skip
    form = checks.form_of(input, target)
    if form != rules.INDICES:
        rows = rules.row_shape(input, _call.class_axis(input))
        rules.raise_tensor_not_for_scores(target.shape, rows)
    compiling, scale = torch.compiler.is_compiling(), None
    if isinstance(logit_scale, Tensor):
        scale, logit_scale = (logit_scale, 1.0) if compiling else checks.learned_scale(logit_scale)
    check = checks.check_options if compiling else checks.options
    softcap = checks.number(softcap, "softcap")
    options = check(form, ignore_index, "none", 0.0, 0.0, softcap, logit_scale, None, "nan")
    if compiling:
        on_core = scale is None and input.device.type == "cpu"
        path = Path.OPERATOR if on_core else Path.PLAIN
    else:
        path = checks.path_of(input, target, None, scale)
    if path is Path.PLAIN:
        if not compiling:
            checks.check_labels(target, input, options.ignore_index)
        return TokenScores(*_plain.scores(input, target, options, scale))
    if path is Path.OPERATOR:
        three = options.ignore_index, options.softcap, options.logit_scale
        return TokenScores(*torch.ops.crossent.token_scores(input, target, *three))
    input = input.resolve_neg()
    if input.requires_grad and torch.is_grad_enabled():
        return TokenScores(*_autograd.Scores.apply(input, target, options))
    return TokenScores(*_call.scores(input, target, options))

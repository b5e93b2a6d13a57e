"""Options, shapes and problems that the tests of the PyTorch front-end share.

N rows, C classes; classes are on dim 1.
"""

from __future__ import annotations

from contextlib import contextmanager

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

OPTIONS = {
    "plain": {},
    "sum": {"reduction": "sum"},
    "none": {"reduction": "none"},
    "smoothing": {"label_smoothing": 0.2},
    "z_loss": {"z_loss": 0.3},
    "softcap": {"softcap": 2.0},
    "logit_scale": {"logit_scale": 0.7},
    "normalizer": {"normalizer": 2.5},
    "all": {
        "label_smoothing": 0.1, "z_loss": 0.01, "softcap": 5.0, "logit_scale": 1.3,
        "reduction": "none",
    },
}  # fmt: skip
FORMS = ("index", "weighted index", "distribution", "weighted distribution")


def problem(form, shape=(4, 5), dtype=torch.float64, seed=0, **more):
    """(input that requires grad, target, options): one row is ignored where labels are indices."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64) * 2
    logits = logits.to(dtype).requires_grad_()
    if "index" in form:
        rows = (shape[0], *shape[2:]) if len(shape) > 1 else ()
        classes = shape[1] if len(shape) > 1 else shape[0]
        target = torch.randint(0, classes, rows, generator=generator)
        if target.numel() > 1:
            target.view(-1)[-1] = more.get("ignore_index", -100)
    else:
        target = torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype)
    if "weighted" in form:
        classes = shape[1] if len(shape) > 1 else shape[0]
        more["weight"] = torch.rand(classes, generator=generator, dtype=torch.float64).to(dtype)
    return logits, target, more


@contextmanager
def fallback_path():
    """Within it every call takes the path of other devices."""
    from crossent.torch import _route

    kept = _route.path_of
    _route.path_of = lambda *_: _route.Path.FALLBACK
    try:
        yield
    finally:
        _route.path_of = kept


class operator_path(torch.utils._python_dispatch.TorchDispatchMode):
    """Within it every call takes the path of what traces: the operators."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))

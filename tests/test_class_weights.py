"""Class weights of either sign: against the oracle, and the mean whose weights cancel.

Terms of both signs cancel, so errors are counted in ULP of the sum of the terms' sizes.
"""

import numpy as np
import pytest
from cases import labels_of, logits_of, soft_targets_of
from covering import covering
from oracle import masses, needs_80_bits, scaled_logits, truth, ulp, worst

import crossent
from crossent import reference

BARS = {"float32": 2, "float64": 8}
OPTIONS = {
    "plain": {},
    "z-loss": {"z_loss": 0.3},
    "smoothing": {"label_smoothing": 0.3},
    "all": {"label_smoothing": 0.2, "z_loss": 0.05, "softcap": 8.0, "logit_scale": 1.7},
}


def weights_of_both_signs(classes):
    return np.random.default_rng(classes).normal(size=classes)


@needs_80_bits
@covering(
    2, C=[1, 2, 5, 17, 129, 1100], dtype=BARS.keys(), name=OPTIONS.keys(), form=["index", "soft"]
)
def test_losses_and_gradients_are_exact(isa, C, dtype, name, form):
    logits, weight = logits_of((12, C), dtype), weights_of_both_signs(C)
    targets = labels_of(12, C) if form == "index" else soft_targets_of((12, C))
    options = {**OPTIONS[name], "weight": weight}
    true = truth(logits, targets, **options)
    loss, grad = crossent.cross_entropy_and_grad(logits, targets, reduction="none", **options)
    # The sizes of the terms: p |weight q| of every class, |weight q|, and what the z-loss adds.
    size = abs(masses(targets, C, weight, options.get("label_smoothing", 0.0)))
    z, lse = options.get("z_loss", 0.0), abs(true.lse)[:, None]
    slope = abs(scaled_logits(logits, options.get("logit_scale", 1), options.get("softcap")).slope)
    grad_size = slope * (true.prob * (size.sum(1, keepdims=True) + 2 * z * lse) + size)
    loss_size = (size * -true.log_prob).sum(1) + true.loss_scale * (z != 0)
    for computed, exact, scale in ((loss, true.loss, loss_size), (grad, true.grad, grad_size)):
        error, at = worst(abs(computed - exact) / ulp(scale, dtype))
        assert error <= BARS[dtype], f"{error:.2f} ULP at {at}"


def test_a_target_at_minus_infinity_costs_its_weight_s_sign(isa):
    logits = np.array([[0.0, -np.inf], [0.0, -np.inf]])
    loss = crossent.cross_entropy(logits, [1, 1], weight=[1.0, -2.0], reduction="none")
    assert (loss == -np.inf).all()


@pytest.mark.parametrize("rule", ["nan", "zero", "raise"])
def test_weights_that_cancel_leave_nothing_to_divide_by(isa, rule):
    given = {"weight": [1.0, -1.0, 3.0], "when_empty": rule}
    if rule == "raise":
        with pytest.raises(ValueError, match="nothing to divide by"):
            crossent.cross_entropy(np.zeros((2, 3)), [0, 1], **given)
        return
    out = np.ones((2, 3))
    loss, grad = crossent.cross_entropy_and_grad(np.zeros((2, 3)), [0, 1], out=out, **given)
    assert loss == 0 if rule == "zero" else np.isnan(loss)
    assert (grad == 0).all()


def test_a_negative_sum_divides(isa):
    logits, targets, weight = logits_of((20, 4), np.float64), labels_of(20, 4), [-2.0, 0.5, -1, -3]
    expected = reference.cross_entropy_and_grad(logits, targets, weight=weight)
    got = crossent.cross_entropy_and_grad(logits, targets, weight=weight)
    for ours, theirs in zip(got, expected, strict=True):
        assert np.abs(ours - theirs).max() <= 1e-14 * max(1, np.abs(theirs).max())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_class_weights_are_finite(bad):
    with pytest.raises(ValueError, match=r"weight\[1\] is .*; class weights must be finite"):
        crossent.cross_entropy(np.zeros((1, 3)), [0], weight=[1.0, bad, 1.0])

"""The oracle of the accuracy tests is right: mpmath says the same, from the definition alone."""

import mpmath
import numpy as np
import pytest
from cases import BFLOAT16, options_of
from mpmath import mpf
from oracle import needs_80_bits, truth, ulp, ulp_errors

pytestmark = needs_80_bits
DIGITS = 900  # more than any of the cancellations below takes

OPTIONS = ("plain", "weight, z-loss", "smoothing, weight", "scale", "softcap, scale", "all")
ROWS = {
    "scale 1": np.random.default_rng(1).normal(size=(2, 6)),
    "scale 100": 100 * np.random.default_rng(2).normal(size=(2, 6)),
    "offset 1e6": 1e6 + np.random.default_rng(3).normal(size=(2, 6)),
    "margin 700": np.array([[700.0, 0.25, -0.5, 0.125, 0.0, -1.0], [1.0, 0.0, 740.0, 2.0, 0, 0]]),
    "ties": np.array([[0.3, 0.3, 0.1, 0.3, 0.3, 0.3], [-5.0, -5, -5, -5, -5, -5]]),
}
TARGETS = {
    "indices": np.array([0, 2]),
    "distributions": np.array([[0.5, 0.25, 0, 0, 0.125, 0.125], [0, 0, 1.0, 0, 0, 0]]),
}
V = np.random.default_rng(4).normal(size=(2, 6))


def definition(a, y, v, weight=None, label_smoothing=0, z_loss=0, softcap=None, logit_scale=1):
    """Truth's fields of one row, straight from the definition in many digits."""
    C, weight = len(a), [1] * len(a) if weight is None else [mpf(w) for w in weight]
    u, slope, bend = [mpf(logit_scale) * mpf(x) for x in a], [mpf(logit_scale)] * C, [mpf(0)] * C
    if softcap is not None:
        t = [mpmath.tanh(x / mpf(softcap)) for x in u]
        u = [softcap * x for x in t]
        slope = [mpf(logit_scale) * (1 - x * x) for x in t]
        bend = [-2 * mpf(logit_scale) ** 2 / softcap * x * (1 - x * x) for x in t]
    q = [(1 - mpf(label_smoothing)) * mpf(t) + mpf(label_smoothing) / C for t in y]
    g = [w * x for w, x in zip(weight, q, strict=True)]
    exps = [mpmath.exp(x) for x in u]
    lse = mpmath.log(mpmath.fsum(exps))
    p, total, z = [e / mpmath.fsum(exps) for e in exps], mpmath.fsum(g), mpf(z_loss)
    d = [p_k * (total + 2 * z * lse) - g_k for p_k, g_k in zip(p, g, strict=True)]
    sv = [s * mpf(x) for s, x in zip(slope, v, strict=True)]
    mean = mpmath.fsum(p_k * x for p_k, x in zip(p, sv, strict=True))
    straight = [
        (total + 2 * z * lse) * p_k * (x - mean) + 2 * z * p_k * mean
        for p_k, x in zip(p, sv, strict=True)
    ]
    return {
        "loss": [mpmath.fsum(g_k * (lse - x) for g_k, x in zip(g, u, strict=True)) + z * lse * lse],
        "grad": [s * x for s, x in zip(slope, d, strict=True)],
        "lse": [lse],
        "prob": p,
        "log_prob": [x - lse for x in u],
        "entropy": [mpmath.fsum(p_k * (lse - x) for p_k, x in zip(p, u, strict=True))],
        "hvp": [
            s * x + d_k * b * mpf(y_k)
            for s, x, d_k, b, y_k in zip(slope, straight, d, bend, v, strict=True)
        ],
    }


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("kind", ROWS)
def test_the_oracle_says_what_mpmath_says_to_a_tenth_of_a_float64_ulp(kind, targets, option):
    logits, given = ROWS[kind], TARGETS[targets]
    options = options_of(option, 6)
    true = truth(logits, given, V, **options)
    y = np.eye(6)[given] if given.ndim == 1 else given
    scales = {name: getattr(true, f"{name}_scale") for name in ("loss", "grad", "lse", "hvp")}
    if option == "plain":
        del scales["grad"]
    with mpmath.workdps(DIGITS):
        for row in range(2):
            expected = definition(logits[row], y[row], V[row], **options)
            for name, values in expected.items():
                computed = np.atleast_1d(getattr(true, name)[row])
                scale = np.atleast_1d(scales.get(name, getattr(true, name))[row])
                for got, value, size in zip(computed, values, scale, strict=True):
                    error = abs(as_mpf(got) - value)
                    assert error <= as_mpf(0.1 * ulp(size, np.float64)), (name, row)


def as_mpf(x):
    """A longdouble, whole."""
    mantissa, exponent = np.frexp(x)
    head = float(mantissa)
    return mpmath.ldexp(mpf(head) + mpf(float(mantissa - head)), int(exponent))


@pytest.mark.parametrize(
    ("dtype", "one", "least"),
    [
        (np.float64, 2.0**-52, 2.0**-1074),
        (np.float32, 2.0**-23, 2.0**-149),
        (np.float16, 2.0**-10, 2.0**-24),
        (BFLOAT16, 2.0**-7, 2.0**-133),
    ],
)
def test_an_ulp_is_the_distance_to_the_next_number(dtype, one, least):
    assert ulp(1.0, dtype) == one
    assert ulp(1.999, dtype) == one
    assert ulp(-0.5, dtype) == one / 2
    assert ulp(0.0, dtype) == ulp(least, dtype) == least


def test_an_error_of_one_neighbour_is_one_ulp():
    x = np.float32(1.5)
    assert ulp_errors(np.nextafter(x, np.float32(2)), np.longdouble(1.5)) == 1
    assert ulp_errors(x, np.longdouble(1.5)) == 0

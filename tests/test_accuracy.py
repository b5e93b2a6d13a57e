"""How exact every result is, for every instruction set, against the 80-bit oracle.

Gradients are taken with reduction "sum". Each failure names the largest error and where it is.
Every three of kind, classes, instruction set and dtype meet, or every two where the truth costs
more than it tells; CROSSENT_FULL=1 runs them all.
"""

from functools import cache

import numpy as np
import pytest
from cases import BFLOAT16, ISAS, OPTIONS, labels_of, options_of, soft_targets_of
from covering import FULL, covering
from oracle import needs_80_bits, truth, ulp, ulp_errors, worst

import crossent

pytestmark = needs_80_bits

BARS = {"float32": 2, "float64": 4}
# General rows compute in double: what float64 gains no width from rounds some six times more.
OPTION_BARS = {"float32": 2, "float64": 8}
PRODUCT_BARS = {"float32": 2, "float64": 16}
ROWS = {2: 8000, 10: 2000, 1000: 48, 256_000: 3 if FULL else 2}
MARGINS = (20, 40, 95, 103)
KINDS = (
    "scale 1",
    "scale 10",
    "scale 100",
    "offset 1e3",
    *(f"margin {margin}" for margin in MARGINS),
    "margin 300",
    "margin 740",
    "across 2^20",
    "distractor 10",
    "distractor 17",
    "distractor 37",
)

classes = pytest.mark.parametrize("C", ROWS)
dtypes = pytest.mark.parametrize("dtype", BARS)


def _logits(kind, N, C, dtype):
    """Logits and labels of one kind.

    margin: each label that far above the rest; distractor: another class that far above the rest.
    """
    rng = np.random.default_rng([C, *kind.encode()])
    name, number = kind.split(" ")
    a, labels = rng.standard_normal((N, C)), labels_of(N, C)
    if name == "scale":
        a *= float(number)
    elif name == "offset":
        a += float(number)
    elif name == "across":  # half the classes below a power of two, the others above it
        a += 2.0**20 + np.where(np.arange(C) < C // 2, -12.0, 0.0)
    else:
        a = a.astype(dtype)
        above = (np.arange(N), labels if name == "margin" else (labels + 1) % C)
        a[above] = -np.inf
        a[above] = a.max(1) + float(number)
    return a.astype(dtype), labels


@cache
def case(kind, C, dtype):
    logits, labels = _logits(kind, ROWS[C], C, dtype)
    return logits, labels, truth(logits, labels)


@pytest.fixture(scope="module", autouse=True)
def forget_the_truth():
    """Gigabytes that no other file needs."""
    yield
    case.cache_clear()
    option_case.cache_clear()


def assert_within(bar, errors, what):
    error, at = worst(errors)
    assert error <= bar, f"{what}: {error:.2f} ULP at {at}, allowed are {bar}"


def bar_of(kind, C, dtype):
    """The bar; where blocks have references of both kinds each ratio of two adds an error."""
    return 12 if (kind, C, dtype) == ("across 2^20", 256_000, "float64") else BARS[dtype]


def errors_of(logits, labels, true, **options):
    """ULP errors of the loss of each row and of each element of the gradient."""
    loss = crossent.cross_entropy(logits, labels, reduction="none", **options)
    _, grad = crossent.cross_entropy_and_grad(logits, labels, reduction="sum", **options)
    scale = true.grad_scale if options else None
    return ulp_errors(loss, true.loss), ulp_errors(grad, true.grad, scale)


@covering(3, isa=ISAS, kind=KINDS, dtype=BARS.keys(), C=ROWS.keys())
def test_loss_and_gradient_are_within_the_bar(isa, kind, dtype, C):
    loss, grad = errors_of(*case(kind, C, dtype))
    assert_within(BARS[dtype], loss, "loss")
    assert_within(bar_of(kind, C, dtype), grad, "gradient")


@classes
@dtypes
@pytest.mark.parametrize("margin", MARGINS)
def test_a_confident_right_answer_has_a_loss_and_a_gradient_that_are_not_zero(margin, dtype, C):
    logits, labels, _ = case(f"margin {margin}", C, dtype)
    loss, grad = crossent.cross_entropy_and_grad(logits, labels, reduction="none")
    assert (loss > 0).all()
    assert (grad[np.arange(len(labels)), labels] < 0).all()


@classes
@dtypes
@pytest.mark.parametrize("kind", ["scale 10", "margin 40"])
def test_a_one_hot_distribution_is_as_exact_as_its_index(isa, kind, dtype, C):
    logits, labels, true = case(kind, C, dtype)
    logits, labels, true = logits[:500], labels[:500], true.first(500)
    one_hot = np.zeros(logits.shape, bool)
    one_hot[np.arange(len(labels)), labels] = True
    loss, grad = errors_of(logits, one_hot, true)
    assert_within(OPTION_BARS[dtype], loss, "loss")
    assert_within(OPTION_BARS[dtype], grad, "gradient")


@classes
@dtypes
@pytest.mark.parametrize("kind", ["scale 10", "margin 40", "offset 1e3"])
def test_the_divisor_of_the_mean_costs_the_gradient_at_most_a_rounding(isa, kind, dtype, C):
    logits, labels, true = case(kind, C, dtype)
    bar = 2 if dtype == "float32" else 5  # a float64 divisor is rounded into the row's factor
    for normalizer in (None, 0.1, 12345.678):
        loss, grad = crossent.cross_entropy_and_grad(logits, labels, normalizer=normalizer)
        divisor = np.longdouble(normalizer or len(labels))
        assert_within(bar, ulp_errors(loss, true.loss.sum() / divisor), "mean")
        assert_within(bar, ulp_errors(grad, true.grad / divisor), "gradient")


@dtypes
@pytest.mark.parametrize("grad_loss", [-1.0, 3.0, 1e-6, 1e-30, 65536.0, 1e20])
def test_the_incoming_gradient_costs_at_most_a_rounding(isa, grad_loss, dtype):
    for C in (10, 1000):
        logits, labels, true = case("scale 10", C, dtype)
        _, grad = crossent.cross_entropy_and_grad(
            logits, labels, reduction="sum", grad_loss=grad_loss
        )
        true_grad = true.grad * np.longdouble(grad_loss)
        assert_within(BARS[dtype] + 1, ulp_errors(grad, true_grad), "gradient")


@cache
def option_case(option, C, dtype, scale, soft):
    N = {3: 400, 130: 40, 1500: 8, 70_000: 2}[C]
    rng = np.random.default_rng([C, scale])
    logits = (scale * rng.standard_normal((N, C))).astype(dtype)
    targets = soft_targets_of((N, C)) if soft else labels_of(N, C)
    v = rng.standard_normal((N, C)).astype(dtype)
    options = options_of(option, C)
    return logits, targets, v, options, truth(logits, targets, v, **options)


OPTION_CLASSES = (3, 130, 1500, 70_000)
SOFT = {"indices": False, "distributions": True}


@covering(
    3,
    isa=ISAS,
    option=OPTIONS.keys(),
    dtype=BARS.keys(),
    C=OPTION_CLASSES,
    soft=SOFT,
    scale=[1, 10, 60],
)
def test_with_options_loss_and_gradient_are_within_the_bar_of_their_terms(
    isa, option, dtype, C, soft, scale
):
    logits, targets, _, options, true = option_case(option, C, dtype, scale, soft)
    loss = crossent.cross_entropy(logits, targets, reduction="none", **options)
    _, grad = crossent.cross_entropy_and_grad(logits, targets, reduction="sum", **options)
    errors = ulp_errors(loss, true.loss, true.loss_scale)
    # Where lse is near 0, lse^2 keeps the error that lse has beside its terms.
    bar = 64 if (dtype, option) == ("float64", "weight, z-loss") else OPTION_BARS[dtype]
    assert_within(bar, errors, "loss")
    errors = ulp_errors(grad, true.grad, true.grad_scale)
    assert_within(OPTION_BARS[dtype], errors, "gradient")


@covering(
    isa=ISAS,
    option=OPTIONS.keys(),
    dtype=BARS.keys(),
    C=OPTION_CLASSES,
    soft=SOFT,
    scale=[1, 10],
)
def test_the_hessian_product_is_within_its_bar(isa, option, dtype, C, soft, scale):
    logits, targets, v, options, true = option_case(option, C, dtype, scale, soft)
    product = crossent.cross_entropy_hvp(logits, targets, v, reduction="sum", **options)
    errors = ulp_errors(product, true.hvp, true.hvp_scale)
    assert_within(PRODUCT_BARS[dtype], errors, "product")


@covering(
    isa=ISAS,
    kind=[k for k in KINDS if not k.startswith("margin 9")],
    dtype=BARS.keys(),
    C=ROWS.keys(),
)
def test_probabilities_and_scores_are_within_the_bar(isa, kind, dtype, C):
    logits, labels, true = case(kind, C, dtype)
    scores = crossent.token_scores(logits, labels)
    bar = 12 if (kind, dtype, C) == ("across 2^20", "float64", 256_000) else BARS[dtype]
    assert_within(bar, ulp_errors(crossent.softmax(logits), true.prob), "softmax")
    assert_within(bar, ulp_errors(crossent.log_softmax(logits), true.log_prob), "log_softmax")
    lse = crossent.logsumexp(logits)
    assert_within(bar, ulp_errors(lse, true.lse, true.lse_scale), "logsumexp")
    assert_within(bar, ulp_errors(scores.lse, true.lse, true.lse_scale), "lse")
    assert_within(bar, ulp_errors(scores.nll, true.loss), "nll")
    assert_within(bar, ulp_errors(scores.entropy, true.entropy), "entropy")
    assert (scores.argmax == logits.argmax(1)).all()


@dtypes
@pytest.mark.parametrize("option", ["scale", "scale below 0", "softcap", "softcap, scale"])
def test_scores_of_scaled_logits_are_within_the_bar(isa, option, dtype):
    for C in (3, 1500, 70_000):
        logits, labels, _, options, true = option_case(option, C, dtype, 10, False)
        scores = crossent.token_scores(logits, labels, **options)
        bar = OPTION_BARS[dtype]
        assert_within(bar, ulp_errors(scores.nll, true.loss), "nll")
        assert_within(bar, ulp_errors(scores.lse, true.lse, true.lse_scale), "lse")
        assert_within(bar, ulp_errors(scores.entropy, true.entropy), "entropy")


HALVES = {"float16": np.dtype(np.float16), "bfloat16": BFLOAT16}


def half_errors(computed, true, scale=None):
    """Errors in units of what a half type may have: half its own ULP and two of float32."""
    size = true if scale is None else scale
    allowed = ulp(true, computed.dtype) / 2 + 2 * ulp(size, np.float32)
    return abs(computed.astype(np.longdouble) - true) / allowed


@covering(
    isa=ISAS, kind=[k for k in KINDS if k != "across 2^20"], dtype=HALVES.keys(), C=ROWS.keys()
)
def test_half_types_lose_only_their_own_rounding(isa, kind, dtype, C):
    logits, labels, true = case(kind, C, HALVES[dtype])
    loss = crossent.cross_entropy(logits, labels, reduction="none")
    _, grad = crossent.cross_entropy_and_grad(logits, labels, reduction="sum")
    assert loss.dtype == np.float32
    assert grad.dtype == logits.dtype
    assert_within(2, ulp_errors(loss, true.loss), "loss")
    assert_within(1, half_errors(grad, true.grad), "gradient, of what is allowed")
    assert_within(1, half_errors(crossent.softmax(logits), true.prob), "softmax")
    assert_within(1, half_errors(crossent.log_softmax(logits), true.log_prob), "log_softmax")


@covering(
    3,
    isa=ISAS,
    option=["smoothing, weight", "softcap, scale", "all"],
    dtype=HALVES.keys(),
    C=OPTION_CLASSES,
    soft=SOFT,
)
def test_half_types_with_options_lose_only_their_own_rounding(isa, option, dtype, C, soft):
    logits, targets, _, options, true = option_case(option, C, HALVES[dtype], 10, soft)
    loss = crossent.cross_entropy(logits, targets, reduction="none", **options)
    _, grad = crossent.cross_entropy_and_grad(logits, targets, reduction="sum", **options)
    assert_within(2, ulp_errors(loss, true.loss, true.loss_scale), "loss")
    errors = half_errors(grad, true.grad, true.grad_scale)
    assert_within(1, errors, "gradient, of what is allowed")


def test_the_worked_example_has_its_printed_digits_and_the_exact_values():
    A, Y = [[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]], np.array([[0, 1, 0], [1, 0, 0]])
    loss, grad = crossent.cross_entropy_and_grad(A, Y)
    true = truth(A, Y)
    assert crossent.softmax(A).round(3).tolist() == [[0.659, 0.242, 0.099], [0.073, 0.487, 0.440]]
    assert crossent.cross_entropy(A, Y, reduction="none").round(3).tolist() == [1.417, 2.620]
    assert round(loss, 3) == 2.019
    assert grad.round(3).tolist() == [[0.330, -0.379, 0.049], [-0.464, 0.243, 0.220]]
    assert abs(loss - true.loss.mean()) < 1e-15
    assert abs(grad - true.grad / 2).max() < 1e-15


@pytest.mark.parametrize("option", OPTIONS)
def test_the_gradient_is_the_slope_of_the_loss_and_the_product_that_of_the_gradient(option):
    rng = np.random.default_rng(7)
    logits, labels, step = rng.standard_normal((5, 9)), labels_of(5, 9), 1e-5
    options = options_of(option, 9)
    v = rng.standard_normal(logits.shape)
    _, grad = crossent.cross_entropy_and_grad(logits, labels, **options)
    product = crossent.cross_entropy_hvp(logits, labels, v, **options)
    sides = [
        crossent.cross_entropy_and_grad(logits + by * v, labels, **options) for by in (step, -step)
    ]
    slope = (sides[0][0] - sides[1][0]) / (2 * step)
    assert (grad * v).sum() == pytest.approx(slope, abs=1e-8)
    assert product == pytest.approx((sides[0][1] - sides[1][1]) / (2 * step), abs=1e-8)


@pytest.mark.parametrize("above", [20, 300, 345, 400])
@pytest.mark.parametrize(
    "options", [{"logit_scale": 0.5}, {"softcap": 5000.0}, {"distribution": True}]
)
def test_classes_far_below_later_blocks_keep_their_gradient(isa, options, above):
    """The ratio of the blocks' references times a bias is no normal float64."""
    logits = np.random.default_rng(above).standard_normal((2, 2000))
    logits[:, 600:] += above / options.get("logit_scale", 1.0)
    targets, given = np.array([700, 1999]), dict(options)
    if given.pop("distribution", False):
        targets = targets[:, None] == np.arange(2000)
    true = truth(logits, targets, **given)
    _, grad = crossent.cross_entropy_and_grad(logits, targets, reduction="sum", **given)
    assert_within(8, ulp_errors(grad, true.grad, true.grad_scale), "gradient")


@pytest.mark.parametrize("offset", [0.0, 1e3, 3e4])
@pytest.mark.parametrize("option", [{"logit_scale": 3.0}, {"logit_scale": 1 / 3}])
def test_a_largest_class_that_comes_late_costs_no_digit_of_scaled_logits(isa, option, offset):
    """Sums of differences from the largest class so far follow it with what its rounding lost."""
    logits = 3 * np.random.default_rng(3).standard_normal((3, 3000)) + offset
    logits += np.arange(3000) // 300 * 2.0
    logits[:, -1] += 20 / option["logit_scale"]
    soft = crossent.softmax(3 * np.random.default_rng(4).standard_normal((3, 3000)))
    true = truth(logits, soft, **option)
    loss = crossent.cross_entropy(logits, soft, reduction="none", **option)
    assert_within(8, ulp_errors(loss, true.loss, true.loss_scale), "loss")
    entropy = crossent.token_scores(logits, [0, 1, 2], **option).entropy
    assert_within(8, ulp_errors(entropy, true.entropy), "entropy")


def test_the_hessian_product_is_as_exact_with_many_classes(isa):
    """One class holds most of the mean; what is added to it later must not round it each time."""
    rng = np.random.default_rng(5)
    logits, v = rng.standard_normal((8, 20_000)), 1 + rng.random((8, 20_000))
    logits[:, 0] = 13
    true = truth(logits, labels_of(8, 20_000), v)
    product = crossent.cross_entropy_hvp(logits, labels_of(8, 20_000), v, reduction="sum")
    assert_within(6, ulp_errors(product, true.hvp, true.hvp_scale), "product")


@pytest.mark.parametrize("dtype", ["float64", "float32", *HALVES])
@pytest.mark.parametrize(
    "row", [[0, -46, -50], [1e-31, -np.inf, -np.inf], [-1e-9, -21, -25], [-2e-10, -1e4, -22]]
)
def test_logsumexp_near_0_is_as_exact(isa, dtype, row):
    logits = np.array([row] * 3).astype(HALVES.get(dtype, dtype))
    finite = np.where(np.isinf(logits), -1e4, logits.astype(np.float64))
    true = truth(finite, [0] * 3)
    for C in (3, 300, 40_000):  # classes that vanish: tiles, blocks, segments
        wide = np.pad(logits, ((0, 0), (0, C - 3)), constant_values=-np.inf)
        got = crossent.logsumexp(wide)
        assert_within(2, ulp_errors(got, true.lse, true.lse_scale), "logsumexp")


@pytest.mark.parametrize("N", [1000, 20_000])
def test_the_divisor_of_weights_is_as_exact_with_many_rows(isa, N):
    logits, weight = np.zeros((N, 3)), np.array([0.1, 0.7, 0.3])
    labels = np.random.default_rng(N).integers(0, 3, N)
    loss, grad = crossent.cross_entropy_and_grad(logits, labels, weight=weight)
    divisor = (np.bincount(labels).astype(np.longdouble) * weight.astype(np.longdouble)).sum()
    true = truth(logits, labels, weight=weight)
    assert_within(4, ulp_errors(grad, true.grad / divisor, true.grad_scale / divisor), "gradient")
    assert_within(4, ulp_errors(loss, true.loss.sum() / divisor), "loss")

"""docs/derivation.md is right: its formulas are proved for C = 2, 3, 4, its numbers are computed.

Symbols as on the page. A proof writes each logit as the logarithm of a positive number x_k, so
that every claim becomes an identity between rational functions, which SymPy decides exactly.
"""

import contextlib
import io
import re
from pathlib import Path

import mpmath
import numpy as np
import pytest
import sympy
from sympy import Matrix, cosh, diag, diff, exp, log, ones, tanh

from crossent import reference

PAGE = Path(__file__).parents[1] / "docs" / "derivation.md"
A = np.array([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]])
Y = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
ROW, TARGET = A[0], 1
SOFT = np.array([0.2, 0.7, 0.1])

classes = pytest.mark.parametrize("C", [2, 3, 4])


def symbols(letter, C):
    return Matrix(sympy.symbols(f"{letter}:{C}", real=True))


def sum_exp(a):
    return sum(map(exp, a))


def softmax(a):
    return a.applyfunc(exp) / sum_exp(a)


def lse(a):
    return log(sum_exp(a))


def gradient(scalar, a):
    return Matrix([diff(scalar, a_k) for a_k in a])


def vanishes(expressions, a, logit_of=log):
    """Every expression is 0 for all logits a_k = logit_of(x_k) with positive x_k."""
    x = sympy.symbols(f"x:{len(a)}", positive=True)
    at_x = dict(zip(a, map(logit_of, x), strict=True))
    return all(
        sympy.expand(sympy.numer(sympy.together(e.subs(at_x)))) == 0
        for e in sympy.flatten(Matrix([expressions]))
    )


# The softmax and its Jacobian


@classes
def test_a_shift_of_all_logits_leaves_the_softmax_alone(C):
    a, kappa = symbols("a", C), sympy.Symbol("kappa", real=True)
    shifted = softmax(a + kappa * ones(C, 1)).applyfunc(sympy.expand_power_exp)
    assert vanishes(shifted - softmax(a), a)


@classes
def test_the_softmax_jacobian_is_diag_p_minus_p_p_transposed(C):
    a = symbols("a", C)
    p = softmax(a)
    assert vanishes(p.jacobian(a) - (diag(*p) - p * p.T), a)


@classes
def test_rows_and_columns_of_the_softmax_jacobian_sum_to_zero(C):
    a = symbols("a", C)
    J = softmax(a).jacobian(a)
    assert vanishes(J * ones(C, 1), a)
    assert vanishes(ones(1, C) * J, a)


@classes
def test_the_log_softmax_has_one_derivative_for_its_own_logit_and_one_for_others(C):
    a = symbols("a", C)
    p, log_p = softmax(a), a - lse(a) * ones(C, 1)
    for k in range(C):
        for i in range(C):
            claimed = 1 - p[i] if i == k else -p[i]
            assert vanishes(diff(log_p[k], a[i]) - claimed, a)


# The loss and its gradient


@classes
def test_the_derivative_by_the_probabilities_is_minus_y_over_p(C):
    p, y = sympy.symbols(f"p:{C}", positive=True), symbols("y", C)
    loss = -sum(y_k * log(p_k) for y_k, p_k in zip(y, p, strict=True))
    for j in range(C):
        assert sympy.simplify(diff(loss, p[j]) + y[j] / p[j]) == 0


@classes
def test_the_jacobian_times_minus_y_over_p_collapses_to_p_sum_y_minus_y(C):
    a, y = symbols("a", C), symbols("y", C)
    p = softmax(a)
    by_probabilities = Matrix([-y[k] / p[k] for k in range(C)])
    assert vanishes(p.jacobian(a).T * by_probabilities - (p * sum(y) - y), a)


@classes
def test_the_gradient_of_the_loss_is_p_sum_y_minus_y(C):
    a, y = symbols("a", C), symbols("y", C)
    loss = -y.dot(a - lse(a) * ones(C, 1))
    assert vanishes(gradient(loss, a) - (softmax(a) * sum(y) - y), a)


@classes
def test_both_cases_together_give_the_gradient(C):
    a, y = symbols("a", C), symbols("y", C)
    p = softmax(a)
    for i in range(C):
        own, others = -y[i] * (1 - p[i]), sum(y[k] * p[i] for k in range(C) if k != i)
        assert vanishes(own + others - (p[i] * sum(y) - y[i]), a)


@classes
def test_the_shortcut_misses_by_p_times_one_minus_y(C):
    """So it is right where y_i = 1 and nowhere else, since p_i is never 0."""
    a, y = symbols("a", C), symbols("y", C)
    y[C - 1] = 1 - sum(y[: C - 1])
    p = softmax(a)
    for i in range(C):
        assert vanishes((p[i] - y[i]) - (-y[i] * (1 - p[i])) - p[i] * (1 - y[i]), a)


@classes
def test_the_mean_over_two_rows_halves_the_gradient(C):
    a, b = symbols("a", C), symbols("b", C)
    y, z = symbols("y", C), symbols("z", C)
    mean = (y.dot(lse(a) * ones(C, 1) - a) + z.dot(lse(b) * ones(C, 1) - b)) / 2
    assert vanishes(gradient(mean, a) - (softmax(a) * sum(y) - y) / 2, a)
    assert vanishes(gradient(mean, b) - (softmax(b) * sum(z) - z) / 2, b)


@classes
def test_the_sum_of_the_others_gives_loss_and_gradient_of_the_target(C):
    a = symbols("a", C)
    p = softmax(a)
    for t in range(C):
        for top in range(C):  # the class that holds the maximum
            R = sum(exp(a[j] - a[top]) for j in range(C) if j != top)
            loss = (a[top] - a[t]) + log(1 + R)
            assert vanishes(exp(loss) - exp(lse(a) - a[t]), a)
            if top == t:
                assert vanishes((p[t] - 1) + R / (1 + R), a)


# Options


@classes
def test_label_smoothing_splits_the_loss(C):
    a, y, epsilon = symbols("a", C), symbols("y", C), sympy.Symbol("epsilon")
    minus_log_p = lse(a) * ones(C, 1) - a
    q = (1 - epsilon) * y + epsilon / C * ones(C, 1)
    split = (1 - epsilon) * y.dot(minus_log_p) + epsilon * sum(minus_log_p) / C
    assert vanishes(q.dot(minus_log_p) - split, a)


b, c = sympy.symbols("b c", positive=True)


def uncapped(x):
    """The logit a with exp(b a) = x, for positive x."""
    return log(x) / b


def capped(x):
    """The logit a with exp(c tanh(b a / c)) = x."""
    return sympy.atanh(log(x) / c) * c / b


def test_the_slope_of_the_softcap_is_b_sech_squared_in_three_forms():
    x, r = sympy.symbols("x r", positive=True)
    a = sympy.Symbol("a", real=True)
    s = diff(c * tanh(b * a / c), a)
    assert sympy.simplify(s - b * (1 - tanh(b * a / c) ** 2)) == 0
    e = exp(-2 * x)  # x = |b a / c|; both sides are even in it
    sech_squared = 4 * e / (1 + e) ** 2
    assert sympy.simplify(sech_squared.subs(x, log(r)) - (1 / cosh(log(r)) ** 2).rewrite(exp)) == 0
    assert sympy.simplify((1 - tanh(x) ** 2 - sech_squared).rewrite(exp).subs(x, log(r))) == 0
    assert sympy.simplify(diff(s, a) + 2 * b / c * tanh(b * a / c) * s) == 0


def everything(a, softcap):
    """u, s, s', g, zeta and the loss with all options; g stands for any weight o q."""
    C = len(a)
    g, zeta = symbols("g", C), sympy.Symbol("zeta")
    t = a.applyfunc(lambda a_k: tanh(b * a_k / c))
    if softcap:
        u, s = c * t, t.applyfunc(lambda t_k: b * (1 - t_k**2))
        bend = Matrix([-2 * b / c * t[k] * s[k] for k in range(C)])
    else:
        u, s, bend = b * a, b * ones(C, 1), sympy.zeros(C, 1)
    loss = sum(g[k] * (lse(u) - u[k]) for k in range(C)) + zeta * lse(u) ** 2
    return u, s, bend, g, zeta, loss


def page_d(u, g, zeta):
    return softmax(u) * (sum(g) + 2 * zeta * lse(u)) - g


softcaps = pytest.mark.parametrize("softcap", [False, True], ids=["uncapped", "capped"])


@softcaps
@classes
def test_the_gradient_with_all_options_is_s_times_d(C, softcap):
    a = symbols("a", C)
    u, s, _, g, zeta, loss = everything(a, softcap)
    claimed = s.multiply_elementwise(page_d(u, g, zeta))
    assert vanishes(gradient(loss, a) - claimed, a, capped if softcap else uncapped)


@softcaps
@classes
def test_the_hessian_times_v_with_all_options_is_as_written(C, softcap):
    a, v = symbols("a", C), symbols("v", C)
    u, s, bend, g, zeta, _ = everything(a, softcap)
    d, p, total = page_d(u, g, zeta), softmax(u), sum(g) + 2 * zeta * lse(u)
    sv = s.multiply_elementwise(v)
    inside = total * (p.multiply_elementwise(sv) - p * p.dot(sv)) + 2 * zeta * p * p.dot(sv)
    bent = d.multiply_elementwise(bend).multiply_elementwise(v)
    claimed = s.multiply_elementwise(inside) + bent
    derived = s.multiply_elementwise(d).jacobian(a) * v  # s o d is the gradient, proved above
    assert vanishes(derived - claimed, a, capped if softcap else uncapped)


@classes
def test_the_hessian_of_plain_cross_entropy_is_the_softmax_jacobian_times_sum_y(C):
    a, y = symbols("a", C), symbols("y", C)
    p, loss = softmax(a), y.dot(lse(a) * ones(C, 1) - a)
    assert vanishes(sympy.hessian(loss, list(a)) - sum(y) * (diag(*p) - p * p.T), a)


@classes
def test_the_hessian_measures_the_variance_of_v_under_p(C):
    a, v = symbols("a", C), symbols("v", C)
    p = softmax(a)
    mean = p.dot(v)
    variance = sum(p[k] * (v[k] - mean) ** 2 for k in range(C))
    assert vanishes((v.T * (diag(*p) - p * p.T) * v)[0] - variance, a)
    assert vanishes((diag(*p) - p * p.T) * ones(C, 1), a)


# Numbers. `written` asserts that a section of the page holds these very texts.


def section(heading):
    """What stands between a heading and the next, with line breaks as spaces."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"no section {heading!r}"
    return " ".join(found[1].split())


def written(heading, *texts):
    for text in texts:
        assert text in section(heading), f"{text!r} is not in {heading!r}"


def row(values):
    return "[" + ", ".join("0" if x == 0 else f"{x:.3f}" for x in values) + "]"


def matrix(values, digits=3):
    rows = (" & ".join(f"{x:.{digits}f}" for x in r) for r in values)
    return r"\begin{bmatrix} " + r" \cr ".join(rows) + r" \end{bmatrix}"


def power_of_ten(x):
    mantissa, exponent = f"{x:.3e}".split("e")
    return rf"{mantissa} \times 10^{{{int(exponent)}}}"


def exact_example():
    """Softmax, losses and gradient of the mean with 50 digits, from the exact decimals."""
    logits = [["2", "1", "0.1"], ["0.1", "2", "1.9"]]
    P, losses = [], []
    for texts, t in zip(logits, [1, 0], strict=True):
        exps = [mpmath.exp(mpmath.mpf(text)) for text in texts]
        P.append([e / mpmath.fsum(exps) for e in exps])
        losses.append(-mpmath.log(P[-1][t]))
    grad = [[(P[n][k] - int(Y[n, k])) / 2 for k in range(3)] for n in range(2)]
    return P, losses, grad


def test_the_worked_example_has_its_printed_digits():
    P = reference.softmax(A)
    losses = reference.cross_entropy(A, Y, reduction="none")
    mean, grad = reference.cross_entropy_and_grad(A, Y)
    assert row(P[0]) == "[0.659, 0.242, 0.099]"
    assert row(P[1]) == "[0.073, 0.487, 0.440]"
    assert row(losses) == "[1.417, 2.620]"
    assert f"{mean:.3f}" == "2.019"
    assert row(grad[0]) == "[0.330, -0.379, 0.049]"
    assert row(grad[1]) == "[-0.464, 0.243, 0.220]"


def test_the_worked_example_is_exact_to_1e_15():
    with mpmath.workdps(50):
        P, losses, grad = exact_example()
        mean = (losses[0] + losses[1]) / 2
        computed = reference.cross_entropy_and_grad(A, Y)
        assert np.abs(reference.softmax(A) - np.array(P)).max() <= 1e-15
        assert (
            np.abs(reference.cross_entropy(A, Y, reduction="none") - np.array(losses)).max()
            <= 1e-15
        )
        assert abs(computed[0] - mean) <= 1e-15
        assert np.abs(computed[1] - np.array(grad)).max() <= 1e-15


def test_the_page_shows_the_example():
    written("Notation", f"A = {matrix(A, 1)}", f"Y = {matrix(Y, 0)}")


def test_the_page_shows_the_way_from_logits_to_probabilities():
    exps = np.exp(ROW - ROW.max())
    shifted = "| {:.1f} | {:.1f} | {:.1f} |".format(*ROW - ROW.max())
    written("Exponentials, sum, probabilities", f"m = {ROW.max()}", shifted)
    p = reference.softmax(A)
    line = "| {:.3f} | {:.3f} | {:.3f} | {:.3f} |".format
    written("Exponentials, sum, probabilities", line(*exps, exps.sum()), line(*p[0], p[0].sum()))
    written("Exponentials, sum, probabilities", row(p[1]))
    first, second = reference.logsumexp(A)
    written(
        "Exponentials, sum, probabilities",
        rf"$\mathrm{{lse}} = {first:.3f}$ and ${second:.3f}$",
    )


def test_the_page_shows_the_losses():
    losses = reference.cross_entropy(A, Y, reduction="none")
    total = reference.cross_entropy(A, Y, reduction="sum")
    mean = reference.cross_entropy(A, Y)
    written("Loss of a row, sum and mean", row(losses), f"= {total:.3f}", f"= {mean:.3f}")


def test_the_page_shows_the_derivative_by_the_probabilities_and_the_jacobian():
    by_probabilities = reference.grad_wrt_probabilities(reference.softmax(A), Y)
    written("The derivative through the probabilities", *map(row, by_probabilities))
    written("The Jacobian of softmax", matrix(reference.softmax_jacobian(ROW)))


def test_the_page_shows_the_gradients_of_sum_and_mean():
    of_sum = reference.cross_entropy_and_grad(A, Y, reduction="sum")[1]
    of_mean = reference.cross_entropy_and_grad(A, Y)[1]
    written("The product collapses", *map(row, of_sum))
    written("Divide by N", matrix(of_mean))


def central_difference(h, reduction="mean"):
    quotient = np.zeros_like(A)
    for position in np.ndindex(A.shape):
        E = np.zeros_like(A)
        E[position] = h
        up, down = (reference.cross_entropy(X, Y, reduction=reduction) for X in (A + E, A - E))
        quotient[position] = (up - down) / (2 * h)
    return quotient


def test_the_finite_differences_approach_the_gradient_as_the_table_says():
    grad = reference.cross_entropy_and_grad(A, Y, reduction="sum")[1]
    for h in (0.1, 0.01, 0.001):
        worst = abs(central_difference(h, "sum") - grad).max()
        written("Finite-difference check", f"| {h} | {worst:.1e} |")
    at_best = abs(central_difference(1e-5, "sum") - grad).max()
    assert at_best < 1e-10
    written("Finite-difference check", "| 0.00001 | below 1e-10 |")
    assert abs(central_difference(1e-7, "sum") - grad).max() > at_best
    E = np.array([[0, 0.1, 0], [0, 0, 0]])
    for X in (A + E, A - E):
        L = reference.cross_entropy(X, Y, reduction="sum")
        written("Finite-difference check", f"{L:.5f}")
    quotient = central_difference(0.1, "sum")[0, 1]
    written("Finite-difference check", "h = 0.1", f"{quotient:.5f}", f"{grad[0, 1]:.5f}")


def test_one_gradient_step_lowers_the_loss_as_the_page_says():
    heading = "One gradient step"
    before, G = reference.cross_entropy_and_grad(A, Y)
    written(heading, matrix(A - G))
    p, moved = reference.softmax(A), reference.softmax(A - G)
    for n, t in enumerate([1, 0]):
        written(heading, f"{p[n, t]:.3f} to {moved[n, t]:.3f}")
    written(heading, f"{before:.3f} to {reference.cross_entropy(A - G, Y):.3f}")
    after, predicted = reference.cross_entropy(A - 0.1 * G, Y), before - 0.1 * (G**2).sum()
    assert after >= predicted
    written(
        heading,
        r"\eta = 0.1",
        f"{(G**2).sum():.3f}",
        f"predicts {predicted:.4f}; the loss is {after:.4f}",
    )


def test_a_confident_right_answer_keeps_its_loss_and_its_gradient():
    loss, grad = reference.cross_entropy_and_grad([40.0, 0.0, 0.0], 0)
    assert loss == pytest.approx(float(2 * mpmath.exp(-40)), rel=1e-15)
    assert grad[0] == pytest.approx(-loss, rel=1e-15)
    of_loss, of_grad = power_of_ten(loss), power_of_ten(grad[0])
    written("A confident right answer", f"= {of_loss} .", f"${of_loss}$ and ${of_grad}$")
    assert -np.log(1 / (1 + 2 * np.exp(-40.0))) == 0  # the way that adds them to 1
    single = 1 / (1 + 2 * np.exp(np.float32(-20)))
    assert single.dtype == np.float32
    assert -np.log(single) == 0
    assert single - 1 == 0
    at_20 = reference.cross_entropy([20.0, 0.0, 0.0], 0)
    written("A confident right answer", power_of_ten(at_20))


def test_soft_targets_scale_loss_and_gradient():
    loss, grad = reference.cross_entropy_and_grad(ROW, SOFT)
    half_loss, half_grad = reference.cross_entropy_and_grad(ROW, SOFT / 2)
    assert half_loss == pytest.approx(loss / 2, rel=1e-15)
    assert half_grad == pytest.approx(grad / 2, rel=1e-14)
    assert abs(grad.sum()) < 1e-15
    assert abs(half_grad.sum()) < 1e-15
    one = f"y = {SOFT.tolist()}$ the loss is {loss:.3f} and the gradient ${row(grad)}"
    half = f"{(SOFT / 2).tolist()}$, gives half of both: {half_loss:.3f} and ${row(half_grad)}"
    written("Soft targets and label smoothing", one, half)


def test_label_smoothing_has_the_numbers_of_the_page():
    loss, grad = reference.cross_entropy_and_grad(ROW, TARGET, label_smoothing=0.1)
    plain = reference.cross_entropy(ROW, TARGET)
    uniform = reference.cross_entropy(ROW, np.full(3, 1 / 3))
    sum_of_both = rf"0.9 \cdot {plain:.3f} + 0.1 \cdot {uniform:.3f} = {loss:.3f}"
    q = 0.9 * Y[0] + 0.1 / 3
    written(
        "Soft targets and label smoothing", r"\varepsilon = 0.1", sum_of_both, row(grad), row(q)
    )


OPTIONS = "Scale, softcap, class weights and z-loss"


def test_scale_and_softcap_have_the_numbers_of_the_page():
    loss, grad = reference.cross_entropy_and_grad(ROW, TARGET, softcap=2.0)
    written(OPTIONS, row(2 * np.tanh(ROW / 2)), f"loss {loss:.3f}, gradient ${row(grad)}$")
    loss, grad = reference.cross_entropy_and_grad(ROW, TARGET, logit_scale=2.0)
    written(OPTIONS, f"loss {loss:.3f}, gradient ${row(grad)}$")


def test_the_slope_of_the_softcap_survives_at_20():
    e = np.exp(-40.0)
    slope = 4 * e / (1 + e) ** 2
    assert 1 - np.tanh(20.0) ** 2 == 0
    with mpmath.workdps(50):
        assert slope == pytest.approx(float(mpmath.sech(20) ** 2), rel=1e-15)
    written(OPTIONS, power_of_ten(slope))


def test_class_weights_divide_the_mean_by_what_was_used():
    weight = [1, 2, 3]
    losses = reference.cross_entropy(A, [1, 0], weight=weight, reduction="none")
    of_classes = reference.cross_entropy(A, [1, 0], weight=weight)
    of_distributions = reference.cross_entropy(A, Y, weight=weight)
    assert of_classes == pytest.approx(losses.sum() / (2 + 1))
    assert of_distributions == pytest.approx(losses.sum() / 2)
    written(OPTIONS, f"{losses[0]:.3f} and {losses[1]:.3f}")
    written(OPTIONS, f"{of_classes:.3f} for classes and {of_distributions:.3f} for distributions")


def test_z_loss_has_the_numbers_of_the_page():
    loss, grad = reference.cross_entropy_and_grad(ROW, TARGET, z_loss=0.1)
    grows = loss - reference.cross_entropy(ROW, TARGET)
    assert grad.sum() == pytest.approx(0.2 * reference.logsumexp(ROW))
    written(OPTIONS, r"\zeta = 0.1", f"{grows:.3f} to {loss:.3f}", row(grad), f"= {grad.sum():.3f}")


def test_second_order_has_the_numbers_of_the_page():
    v = np.array([1.0, 0.0, -1.0])
    Hv = reference.cross_entropy_hvp(ROW, TARGET, v)
    p = reference.softmax(ROW)
    assert v @ Hv == pytest.approx(p @ v**2 - (p @ v) ** 2)
    written("Second order", row(Hv), f"here {v @ Hv:.3f}")


# Common mistakes: each is made here, and the page shows what it gives.


def test_the_diagonal_alone_does_not_sum_to_zero():
    p, y = reference.softmax(ROW), Y[0]
    mistake = -y / p * p * (1 - p)
    truth = reference.cross_entropy_and_grad(ROW, y)[1]
    assert abs(truth.sum()) < 1e-15
    texts = row(mistake), row(truth), f"sum: {mistake.sum():.3f}"
    written("The Jacobian taken for its diagonal", *texts)


def test_the_shortcut_is_wrong_in_every_entry_of_a_soft_target():
    heading = "The shortcut that holds only where the target is 1"
    p = reference.softmax(ROW)
    shortcut = -SOFT * (1 - p)
    truth = reference.cross_entropy_and_grad(ROW, SOFT)[1]
    assert (abs(shortcut - truth) > 0.07).all()
    one_hot = -Y[0] * (1 - p)
    assert one_hot[TARGET] == pytest.approx(reference.cross_entropy_and_grad(ROW, Y[0])[1][TARGET])
    written(heading, row(one_hot), f"{SOFT.tolist()}$ no", row(shortcut), row(truth))


def test_the_wrong_sign_climbs():
    before, G = reference.cross_entropy_and_grad(A, Y)
    up, down = reference.cross_entropy(A + G, Y), reference.cross_entropy(A - G, Y)
    assert down < before < up
    written("The wrong sign", f"{before:.3f} up to {up:.3f}", f"down to {down:.3f}")


def test_the_missing_division_shows_as_a_quotient_of_n():
    of_sum = reference.cross_entropy_and_grad(A, Y, reduction="sum")[1]
    quotient = of_sum / central_difference(1e-5)
    assert quotient == pytest.approx(2, abs=1e-8)
    written("The missing division by N", f"{quotient.mean():.3f}")


def test_logits_in_place_of_probabilities_do_not_sum_to_zero_and_stop_at_the_target():
    heading = "Logits where probabilities belong"
    mistake = ROW - Y[0]
    written(heading, str(mistake.tolist()), f"sum is {mistake.sum():.1f}")
    written(heading, f"{reference.softmax(ROW)[1]:.3f}", f"{mistake[1]:.3f}")
    a = ROW.copy()
    for _ in range(200):
        a -= 0.5 * (a - Y[0])
    assert a == pytest.approx(Y[0])
    written(heading, f"{reference.softmax(a)[1]:.3f}")


def test_the_logarithm_of_zero_hides_a_loss_of_800():
    heading = "The logarithm of a probability that is 0"
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.exp([0.0, -800.0]) / np.exp([0.0, -800.0]).sum()
        assert -np.log(p[1]) == np.inf
        assert np.isnan((-np.array([1.0, 0.0]) * np.log(p)).sum())
    assert reference.cross_entropy([800.0, 0.0], 1) == 800
    assert reference.cross_entropy([800.0, 0.0], [1.0, 0.0]) == 0
    assert reference.cross_entropy([0.0, -np.inf], [1.0, 0.0]) == 0
    written(heading, f"{-np.log(1e-12):.3f}", "gives 800")


def test_the_exponential_without_the_shift_overflows_where_the_page_says():
    heading = "The exponential without the shift"
    for dtype in (np.float64, np.float32):
        limit = np.log(np.finfo(dtype).max)
        written(heading, f"{limit:.2f}")
        with np.errstate(over="ignore"):
            assert np.exp(limit - dtype(0.01)) < np.inf
            assert np.exp(limit + dtype(0.01)) == np.inf
    with np.errstate(over="ignore", invalid="ignore"):
        exps = np.exp([1000.0, 999.0])
        assert np.isnan(exps / exps.sum()).all()
    written(heading, row(reference.softmax([1000.0, 999.0])))


def test_an_array_under_the_name_of_the_method_breaks_the_second_forward():
    class OneName:
        def softmax(self, x):
            return reference.softmax(x)

        def forward(self, A, Y):
            self.softmax = self.softmax(A)
            return (-Y * np.log(self.softmax)).sum(axis=1).mean()

    criterion = OneName()
    criterion.forward(A, Y)
    with pytest.raises(TypeError) as error:
        criterion.forward(A, Y)
    heading = "One name for a method and an array"
    written(heading, f"TypeError: {error.value}", "1 loss instead of 2")


# The page itself


def test_the_class_on_the_page_prints_what_the_page_says():
    text = PAGE.read_text(encoding="utf-8")
    code, printed = (
        re.search(rf"```{kind}\n(.*?)```", text, re.DOTALL)[1] for kind in ("python", "text")
    )
    names, output = {}, io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(code, names)
    assert output.getvalue() == printed
    assert names["criterion"].forward(A, Y) == names["loss"]  # a second forward works


def test_the_page_keeps_the_headings_that_others_link_to():
    text = PAGE.read_text(encoding="utf-8")
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE
    )
    assert headings == [
        "Softmax cross-entropy, derived",
        "Notation",
        "Why the maximum is subtracted",
        "Exponentials, sum, probabilities",
        "Loss of a row, sum and mean",
        "The derivative through the probabilities",
        "The Jacobian of softmax",
        "The two cases",
        "The product collapses",
        "Finite-difference check",
        "Divide by N",
        "Forward and backward in NumPy",
        "One gradient step",
        "A confident right answer",
        "Soft targets and label smoothing",
        OPTIONS,
        "Second order",
        "Common mistakes",
        "The Jacobian taken for its diagonal",
        "The shortcut that holds only where the target is 1",
        "The wrong sign",
        "The missing division by N",
        "Logits where probabilities belong",
        "The logarithm of a probability that is 0",
        "The exponential without the shift",
        "One name for a method and an array",
    ]


def test_the_links_of_the_page_lead_to_its_headings():
    text = PAGE.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
    links = re.findall(r"\]\(#(.*?)\)", text)
    assert links
    assert set(links) <= anchors


def test_no_formula_of_the_page_loses_a_backslash_to_markdown():
    """Markdown takes a backslash before punctuation as an escape, also between dollars."""
    assert not re.search(r"\\[^a-zA-Z ]", PAGE.read_text(encoding="utf-8"))

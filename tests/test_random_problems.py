"""Random problems against the 80-bit oracle: every option, type and layout, any size of the core's.

CROSSENT_FUZZ=20000 pytest tests/test_random_problems.py tries 20,000 problems of its own, about an
hour; the suite tries a few hundred, the same ones every time. A failure names its problem, and
CROSSENT_PROBLEM=NUMBER tries that one alone. N rows, C classes.
"""

import os
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from cases import DTYPES, INTEGERS, ISAS, using_isa
from oracle import Long, Truth, _float_info, needs_80_bits, truth, ulp

import crossent

pytestmark = needs_80_bits

ALONE = os.environ.get("CROSSENT_PROBLEM")
TRIES = int(os.environ.get("CROSSENT_FUZZ", "300"))
FIRST = 0 if "CROSSENT_FUZZ" not in os.environ else int.from_bytes(os.urandom(5))

# Of rows that are computed in the logits' type, and of those that take options or distributions.
PLAIN, GENERAL = {"float64": 4, "float32": 2}, {"float64": 8, "float32": 2}
PRODUCT = {"float64": 12, "float32": 2}
FACTOR = 2  # more, where an incoming gradient or a divisor is multiplied into a row
NEAR_LSE_0 = 64  # float64 losses with z-loss: where lse is near 0, lse^2 keeps the error it has
# To what size lse is known to its last place, where z-loss takes it from the sum of all exponentials.
LSE_FLOOR = {"float64": 1.0, **dict.fromkeys(("float32", "float16", "bfloat16"), 2.0**-28)}
SCALING = {"softcap", "logit_scale", "ignore_index"}  # the options that scores take
FLAT = 340  # how many softcaps from 0 a capped logit has no slope: it is below 1e-295 there
BEYOND = Long("1e4000")  # stands for infinity: no exponential or product below reaches another


def problems() -> Iterator[int]:
    """The numbers of the problems of this run."""
    return iter([int(ALONE)]) if ALONE else iter(range(FIRST, FIRST + TRIES))


# Rows


def random_size(rng) -> tuple[int, int]:
    """N and C, on both sides of whatever the core cuts rows, classes and work by."""
    near = rng.integers(-2, 3)
    kind = rng.choice(["few", "tile", "block", "blocks", "segments"], p=[0.3, 0.2, 0.2, 0.2, 0.1])
    if kind == "few":
        classes = int(rng.integers(1, 33))
    elif kind == "tile":
        classes = int(rng.integers(2, 160))
    elif kind == "block":
        classes = 512 * int(rng.integers(1, 3)) + int(near)
    elif kind == "blocks":
        classes = int(rng.choice([512, 1024])) * int(rng.integers(1, 9)) + int(
            rng.integers(-40, 41)
        )
    else:
        classes = 32768 * int(rng.integers(1, 4)) + int(rng.integers(-600, 601))
    classes = max(1, classes)
    most = max(1, (300_000 if kind == "segments" else 90_000) // classes)
    rows = int(np.exp(rng.uniform(0, np.log(most + 1)))) if rng.random() < 0.9 else 0
    if kind == "segments" and rng.random() < 0.2:
        rows = int(rng.integers(16, 19))  # no longer few
    return min(rows, 3000), classes


def random_rows(rng, rows: int, classes: int, dtype, reach: float) -> np.ndarray:
    """(N, C) logits: of many sizes, with ties, margins, steps and rows that no number survives.

    reach: how large a logit may be.
    """
    sizes = rng.choice([1e-30, 1.0, 10.0, 100.0], (rows, 1), p=[0.05, 0.4, 0.4, 0.15])
    logits = sizes * rng.standard_normal((rows, classes))
    some = rng.choice(rows, min(rows, int(rng.integers(0, 6))), replace=False)
    for row in some:
        kind = rng.choice(
            ["offset", "ties", "constant", "margin", "straddling", "steps", "huge", "zeros", "-inf",
             "one left", "nan", "+inf", "all -inf"]
        )  # fmt: skip
        k = int(rng.integers(classes))
        if kind == "offset":
            logits[row] += rng.choice([-1e3, 1e3, 3e4])
        elif kind == "ties":
            logits[row] = np.round(logits[row])
        elif kind == "constant":
            logits[row] = logits[row, 0]
        elif kind == "margin":
            logits[row, k] = logits[row].max() + rng.choice([20, 40, 95, 103, 300])
        elif kind == "straddling":
            logits[row] += 2.0 ** int(rng.integers(3, 12)) - np.where(np.arange(classes) < k, 3, 0)
        elif kind == "steps":
            logits[row] += rng.choice([30, 90, 200, 450]) * (np.arange(classes) // max(1, k // 2))
        elif kind == "huge":
            logits[row, rng.random(classes) < 0.3] = rng.choice([-1, 1]) * reach
        elif kind == "zeros":
            logits[row] = 0
        elif kind == "-inf":
            logits[row, rng.random(classes) < 0.3] = -np.inf
        elif kind == "one left":
            logits[row, np.arange(classes) != k] = -np.inf
        elif kind == "all -inf":
            logits[row] = -np.inf
        else:
            logits[row, k] = float(kind)
    with np.errstate(over="ignore"):
        return logits.astype(dtype)


def random_targets(rng, rows: int, classes: int, ignore_index: int) -> tuple[np.ndarray, str]:
    """Class indices (N,) or distributions (N, C), of any type that holds them."""
    kind = rng.choice(["indices", "one-hot", "several", "soft"], p=[0.6, 0.1, 0.1, 0.2])
    labels = rng.integers(0, classes, rows)
    if kind == "indices":
        types = [name for name in INTEGERS if np.iinfo(name).max >= classes - 1]
        dtype = np.dtype(str(rng.choice(types)))
        if np.iinfo(dtype).min <= ignore_index <= np.iinfo(dtype).max:
            share = rng.choice([0, 0.1, 0.5, 1], p=[0.3, 0.4, 0.2, 0.1])
            labels = np.where(rng.random(rows) < share, ignore_index, labels)
        return labels.astype(dtype), kind
    dtype = str(rng.choice(["bool", "uint8", "int64", *DTYPES]))
    if kind == "soft":
        mass = rng.random((rows, classes)) * rng.choice([1, 1e-3, 0], (rows, classes))
        mass /= np.maximum(mass.sum(1, keepdims=True), 1e-3) * rng.choice([1, 0.5, 3])
        dtype = str(rng.choice(list(DTYPES)))
        return mass.astype(DTYPES[dtype]), kind
    mass = labels[:, None] == np.arange(classes)
    if kind == "several":
        mass = mass | (rng.random((rows, classes)) < 0.3 / classes)
    return mass.astype(DTYPES.get(dtype, dtype)), kind


def random_options(rng, rows: int, classes: int) -> dict:
    """Any options together."""
    options = {}
    if rng.random() < 0.3:
        weight = rng.random(classes) * rng.choice([0, 1, 3], classes, p=[0.1, 0.6, 0.3])
        options["weight"] = weight.astype(str(rng.choice(["float64", "float32"])))
    if rng.random() < 0.3:
        options["label_smoothing"] = float(rng.choice([0.1, 0.5, 1.0, rng.random()]))
    if rng.random() < 0.3:
        options["z_loss"] = float(rng.choice([1e-4, 0.3, rng.random()]))
    if rng.random() < 0.25:
        options["softcap"] = float(rng.choice([2.0, 30.0, 5 * rng.random() + 0.5]))
    if rng.random() < 0.25:
        options["logit_scale"] = float(rng.choice([0.5, 1 / 3, -1.3, 3.0, rng.random() + 0.1]))
    options["reduction"] = str(rng.choice(["none", "sum", "mean"]))
    if options["reduction"] == "mean" and rng.random() < 0.3:
        options["normalizer"] = float(rng.choice([7.0, 0.1, rows + 0.5]))
    options["when_empty"] = str(rng.choice(["nan", "zero", "raise"]))
    if "weight" in options and options["reduction"] != "mean" and rng.random() < 0.2:
        options["weight"] = options["weight"] * rng.choice([-1, 1], classes)
    return options


# Layouts


def laid_out(rng, array: np.ndarray, kind: str) -> np.ndarray:
    """The same numbers in other memory."""
    array = array.copy()
    if kind == "Fortran":
        return np.asfortranarray(array)
    if kind == "permuted":
        order = rng.permutation(array.ndim)
        return np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))
    if kind == "backwards":
        flip = tuple(slice(None, None, int(rng.choice([-1, 1]))) for _ in array.shape)
        return np.ascontiguousarray(array[flip])[flip]
    if kind == "every other":
        base = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        base[..., ::2] = array
        return base[..., ::2]
    if kind == "odd address":
        memory = np.zeros(array.nbytes + 1, np.uint8)
        odd = memory[1:].view(array.dtype).reshape(array.shape)
        odd[...] = array
        return odd
    if kind == "other byte order" and array.dtype.kind in "fiu":
        return array.astype(array.dtype.newbyteorder())
    if kind == "read-only":
        array.flags.writeable = False
        return array
    return np.ascontiguousarray(array)


LAYOUTS = (
    "C", "C", "C", "Fortran", "permuted", "backwards", "every other", "odd address",
    "other byte order", "read-only",
)  # fmt: skip


def batch_of(rng, rows: int, *, may_be_single: bool) -> tuple[int, ...]:
    """A shape of N rows, of up to three axes; of none if it may be, where there is one row."""
    shape = [rows]
    while len(shape) < 3 and rng.random() < 0.4:
        divisors = [k for k in range(1, min(shape[-1], 64) + 1) if shape[-1] % k == 0] or [1]
        k = int(rng.choice(divisors))
        shape[-1:] = [k, shape[-1] // k]
    if rows == 1 and may_be_single and rng.random() < 0.3:
        return ()
    return tuple(shape)


# A problem


class Problem:
    """The arguments of a call, and the truth about its rows."""

    def __init__(self, number: int) -> None:
        rng = self.rng = np.random.default_rng(number)
        self.rows, self.classes = random_size(rng)
        self.dtype = str(rng.choice(list(DTYPES), p=[0.3, 0.4, 0.15, 0.15]))
        dtype = DTYPES[self.dtype]
        ignore_index = int(rng.choice([-100, 0, -1, 255, self.classes - 1]))
        targets, self.kind = random_targets(rng, self.rows, self.classes, ignore_index)
        self.has_indices = self.kind == "indices"
        self.options = random_options(rng, self.rows, self.classes)
        if self.has_indices:
            self.options["ignore_index"] = ignore_index
        scale = abs(self.options.get("logit_scale", 1.0))
        reach = float(_float_info(dtype).max) / max(1.0, scale) / 4
        if "z_loss" in self.options:  # whose square of it must be a number
            reach = min(reach, 1e15)
        logits = random_rows(rng, self.rows, self.classes, dtype, reach)
        if (np.asarray(self.options.get("weight", 1)) < 0).any():  # no sum of both infinities
            logits = np.where(np.isneginf(logits), dtype.type(-1), logits)
        if self.rows and rng.random() < 0.05:
            logits = np.repeat(logits[:1], self.rows, 0)
        self.v = rng.standard_normal(logits.shape).astype(dtype)
        self.grad_loss = self.random_grad_loss()
        self.true, self.kept, self.dead = self.truth(logits, targets)
        self.divisor = self.true_divisor(targets)
        # Where the arrays lie.
        is_one_hot = self.kind != "several" or targets.dtype.kind not in "biu"
        batch = batch_of(rng, self.rows, may_be_single=is_one_hot)
        self.axis = int(rng.integers(len(batch) + 1))
        self.shape = (*batch[: self.axis], self.classes, *batch[self.axis :])
        self.batch = batch
        self.layouts = [str(rng.choice(LAYOUTS)) for _ in range(3)]
        self.logits = self.placed(logits, 0)
        self.targets = self.placed(targets, 1)
        self.v_given = self.placed(self.v, 2)
        self.isa, self.threads = str(rng.choice(ISAS)), int(rng.integers(1, 5))

    def random_grad_loss(self) -> object:
        if self.rng.random() < 0.5:
            return None
        if self.options["reduction"] == "none":
            return self.rng.standard_normal(self.rows) * self.rng.choice([1e-6, 1.0, 1e3])
        return float(self.rng.choice([-1.0, 3.0, 1e-6, 1e4]))

    def placed(self, rows: np.ndarray, which: int) -> np.ndarray:
        if rows.ndim == 1:
            array = rows.reshape(self.batch)
        else:
            array = np.moveaxis(rows.reshape(*self.batch, self.classes), -1, self.axis)
        return laid_out(self.rng, array, self.layouts[which]) if array.ndim else array

    def as_rows(self, array: np.ndarray) -> np.ndarray:
        """(N, C) of an array of the logits' shape."""
        return np.moveaxis(np.asarray(array), self.axis, -1).reshape(self.rows, self.classes)

    def rows_of_logits(self) -> np.ndarray:
        return self.as_rows(self.logits)

    def truth(self, logits, targets) -> tuple[Truth, np.ndarray, np.ndarray]:
        """The truth, which rows count, and which are nan."""
        named = {"weight", "label_smoothing", "z_loss", "softcap", "logit_scale"}
        a = logits.astype(Long)
        is_capped = "softcap" in self.options
        u = a if is_capped else a * Long(np.sign(self.options.get("logit_scale", 1.0)))
        dead = np.isnan(u).any(1)
        if not is_capped:
            dead |= (u == np.inf).any(1) | (u == -np.inf).all(1)
        a = np.where(dead[:, None], Long(0), np.clip(a, -BEYOND, BEYOND))
        kept = np.ones(self.rows, bool)
        labels = targets
        if self.has_indices:
            kept = targets != self.options["ignore_index"]
            labels = np.where(kept, targets, 0)
        given = {name: value for name, value in self.options.items() if name in named}
        with np.errstate(all="ignore"):
            true = truth(a, labels, self.v, lse_floor=LSE_FLOOR[self.dtype], **given)
        if is_capped:
            far = abs(a * Long(given.get("logit_scale", 1.0)) / Long(given["softcap"])) > FLAT
            true.grad[far] = true.hvp[far] = 0
        return true, kept, dead

    def true_divisor(self, targets) -> Long:
        if self.options["reduction"] != "mean":
            return Long(1)
        if "normalizer" in self.options:
            return Long(self.options["normalizer"])
        if not self.has_indices or "weight" not in self.options:
            return Long(self.kept.sum())
        weight = np.asarray(self.options["weight"]).astype(Long)
        return weight[targets[self.kept].astype(np.int64)].sum()

    @property
    def is_plain(self) -> bool:
        """Whether the rows are computed in the logits' type."""
        return self.has_indices and not {
            "weight", "label_smoothing", "z_loss", "softcap", "logit_scale"
        } & set(self.options)  # fmt: skip

    @property
    def regime(self) -> str:
        """What the core makes of the rows."""
        if self.rows == 0:
            return "no row"
        if self.classes > 2 * 32768:
            return "segments" if self.rows < 16 else "many long rows"
        if self.rows * self.classes > 65536:
            return "pieces"
        return "tiles" if self.classes <= 128 else "blocks"

    def __str__(self) -> str:
        options = {
            name: "given" if name == "weight" else value for name, value in self.options.items()
        }
        return (
            f"{self.rows} x {self.classes} {self.dtype}, shape {self.shape}, axis {self.axis}, "
            f"{self.kind} {self.targets.dtype}, {self.layouts}, {options}, {self.isa}, "
            f"{self.threads} threads"
        )


# Judging


def assert_close(what, computed, true, scale, bar, *, nan=None) -> None:
    """Within ``bar`` ULP of ``scale``, as float32 at least, and half an ULP of its own.

    nan: where there must be nan, and nowhere else. Infinity stands for what the type cannot hold.
    """
    computed = np.asarray(computed)
    info = _float_info(computed.dtype)
    is_half = computed.dtype.itemsize == 2
    with np.errstate(all="ignore"):
        scale = np.maximum(abs(scale), abs(true))
        allowed = bar * ulp(scale, np.float32 if is_half else computed.dtype)
        if is_half:
            allowed = allowed + ulp(true, computed.dtype) / 2
        if computed.dtype.itemsize == 8:  # subnormal numbers may become 0
            allowed = allowed + Long(2) ** -1022
        got = computed.astype(Long)
        over = abs(true) + allowed > Long(info.max)
        wrong = ~(abs(got - true) <= allowed)
        wrong &= ~(over & (got == np.sign(true) * np.inf))
        nan = np.broadcast_to(False if nan is None else nan, got.shape)
        wrong = np.where(nan, ~np.isnan(got), wrong)
    if wrong.any():
        errors = np.where(wrong, abs(got - true) / allowed, 0)
        at = np.unravel_index(np.nan_to_num(errors, nan=np.inf).argmax(), errors.shape)
        raise AssertionError(
            f"{what}{[int(i) for i in at]} is {got[at]}, not {'nan' if nan[at] else true[at]}: "
            f"{float(errors[at]) * bar:.3g} of {bar} ULP; {int(wrong.sum())} of {wrong.size} wrong"
        )


def same_bits(a: object, b: object) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and np.array_equal(a.astype(Long), b.astype(Long), equal_nan=True)


def bar_of(problem: Problem, bars: dict[str, int]) -> float:
    """The bar; half types are computed as float32."""
    return bars["float64" if problem.dtype == "float64" else "float32"]


def check_loss(p: Problem, loss: object) -> None:
    true, bar = p.true, bar_of(p, PLAIN if p.is_plain else GENERAL)
    if "z_loss" in p.options and p.dtype == "float64":
        bar = NEAR_LSE_0
    dead = p.dead & p.kept
    if p.options["reduction"] == "none":
        values = np.where(p.kept, true.loss, 0)
        scale = np.where(p.kept, true.loss_scale, 0)
        assert_close("loss", np.reshape(loss, p.rows), values, scale, bar, nan=dead)
        return
    assert np.ndim(loss) == 0
    if p.divisor == 0:
        assert_close("loss", loss, Long(0), 0, 0, nan=p.options["when_empty"] == "nan")
        return
    counts = p.kept & ~p.dead
    value = true.loss[counts].sum() / p.divisor
    scale = abs(true.loss_scale[counts]).sum() / p.divisor
    assert_close("loss", loss, value, scale, bar + 1, nan=bool(dead.any()))


def factors(p: Problem) -> np.ndarray:
    """(N, 1), what a row's gradient is multiplied with."""
    factor = np.broadcast_to(1.0 if p.grad_loss is None else p.grad_loss, p.rows).astype(Long)
    if p.divisor == 0:
        return np.zeros((p.rows, 1), Long)
    return np.where(p.kept, factor / p.divisor, 0)[:, None]


def check_rows(p: Problem, what: str, rows, true, scale, bar: float) -> None:
    factor = factors(p)
    nan = (p.dead & p.kept & (p.divisor != 0))[:, None]
    bar += FACTOR * (not (factor == 1).all())
    assert_close(what, p.as_rows(rows), true * factor, scale * factor, bar, nan=nan)


def check_loss_gradient_and_product(p: Problem) -> None:
    bar = bar_of(p, PLAIN if p.is_plain else GENERAL)
    given = p.options | {"axis": p.axis}
    incoming = p.grad_loss
    if isinstance(incoming, np.ndarray):
        incoming = incoming.reshape(p.batch)
    loss, grad = crossent.cross_entropy_and_grad(p.logits, p.targets, grad_loss=incoming, **given)
    assert grad.dtype == p.logits.dtype
    check_loss(p, loss)
    assert same_bits(loss, crossent.cross_entropy(p.logits, p.targets, **given))
    check_rows(p, "gradient", grad, p.true.grad, p.true.grad_scale, bar)
    out = laid_out(p.rng, np.asarray(p.logits), str(p.rng.choice(LAYOUTS[:-2])))
    for logits, where in ((out, out), (p.logits, np.empty_like(out))):
        again, written = crossent.cross_entropy_and_grad(
            logits, p.targets, grad_loss=incoming, out=where, **given
        )
        assert written is where
        assert same_bits(again, loss)
        assert same_bits(written, grad)
    product = crossent.cross_entropy_hvp(
        p.logits, p.targets, p.v_given, grad_loss=incoming, **given
    )
    # A probability that is a subnormal float64 has lost digits, and so has what it is multiplied by.
    prob = np.where(p.true.prob > 0, p.true.prob, np.inf)
    scale = p.true.hvp_scale * np.maximum(1, Long(2) ** -1022 / prob)
    check_rows(p, "product", product, p.true.hvp, scale, bar_of(p, PRODUCT))


def check_scores(p: Problem) -> None:
    given = {name: p.options[name] for name in SCALING & set(p.options)}
    check_row_scores(p, crossent.token_scores(p.logits, p.targets, axis=p.axis, **given), given)


def check_row_scores(p: Problem, scores, given: dict) -> None:
    bar = bar_of(p, GENERAL if set(given) - {"ignore_index"} else PLAIN)
    nll = -p.true.log_prob[np.arange(p.rows), np.where(p.kept, np.reshape(p.targets, p.rows), 0)]
    nll = np.where(p.kept, nll, 0)
    alive = ~p.dead
    assert_close("nll", np.reshape(scores.nll, p.rows), nll, 0, bar, nan=p.dead & p.kept)
    lse, entropy, argmax = (np.reshape(part, p.rows)[alive] for part in scores[1:])
    assert_close("lse", lse, p.true.lse[alive], p.true.lse_scale[alive], bar)
    entropy_bar = bar_of(p, GENERAL)
    assert_close("entropy", entropy, p.true.entropy[alive], Long(2) ** -20, entropy_bar)
    order = np.clip(p.rows_of_logits()[alive].astype(Long), -BEYOND, BEYOND)
    assert (argmax == (order * np.sign(given.get("logit_scale", 1.0))).argmax(1)).all()


def check_softmax(p: Problem) -> None:
    alive, bar = ~p.dead, bar_of(p, PLAIN)
    prob, log_prob = (
        p.as_rows(function(p.logits, axis=p.axis))[alive]
        for function in (crossent.softmax, crossent.log_softmax)
    )
    lse = np.reshape(crossent.logsumexp(p.logits, axis=p.axis), p.rows)[alive]
    assert_close("softmax", prob, p.true.prob[alive], 0, bar)
    assert_close("log_softmax", log_prob, p.true.log_prob[alive], 0, bar)
    assert_close("logsumexp", lse, p.true.lse[alive], p.true.lse_scale[alive], bar)


def check(p: Problem) -> None:
    """Everything that is computed of the problem."""
    with using_isa(p.isa):
        crossent.set_num_threads(p.threads)
        if p.divisor == 0 and p.options["when_empty"] == "raise":
            with pytest.raises(ValueError, match="nothing to divide by"):
                crossent.cross_entropy(p.logits, p.targets, axis=p.axis, **p.options)
        else:
            check_loss_gradient_and_product(p)
        if p.has_indices:
            check_scores(p)
        if not {"softcap", "logit_scale"} & set(p.options):
            check_softmax(p)


# The linear form


class Layer(Problem):
    """A linear layer whose products are exact in its type, so that its logits are the oracle's."""

    def __init__(self, number: int) -> None:
        rng = np.random.default_rng([number, 1])
        self.dtype = str(rng.choice(list(DTYPES)))
        dtype = DTYPES[self.dtype]
        self.rows, self.classes = int(rng.integers(0, 90)), int(np.exp(rng.uniform(0, 6.9)))
        self.batch, features = (self.rows,), int(rng.integers(1, 9))
        self.inputs = rng.integers(-4, 5, (self.rows, features)).astype(dtype)
        self.weight = (rng.integers(-8, 9, (self.classes, features)) / 4).astype(dtype)
        bias = (rng.integers(-8, 9, self.classes) / 4).astype(dtype)
        self.bias = {"linear_bias": bias} if rng.random() < 0.5 else {}
        ignore_index = int(rng.choice([-100, 0, self.classes - 1]))
        self.targets, self.kind = random_targets(rng, self.rows, self.classes, ignore_index)
        self.has_indices = self.kind == "indices"
        self.options = random_options(rng, self.rows, self.classes)
        if self.has_indices:
            self.options["ignore_index"] = ignore_index
        self.grad_loss = None
        logits = self.inputs.astype(Long) @ self.weight.T.astype(Long)
        logits = logits + (bias.astype(Long) if self.bias else 0)
        self.logits, self.v = logits, np.zeros(logits.shape)
        self.true, self.kept, self.dead = self.truth(logits, self.targets)
        self.divisor = self.true_divisor(self.targets)
        self.memory = int(np.exp(rng.uniform(3, 15)))
        self.threads, self.isa = int(rng.integers(1, 5)), str(rng.choice(ISAS))

    def rows_of_logits(self) -> np.ndarray:
        return self.logits

    def __str__(self) -> str:
        return f"{self.rows} x {self.classes} {self.dtype}, {self.kind}, {self.options}"


def check_sums(what: str, sums, true, size, terms: int, dtype: str) -> None:
    """Sums of as many terms, whose sizes add up to `size`: a rounding each and one of their own."""
    if sums is None:
        return
    info, wide = _float_info(sums.dtype), np.float64 if dtype == "float64" else np.float32
    own = Long(info.smallest_subnormal) + abs(true) * Long(info.eps) / 2
    wrong = ~(abs(sums.astype(Long) - true) <= own + (terms + 8) * Long(np.finfo(wide).eps) * size)
    assert not wrong.any(), f"{what}: {sums[wrong][0]}, not {true[wrong][0]}"


def check_layer(p: Layer) -> None:
    """Loss, scores and gradients of a layer."""
    crossent.set_num_threads(p.threads)
    crossent.set_working_memory(p.memory)
    arguments = (p.inputs, p.weight, p.targets)
    if p.divisor == 0 and p.options["when_empty"] == "raise":
        with pytest.raises(ValueError, match="nothing to divide by"):
            crossent.linear_cross_entropy(*arguments, **p.bias, **p.options)
        return
    loss, grads = crossent.linear_cross_entropy_and_grad(*arguments, **p.bias, **p.options)
    check_loss(p, loss)
    assert same_bits(loss, crossent.linear_cross_entropy(*arguments, **p.bias, **p.options))
    factor = factors(p)
    grad, size = p.true.grad * factor, np.maximum(p.true.grad_scale, abs(p.true.grad)) * abs(factor)
    x, w = p.inputs.astype(Long), p.weight.astype(Long)
    check_sums("inputs", grads.inputs, grad @ w, size @ abs(w), p.classes, p.dtype)
    sums = (grad.T @ x, size.T @ abs(x)), (grad.sum(0), size.sum(0))
    for (true, scale), name in zip(sums, ("linear_weight", "linear_bias"), strict=True):
        check_sums(name, getattr(grads, name), true, scale, p.rows, p.dtype)
    if p.has_indices:
        chosen = {name: p.options[name] for name in SCALING & set(p.options)}
        scores = crossent.linear_token_scores(*arguments, **p.bias, **chosen)
        check_row_scores(p, scores, chosen)


@pytest.fixture
def working_memory():
    before = crossent.get_working_memory()
    yield
    crossent.set_working_memory(before)


def test_random_layers_are_those_of_their_logits(set_num_threads, working_memory) -> None:
    for number in problems():
        layer = Layer(number)
        try:
            with using_isa(layer.isa):
                check_layer(layer)
        except Exception as error:
            raise AssertionError(f"CROSSENT_PROBLEM={number}: {error}\n{layer}") from error


def test_random_problems_are_within_the_bars_of_the_truth(set_num_threads) -> None:
    met = Counter()
    for number in problems():
        problem = Problem(number)
        try:
            check(problem)
        except Exception as error:
            raise AssertionError(f"CROSSENT_PROBLEM={number}: {error}\n{problem}") from error
        met[problem.regime] += 1
    assert ALONE or set(met) == {
        "no row", "tiles", "blocks", "pieces", "segments", "many long rows"
    }, met  # fmt: skip

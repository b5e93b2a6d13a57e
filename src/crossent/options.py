"""Every option of the loss, stated once: name, type, default, rule, message and meaning.

A public function spells its options out for its readers and hands all of them on as one object:

    given = options.checked(locals())

`Options` goes down to the core as it is. What an option means for the mathematics is said in
`crossent.reference`; class weights, the class axis and other arrays have their rules in
`crossent._arguments`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypedDict, get_args

Reduction = Literal["none", "sum", "mean"]
Reduced = Literal["sum", "mean"]  # to one number
WhenEmpty = Literal["nan", "zero", "raise"]


class Options(NamedTuple):
    """Names, types and defaults of the options, in the order in which the core reads them."""

    ignore_index: int = -100
    reduction: Reduction = "mean"
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    softcap: float | None = None
    logit_scale: float = 1.0
    normalizer: float | None = None
    when_empty: WhenEmpty = "nan"


class Given(TypedDict, total=False):
    """The options beside `reduction`, as a caller names them: for signatures told by overloads."""

    ignore_index: int
    label_smoothing: float
    z_loss: float
    softcap: float | None
    logit_scale: float
    normalizer: float | None
    when_empty: WhenEmpty


DEFAULTS: Mapping[str, Any] = Options()._asdict()
OF_MEAN = ("ignore_index", "reduction", "normalizer", "when_empty")  # how rows become one number
OF_ROW = tuple(name for name in Options._fields if name not in OF_MEAN)  # what a row's loss is
OF_LOGITS = ("softcap", "logit_scale")  # of these the ones that change the logits themselves
IGNORE_INDEX = Options().ignore_index

_LONGEST = 60  # characters of a value in a message
_NOT_REAL = frozenset("bcmMSU")  # kinds of NumPy's dtypes: bool, complex, times, texts


# Rules: each gives the value that the core takes, or says what is wrong with it.


def shown(value: Any, written: Callable[[Any], str] = str) -> str:
    """A value as messages show it: on one line, cut where it is long."""
    try:
        text = " ".join(written(value).split())
    except Exception:  # its own, or an integer too long to be written
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _kind(value: Any) -> str:
    """What a value is, in a message: its type, and of an array what it holds."""
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    name = type(value).__name__
    return name if dtype is None or shape is None else f"{name} of {dtype} and shape {tuple(shape)}"


def integer(name: str, value: Any) -> int:
    """An integer of any size."""
    if type(value) is int:
        return value
    try:
        return int(operator.index(value))
    except Exception:  # whatever a type of a caller raises
        raise TypeError(f"{name} must be an integer, not {_kind(value)}") from None


def number(name: str, value: Any) -> float:
    """A real number as a float: what every option that is one asks for."""
    if type(value) is float:
        return value
    try:
        kind = getattr(getattr(value, "dtype", None), "kind", None)
        is_real = hasattr(value, "__float__") and kind not in _NOT_REAL
        if is_real and not isinstance(value, bool):
            return float(value)
    except OverflowError:
        raise ValueError(f"{name} is beyond the range of a float: {shown(value)}") from None
    except Exception:  # whatever a type of a caller raises
        pass
    raise TypeError(f"{name} must be a number, not {_kind(value)}")


def _one_of(choices: tuple[str, ...]) -> Callable[[str, Any], str]:
    listed = ", ".join(f'"{choice}"' for choice in choices[:-1]) + f' or "{choices[-1]}"'

    def rule(name: str, value: Any) -> str:
        word = value
        if isinstance(value, str) and type(value) is not str:  # an enumeration's, NumPy's
            word = str.__str__(value)
        if type(word) is not str or word not in choices:
            raise ValueError(f"{name} must be {listed}, not {shown(value, repr)}")
        return word

    return rule


def _number_that(is_right: Callable[[float], bool], message: str) -> Callable[[str, Any], float]:
    def rule(name: str, value: Any) -> float:
        result = number(name, value)
        if not is_right(result):
            raise ValueError(f"{name} {message} {shown(value)}")
        return result

    return rule


def _or_none(rule: Callable[[str, Any], float]) -> Callable[[str, Any], float | None]:
    return lambda name, value: None if value is None else rule(name, value)


def _is_positive(value: float) -> bool:
    return 0 < value < math.inf


class Option(NamedTuple):
    """What is said of an option beside its name, type and default."""

    rule: Callable[[str, Any], Any]
    meaning: str


OPTIONS: Mapping[str, Option] = {
    "ignore_index": Option(
        integer, "rows whose index target has this value give loss 0 and gradient 0"
    ),
    "reduction": Option(
        _one_of(get_args(Reduction)),
        '"none" (a loss a row), "sum", or "mean": the sum divided by `normalizer`, else by the sum '
        "of weight[target] over the rows that are not ignored (index targets), else by the number "
        "of rows (distributions)",
    ),
    "label_smoothing": Option(
        _number_that(lambda value: 0 <= value <= 1, "must be from 0 to 1, not"),
        "the share of each target that is spread evenly over the classes, 0 to 1",
    ),
    "z_loss": Option(
        _number_that(lambda value: 0 <= value < math.inf, "must be finite and >= 0, not"),
        "factor of lse^2, which keeps logits from drifting; >= 0, not weighted by class",
    ),
    "softcap": Option(
        _or_none(_number_that(_is_positive, "must be finite and > 0, or None for no cap; not")),
        "bounds the logits smoothly to +-softcap, > 0; None: no bound",
    ),
    "logit_scale": Option(
        _number_that(lambda value: -math.inf < value < math.inf, "must be finite, not"),
        "multiplies the logits (an inverse temperature)",
    ),
    "normalizer": Option(
        _or_none(_number_that(_is_positive, "must be finite and > 0, not")),
        "the divisor of the mean, > 0, e.g. the tokens of all accumulated batches",
    ),
    "when_empty": Option(
        _one_of(get_args(WhenEmpty)),
        "what the mean over nothing (N = 0, all rows ignored, kept weights that add up to 0) "
        'gives: "nan", "zero" or "raise". Its gradient is 0',
    ),
}


# Calls


def _check(*values: Any) -> Options:
    named = zip(Options._fields, values, strict=True)
    options = Options(*(OPTIONS[name].rule(name, value) for name, value in named))
    if options.normalizer is not None and options.reduction != "mean":
        raise ValueError(
            f'normalizer divides the mean; with reduction="{options.reduction}" it has no meaning: '
            'leave it out or use reduction="mean"'
        )
    return options


values_of = operator.itemgetter(*Options._fields)
_CONSTANTS = frozenset((int, float, str, type(None)))  # types whose objects keep their value
_SMALLEST = 5e-324


class _MayChange(Exception):
    """Raised so that a value which may change, a tensor's say, is not remembered."""


@lru_cache(maxsize=256, typed=True)
def _remembered(*values: Any) -> Options:
    if not _CONSTANTS.issuperset(map(type, values)):
        raise _MayChange
    return _check(*values)


def recalled(values: tuple[Any, ...]) -> Options | None:
    """Options of these values, checked; None where one may change, or is wrong."""
    if _SMALLEST == 0:  # this thread takes subnormal numbers for zeros: 1e-310 equals 0
        return None
    try:
        return _remembered(*values)
    except Exception:  # one cannot be hashed, or is wrong
        return None


def checked(given: Mapping[str, Any]) -> Options:
    """The options among a call's arguments, each as its rule gives it.

    Args:
        given: a value for each option by its name; what else it holds is left alone, so that a
            function may give its `locals()`.

    Raises:
        TypeError, ValueError: a value breaks its option's rule.
    """
    values = values_of(given)
    return recalled(values) or _check(*values)


def checked_anew(given: Mapping[str, Any]) -> Options:
    """The same, with nothing remembered: for a compiler that traces the call."""
    return _check(*(given[name] for name in Options._fields))


def checked_of_scores(given: Mapping[str, Any]) -> Options:
    """The same for per-row scores, which have ignore_index, softcap and logit_scale alone."""
    return checked({**DEFAULTS, **given, "reduction": "none"})


def check_for_distributions(chosen: Options) -> None:
    """Raises ValueError for options that have no meaning where targets are distributions."""
    if chosen.ignore_index >= 0:
        raise ValueError(
            f"ignore_index={shown(chosen.ignore_index)} has no meaning for targets that are "
            "distributions; leave it out, or give class indices"
        )

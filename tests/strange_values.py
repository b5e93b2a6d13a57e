"""Values that callers may give for an option by mistake, and one error for each.

A good value is the number or word that it means; of the others there must be one line that begins
with the option's name.
"""

import decimal
import enum
import fractions

import numpy as np


class Raises:
    """A number that is not there."""

    def __float__(self):
        raise RuntimeError("no number here")

    __index__ = __float__

    def __repr__(self):
        raise RuntimeError("no text here")


class GivesText:
    """A number that is a text."""

    def __float__(self):
        return "1"

    def __index__(self):
        return "1"


class NoHash(float):
    def __hash__(self):
        raise RuntimeError("no hash here")


class NoEqual(str):
    __slots__ = ()

    def __eq__(self, other):
        raise RuntimeError("no comparison here")

    __hash__ = str.__hash__


class NoHashText(str):
    __slots__ = ()
    __hash__ = None


class Words(enum.StrEnum):
    MEAN = "mean"
    NAN = "nan"
    OTHER = "other"


# No option takes these.
NEVER = {
    "complex": 0.5 + 0j,
    "NumPy's complex": np.complex64(0.5 + 2j),
    "an array of a complex number": np.array(0.5 + 0j),
    "an array of a bool": np.array(True),
    "an array of a text": np.array("0.5"),
    "several numbers": np.array([0.5, 0.5]),
    "none in an array": np.array([]),
    "a masked number": np.ma.masked,
    "a duration": np.timedelta64(1, "s"),
    "a record": np.zeros((), [("a", float)])[()],
    "a text of a number": "0.5",
    "a long text": "mean" * 500,
    "lines": "me\nan",
    "bytes": b"mean",
    "what raises": Raises(),
    "what gives a text": GivesText(),
    "a list": [0.5],
    "a dictionary": {},
    "a type": float,
    "a signalling nan": decimal.Decimal("sNaN"),
    "another word": Words.OTHER,
}
# Only ignore_index takes these, which may be of any size.
HUGE = {
    "an integer beyond floats": 10**400,
    "a negative one": -(10**400),
    "one that Python does not write out": 10**5000,
}
BEYOND = {"a fraction beyond floats": fractions.Fraction(10**400)}
HALVES = {
    "half": 0.5,
    "NumPy's half": np.float16(0.5),
    "an array of half": np.array(0.5),
    "decimal half": decimal.Decimal("0.5"),
    "a fraction": fractions.Fraction(1, 2),
    "a float without hash": NoHash(0.5),
}
ONES = {"one": 1, "NumPy's one": np.int8(1), "an array of one": np.array(1)}
MEANS = {
    "a member": Words.MEAN,
    "NumPy's text": np.str_("mean"),
    "a text that is never equal": NoEqual("mean"),
    "a text without hash": NoHashText("mean"),
}


def refused(option):
    """The values that an option never takes, by what they are."""
    if option == "ignore_index":
        return {**NEVER, **HALVES, **BEYOND}
    if option in ("reduction", "when_empty"):
        return {**NEVER, **HUGE, **BEYOND, **HALVES, **ONES}
    return {**NEVER, **HUGE, **BEYOND}


def assert_one_line(error, name):
    """An error's message is one line of bounded length that begins with a name."""
    message = str(error)
    assert message.startswith(name)
    assert "\n" not in message
    assert len(message) < 350

"""How a number is written in the walk: the same in Python and, by assets/numbers.js, on the page.

A style is a short code:

    3   three decimals; a number too small or too large for that in powers of ten; an exact 0 as 0
    a   a logit: as given, to three decimals, at least one
    g   as given, to three decimals
    5   five decimals
    e   powers of ten, three digits
    1   powers of ten, one digit: the size of an error
    s   three decimals whatever the size: a sum that may be rounding alone
    i   a whole number
"""

import math
import unicodedata
from decimal import ROUND_HALF_UP, Decimal, localcontext

MINUS = "\N{MINUS SIGN}"
TOO_SMALL, TOO_LARGE = 0.0005, 1e4  # beyond these three decimals say nothing
SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def write_number(value: float, style: str = "3") -> str:
    """The number as the page prints it, with a true minus sign."""
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else f"{MINUS}inf"
    size, sign = abs(value), MINUS if value < 0 else ""
    if style == "i":
        return sign + f"{round(size):,}"
    if style == "s":
        digits = rounded(size, ".3f")
        return digits if float(digits) == 0 else sign + digits
    if size == 0:
        return "0.0" if style == "a" else "0"
    if style in "e1":
        return sign + power_of_ten(size, 2 if style == "e" else 0)
    if size < TOO_SMALL or size >= TOO_LARGE:
        return sign + power_of_ten(size, 2)
    digits = rounded(size, ".5f" if style == "5" else ".3f")
    if style in "ag":
        digits = digits.rstrip("0").rstrip(".")
        if style == "a" and "." not in digits:
            digits += ".0"
    return sign + digits


def rounded(size: float, code: str) -> str:
    """Formatted with a half rounded up from the exact value, as JavaScript does."""
    with localcontext(rounding=ROUND_HALF_UP):
        return format(Decimal(size), code)


def power_of_ten(size: float, decimals: int) -> str:
    """A positive number as 8.50×10⁻¹⁸."""
    mantissa, _, exponent = rounded(size, f".{decimals}e").partition("e")
    return f"{mantissa}×10{str(int(exponent)).translate(SUPERSCRIPTS)}"


def plain(text: str) -> str:
    """A written number in ASCII, as programs and LaTeX take it: 8.50e-18."""
    return unicodedata.normalize("NFKC", text).replace("×10", "e").replace(MINUS, "-")

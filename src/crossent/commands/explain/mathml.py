r"""Formulas as MathML, which browsers draw: latex2mathml converts them, this makes them the page's.

In a formula ``\v{key}`` and ``\v[style]{key}`` stand for a number of the walk.
"""

import re
from collections.abc import Callable
from html import unescape

from latex2mathml.converter import convert

WriteNumber = Callable[[str, str], str]  # key, style -> the markup of an <mn>

FORMULA = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$", re.DOTALL)
UNBROKEN = re.compile(r"(<dfn[^>]*>)?<math(?:(?!</math>).)*</math>(?(1)</dfn>)[,.:;?)]", re.DOTALL)
NUMBER = re.compile(r"\\v(?:\[(\w)\])?\{([\w.]+)\}")
WORD = re.compile(r"\\mathrm\{(\w+)\}")
LEAF = re.compile(r"<mtext>(\w*)@([^<]*)</mtext>")
LOOSE_LOG = re.compile(r"\\log(?= [^(])")
SIGN = re.compile(r"((?:<mo[^>]*>[=(]</mo>|<m(?:row|td|ath)[^>]*>))<mo>−</mo>")
ONE_LEAF = re.compile(r"<mrow>(<(m[inot]\w*)[^<>]*>[^<>]*</\2>)</mrow>")
NEEDLESS = re.compile(r' xmlns="[^"]*"| display="inline"|(?<=<mo) stretchy="true" fence="true"')
WRAPPED = re.compile(r"(<math[^>]*>)<mrow>(.*)</mrow>(</math>)")


def to_mathml(tex: str, write_number: WriteNumber, *, display: bool = False) -> str:
    r"""One formula as a <math> element; a displayed one as several that may stand on several lines.

    It may be broken at ``\wrap``, which leaves no gap, and at ``\qquad``.
    """
    if not display:
        return element(tex, write_number, "inline")
    parts = []
    for number, apart in enumerate(tex.split(r"\qquad")):
        for place, piece in enumerate(apart.split(r"\wrap")):
            body = element(piece, write_number, "block")
            parts.append(body.replace(">", ' class="apart">', 1) if number and not place else body)
    return f'<div class="formula">{"".join(parts)}</div>'


def element(tex: str, write_number: WriteNumber, display: str) -> str:
    """A <math> element; numbers and upright words pass through the converter as texts."""
    tex = NUMBER.sub(r"\\text{\1@\2}", WORD.sub(r"\\text{mi@\1}", tex.strip()))
    markup = unescape(convert(LOOSE_LOG.sub(r"\\log\\,", tex), display=display))
    markup = WRAPPED.sub(r"\1\2\3", NEEDLESS.sub("", markup))
    markup = SIGN.sub(r'\1<mo form="prefix">−</mo>', markup)
    markup = markup.replace("<mo>‖</mo>", '<mo stretchy="false">‖</mo>')
    if "\\" in markup or tex.count("{") != tex.count("}"):
        raise ValueError(f"formula {tex} has an unknown command, or a brace without its other")
    return LEAF.sub(
        lambda found: (
            f"<mi>{found[2]}</mi>" if found[1] == "mi" else write_number(found[2], found[1] or "3")
        ),
        ONE_LEAF.sub(r"\1", markup),
    )


def with_formulas(text: str, write_number: WriteNumber) -> str:
    """A text whose $formulas$ are MathML; no line begins with a comma that follows one."""
    text = FORMULA.sub(
        lambda found: to_mathml(found[1] or found[2], write_number, display=bool(found[1])), text
    )
    return UNBROKEN.sub(r'<span class="u">\g<0></span>', text)

r"""Formulas: the little TeX that the page is written in, as MathML, which browsers draw.

Letters are symbols, ``\mathrm{..}`` an upright name, ``^ _ \frac \underbrace \begin{cases}`` and
``\begin{bmatrix}`` mean what they do in TeX. ``\v{key}`` and ``\v[style]{key}`` stand for a number
of the walk: an <mn> that carries its key, so that the page can change it.
"""

import re
from collections.abc import Callable
from html import escape

WriteNumber = Callable[[str, str], str]  # key, style -> the markup of an <mn> or <data>

TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[0-9]+(?:\.[0-9]+)?|\s+|.", re.DOTALL)
LETTERS = {
    "kappa": "κ", "sigma": "σ", "delta": "δ", "eta": "η", "varepsilon": "ε", "iota": "ι",
    "ell": "ℓ",
}  # fmt: skip
OPERATORS = {
    "partial": "∂", "sum": "∑", "cdot": "⋅", "times": "×", "circ": "∘", "ne": "≠", "le": "≤",
    "ge": "≥", "approx": "≈", "infty": "∞", "to": "→", "top": "⊤", "lVert": "‖", "rVert": "‖",
    "ldots": "…", "{": "{", "}": "}",
}  # fmt: skip
FUNCTIONS = {"log", "max", "exp"}
SPACES = {"quad": 1.0, ",": 0.17, ";": 0.28, " ": 0.25}
BRACKETS = "()[]|"
OPENING = {"", "=", "(", "[", "{", "&", ","}  # a minus after one of these is a sign
ACCENTED = {"-": "−", "*": "∗", "'": "′"}


ONE_LEAF = re.compile(r"<(m[ion])[^<>]*>[^<>]*</\1>")


def is_one_element(markup: str) -> bool:
    """Whether the markup is a single leaf, which needs no <mrow> around it."""
    return ONE_LEAF.fullmatch(markup) is not None


class Parser:
    """Recursive descent over the tokens of one formula."""

    def __init__(self, tex: str, write_number: WriteNumber, display: bool) -> None:
        self.tokens = TOKEN.findall(tex)
        self.at = 0
        self.last = self.before = ""  # the token just taken, and the one before it
        self.write_number = write_number
        self.display = display

    def peek(self) -> str:
        """The next token that is not a space; nothing at the end."""
        while self.at < len(self.tokens) and self.tokens[self.at].isspace():
            self.at += 1
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        if not token:
            raise ValueError(f"formula ends too early: {''.join(self.tokens)}")
        self.at += 1
        self.before, self.last = self.last, token
        return token

    def row(self, *ends: str) -> str:
        """Everything up to one of the ends, which is left to be taken."""
        parts = []
        while self.peek() and self.peek() not in ends:
            parts.append(self.scripted())
        return "".join(parts)

    def group(self) -> str:
        """A braced group, or a single atom, as exactly one element."""
        if self.peek() != "{":
            return self.atom()
        self.take()
        inside = self.row("}")
        self.take()
        return inside if is_one_element(inside) else f"<mrow>{inside}</mrow>"

    def raw(self, close: str = "}") -> str:
        """The text of a bracketed argument as it stands."""
        self.take()
        end = self.tokens.index(close, self.at)
        text = "".join(self.tokens[self.at : end])
        self.at, self.last = end + 1, close
        return text

    def scripted(self) -> str:
        """An atom with what stands below and above it."""
        token = self.peek()
        base, below, above = self.atom(), "", ""
        while self.peek() in ("_", "^"):
            if self.take() == "_":
                below = self.group()
            else:
                above = self.group()
        if not below and not above:
            return base
        stacked = token == "\\underbrace" or (self.display and token in ("\\sum", "\\max"))
        low, high, both = (
            ("munder", "mover", "munderover") if stacked else ("msub", "msup", "msubsup")
        )
        if below and above:
            return f"<{both}>{base}{below}{above}</{both}>"
        return f"<{low}>{base}{below}</{low}>" if below else f"<{high}>{base}{above}</{high}>"

    def atom(self) -> str:
        token = self.take()
        if token == "{":
            inside = self.row("}")
            self.take()
            return f"<mrow>{inside}</mrow>"
        if token.startswith("\\"):
            return self.command(token[1:])
        if token[0].isdigit():
            return f"<mn>{token}</mn>"
        if token.isalpha():
            return f"<mi>{token}</mi>"
        if token in BRACKETS:
            return f'<mo stretchy="false">{token}</mo>'
        sign = ' form="prefix"' if token == "-" and self.before in OPENING else ""
        return f"<mo{sign}>{escape(ACCENTED.get(token, token))}</mo>"

    def command(self, name: str) -> str:
        if name in LETTERS:
            return f"<mi>{LETTERS[name]}</mi>"
        if name in OPERATORS:
            fixed = ' stretchy="false"' if name.endswith("Vert") else ""
            return f"<mo{fixed}>{OPERATORS[name]}</mo>"
        if name in FUNCTIONS:
            gap = "" if name == "max" or self.peek() == "(" else '<mspace width=".17em"></mspace>'
            return f"<mi>{name}</mi>{gap}"
        if name in SPACES:
            return f'<mspace width="{SPACES[name]}em"></mspace>'
        if name in ("mathrm", "text"):
            word = self.raw().replace(" ", "\N{NO-BREAK SPACE}")
            tag = "mi" if name == "mathrm" else "mtext"
            return f"<{tag}>{escape(word)}</{tag}>"
        if name == "frac":
            return f"<mfrac>{self.group()}{self.group()}</mfrac>"
        if name == "underbrace":
            return f"<munder>{self.group()}<mo>&#9183;</mo></munder>"
        if name in ("left", "right"):
            return f"<mo>{escape(self.take())}</mo>"
        if name == "v":
            style = self.raw("]") if self.peek() == "[" else "3"
            return self.write_number(self.raw(), style)
        if name == "begin":
            return self.table(self.raw())
        raise ValueError(f"formula uses \\{name}, which is not known here")

    def table(self, kind: str) -> str:
        rows, cells = [], []
        while True:
            cells.append(f"<mtd>{self.row('&', chr(92) + 'cr', chr(92) + 'end')}</mtd>")
            end = self.take()
            if end != "&":
                rows.append(f"<mtr>{''.join(cells)}</mtr>")
                cells = []
            if end == "\\end":
                self.raw()
                break
        body = f"<mtable>{''.join(rows)}</mtable>"
        left, right = {"cases": ("{", ""), "bmatrix": ("[", "]")}[kind]
        return f"<mrow><mo>{left}</mo>{body}" + (f"<mo>{right}</mo>" if right else "") + "</mrow>"


def to_mathml(tex: str, write_number: WriteNumber, *, display: bool = False) -> str:
    """One formula as a <math> element; a displayed one as several that may stand on several lines.

    It may be broken at ``\\wrap``, which leaves no gap, and at ``\\qquad``.
    """
    if not display:
        return f"<math>{Parser(tex, write_number, display).row()}</math>"
    parts = []
    for number, apart in enumerate(tex.split("\\qquad")):
        for place, piece in enumerate(apart.split("\\wrap")):
            kind = ' class="apart"' if number and not place else ""
            body = Parser(piece, write_number, display).row()
            parts.append(f'<math display="block"{kind}>{body}</math>')
    return "".join(parts)

"""Lines of code in src and csrc, by part: without blank lines, comments and docstrings.

python .ci/code_lines.py [FOLDER]     FOLDER: a checkout; without it this one
"""

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from pathlib import Path

BLOCK_COMMENTS = {
    **dict.fromkeys((".h", ".cc", ".css", ".js"), r"/\*.*?\*/"),
    **dict.fromkeys((".html", ".jinja"), r"<!--.*?-->|\{#.*?#\}"),
}
LINE_COMMENTS = dict.fromkeys((".h", ".cc", ".js"), "//")


def python_lines(text: str) -> int:
    """Lines that hold a token which is neither a comment nor part of a docstring."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    strings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        for child in getattr(node, "body", []) if isinstance(node, documented) else []:
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                strings |= set(range(child.lineno, child.end_lineno + 1))
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in (*layout, tokenize.ENDMARKER):
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - strings)


def other_lines(text: str, suffix: str) -> int:
    """Lines that are left once comments are taken out."""
    text = re.sub(BLOCK_COMMENTS[suffix], "", text, flags=re.DOTALL)
    marker = LINE_COMMENTS.get(suffix)
    lines = (line.strip() for line in text.splitlines())
    return sum(bool(line) and not (marker and line.startswith(marker)) for line in lines)


def count(path: Path) -> int:
    if path.suffix in (".py", ".pyi"):
        return python_lines(path.read_text(encoding="utf-8"))
    if path.suffix in BLOCK_COMMENTS:
        return other_lines(path.read_text(encoding="utf-8"), path.suffix)
    return 0


def part_of(path: Path) -> str:
    """csrc, a folder of the package, or the package's own files."""
    folders = path.parts[2:-1] if path.parts[0] == "src" else path.parts[:1]
    return "/".join(folders[:2]) or "crossent"


def main() -> None:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1])
    parts: Counter[str] = Counter()
    for top in ("src", "csrc"):
        for path in sorted((root / top).rglob("*.*")):
            parts[part_of(path.relative_to(root))] += count(path)
    for part, lines in sorted(parts.items()):
        if lines:
            print(f"{lines:6d}  {part}")
    print(f"{parts.total():6d}  in all")


if __name__ == "__main__":
    main()

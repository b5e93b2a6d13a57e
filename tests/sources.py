"""The package's sources as the tests of its shape read them: files, modules and what these import."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "crossent"
CORE = ROOT / "csrc"


def module_of(path: Path) -> str:
    """A source file's dotted name below crossent, e.g. "torch.loss"; "" is the package itself."""
    parts = path.relative_to(SOURCES).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> set[str]:
    """Every dotted name that a file imports, anywhere in it; of ours with the name after `from`."""
    package = ["crossent", *path.relative_to(SOURCES).parts[:-1]]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            ours = base.split(".")[0] == "crossent"
            found |= {f"{base}.{alias.name}" for alias in node.names} if ours else {base}
    return found


def modules() -> dict[str, Path]:
    """The package's modules by their dotted names below crossent."""
    return {module_of(path): path for path in sorted(SOURCES.rglob("*.py"))}


def compiled_modules() -> set[str]:
    """The names of those in C++, of which a stub tells Python's tools."""
    return {module_of(path) for path in SOURCES.rglob("*.pyi")}

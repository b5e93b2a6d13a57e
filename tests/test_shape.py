"""The shape of the code: files and functions of a size, imports in one direction, an option in few places."""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from sources import CORE, ROOT, SOURCES, compiled_modules, imports_of, modules

TEXT = {".py", ".pyi", ".h", ".cc", ".js", ".css", ".html", ".jinja"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def texts() -> dict[str, list[str]]:
    """The lines of every source file, by its path."""
    paths = [path for folder in (SOURCES, CORE) for path in sorted(folder.rglob("*"))]
    return {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").splitlines()
        for path in paths
        if path.suffix in TEXT
    }


def test_no_file_is_longer_than_450_lines():
    assert {name: len(lines) for name, lines in texts().items() if len(lines) > 450} == {}


def functions_of(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, Function):
            yield node


def body_lines(function: Function) -> int:
    """How many lines the body takes: without the signature and the docstring."""
    body = function.body
    if ast.get_docstring(function) is not None:
        body = body[1:]
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def test_no_function_s_body_is_longer_than_40_lines():
    long = {
        f"{name or 'crossent'}.{function.name}": body_lines(function)
        for name, path in modules().items()
        for function in functions_of(path)
        if body_lines(function) > 40
    }
    assert long == {}


# Imports


def own_imports() -> dict[str, set[str]]:
    """Of every module those of ours that its imports need, wherever they stand in it."""
    names = modules().keys() | compiled_modules()
    needed = {name: modules_needed(path, names) - {name} for name, path in modules().items()}
    return needed | {name: set() for name in compiled_modules()}


def modules_needed(path: Path, names: set[str]) -> set[str]:
    """`from package import name` needs the module of that name, else the package."""
    needed = set()
    for imported in imports_of(path):
        root, _, dotted = imported.partition(".")
        if root == "crossent" and dotted in names:
            needed.add(dotted)
        elif root == "crossent" and dotted.rpartition(".")[0] in names:
            needed.add(dotted.rpartition(".")[0])
    return needed


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules that import one another, by what each can reach."""
    reach = {name: set(targets) for name, targets in edges.items()}
    while True:
        grown = {n: r.union(*(reach[t] for t in r)) if r else r for n, r in reach.items()}
        if grown == reach:
            break
        reach = grown
    groups = {tuple(sorted(m for m in reach[n] if n in reach[m])) for n in reach if n in reach[n]}
    return [list(group) for group in sorted(groups)]


def test_modules_that_import_one_another_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]


def test_no_modules_import_one_another():
    assert circles(own_imports()) == []


# Names


def test_no_two_names_of_a_folder_differ_only_in_an_underscore():
    stems = defaultdict(set)
    for name in texts():
        path = Path(name)
        stems[path.parent, path.stem.strip("_"), path.suffix].add(path.name)
    assert [sorted(names) for names in stems.values() if len(names) > 1] == []


def test_a_name_stands_at_most_once_a_part():
    """The same name in two folders means the same role: a command's `command.py`, a front-end's `linear.py`."""
    counts = Counter((Path(name).name, part_of(name)) for name in texts())
    twice = {at: n for at, n in counts.items() if n > 1 and at[0] != "__init__.py"}
    assert twice == {}


def part_of(name: str) -> str:
    """What a file belongs to: a command, a front-end, the evaluation, the core."""
    folders = Path(name).parts[:-1]
    return "/".join(folders[:4] if "commands" in folders else folders[:3])


# Options


def test_an_option_stands_in_few_places():
    """z_loss stands for all: who adds an option should not have to touch half of the files."""
    found = {name: sum(bool(re.search(r"\bz_loss\b", line)) for line in lines)
             for name, lines in texts().items()}  # fmt: skip
    found = {name: count for name, count in found.items() if count}
    assert len(found) <= 14, found
    assert sum(found.values()) <= 45, found

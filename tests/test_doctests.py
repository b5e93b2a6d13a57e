"""The examples in the docstrings run, and every public function has one."""

import doctest
import importlib
import inspect
from pathlib import Path

import pytest
from extras import EXTRAS, missing_extra

import crossent

PACKAGE = Path(crossent.__file__).parent
BENCHED = {"jax", "scipy", "sklearn"}  # libraries that the bench compares with where they are


def modules():
    """The names of all modules of the package, from its files."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if parts[-1] != "__main__":
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def load(name):
    try:
        return importlib.import_module(name)
    except (ModuleNotFoundError, SystemExit) as error:
        package = missing_extra(error) or str(getattr(error, "name", "")).split(".")[0]
        if package not in EXTRAS | BENCHED:
            raise
        pytest.skip(f"{name} needs {package}, which is not installed")


@pytest.mark.parametrize("name", list(modules()))
def test_examples_run(name, capsys):
    failed, _ = doctest.testmod(load(name))
    assert failed == 0, capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(crossent.__all__))
def test_every_public_name_says_what_it_returns_and_functions_show_an_example(name):
    thing = getattr(crossent, name)
    text = inspect.getdoc(thing)
    assert text
    assert text.split("\n")[0].endswith((".", "?", ":"))
    if inspect.isfunction(thing):
        assert ">>>" in text, f"{name} has no example"

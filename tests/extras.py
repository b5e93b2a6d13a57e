"""What the test extras bring: tests of what is not installed are skipped by name, save in CI."""

import os
from importlib.util import find_spec

import pytest

CI = os.environ.get("CI") == "true"
EXTRAS = {  # beside the packages that every test needs
    *("typer", "rich", "matplotlib", "jinja2", "playwright", "dask", "safetensors"),
    *("torch", "transformers", "accelerate", "expecttest"),
}


def missing_extra(error: BaseException) -> str | None:
    """The package that an import failed for, where an extra brings it; the commands exit then."""
    if isinstance(error, SystemExit | pytest.Collector.CollectError):
        error = error.__cause__ or error.__context__ or error
    name = (getattr(error, "name", None) or "").split(".")[0]
    return name if name in EXTRAS and not CI else None


def needs(package: str) -> pytest.MarkDecorator:
    """Skips a test where a package is not installed."""
    absent = find_spec(package) is None and not CI
    return pytest.mark.skipif(absent, reason=f"{package} is not installed")

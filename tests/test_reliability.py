"""docs/reliability.md names tests that are there."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "reliability.md").read_text("utf-8")


def test_every_test_that_the_page_names_is_there() -> None:
    named, file = [], ""
    for mentioned, test in re.findall(r"`((?:pytorch/)?test_\w+\.py)?(?:::(test_\w+))?`", PAGE):
        file = mentioned or file
        if file:
            named.append((file, test))
    assert len(named) > 30
    for file, test in named:
        text = (TESTS / file).read_text("utf-8")
        assert f"\ndef {test}" in text if test else text, f"{file}::{test}"


def test_the_page_says_how_much_the_suite_fuzzes() -> None:
    text = (TESTS / "test_fuzz.py").read_text("utf-8")
    tries = re.search(r'"CROSSENT_FUZZ", "(\d+)"', text)
    assert tries
    assert f"tries {tries[1]} of each" in PAGE

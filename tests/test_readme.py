"""The README and the pages in docs/ tell the truth: their code runs and prints what they show.

A ```python block is run in order with the others of its page; a ```text block that follows it is
what it prints. A ```pycon block is a doctest, so that an error stands there as it really is.
"""

import contextlib
import doctest
import inspect
import io
import re
import runpy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from extras import needs

import crossent

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = (
    "README.md",
    "docs/course.md",
    "docs/options.md",
    "docs/linear.md",
    "docs/numerics.md",
    "docs/evaluation.md",
    "docs/pytorch.md",
)
FUNCTIONS = (
    crossent.cross_entropy,
    crossent.cross_entropy_and_grad,
    crossent.cross_entropy_hvp,
)


class Block(NamedTuple):
    """A fenced block: its language, its text, and the line on which the text begins."""

    language: str
    text: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(found[1], found[2], text.count("\n", 0, found.start(2)))
        for found in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


def imported_by(blocks: list[Block]) -> set[str]:
    """The packages that a page's examples import."""
    code = "\n".join(block.text for block in blocks if block.language == "python")
    return set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE))


def run_block(block: Block, page: Path, names: dict[str, object]) -> str:
    """What a block prints; its lines are numbered as on the page."""
    code = compile("\n" * block.line + block.text, str(page), "exec")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, names)
    return printed.getvalue()


@pytest.mark.parametrize("name", PAGES)
def test_code_blocks_print_what_stands_below_them(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page, names = ROOT / name, {}
    blocks = blocks_of(page)
    for package in imported_by(blocks) & {"torch", "transformers"}:
        pytest.importorskip(package, reason=f"{package} is not installed")
    assert any(block.language in ("python", "pycon") for block in blocks)
    for block, following in zip(blocks, [*blocks[1:], Block("", "", 0)], strict=True):
        if block.language == "python":
            printed = run_block(block, page, names)
            shown = following.text if following.language == "text" else ""
            assert printed == shown, f"{name}, line {block.line + 1}"
        elif block.language == "pycon":
            test = doctest.DocTestParser().get_doctest(block.text, names, name, name, block.line)
            said = io.StringIO()
            runner = doctest.DocTestRunner(verbose=False)
            runner.run(test, out=said.write, clear_globs=False)
            assert runner.failures == 0, said.getvalue()
            names.update(test.globs)


# The README


def marked_command(marker: str) -> str:
    found = re.search(rf"<!-- {marker} -->\n```sh\n(.*?)```", README.read_text(), re.DOTALL)
    assert found is not None, marker
    return found[1]


@pytest.mark.parametrize(
    ("marker", "command"),
    [
        ("main job", "pip install '.[cli]' && crossent demo\n"),
        ("tests", "pip install '.[test]' && pytest\n"),
    ],
)
def test_the_two_commands_stand_in_blocks_of_one_line(marker, command):
    assert marked_command(marker) == command


def test_the_figures_of_the_demo_are_those_it_prints(tmp_path):
    from crossent.commands.demo.command import format_result
    from crossent.commands.demo.training import run_demo

    printed = format_result(run_demo(), tmp_path / "crossent-demo.png").splitlines()
    shown = [b.text for b in blocks_of(README) if b.text.startswith("Softmax regression on")]
    assert len(shown) == 1
    for line in shown[0].splitlines():
        assert line == "..." or line in printed


def test_the_table_of_errors_has_the_rows_of_its_command():
    script = runpy.run_path(str(ROOT / "examples" / "accuracy.py"))
    names = [name for name, _, _ in script["cases"]()]
    table = next(b.text for b in blocks_of(README) if b.text.startswith("largest error in ULP"))
    assert re.findall(r"^  (\w.*?)  ", table, re.MULTILINE) == 2 * names


def test_the_command_of_that_table_counts_ulps():
    script = runpy.run_path(str(ROOT / "examples" / "accuracy.py"))
    one = np.float32(1)
    assert script["ulps"](one, script["mp"].mpf(1)) == 0
    assert script["ulps"](np.nextafter(one, 2 * one), script["mp"].mpf(1)) == 1
    logits, targets = np.array([[20, 0, 0]], np.float32), np.array([0])
    ours = crossent.cross_entropy_and_grad(logits, targets, reduction="none")
    loss, grad = map(float, script["worst"](*ours, logits, targets).split())
    assert max(loss, grad) < 1


@needs("typer")
def test_the_named_commands_are_those_that_there_are():
    from typer.main import get_command

    from crossent.commands.cli import app

    named = re.findall(r"^\| `crossent (\w+)", README.read_text(), re.MULTILINE)
    assert set(named) == set(get_command(app).commands)


def option_table(page: Path) -> dict[str, str]:
    """Name and default of every row `| [`name`](...) | meaning | `default` |` of a page."""
    rows = re.findall(r"^\| \[?`(\w+)`.*\| `([^`|]+)` \|$", page.read_text(), re.MULTILINE)
    return dict(rows)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_option_tables_hold_every_option_and_its_default(function):
    extra = {"grad_loss", "out"}  # of the gradient, not of the loss
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in extra
    }
    for page in (README, ROOT / "docs" / "options.md"):
        table = {name: eval(default) for name, default in option_table(page).items()}
        assert {k: v for k, v in table.items() if k not in extra} == defaults


# Links


def anchors_of(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", [*PAGES, "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(name):
    page = ROOT / name
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link


@pytest.mark.parametrize("name", [*PAGES, "CONTRIBUTING.md"])
def test_files_named_in_the_text_exist(name):
    text = (ROOT / name).read_text()
    for path in re.findall(r"`((?:csrc|src|tests|docs|examples)/[\w./]+)`", text):
        assert (ROOT / path).exists(), path


def test_contributing_fits_two_screens():
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 80

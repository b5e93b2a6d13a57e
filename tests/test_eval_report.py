"""The report: one page that needs nothing else, true to the figures, for every kind of result."""

import html
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

import crossent
from crossent.commands import cli
from crossent.commands.eval import charts
from crossent.commands.eval.report import report_page, share

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"


def result(rows: int = 400, classes: int = 6, **arguments):
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((rows, classes)).astype(np.float32)
    targets = rng.integers(0, classes, rows)
    logits[np.arange(rows), targets] += 2
    return crossent.evaluate(logits, targets, **arguments)


def infinite():
    logits = np.zeros((20, 3))
    logits[3, 0] = -np.inf
    return crossent.evaluate(logits, np.zeros(20, int))


KINDS = {
    "few classes": lambda: result(),
    "many classes": lambda: result(classes=60, temperature=True, bytes=1000),
    "too many for a matrix": lambda: result(300, 1100),
    "one class": lambda: result(classes=1),
    "one row": lambda: result(rows=1),
    "no row": lambda: result(rows=0),
    "compared": lambda: result(compare=np.zeros((400, 6), np.float32)),
    "weighted": lambda: result(row_weight=np.arange(400) % 3 / 2, weight=np.arange(1.0, 7.0)),
    "soft": lambda: crossent.evaluate(np.zeros((9, 3)), np.full((9, 3), 1 / 3)),
    "perfect": lambda: crossent.evaluate(np.eye(3) * 1000, np.arange(3)),
    "infinite": infinite,
    "logprobs": lambda: crossent.evaluate(logprobs=-np.arange(50.0)),
    "certain": lambda: crossent.evaluate(logprobs=np.zeros(5)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_result_makes_a_page_that_needs_nothing_else(kind: str) -> None:
    one = KINDS[kind]()
    page = report_page(one)
    assert "<script" not in page
    assert "Content-Security-Policy\" content=\"default-src 'none'; " in page
    links = set(re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", page))
    assert all(link.startswith(("#", "data:image/png")) for link in links), links
    for picture in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        assert ET.fromstring(picture).attrib["role"] == "img"
    ids = re.findall(r'\bid="([^"]+)"', page)
    used = {name for picture in re.findall(r"url\(#([^)]+)\)", page) for name in [picture]}
    assert used <= set(ids)
    assert "NaN" not in page
    assert len(page) < 400_000


def test_the_page_says_what_the_figures_say() -> None:
    one = result(temperature=True, compare=np.zeros((400, 6), np.float32))
    page = html.unescape(report_page(one))
    for wanted in (
        f"{one.loss:.3f}", f"{one.classes.accuracy:.2%}", f"{one.classes.calibration_error:.2%}",
        f"{one.temperature.temperature:.3g}", f"{one.comparison.difference:+.4g}",
        f"{one.loss_sum:.17g}", '"mean"', "label_smoothing",
    ):  # fmt: skip
        assert wanted in page, wanted
    for row in one.hardest:
        assert f"<td class=number>{row.row:,}</td>" in page
    for title in ("Half of the rows", "hardest tenth", "Calibration error", "first answer",
                  "Loss by class", "mistakes", "hardest rows", "other model"):  # fmt: skip
        assert title in page, title


def test_the_same_result_makes_the_same_page() -> None:
    assert report_page(result()) == report_page(result())


def test_names_from_outside_cannot_become_markup(tmp_path: Path) -> None:
    path = tmp_path / "<img src=x onerror=alert(1)>.npy"
    np.save(path, np.eye(3, dtype=np.float32))
    page = report_page(crossent.evaluate(path, np.arange(3)))
    assert "<img" not in page
    assert "&lt;img src=x" in page


def test_the_share_of_the_hardest_rows_is_that_of_the_losses() -> None:
    losses = np.random.default_rng(0).gamma(0.5, 1, 20_000)
    one = crossent.evaluate(logprobs=-losses)
    wanted = np.sort(losses)[-2000:].sum() / losses.sum()
    assert charts.share_of_hardest(one, 0.1) == pytest.approx(wanted, abs=0.005)


@pytest.mark.parametrize("spread", [0.1, 1, 30])
def test_the_losses_have_a_scale_to_read(spread: float) -> None:
    """Losses of few decades too have several numbers below them."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((400, 6)) * spread
    axes = charts.loss_distribution(crossent.evaluate(logits, rng.integers(0, 6, 400)))
    axes.figure.canvas.draw()
    low, high = axes.get_xlim()
    ticks = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    assert sum(low <= place <= high and bool(label.get_text()) for place, label in ticks) >= 2


def test_the_command_writes_it_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.html"
    assert cli.main(["eval", "--report", str(path)]) == 0
    assert f"report: {path}" in capsys.readouterr().out
    page = path.read_text("utf-8")
    assert page.startswith("<!doctype html>")
    assert page.endswith("</html>\n")
    assert "96.94%" in page
    assert os.listdir(tmp_path) == ["report.html"]


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_what_the_page_needs_is_missed_before_the_work(tmp_path: Path, missing: str) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None; from crossent.commands.cli import main; "
        "sys.exit(main(['eval', '--report', 'report.html']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"crossent: {missing} is not installed: pip install 'crossent[cli]'\n"


@pytest.mark.parametrize(("prob", "text"), [(0.5, "50.0%"), (1e-5, "1e-05"), (0.0, "0%")])
def test_small_probabilities_are_not_shown_as_0(prob: float, text: str) -> None:
    assert share(prob) == text


@pytest.mark.parametrize("width", [375, 1280])
def test_a_browser_shows_it_whole_without_network_or_complaint(tmp_path: Path, width: int) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not os.path.exists(CHROMIUM):
        pytest.skip("chromium is not installed")
    path = tmp_path / "report.html"
    path.write_text(report_page(result(classes=60, temperature=True)), "utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page(viewport={"width": width, "height": 900})
        requests, messages = [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: messages.append(message.text))
        page.goto(path.as_uri())
        assert requests == [path.as_uri()]
        assert messages == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        widths = page.evaluate("[...document.querySelectorAll('svg')].map(s => s.clientWidth)")
        assert len(widths) == 6
        assert min(widths) > 250
        smallest = page.evaluate(
            "Math.min(...[...document.querySelectorAll('svg text')]"
            ".map(t => t.getBoundingClientRect().height))"
        )
        assert smallest > 6
        browser.close()

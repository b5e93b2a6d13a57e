"""crossent explain's page in a real browser: Chromium, driven by playwright, from file://.

Skipped where either is missing, but never in CI. CHROMIUM names another browser file.
"""

import itertools
import math
import os
import random
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from covering import FULL

from crossent.commands.explain.inputs import read_problem
from crossent.commands.explain.numbers import write_number
from crossent.commands.explain.page import make_page
from crossent.commands.explain.state import State
from crossent.commands.explain.steps import Walk
from crossent.commands.explain.view import make_view

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]
CLOSE = 1e-6  # of crossent, of 1 and of the number
PHONE, DESKTOP = {"width": 375, "height": 780}, {"width": 1280, "height": 900}


def missing(what):
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}, and CI tests the page")
    pytest.skip(what)


@pytest.fixture(scope="module")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        missing("playwright is not installed: pip install playwright")
    names = ("chromium", "chromium-browser", "google-chrome")
    file = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if file is None:
        missing("there is no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=file, args=FLAGS)
        yield chromium
        chromium.close()


def problem(name, folder):
    """Arguments of read_problem."""
    rng = np.random.default_rng(5)
    if name in ("many classes", "many shares", "many rows"):
        shape = {"many classes": (3, 10_000), "many shares": (4, 200), "many rows": (500, 10)}[name]
        Y = rng.integers(0, shape[1], shape[0])
        if name == "many shares":
            Y = rng.dirichlet(np.ones(shape[1]) / 9, shape[0])
        np.save(folder / "A.npy", 2 * rng.normal(size=shape))
        np.save(folder / "Y.npy", Y)
        return f"{folder}/A.npy", f"{folder}/Y.npy", None
    return {
        "example": (None, None, None),
        "named": ("1, 2, 3, 4; 4, 3, 2, 1", "0, 0", "cat, <b>dog, x & y, a very long name"),
        "shares": ("1, 2, 3", ".2, .7, .1", None),
        "one class": ("1", "0", None),
        "moved": ("-1, 2, 0.5; 3, 0.1, 1", "2, 0", None),
    }[name]


EVERY = ("example", "named", "shares", "one class", "many classes", "many shares", "many rows")


class Opened:
    """A page with what it did: its requests, its console, its view."""

    def __init__(self, browser, folder, name="example", **context):
        self.view = make_view(read_problem(*problem(name, folder)))
        self.file = folder / "page.html"
        self.file.write_text(make_page(self.view), encoding="utf-8")
        self.context = browser.new_context(**({"viewport": DESKTOP} | context))
        self.page = self.context.new_page()
        self.requests, self.said = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.go("")

    def go(self, fragment):
        self.page.goto("about:blank")
        self.page.goto(self.file.as_uri() + (f"#{fragment}" if fragment else ""))

    def check_quiet(self):
        assert self.said == []
        assert {url.split("#")[0] for url in self.requests} <= {self.file.as_uri(), "about:blank"}

    def numbers(self):
        """What the script computed."""
        pairs = self.page.evaluate(
            "Object.entries(crossentPage.numbers()).map(([key, value]) => [key, String(Number(value))])"
        )
        return {key: float(value.replace("Infinity", "inf")) for key, value in pairs}

    def shown(self):
        """(key, style, text, value) of every number on the page."""
        return self.page.evaluate(
            "[...document.querySelectorAll('[data-k]')].map(e =>"
            " [e.dataset.k, e.dataset.f || '3', e.textContent, e.dataset.v])"
        )


@pytest.fixture
def opened(browser, tmp_path):
    """Opens pages; afterwards they have said nothing and asked for nothing."""
    pages = []

    def open_page(name="example", **context):
        pages.append(Opened(browser, tmp_path, name, **context))
        return pages[-1]

    yield open_page
    for each in pages:
        each.check_quiet()
        each.context.close()


def close(x, y):
    same = x == y or (math.isnan(x) and math.isnan(y))
    return same or abs(x - y) <= CLOSE * max(1, abs(y))


def read(text):
    """The value of a written number, and by how much its last digit is uncertain."""
    text = text.replace("−", "-").replace(",", "")
    if text in ("nan", "inf", "-inf"):
        return float(text), 0.0
    digits, _, power = text.partition("×10")
    exponent = int(power.translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-"))) if power else 0
    decimals = len(digits.partition(".")[2])
    return float(digits) * 10.0**exponent, 0.5 * 10.0 ** (exponent - decimals)


def check_against_crossent(opened, state):
    """Every number on the page and in its script is crossent's."""
    walk = Walk(opened.view, state)
    expected = walk.numbers
    computed = opened.numbers()
    assert set(computed) == set(expected)
    wrong = {key: (computed[key], x) for key, x in expected.items() if not close(computed[key], x)}
    assert wrong == {}
    for key, style, text, value in opened.shown():
        truth = expected[key]
        exact = float((value or text).replace("Infinity", "inf"))
        assert close(exact, truth), key
        shown, half = read(text)
        assert close(shown, truth) or abs(shown - truth) <= 1.001 * half + CLOSE, (key, text, truth)
        if math.isfinite(truth) and abs(truth) > 1e-3 and style in "3ag5":
            assert abs(read(write_number(truth, style))[0] - shown) <= 2.1 * half
    words = walk.words
    for key, text in opened.page.evaluate(
        "[...document.querySelectorAll('[data-w]')].map(e => [e.dataset.w, e.textContent])"
    ):
        assert text == words[key]
    for flag, hidden in opened.page.evaluate(
        "[...document.querySelectorAll('[data-if]')].map(e => [e.dataset.if, e.hidden])"
    ):
        holds = expected[flag.removeprefix("not ")] == (not flag.startswith("not "))
        assert hidden != holds, flag


def random_state(view, rng):
    first = State.of(view)
    return replace(
        first,
        chosen=rng.randrange(len(view.rows)),
        logits=tuple(tuple(round(rng.uniform(-9, 9), 2) for _ in row) for row in first.logits),
        targets=tuple(rng.choice([given, rng.randrange(len(row))])
                      for given, row in zip(first.targets, first.logits, strict=True)),
        shift=rng.choice([-1000.0, 0.0, 705.0, 1000.0]),
        step=rng.choice([0.0, 0.5, 1.0, 4.0]),
        margin=float(rng.randrange(61)),
        keep=rng.choice([0.0, 0.35, 1.0]),
        smoothing=rng.choice([0.0, 0.1, 1.0]),
    )  # fmt: skip


def fragment_of(view, state):
    logits = ";".join(",".join(map(repr, row)) for row in state.logits)
    targets = ",".join("y" if target is None else str(target) for target in state.targets)
    return (
        f"a={logits}&t={targets}&row={view.rows[state.chosen].index}&k={state.shift}"
        f"&eta={state.step}&x={state.margin}&w={state.keep}&eps={state.smoothing}"
    )


# The numbers


@pytest.mark.parametrize("name", EVERY)
def test_a_link_brings_up_its_numbers_and_they_are_crossent_s(name, opened):
    page, rng = opened(name), random.Random(name)
    check_against_crossent(page, State.of(page.view))
    for _ in range(6 if FULL else 2):
        state = random_state(page.view, rng)
        page.go(fragment_of(page.view, state))
        check_against_crossent(page, state)


@pytest.mark.parametrize("name", ["example", "many classes", "many rows"])
def test_sliders_change_every_number(name, opened):
    page, rng = opened(name), random.Random(name)
    state = State.of(page.view)
    for _ in range(4 if FULL else 1):
        chosen = rng.randrange(len(page.view.rows))
        page.page.locator(f"[name=row][value='{chosen}']").check(force=True)
        logits = [list(row) for row in state.logits]
        for k in range(len(logits[chosen])):
            page.page.locator(f"input[type=range][data-logit='{k}']").fill(
                f"{rng.uniform(-4, 4):.1f}"
            )
            logits[chosen][k] = page.page.evaluate("crossentPage.state()")["logits"][chosen][k]
            assert abs(logits[chosen][k]) <= 4
        target = rng.randrange(len(logits[chosen]))
        page.page.locator(f"[name=target][value='{target}']").check()
        targets = list(state.targets)
        targets[chosen] = target
        for part, value in (("shift", -800), ("step", 0.35), ("margin", 21), ("keep", 0.4)):
            page.page.locator(f"[data-part={part}]").fill(str(value))
        state = replace(
            state, chosen=chosen, logits=tuple(map(tuple, logits)), targets=tuple(targets),
            shift=-800.0, step=0.35, margin=21.0, keep=0.4,
        )  # fmt: skip
        check_against_crossent(page, state)
    link = page.page.url
    page.page.goto("about:blank")
    page.page.goto(link)
    check_against_crossent(page, state)


DRAWN = """
[...document.querySelectorAll('[data-bar],#dot')].map(e => [
  e.id || JSON.stringify(e.dataset), e.matches('.below'),
  ...['cx', 'cy'].map(name => Number(e.getAttribute(name))),
  Number(e.style.getPropertyValue('--v')),
])
"""


def test_bars_colours_and_curve_are_drawn_as_on_a_page_made_from_those_numbers(opened):
    moved, made = opened(), opened("moved", java_script_enabled=False)
    moved.go("a=-1,2,0.5;3,0.1,1&t=2,0&show=1")
    drawn, expected = moved.page.evaluate(DRAWN), made.page.evaluate(DRAWN)
    assert len(drawn) > 40
    for shown, wanted in zip(drawn, expected, strict=True):
        assert shown[:2] == wanted[:2]
        assert shown[2:4] == pytest.approx(wanted[2:4], rel=1e-3, abs=0.06), shown[0]  # pixels
        assert shown[4] == pytest.approx(wanted[4], abs=1e-3), shown[0]  # a share


def test_a_number_can_be_typed_and_nonsense_changes_nothing(opened):
    page = opened()
    box = page.page.locator("input[type=number][data-logit='1']")
    box.fill("-12.345")
    assert page.numbers()["a.1"] == -12.345
    box.fill("")
    assert page.numbers()["a.1"] == -12.345
    page.page.locator("#reset").click()
    check_against_crossent(page, State.of(page.view))
    assert "#" not in page.page.url


def test_a_click_in_the_picture_chooses_the_target(opened):
    page = opened()
    page.page.locator(".pass.wide [data-pick='2']").first.click()
    assert page.numbers()["t"] == 2
    assert page.page.locator("[name=target][value='2']").is_checked()


@pytest.mark.parametrize(
    "fragment",
    [
        "a=1,2", "a=1,2,x;1,2,3", "a=;", "t=9,9", "t=0", "row=7", "eta=1e9", "eps=-1", "k=",
        "a=1e400,1,1;1,1,1", "at=nowhere", "nonsense", "%E0%A4%A", "a=<script>",
    ],
)  # fmt: skip
def test_a_broken_link_gives_the_page_s_own_numbers(fragment, opened):
    page = opened()
    page.go(fragment)
    state = page.page.evaluate("crossentPage.state()")
    assert state["logits"] == [[2, 1, 0.1], [0.1, 2, 1.9]]
    assert state["targets"] == [1, 0]
    assert 0 <= state["step"] <= 4
    assert 0 <= state["smoothing"] <= 1
    if fragment.startswith("a="):
        assert "another problem" in page.page.locator("#said").text_content()


def test_a_link_leads_to_its_step(opened):
    page = opened()
    page.page.locator("nav a[href='#sure']").click()
    assert page.page.url.endswith("#at=sure")
    page.go("at=sure")
    assert page.page.evaluate("document.activeElement.id") == "h-sure"
    assert page.page.evaluate(
        "Math.abs(document.querySelector('#sure').getBoundingClientRect().top) < 80"
    )


# The questions


def test_answers_are_hidden_until_the_sign_is_predicted(opened):
    page = opened().page
    ask, answer = page.locator("[data-ask=dp]"), page.locator("div[data-veil=dp]")
    in_picture = page.locator(".pass.wide [data-veil=dp] .inside")
    assert answer.is_hidden()
    assert in_picture.evaluate("e => getComputedStyle(e).visibility") == "hidden"
    ask.locator("label", has_text="positive").click()
    assert "No: it is negative, −4.125" in ask.locator(".verdict").text_content()
    assert answer.is_visible()
    assert in_picture.evaluate("e => getComputedStyle(e).visibility") == "visible"
    ask.locator("label", has_text="negative").click()
    assert "Yes: negative, −4.125" in ask.locator(".verdict").text_content()


def test_a_question_of_two_parts_waits_for_both_answers(opened):
    page = opened().page
    sets = page.locator("[data-ask=gradient] fieldset")
    sets.nth(0).locator("label", has_text="negative").click()
    assert page.locator("div[data-veil=gradient]").is_hidden()
    sets.nth(1).locator("label", has_text="positive").click()
    assert page.locator("div[data-veil=gradient]").is_visible()


def test_answers_can_be_shown_one_by_one_and_all_at_once(opened):
    page = opened().page
    page.locator("[data-ask=jacobian] [data-show]").click()
    assert page.locator(".heat").is_visible()
    assert page.locator("div.veiled").count() > 0
    page.locator("#reveal").check()
    assert page.locator("div.veiled").count() == 0
    assert page.url.endswith("#show=1")


def test_every_question_has_a_true_answer_for_every_sign(opened):
    """Also where the derivative is 0: one class alone has nothing to learn."""
    page = opened("one class").page
    page.locator("#reveal").check()
    for verdict in page.locator(".verdict").all():
        assert re.match(r"Answer: (negative|zero|positive|nothing)", verdict.text_content())


# Keyboard, labels, screens


def tab_stops(page):
    """Every element that the Tab key reaches, in order: (id in the list of controls, name)."""
    stops = []
    for _ in range(300):
        page.keyboard.press("Tab")
        stop = page.evaluate(
            "(() => { const e = document.activeElement; return e === document.body ? null :"
            " [...document.querySelectorAll('*')].indexOf(e) })()"
        )
        if stop is None or stop in stops:
            break
        stops.append(stop)
    return stops


def test_the_keyboard_alone_reaches_every_control(opened):
    each = opened()
    each.go("show=1")
    page, stops = each.page, set(tab_stops(each.page))
    controls = page.evaluate(
        "[...document.querySelectorAll('a[href],button,input,summary,[data-cell]')]"
        ".filter(e => e.checkVisibility()).map(e => ["
        " [...document.querySelectorAll('*')].indexOf(e), e.type === 'radio' ? e.name :"
        " e.dataset.cell !== undefined ? 'cells' : '', e.outerHTML.slice(0, 90)])"
    )
    groups = {group for place, group, _ in controls if group and place in stops}
    missed = [html for place, group, html in controls if place not in stops and group not in groups]
    assert missed == []
    assert {"cells", "target", "row"} <= groups


def test_keys_move_sliders_targets_and_the_heat_map(opened):
    page = opened()
    slider = page.page.locator("input[type=range][data-logit='0']")
    slider.focus()
    page.page.keyboard.press("ArrowRight")
    assert page.numbers()["a.0"] == pytest.approx(2.1)
    page.page.locator("[name=target][value='1']").focus()
    page.page.keyboard.press("ArrowDown")
    assert page.numbers()["t"] == 2
    page.page.locator("#reveal").check()
    page.page.locator("[data-cell='0 0']").focus()
    assert "own logit" in page.page.locator("#term").text_content()
    page.page.keyboard.press("ArrowRight")
    page.page.keyboard.press("ArrowDown")
    page.page.keyboard.press("ArrowRight")
    assert page.page.evaluate("document.activeElement.dataset.cell") == "1 2"
    term, numbers = page.page.locator("#term").text_content(), page.numbers()
    assert term.startswith("class 1 by the logit of class 2: −pi pj = ")
    for key in ("p.1", "p.2", "J.1.2", "J.check.1.2"):
        assert write_number(numbers[key]) in term


NAMES = """
[...document.querySelectorAll('input,button,a,summary,[data-cell],[role=img]')].map(e => {
  const labels = [...(e.labels || [])].map(l => l.textContent).join(' ');
  const label = e.getAttribute('aria-label') || labels || e.textContent;
  return [label.trim(), e.outerHTML.slice(0, 120)];
})
"""


@pytest.mark.parametrize("name", EVERY)
def test_every_control_has_a_name(name, opened):
    page = opened(name).page
    unnamed = [html for label, html in page.evaluate(NAMES) if not label]
    assert unnamed == []
    assert page.evaluate("document.documentElement.lang") == "en"
    levels = page.evaluate(
        "[...document.querySelectorAll('main h1,main h2,main h3')].map(e => +e.tagName[1])"
    )
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


CONTRAST = """
() => {
  const probe = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = (color) => {
    probe.clearRect(0, 0, 1, 1);
    probe.fillStyle = color;
    probe.fillRect(0, 0, 1, 1);
    return [...probe.getImageData(0, 0, 1, 1).data];
  };
  const over = (front, back) =>
    back.map((value, n) => (front[n] * front[3] + value * (255 - front[3])) / 255);
  const ground = (e) => {
    const here = rgb(getComputedStyle(e).backgroundColor);
    if (here[3] === 255 || !e.parentElement) return here.slice(0, 3);
    return over(here, ground(e.parentElement));
  };
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) =>
    0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const contrast = (one, other) => {
    const [dark, bright] = [light(one), light(other)].sort((x, y) => x - y);
    return (bright + 0.05) / (dark + 0.05);
  };
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.closest('script,style,.empty,.skip')) continue;
    const inPicture = e.closest('svg'), back = ground(inPicture || e);
    const colour = getComputedStyle(e)[inPicture ? 'fill' : 'color'];
    found.push([contrast(over(rgb(colour), back), back), e.outerHTML.slice(0, 90)]);
  }
  return found;
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_against_its_ground(scheme, opened):
    page = opened(color_scheme=scheme).page
    page.locator("#reveal").check()
    found = page.evaluate(CONTRAST)
    assert len(found) > 300
    assert [(round(ratio, 2), html) for ratio, html in found if ratio < 4.5] == []


@pytest.mark.parametrize("name", EVERY)
def test_no_screen_scrolls_sideways(name, opened):
    page = opened(name).page
    page.locator("#reveal").check()
    for width in (320, 375, 768, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator(".pass.tall").is_visible() == (width <= 640)
        assert page.locator(".pass.wide").is_visible() == (width > 640)


def test_on_a_phone_the_controls_unfold_at_the_foot(opened):
    page = opened(viewport=PHONE, has_touch=True).page
    assert page.locator("#numbers").is_hidden()
    assert "loss 1.417" in page.locator("#fold").text_content()
    page.locator("#fold").click()
    assert page.locator("#numbers").is_visible()
    page.locator("input[type=range][data-logit='1']").fill("4")
    assert "loss 0.145" in page.locator("#fold").text_content()
    page.locator("#fold").click()
    assert page.locator("#numbers").is_hidden()


# Without script, in print, as a picture


@pytest.mark.parametrize("name", EVERY)
def test_without_javascript_everything_is_there(name, opened):
    page = opened(name, java_script_enabled=False)
    expected = Walk.of(page.view).numbers
    text = page.page.locator("main").inner_text()
    assert page.page.locator("#panel").is_hidden()
    assert page.page.locator("input:visible").count() == 0
    for veil in page.page.locator("div[data-veil]").all():
        assert veil.is_visible()
    for proof in page.page.locator("details.proof").all():
        assert proof.locator("p").first.is_visible()
    for key in ("loss.mean", "step.after", "smooth.loss", "grad.t", "J.own", "dp.t"):
        assert write_number(expected[key]) in text, key
    assert "JavaScript is off" in text


def test_in_print_nothing_is_hidden_but_the_controls(opened):
    page = opened().page
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator("#panel").is_hidden()
    assert page.locator("button:visible").count() == 0
    for veil in page.locator("div[data-veil]").all():
        assert veil.is_visible()
    assert page.locator("details.proof:not([open])").count() == 0
    inside = page.locator(".pass.wide [data-veil=gradient] .inside")
    assert inside.evaluate("e => getComputedStyle(e).visibility") == "visible"
    assert len(page.pdf(format="A4")) > 10_000


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["375", "1280"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_has_its_colours_on_every_screen(viewport, scheme, opened, tmp_path):
    """The picture's bars, heat map and accents are painted: not black, not blank."""
    from io import BytesIO

    from PIL import Image

    page = opened(viewport=viewport, color_scheme=scheme).page
    page.evaluate("document.querySelector('#reveal').click()")
    shown = page.locator(".pass:visible").last.screenshot()
    colours = Image.open(BytesIO(shown)).convert("RGB").getcolors(1 << 20)
    painted = {colour for count, colour in colours if count > 40}

    def variable(name):
        return page.evaluate(
            f"getComputedStyle(document.documentElement).getPropertyValue('--{name}').trim()"
        )

    for name in ("card", "prob", "truth", "below", "above", "accent", "logit"):
        value = variable(name).lstrip("#")
        wanted = tuple(int(value[n : n + 2], 16) for n in (0, 2, 4))
        near = (np.abs(np.array(wanted) - colour).max() <= 3 for colour in painted)
        assert any(near), name

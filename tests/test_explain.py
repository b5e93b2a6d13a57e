"""crossent explain: what it reads, what it computes, what it writes; no browser."""

import gc
import itertools
import json
import os
import re
import subprocess
import sys
import webbrowser
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import crossent
from crossent.commands import cli
from crossent.commands.explain import inputs, mathml, numpy_code, picture
from crossent.commands.explain.inputs import read_problem
from crossent.commands.explain.numbers import plain, write_number
from crossent.commands.explain.page import make_page
from crossent.commands.explain.state import State
from crossent.commands.explain.steps import STEPS, Walk, asset, short_name
from crossent.commands.explain.view import make_view
from crossent.commands.explain.walk import all_values, flat

ROOT = Path(__file__).parents[1]
LIMIT = 150_000  # bytes of a page
VOID = {"meta", "link", "input", "br"}


def view_of(logits=None, targets=None, classes=None, row=None):
    return make_view(read_problem(logits, targets, classes), row)


def page_of(view):
    return make_page(Walk.of(view))


def numbers_of(view):
    return flat(all_values(view, State.of(view)))


def vector(numbers, name):
    values = []
    while (key := f"{name}.{len(values)}") in numbers:
        values.append(numbers[key])
    return np.array(values)


def saved(folder, **arrays):
    """Paths of arrays, each saved under its name."""
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return [str(folder / f"{name}.npy") for name in arrays]


class Document(HTMLParser):
    """A page's elements in order: (tag, attributes, own text, those around, children)."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(html)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.add(tag, attributes)
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_startendtag(self, tag, attributes):
        self.add(tag, attributes)

    def add(self, tag, attributes):
        if self.open:
            self.open[-1][4] += 1
        self.elements.append([tag, dict(attributes), "", [e[1] for e in self.open], 0])

    def handle_endtag(self, tag):
        assert self.open[-1][0] == tag, f"</{tag}> closes <{self.open[-1][0]}>"
        self.open.pop()

    def handle_data(self, data):
        if self.open:
            self.open[-1][2] += data


# What the numbers are


def test_the_worked_example_has_its_known_numbers():
    numbers = numbers_of(view_of())
    assert vector(numbers, "p").round(3).tolist() == [0.659, 0.242, 0.099]
    assert vector(numbers, "losses").round(3).tolist() == [1.417, 2.620]
    assert round(numbers["loss.mean"], 3) == 2.019
    assert vector(numbers, "G.0").round(3).tolist() == [0.330, -0.379, 0.049]
    assert vector(numbers, "G.1").round(3).tolist() == [-0.464, 0.243, 0.220]
    assert round(numbers["step.after"], 3) == 1.476
    assert numbers["sure.loss.64"] == pytest.approx(8.497e-18, rel=1e-3)
    assert numbers["sure.naive.loss.64"] == 0


def test_every_derivative_agrees_with_its_finite_difference():
    numbers = numbers_of(view_of("0.3, -1.2, 2.5, 0", ".1, .2, .3, .4"))
    for name in ("dp", "dlog", "grad", "G"):
        name, check = (name, f"{name}.check") if name != "G" else ("Grow", "G.check")
        assert vector(numbers, check) == pytest.approx(vector(numbers, name), abs=1e-7)
    assert vector(numbers, "smooth.check") == pytest.approx(
        vector(numbers, "smooth.grad"), abs=1e-7
    )
    assert vector(numbers, "soft.check") == pytest.approx(vector(numbers, "soft.grad"), abs=1e-7)
    assert numbers["J.error"] < 1e-7


def test_the_long_way_and_the_two_cases_both_give_the_gradient():
    numbers = numbers_of(view_of("0.3, -1.2, 2.5, 0", ".1, .2, .3, .4"))
    assert vector(numbers, "long") == pytest.approx(vector(numbers, "grad"), abs=1e-14)
    both = vector(numbers, "own") + vector(numbers, "others")
    assert both == pytest.approx(vector(numbers, "grad"), abs=1e-14)


@pytest.mark.parametrize("soft", [False, True], ids=["labels", "shares"])
@pytest.mark.parametrize("shape", [(7, 4), (3, 50), (40, 300), (3, 10_000), (10_000, 3)])
def test_what_is_not_shown_still_counts(shape, soft, tmp_path):
    rng = np.random.default_rng(1)
    A = 2 * rng.normal(size=shape)
    Y = rng.dirichlet(np.ones(shape[1]), shape[0]) if soft else rng.integers(0, shape[1], shape[0])
    view = view_of(*saved(tmp_path, A=A, Y=Y))
    numbers = numbers_of(view)
    loss, grad = crossent.cross_entropy_and_grad(A, Y)
    assert numbers["loss.mean"] == pytest.approx(loss, rel=1e-12)
    assert numbers["G.squared"] == pytest.approx((grad**2).sum(), rel=1e-12)
    assert numbers["step.after"] == pytest.approx(crossent.cross_entropy(A - grad, Y), rel=1e-12)
    assert numbers["sum.p"] == pytest.approx(1, abs=1e-12)
    assert numbers["grad.sum"] == pytest.approx(0, abs=1e-12)
    row = view.row.index
    assert numbers["loss"] == pytest.approx(crossent.cross_entropy(A[row], Y[row], reduction="sum"))
    smoothed = crossent.cross_entropy(A[row], Y[row], reduction="sum", label_smoothing=0.1)
    assert numbers["smooth.loss"] == pytest.approx(smoothed)


def test_too_many_rows_begin_with_the_worst_and_row_chooses_another(tmp_path):
    A = np.zeros((20, 3))
    A[13] = [9, 0, 0]
    paths = saved(tmp_path, A=A, Y=np.ones(20, np.int64))
    assert view_of(*paths).row.index == 13
    assert view_of(*paths, row=4).row.index == 4
    assert view_of(row=1).row.index == 1


def test_a_shown_row_has_its_target_however_improbable(tmp_path):
    A = np.arange(100.0)[None, :]
    row = view_of(*saved(tmp_path, A=A, Y=np.array([3]))).row
    assert 3 in row.classes
    assert row.classes[row.target] == 3
    assert {99, 98, 97} <= set(row.classes)


# How they are written


@pytest.mark.parametrize(
    ("value", "style", "written"),
    [
        (0.6590011, "3", "0.659"), (-0.0005, "3", "−0.001"), (0.0, "3", "0"), (2.0, "a", "2.0"),
        (8.497e-18, "3", "8.50×10⁻¹⁸"), (-123456.0, "3", "−1.23×10⁵"), (0.25, "g", "0.25"),
        (1e-9, "s", "0.000"), (-1e-9, "s", "0.000"), (float("nan"), "3", "nan"),
        (float("-inf"), "3", "−inf"), (9.96e-5, "1", "1×10⁻⁴"), (10000.0, "i", "10,000"),
        (1.342214, "5", "1.34221"), (0.0625, "3", "0.063"), (9999.5, "3", "9999.500"),
    ],
)  # fmt: skip
def test_numbers_are_written_as_their_style_says(value, style, written):
    assert write_number(value, style) == written


def test_plain_numbers_are_ascii():
    assert plain("−8.50×10⁻¹⁸") == "-8.50e-18"
    assert plain("1.23×10⁵") == "1.23e5"


def formula(tex, display=False):
    return mathml.to_mathml(tex, lambda key, style: f"<mn>{key},{style}</mn>", display=display)


@pytest.mark.parametrize(
    ("tex", "part"),
    [
        (r"a_k", "<msub><mi>a</mi><mi>k</mi></msub>"),
        (r"e^{-x}", '<msup><mi>e</mi><mrow><mo form="prefix">−</mo><mi>x</mi></mrow></msup>'),
        (
            r"\frac{1}{1 + R}",
            "<mfrac><mn>1</mn><mrow><mn>1</mn><mo>+</mo><mi>R</mi></mrow></mfrac>",
        ),
        (r"\v[a]{m}", "<mn>m,a</mn>"),
        (r"x - 1", "<mi>x</mi><mo>−</mo><mn>1</mn>"),
        (r"\text{for } i \ne j", "<mtext>for\xa0</mtext><mi>i</mi><mo>≠</mo><mi>j</mi>"),
        (r"\mathrm{lse} - a", "<mi>lse</mi><mo>−</mo><mi>a</mi>"),
    ],
)
def test_formulas_become_mathml(tex, part):
    assert part in formula(tex)


def test_a_displayed_sum_has_its_index_below_and_may_be_broken():
    shown = formula(r"\sum_k p_k \wrap = 1, \qquad x", display=True)
    assert "<munder><mo>∑</mo><mi>k</mi></munder>" in shown
    assert shown.count("<math") == 3


@pytest.mark.parametrize("tex", [r"\unknown", r"\frac{1}{2", r"a_{k", r"e^{x}}"])
def test_a_wrong_formula_is_an_error(tex):
    with pytest.raises(ValueError, match=re.escape(f"formula {tex}")):
        formula(tex)


PARTS = {"mfrac": 2, "msub": 2, "msup": 2, "munder": 2, "mover": 2, "msubsup": 3, "munderover": 3}


def test_no_formula_of_the_page_lacks_a_part(page):
    formulas = [e for e in Document(page[1]).elements if e[0] in PARTS]
    assert len(formulas) > 200
    assert {tag for tag, *_, children in formulas if children != PARTS[tag]} == set()


# The page


PAGES = {
    "example": {},
    "one class": {"logits": "1", "targets": "0"},
    "soft": {"logits": "1, 2, 3", "targets": ".2, .7, .1"},
    "no overflow room": {"logits": "800, 2, 3", "targets": "1"},
    "huge": {"logits": "1e6, 2, -1e6; 1, 2, 3", "targets": "2, 0"},
}


BIG_PAGES = ("many classes", "many rows", "many shares", "most shares", "full")


@pytest.fixture(scope="module", params=[*PAGES, *BIG_PAGES])
def page(request, tmp_path_factory):
    """(view, html) of very different problems."""
    view = named_view(request.param, tmp_path_factory.mktemp("page"))
    return view, page_of(view)


def named_view(name, folder):
    if name in PAGES:
        return view_of(**PAGES[name])
    rng = np.random.default_rng(2)
    N, C = {
        "many classes": (3, 10_000), "many rows": (10_000, 10), "many shares": (6, 300),
        "most shares": (5, 300), "full": (5, 6),
    }[name]  # fmt: skip
    A = 3 * rng.normal(size=(N, C))
    Y = rng.dirichlet(np.ones(C) / 9, N) if name.endswith("shares") else rng.integers(0, C, N)
    return view_of(*saved(folder, A=A, Y=Y))


def test_a_page_is_one_small_file_that_asks_for_nothing(page):
    _, html = page
    assert len(html.encode()) < LIMIT
    assert not re.search(r"https?://|//[a-z]|@import|url\(", html)
    for tag, attributes, *_ in Document(html).elements:
        assert tag not in ("iframe", "img", "object", "embed")
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith(("#", "data:,"))
    assert "default-src 'none'" in html


def test_every_number_on_a_page_is_the_walk_s(page):
    view, html = page
    numbers = numbers_of(view)
    found = [e for e in Document(html).elements if "data-k" in e[1]]
    assert len(found) > 100
    for _, attributes, text, *_ in found:
        assert text == write_number(numbers[attributes["data-k"]], attributes.get("data-f", "3"))


def test_without_its_script_a_page_hides_only_the_sentences_that_do_not_hold(page):
    _, html = page
    for _, attributes, _, around, _ in Document(html).elements:
        assert "veiled" not in attributes.get("class", "")
        if "hidden" in attributes:
            assert "data-if" in attributes
        assert not any("hidden" in outer and "data-if" not in outer for outer in around)
    assert '<details open class="proof">' in html or "<details open class=proof>" in html


def test_a_page_s_identifiers_are_its_own_and_its_links_arrive(page):
    elements = Document(page[1]).elements
    ids = [attributes["id"] for _, attributes, *_ in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes, *_ in elements:
        for name in ("href", "for", "aria-labelledby", "aria-controls"):
            reference = attributes.get(name, "").removeprefix("#")
            assert reference in ("", "data:,") or reference in ids, reference


SYMBOL_OPERATORS = {"∂", "∑", "∘", "⊤", "‖", "max"}


def test_no_symbol_is_used_before_it_is_defined():
    """In the order in which the page is read, pictures and closed proofs included."""
    known, late = set(), []
    html = page_of(view_of())
    html = html[html.index("<main>") :].split("<script")[0]
    for tag, attributes, text, *_ in Document(html).elements:
        if "data-symbol" in attributes:
            known.add(attributes["data-symbol"])
        symbols = set()
        if tag == "mi" or (tag == "mo" and text in SYMBOL_OPERATORS):
            symbols = {text}
        elif tag == "tspan" and attributes.get("class") == "s":
            symbols = set(text)
        elif tag == "text" and "log" in text:
            symbols = {"log"}
        late += [symbol for symbol in symbols if symbol not in known]
    assert late == []
    assert len(known) > 30


TEXT_DEFINITIONS = {
    "A": "A is the table", "N": "N = 2 rows", "C": "C = 3", "Y": "Y, of the same shape",
    "a": "the logits are a,", "y": "the target is y", "k": "a_k is the logit of class k",
    "i": "i and j stand for", "j": "j stand for", "t": "t is the right class",
    "exp": "exp makes each score", "sum_k": "sum_k adds up", "kappa": "constant kappa",
    "m": "m = max_j", "max_j": "max_j a_j = 2.0 be the largest", "p": "probabilities p:",
    "log": "log the natural logarithm", "lse": "lse = log", "d": "d says derivative",
    "h": "by a small h", "J": "the Jacobian J", "G": "G is the gradient", "eta": "size eta",
    "R": "keeps R, their sum", "eps": "a share eps", "q": "the target is q",
}  # fmt: skip


def test_no_symbol_of_the_text_is_used_before_the_words_that_define_it(capsys):
    assert cli.main(["explain", "--text"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    first = {}
    for found in re.finditer(r"(?<![A-Za-z0-9'])(?:sum_k|max_j|[A-Za-z]+)(?![A-Za-z0-9])", text):
        before_a_word = re.match(r" [a-z]{3,}", text[found.end() :])
        if not (found[0] in "Aa" and before_a_word):  # the article
            first.setdefault(found[0], found.start())
    symbols = {word for word in first if len(word) == 1} | (TEXT_DEFINITIONS.keys() & first.keys())
    assert symbols == TEXT_DEFINITIONS.keys()
    late = {s for s in symbols if not 0 <= text.find(TEXT_DEFINITIONS[s]) <= first[s]}
    assert late == set()


def test_the_page_tells_the_story_of_the_derivation_in_its_order():
    derivation = (ROOT / "docs" / "derivation.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", derivation, re.MULTILINE)
    page = page_of(view_of())
    cited = re.findall(r"In full: <cite>docs/derivation.md</cite>, “(.+?)”", page)
    assert cited == headings[: len(STEPS)]
    titles = re.findall(r"<span class=number>\d+</span> (.+?)</h2>", page)
    assert titles == list(STEPS.values()) == ["Logits", *headings[1 : len(cited)]]


def test_the_other_forms_tell_the_same_story(capsys):
    story = list(STEPS.values())
    assert cli.main(["explain", "--text"]) == 0
    text = capsys.readouterr().out
    assert re.findall(r"^\d+\. (.+)\n-+$", text, re.MULTILINE) == story
    assert cli.main(["explain", "--latex"]) == 0
    assert re.findall(r"\\subsection\*\{(.+)\}", capsys.readouterr().out) == story
    assert cli.main(["explain", "--numpy"]) == 0
    steps = re.findall(r"^# (\d+)\. ", capsys.readouterr().out, re.MULTILINE)
    assert steps == [str(number) for number in range(1, len(story) + 1)]


def test_the_class_of_the_page_is_that_of_the_derivation():
    derivation = (ROOT / "docs" / "derivation.md").read_text(encoding="utf-8")
    assert asset("course_class.jinja") in derivation


def test_what_is_not_shown_is_said(tmp_path):
    rows = page_of(named_view("many rows", tmp_path))
    assert "Of 10,000 rows the page shows" in rows
    assert "The 5 others" in rows
    classes = page_of(named_view("many classes", tmp_path))
    assert "Of 10,000 classes" in classes
    assert "9,995 others" in classes
    assert "the page shows" not in page_of(view_of())


def test_names_cannot_break_the_page():
    names = '<script>alert(1)</script>, $x$ {{p.0}} "&amp;, </style><!-- pass -->'
    html = page_of(view_of(classes=names))
    Document(html)
    assert "alert(1)</script>" not in html
    assert html.count("</style>") == 1
    assert "&lt;script&gt;" in html


def test_steps_are_linked_where_the_package_says_where_its_documents_are(monkeypatch):
    from crossent.commands.explain import page as page_module

    assert "<a href" not in page_module.see_also("Divide by N")

    class Metadata:
        def get_all(self, name):
            assert name == "Project-URL"
            return ["Source, https://example.org/c", "Documentation, https://example.org/docs/"]

    monkeypatch.setattr(page_module, "metadata", lambda name: Metadata())
    link = page_module.see_also("Exponentials, sum, probabilities")
    assert 'href="https://example.org/docs/derivation.md#exponentials-sum-probabilities"' in link


def test_the_picture_in_the_documents_is_the_one_that_is_drawn():
    """Drawn again with: python -m crossent.commands.explain.picture docs/pass.svg"""
    assert (ROOT / "docs" / "pass.svg").read_text(encoding="utf-8") == picture.example_picture()


def test_any_viewer_can_draw_the_picture():
    """Also one that knows neither CSS's variables nor its transforms: attributes and colours say it."""
    drawn = picture.example_picture()
    assert "style=" not in drawn
    assert "transform:" not in drawn
    assert "var(" not in re.sub(r"([\w-]+):#\w+;\1:var\(--\w+\)", "", drawn)
    lengths = [
        float(attributes["width"])
        for _, attributes, *_ in Document(drawn).elements
        if attributes.get("class", "").startswith("length prob")
    ]
    probabilities = vector(numbers_of(view_of()), "p")
    assert np.array(lengths) / probabilities == pytest.approx(
        lengths[0] / probabilities[0], rel=1e-3
    )


def test_the_picture_needs_nothing_else():
    drawn = picture.example_picture()
    assert "<use" not in drawn
    assert "data-" not in drawn
    for number in ("1.417", "0.659", "−0.758", "−4.125"):
        assert number in drawn
    Document(drawn)


# The command


@pytest.mark.parametrize("flag", ["--no-open", "--text", "--latex", "--numpy", "--json"])
def test_no_form_loads_what_it_does_not_need(flag, tmp_path):
    program = (
        "import sys; from crossent.commands import cli\n"
        f"code = cli.main(['explain', '{flag}', '--out', 'walk'])\n"
        "print(*sorted(sys.modules)); raise SystemExit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True,
        cwd=tmp_path,
    )  # fmt: skip
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint({"matplotlib", "torch", "jax", "scipy", "sympy"})


@pytest.mark.parametrize("shape", [(10_000, 10), (10, 10_000)])
def test_ten_thousand_rows_or_classes_make_no_larger_a_page(shape, tmp_path):
    """The page holds what it shows, so its making takes a moment whatever the arrays' size."""
    rng = np.random.default_rng(3)
    paths = saved(tmp_path, A=rng.normal(size=shape), Y=rng.integers(0, shape[1], shape[0]))
    small = saved(tmp_path, B=rng.normal(size=(100, 100)), Z=rng.integers(0, 100, 100))
    assert len(page_of(view_of(*paths))) < 1.1 * len(page_of(view_of(*small)))


def test_the_page_is_opened_unless_told_not_to(tmp_path, monkeypatch, capsys):
    opened = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    assert cli.main(["explain"]) == 0
    assert opened == [(tmp_path / "crossent-explain.html").as_uri()]
    assert cli.main(["explain", "--no-open"]) == 0
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert cli.main(["explain"]) == 0
    assert len(opened) == 1
    assert "open it in a browser" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["text", "latex", "numpy", "json"])
@pytest.mark.parametrize("name", [*PAGES, "many classes", "many rows", "many shares"])
def test_other_forms_are_printed_or_go_to_a_file(form, name, tmp_path, capsys):
    view = named_view(name, tmp_path)
    given = PAGES.get(name) or {"logits": f"{tmp_path}/A.npy", "targets": f"{tmp_path}/Y.npy"}
    flags = [
        part for key, value in given.items() if name != "example" for part in (f"--{key}", value)
    ]
    assert cli.main(["explain", f"--{form}", *flags]) == 0
    printed = capsys.readouterr().out
    assert cli.main(["explain", f"--{form}", "--out", str(tmp_path / "walk"), *flags]) == 0
    assert (tmp_path / "walk").read_text(encoding="utf-8") == printed
    if form == "json":
        document = json.loads(printed)
        assert document["rows"] == view.problem.N
        assert document["loss"]["row"] == numbers_of(view)["loss"]
    if form == "latex":
        assert printed.count(r"\begin{") == printed.count(r"\end{")
        assert printed.count("{") == printed.count("}")
        assert "nan" not in re.sub(r"\\text\{nan\}", "", printed)
    if form == "text":
        assert max(map(len, printed.splitlines())) <= 100
        assert printed.isascii()


@pytest.mark.parametrize("name", [*PAGES, "many classes", "many rows", "many shares"])
def test_the_program_runs_checks_itself_and_prints_the_walk_s_numbers(name, tmp_path):
    view = named_view(name, tmp_path)
    text = numpy_code.program(Walk.of(view))
    program = tmp_path / "walk.py"
    program.write_text(text)
    done = subprocess.run(
        [sys.executable, "-W", "error", program], capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    numbers = numbers_of(view)
    if view.row.rest is None or view.row.is_one_hot:
        assert f"loss: {numbers['loss']:.3f}" in done.stdout
    if name == "example":
        for wanted in ("mean: 2.019", "1.476", "true 8.497e-18", "loss 1.414"):
            assert wanted in done.stdout


BAD_USAGE = [
    (["--logits", "2, 1"], "--targets is missing"),
    (["--logits", "2, x, 1", "--targets", "0"], "--logits: row 0, entry 1 is 'x'"),
    (["--logits", "2, 1; 1", "--targets", "0, 1"], "semicolon between rows"),
    (["--logits", "", "--targets", "0"], "--logits: row 0 is empty"),
    (["--logits", "1, nan", "--targets", "0"], "row 0, class 1 is nan"),
    (["--logits", "logits.json", "--targets", "0"], "numpy.save"),
    (["--targets", "0, 3"], "row 1 has class 3; labels start at 0"),
    (["--targets", "0, -1"], "row 1 has class -1"),
    (["--targets", "0, 1, 2"], "2 rows of 3 classes need 2 class numbers"),
    (["--targets", "0.5, 1"], "class numbers are whole, 0 to 2"),
    (["--targets", "1, 0, 0; 0, -1, 0"], "row 1, class 1 is -1"),
    (
        ["--logits", "2; -1; 3", "--targets", "1, 0, 1"],
        "the only class is 0. For one score z a row",
    ),
    (["--logits", "2, -1, 3", "--targets", "1, 0, 1"], "by its sum. For one score z a row"),
    (["--targets", "1, 0, 0; 1, 1, 0"], "the shares of row 1 add up to 2, and a whole is 1"),
    (["--targets", "a, b"], "'a', not a number; write class numbers such as"),
    (["--classes", "a, b"], "--classes: 2 names for 3 classes; give one for each, with commas"),
    (["--classes", "a, b, a"], "'a' names two classes"),
    (["--classes", "a, b, c", "--targets", "a, d"], "'d' is not among --classes"),
    (["--row", "2"], "--row 2: there is no such row; rows are counted from 0, the last is 1"),
    (["--row", "-1"], "--row -1"),
    (["--text", "--json"], "--text and --json: give one of them"),
    (["--out", "no-such-folder/page.html"], "there is no folder no-such-folder"),
    (["--out", "."], "is a folder"),
]


def one_line(capsys):
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert output.err.startswith("crossent: ")
    return output.err


@pytest.mark.parametrize(("arguments", "said"), BAD_USAGE, ids=[" ".join(a) for a, _ in BAD_USAGE])
def test_bad_usage_is_one_line_that_names_the_flag(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["explain", "--no-open", *arguments]) == 2
    assert said in one_line(capsys)
    assert list(tmp_path.iterdir()) == []


BAD_FILES = {
    "missing": (None, "--logits logits.npy: no such file"),
    "pickle": (np.array([{}], dtype=object), "not a .npy file with an array of numbers"),
    "labels": (np.arange(3), "holds int64, which logits are not"),
    "nan": (np.array([[1.0, 2.0], [1.0, np.nan]]), "row 1, class 1 is nan"),
    "cube": (np.zeros((2, 2, 2)), "shape (2, 2, 2)"),
    "empty": (np.zeros((0, 3)), "shape (0, 3)"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_one_line_and_exit_1(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    array, said = BAD_FILES[name]
    if array is not None:
        np.save("logits.npy", array)
    assert cli.main(["explain", "--logits", "logits.npy", "--targets", "0, 1", "--no-open"]) == 1
    assert said in one_line(capsys)


def test_what_begins_like_an_archive_is_closed_again(capsys, tmp_path, monkeypatch):
    """NumPy leaves a file open that begins like one and is none; that is a warning, so an error."""
    monkeypatch.chdir(tmp_path)
    Path("logits.npy").write_bytes(b"PK\x03\x04 and nothing more")
    assert cli.main(["explain", "--logits", "logits.npy", "--targets", "0, 1", "--no-open"]) == 1
    gc.collect()
    assert "not a .npy file with an array of numbers" in one_line(capsys)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), ",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2L, 3L), }",
    ],
)
def test_a_header_that_numpy_stumbles_over_is_no_surprise(header, capsys, tmp_path, monkeypatch):
    """It raises errors of Python's tokenizer, and warns of headers of Python 2."""
    monkeypatch.chdir(tmp_path)
    text = header.encode().ljust(117) + b"\n"
    data = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(48)
    Path("logits.npy").write_bytes(data)
    code = cli.main(["explain", "--logits", "logits.npy", "--targets", "0, 1", "--text"])
    shown = capsys.readouterr()
    assert code == (0 if "L" in header else 1)
    assert shown.err == "" or "not a .npy file with an array of numbers" in shown.err


def test_a_file_that_shrinks_while_it_is_read_does_not_kill(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("logits.npy", np.zeros((20_000, 3)))
    real = np.load

    def load(*arguments, **options):
        array = real(*arguments, **options)
        os.truncate("logits.npy", 4096)
        return array

    monkeypatch.setattr(np, "load", load)
    assert cli.main(["explain", "--logits", "logits.npy", "--targets", "0, 1", "--no-open"]) == 1
    assert "logits.npy: changed while it was read" in one_line(capsys)


def test_files_are_read_the_same_whether_mapped_or_not(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for order in "CF":
        path = tmp_path / "logits.npy"
        np.save(path, np.asarray(rng.standard_normal((4, 3)).astype(">f4"), order=order))
        read = read_problem(str(path), "0, 1, 2, 0", None).logits
        monkeypatch.setattr(inputs, "LARGEST_READ", 0)
        mapped = read_problem(str(path), "0, 1, 2, 0", None).logits
        monkeypatch.undo()
        assert isinstance(mapped, np.memmap)
        assert not isinstance(read, np.memmap)
        assert np.array_equal(read, mapped)


@pytest.mark.parametrize("flag", ["--logits", "--targets"])
def test_what_is_quoted_in_an_error_is_short(flag, capsys):
    given = {"--logits": "1, 2", "--targets": "0"} | {flag: "x" * 5000}
    assert cli.main(["explain", *itertools.chain(*given.items())]) == 2
    assert len(one_line(capsys)) < 200


@pytest.mark.parametrize("form", ["--text", "--json", "--latex", "--numpy"])
@pytest.mark.parametrize("logits", ["1e308,-1e308", "-1e308,-1e308", "1e-320,0"])
def test_numbers_too_large_bring_no_warning(logits, form, capsys):
    assert cli.main(["explain", f"--logits={logits}", "--targets", "0", form]) == 0
    assert capsys.readouterr().err == ""


def test_a_bad_line_of_a_text_file_is_named(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("logits.csv").write_text("1, 2\n3, four\n")
    assert cli.main(["explain", "--logits", "logits.csv", "--targets", "0, 1", "--no-open"]) == 1
    assert "--logits logits.csv: row 1, entry 1 is 'four'" in one_line(capsys)


@pytest.mark.parametrize("flag", ["--logits", "--targets", "--classes"])
def test_a_file_that_cannot_be_read_is_named_with_its_flag(flag, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder.txt").mkdir()
    Path("bytes.txt").write_bytes(b"\xff\xfe\x00")
    for name, said in (
        ("folder.txt", "is a directory; check its path"),
        ("missing.txt", "no such file or directory; check its path"),
        ("bytes.txt", "not a text file; save it as UTF-8"),
    ):
        given = {"--targets": "0, 1"} | {flag: name}
        assert cli.main(["explain", "--no-open", *itertools.chain(*given.items())]) == 1
        assert f"{flag} {name}: {said}" in one_line(capsys)


def test_text_files_and_names_are_read(tmp_path):
    (tmp_path / "logits.csv").write_text("2, 1, 0\n0 1 2\n")
    (tmp_path / "labels.txt").write_text("1\n0\n")
    (tmp_path / "names.txt").write_text("cat\nhot dog\nbird\n")
    paths = [str(tmp_path / name) for name in ("logits.csv", "labels.txt", "names.txt")]
    problem = read_problem(*paths)
    assert problem.logits.tolist() == [[2, 1, 0], [0, 1, 2]]
    assert problem.targets.tolist() == [1, 0]
    assert problem.names == ("cat", "hot dog", "bird")
    by_name = read_problem(None, "hot dog, cat", "cat, hot dog, bird")
    assert by_name.targets.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("logits", "targets", "shape"),
    [
        ("1, 2; 3, 4", "1, 0", (2,)),
        ("1, 2; 3, 4", "1; 0", (2,)),
        ("1, 2; 3, 4", "1, 0; 0, 1", (2, 2)),
        ("1, 2, 3", ".2, .7, .1", (1, 3)),
        ("1, 2, 3", "2", (1,)),
        ("5", "0", (1,)),
    ],
)
def test_targets_are_labels_or_shares_as_their_shape_says(logits, targets, shape):
    assert read_problem(logits, targets, None).targets.shape == shape


def test_a_single_row_may_come_without_its_axis(tmp_path):
    paths = saved(tmp_path, A=np.array([2.0, 1.0, 0.1]), Y=np.array([0.2, 0.7, 0.1]))
    assert view_of(*paths).row.y.tolist() == [0.2, 0.7, 0.1]


def test_half_precision_files_are_read_as_they_are(tmp_path):
    A = np.array([[2.0, 1.0, 0.1]], np.float16)
    view = view_of(*saved(tmp_path, A=A, Y=np.array([1])))
    assert numbers_of(view)["a.2"] == float(np.float16(0.1))


def test_help_teaches(capsys):
    assert cli.main(["explain", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for wanted in ("p - y", "--logits", "--targets", "--row", "--classes", "--no-open", "--latex"):
        assert wanted in shown


@pytest.mark.parametrize(
    ("name", "short"),
    [("cat", "cat"), ("class 3", "class 3"), ("class 8868", "8868"), ("9,995 others", "others"),
     ("automobile", "automo…"), ("class 12345678", "123456…")],
)  # fmt: skip
def test_names_in_the_picture_keep_what_tells_them_apart(name, short):
    assert short_name(name) == short


def test_a_long_name_is_cut_but_still_names_its_target():
    long = "a name of far more letters than any table has room for"
    view = view_of(targets=f"{long}, b", classes=f"a, {long}, b")
    assert view.row.names[1] == long[:39] + "…"
    assert view.row.target == 1

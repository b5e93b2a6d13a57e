"""What imports what: the layers, read from the sources.

course and linear sit on loss: together with softmax they are the NumPy front-end. The rule is that
the front-ends of different frameworks never import one another.
"""

import ast
import re
import subprocess
import sys

import pytest
from sources import ROOT, SOURCES, imports_of, module_of

HEAVY = ("torch", "jax", "ml_dtypes", "matplotlib", "scipy", "sympy", "typer", "rich")

NUMPY = ("course", "linear", "loss", "settings", "softmax")
FRONT_ENDS = {"numpy": NUMPY, "torch": ("torch", "hf"), "jax": ("jax",)}


def run_python(program):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )


def test_importing_crossent_loads_no_framework():
    done = run_python(
        f"import sys, crossent; print([name for name in {HEAVY} if name in sys.modules])"
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_crossent_works_where_nothing_but_numpy_can_be_imported():
    done = run_python(
        f"import sys\n"
        f"sys.modules.update(dict.fromkeys({HEAVY}))\n"
        "import crossent\n"
        "print(crossent.CrossEntropyLoss().forward([[0.0, 0.0]], [0]) > 0.69)\n"
    )
    assert done.stdout.strip() == "True", done.stderr


def test_bfloat16_is_recognised_without_importing_ml_dtypes():
    for path in [*SOURCES.glob("*.py"), *(SOURCES / "torch").glob("*.py")]:
        assert "ml_dtypes" not in imports_of(path), path.name


# The layers


def ours_in(path):
    """The top-level parts of crossent that a file imports: {"loss", "torch", ...}."""
    parts = {name.split(".")[1] for name in imports_of(path) if name.startswith("crossent.")}
    return {part for part in parts if (SOURCES / f"{part}.py").exists()
            or (SOURCES / part).is_dir() or part == "_core"}  # fmt: skip


def files_of(parts):
    for part in parts:
        yield from [SOURCES / f"{part}.py"] if (SOURCES / f"{part}.py").exists() else []
        yield from sorted((SOURCES / part).rglob("*.py"))


def third_party_in(path):
    roots = {name.split(".")[0] for name in imports_of(path)}
    return roots - sys.stdlib_module_names - {"crossent"}


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_front_ends_never_import_one_another(name):
    others = {part for other, parts in FRONT_ENDS.items() if other != name for part in parts}
    for path in files_of(FRONT_ENDS[name]):
        assert not ours_in(path) & others, path.name


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_front_ends_import_nothing_above_them(name):
    allowed = {*FRONT_ENDS[name], "_arguments", "_core", "_blocks", "_outputs", "_solve", "options"}
    for path in files_of(FRONT_ENDS[name]):
        assert ours_in(path) <= allowed, path.name


@pytest.mark.parametrize(
    ("name", "ours", "theirs"),
    [
        ("options", set(), set()),
        ("_arguments", {"options"}, {"numpy"}),
        ("_outputs", set(), {"numpy"}),
        ("reference", set(), {"numpy"}),
    ],
)
def test_the_rules_and_the_reference_import_numpy_alone(name, ours, theirs):
    path = SOURCES / f"{name}.py"
    assert ours_in(path) == ours
    assert third_party_in(path) == theirs


def test_only_a_framework_s_own_front_end_and_the_bench_import_it():
    for path in SOURCES.rglob("*.py"):
        part = module_of(path).split(".")[0]
        for framework in ("torch", "jax"):
            if part not in (*FRONT_ENDS[framework], "commands"):
                assert framework not in third_party_in(path), path


def private_names_of_torch_in(path):
    """Names of PyTorch with a leading underscore, as attributes of it or imported from it."""
    tree, found, modules = ast.parse(path.read_text(encoding="utf-8")), set(), {"torch"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            names = [node.module, *(alias.name for alias in node.names)]
            modules |= {alias.asname or alias.name for alias in node.names}
            found |= {name for name in names if re.search(r"(^|\.)_", name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            base = node.value
            while isinstance(base, ast.Attribute):
                base = base.value
            if isinstance(base, ast.Name) and base.id in modules:
                found.add(node.attr)
    return found


def test_private_names_of_pytorch_stand_in_one_file():
    paths = [*(SOURCES / "torch").glob("*.py"), SOURCES / "hf.py"]
    users = {path.name for path in paths if private_names_of_torch_in(path)}
    assert users == {"_internals.py"}
    for path in paths:
        if path.name != "_internals.py":
            assert "torch._" not in path.read_text(encoding="utf-8").replace("crossent.torch._", "")


def test_nothing_below_the_commands_imports_them():
    below = [
        path
        for path in SOURCES.rglob("*.py")
        if module_of(path).split(".")[0] not in ("commands", "__main__")
    ]
    for path in below:
        assert "commands" not in ours_in(path), path


def test_the_readers_of_files_know_nothing_of_evaluation_but_its_errors():
    readers = SOURCES / "evaluation" / "readers"
    for path in readers.glob("*.py"):
        ours = {name for name in imports_of(path) if name.startswith("crossent.evaluation.")}
        allowed = ("crossent.evaluation.readers", "crossent.evaluation.errors")
        assert all(name.startswith(allowed) for name in ours), path.name


def test_the_bench_uses_what_everyone_may_use():
    """Its yardsticks are a module of its own, so that nobody else carries them."""
    bench = SOURCES / "commands" / "bench"
    for path in bench.rglob("*.py"):
        assert ours_in(path) <= {"commands"}, path
        private = {name for name in imports_of(path) if "._" in name and "__" not in name}
        assert private <= {"crossent.commands.bench._limits"}, path
    assert (bench / "_limits.pyi").exists()


def test_the_numpy_front_end_imports_numpy_alone():
    for path in files_of(NUMPY):
        assert third_party_in(path) <= {"numpy"}, path.name


CSRC = ROOT / "csrc"
# What the files of a folder may include of ours, beside those of their own folder.
BELOW = {
    "core": set(),
    "kernels": {"core"},
    "bind": {"core", "kernels"},
    "limits": {"core", "kernels"},
}
TABLE = "instruction_sets.inc"  # made by CMake


def includes_of(path):
    """The headers that a source file includes: ours by their path below csrc, others as written."""
    for header in re.findall(r'#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(encoding="utf-8")):
        beside = path.parent / header
        yield str(beside.relative_to(CSRC)) if beside.is_file() else header


def sources_of(folder):
    return sorted(path for path in (CSRC / folder).iterdir() if path.suffix in (".h", ".cc"))


def test_every_source_of_the_core_has_a_layer():
    assert {path.name for path in CSRC.iterdir()} == set(BELOW)


@pytest.mark.parametrize("folder", BELOW)
def test_includes_point_one_way(folder):
    for path in sources_of(folder):
        for header in includes_of(path):
            if (CSRC / header).is_file():
                assert header.split("/")[0] in {folder, *BELOW[folder]}, f"{path.name}: {header}"


@pytest.mark.parametrize("folder", ["core", "kernels"])
def test_the_core_includes_no_header_of_python_pytorch_or_xla(folder):
    foreign = re.compile(r"nanobind|pybind|Python\.h|structmember|torch/|ATen|c10|xla|numpy/")
    for path in sources_of(folder):
        for header in includes_of(path):
            assert not foreign.search(header), f"{path.name} includes {header}"
            assert header == TABLE or "/" not in header or (CSRC / header).is_file(), header


def test_kernel_headers_have_internal_linkage():
    """An inline function of one instruction set must not be the copy that the linker keeps."""
    seen, queue = set(), ["kernels/kernels.cc", "kernels/standings.cc"]
    while queue:
        name = queue.pop()
        headers = [header for header in includes_of(CSRC / name) if (CSRC / header).is_file()]
        queue += [header for header in headers if header not in seen]
        seen |= set(headers)
    declarations = {
        "core/crossent.h",
        "core/kernels.h",
        "kernels/standings.h",
    }  # shared with others
    assert declarations < seen
    for name in seen - declarations:
        text = (CSRC / name).read_text(encoding="utf-8")
        code = re.sub(r"//.*|^\s*#.*(\\\n.*)*", "", text, flags=re.M).strip()
        assert re.match(r"namespace crossent \{\s*namespace \{", code), name
        assert re.search(r"\}\s*\}$", code), name


def test_explain_stands_on_crossent_s_public_functions_alone():
    for path in (SOURCES / "commands" / "explain").rglob("*.py"):
        ours = {name for name in imports_of(path) if name.startswith("crossent.")}
        shared = ("crossent.commands.explain", "crossent.commands.terminal")
        assert all(name.startswith(shared) for name in ours), path.name
    assert not (SOURCES / "explain.py").exists()  # the name is free for a library's module
    assert not (SOURCES / "explain").exists()

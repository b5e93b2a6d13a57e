"""torch.compile, operators, fake and meta tensors: no graph break, the bits of eager mode."""

from __future__ import annotations

import pytest
from torch_cases import FORMS, OPTIONS, problem, torch

import crossent.torch as ct
from crossent.options import Options

FakeTensorMode = torch._subclasses.FakeTensorMode

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore::FutureWarning:torch"),
]

DEFAULTS = tuple(Options())
SCORES = tuple(Options(reduction="none"))


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def _grads(function, logits, incoming):
    loss = function(logits)
    (grad,) = torch.autograd.grad(loss, logits, incoming)
    return loss, grad


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", OPTIONS)
def test_compiled_bits_are_those_of_eager_mode(name, form):
    logits, target, options = problem(form, (6, 5), torch.float32, **OPTIONS[name])
    function = lambda a: ct.cross_entropy(a, target, **options)  # noqa: E731
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    incoming = torch.rand_like(function(logits).detach())
    for expected, found in zip(
        _grads(function, logits, incoming), _grads(compiled, logits, incoming), strict=True
    ):
        assert torch.equal(expected, found)


def test_inductor_gives_the_same_bits_with_work_on_both_sides():
    hidden, weight = torch.randn(16, 8), torch.randn(11, 8, requires_grad=True)
    target = torch.randint(0, 11, (16,))

    def step(w):
        return ct.cross_entropy(hidden @ w.T, target, label_smoothing=0.1) * 2

    compiled = torch.compile(step, fullgraph=True)
    expected, found = step(weight), compiled(weight)
    assert torch.equal(expected, found)
    (expected,) = torch.autograd.grad(expected, weight)
    (found,) = torch.autograd.grad(found, weight)
    torch.testing.assert_close(found, expected)


def test_dynamic_shapes_compile_once():
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(ct.cross_entropy, fullgraph=True, dynamic=True, backend=counter)
    counts = []
    for n, c in ((4, 5), (7, 9), (12, 6)):
        logits, target = torch.randn(n, c), torch.randint(0, c, (n,))
        assert torch.equal(compiled(logits, target), ct.cross_entropy(logits, target))
        counts.append(counter.frame_count)
    assert counts[0] == counts[-1]


def test_modules_compile():
    criterion = ct.CrossEntropyLoss(weight=torch.rand(5), softcap=3.0, reduction="none")
    logits, target = torch.randn(4, 5, 3), torch.randint(0, 5, (4, 3))
    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(logits, target), criterion(logits, target))


def test_what_needs_torch_operations_compiles_too():
    logits, target, _ = problem("distribution", (4, 5))
    target.requires_grad_()
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    function = lambda a, y, s: ct.cross_entropy(a, y, logit_scale=s)  # noqa: E731
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(function(logits, target, scale), (logits, target, scale))
    found = torch.autograd.grad(compiled(logits, target, scale), (logits, target, scale))
    torch.testing.assert_close(found, expected)


def test_a_tensor_as_normalizer_compiles():
    logits, target, _ = problem("index", (4, 5))
    tokens = torch.tensor(12)
    function = lambda a, n: ct.cross_entropy(a, target, normalizer=n)  # noqa: E731
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits, tokens), function(logits, tokens))


@pytest.mark.filterwarnings("ignore:.*graph break.*")
@pytest.mark.parametrize("name", ["label_smoothing", "z_loss", "softcap"])
def test_no_option_is_detached_by_compiling(name):
    logits, target, _ = problem("index", (4, 5))
    value = torch.tensor(0.5, requires_grad=True)
    functions = [ct.cross_entropy, ct.token_scores] if name == "softcap" else [ct.cross_entropy]
    for function in functions:
        compiled = torch.compile(function, backend="aot_eager")
        with pytest.raises(ValueError, match=f"{name} requires grad"):
            compiled(logits, target, **{name: value})


def test_scores_compile():
    logits, target, _ = problem("index", (4, 5))
    function = lambda a: ct.token_scores(a, target)  # noqa: E731
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for expected, found in zip(function(logits), compiled(logits), strict=True):
        assert torch.equal(expected, found)
    total = lambda scores: scores.nll.sum() + scores.entropy.sum()  # noqa: E731
    (expected,) = torch.autograd.grad(total(function(logits)), logits)
    (found,) = torch.autograd.grad(total(compiled(logits)), logits)
    torch.testing.assert_close(found, expected)


def test_bad_labels_are_refused_in_compiled_code():
    compiled = torch.compile(ct.cross_entropy, fullgraph=True, backend="aot_eager")
    with pytest.raises(IndexError, match=r"target\[1\] is 9"):
        compiled(torch.randn(2, 5), torch.tensor([0, 9]))


OPERATORS = ["cross_entropy", "cross_entropy_grad", "cross_entropy_hvp", "cross_entropy_along"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", OPERATORS)
def test_operators_keep_their_contract(name, form):
    logits, target, options = problem(form, (4, 5), torch.float32)
    first = {
        "cross_entropy": (),
        "cross_entropy_grad": (torch.tensor(0.5),),
        "cross_entropy_hvp": (torch.rand(4, 5), torch.tensor(0.5)),
        "cross_entropy_along": (torch.rand(4, 5),),
    }[name]
    if name not in ("cross_entropy", "cross_entropy_grad"):
        logits = logits.detach()
    arguments = (*first, logits, target, options.get("weight"), *DEFAULTS)
    torch.library.opcheck(getattr(torch.ops.crossent, name).default, arguments)


def test_operators_of_scores_keep_their_contract():
    logits, target, _ = problem("index", (4, 5), torch.float32)
    scores = torch.ops.crossent.token_scores.default
    torch.library.opcheck(scores, (logits, target, *SCORES))
    grads = torch.rand(4), None, torch.rand(4)
    operator = torch.ops.crossent.token_scores_grad.default
    torch.library.opcheck(operator, (*grads, logits.detach(), target, *SCORES))


@pytest.mark.parametrize("shape", [(5,), (4, 5), (4, 5, 3)])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_meta_and_fake_tensors_have_the_shapes_of_real_ones(shape, reduction):
    logits, target, _ = problem("index", shape, torch.bfloat16)
    expected = ct.cross_entropy(logits, target, reduction=reduction)
    meta = ct.cross_entropy(logits.to("meta"), target.to("meta"), reduction=reduction)
    mode, plain = FakeTensorMode(), logits.detach()
    with mode:
        fake_logits = mode.from_tensor(plain).requires_grad_()
        fake = ct.cross_entropy(fake_logits, mode.from_tensor(target), reduction=reduction)
        (grad,) = torch.autograd.grad(fake.sum(), fake_logits)
    assert expected.shape == meta.shape == fake.shape
    assert expected.dtype is meta.dtype is fake.dtype
    assert grad.shape == logits.shape
    assert grad.dtype is logits.dtype


def test_export_holds_the_operator():
    class Model(torch.nn.Module):
        def forward(self, logits, target):
            return ct.cross_entropy(logits, target)

    logits, target = torch.randn(4, 5), torch.randint(0, 5, (4,))
    program = torch.export.export(Model(), (logits, target))
    assert "crossent.cross_entropy" in str(program.graph)
    assert torch.equal(program.module()(logits, target), ct.cross_entropy(logits, target))

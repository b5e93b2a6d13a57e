"""Option values of every kind, tensors among them: the number that is meant, or one line."""

from __future__ import annotations

import functools

import pytest
import strange_values
from torch_cases import operator_path, torch

import crossent.torch as ct
from crossent import options

N, C, D = 4, 5, 3
INPUT, TARGET = torch.randn(N, C), torch.arange(N) % C
HIDDEN, HEAD = torch.randn(N, D), torch.randn(C, D)
CALLS = {
    "cross_entropy": functools.partial(ct.cross_entropy, INPUT, TARGET),
    "CrossEntropyLoss": lambda **given: ct.CrossEntropyLoss(**given)(INPUT, TARGET),
    "token_scores": functools.partial(ct.token_scores, INPUT, TARGET),
    "linear_cross_entropy": functools.partial(ct.linear_cross_entropy, HIDDEN, HEAD, TARGET),
    "LinearCrossEntropyLoss": lambda **given: ct.LinearCrossEntropyLoss(D, C, **given)(
        HIDDEN, TARGET
    ),
    "linear_token_scores": functools.partial(ct.linear_token_scores, HIDDEN, HEAD, TARGET),
}
CASES = [
    (function, name)
    for function in CALLS
    for name in options.DEFAULTS
    if "scores" not in function or name in ("ignore_index", "softcap", "logit_scale")
]
TENSORS = {
    "two numbers": torch.tensor([0.5, 0.5]),
    "no number": torch.tensor([]),
    "complex": torch.tensor(0.5 + 1j),
    "bool": torch.tensor(True),
    "without a value": torch.tensor(0.5, device="meta"),
    "sparse": torch.tensor([0.5]).to_sparse(),
    "without a value, learned": torch.tensor(0.5, device="meta", requires_grad=True),
    "complex, learned": torch.tensor(0.5 + 1j, requires_grad=True),
    "two, learned": torch.tensor([0.5, 0.5], requires_grad=True),
}


@pytest.mark.filterwarnings("ignore:.*masked element:UserWarning")
@pytest.mark.parametrize(("function", "name"), CASES)
def test_a_value_that_is_no_option_is_one_line_with_its_name(function, name):
    for value in {**strange_values.refused(name), **TENSORS}.values():
        with pytest.raises((TypeError, ValueError)) as caught:
            CALLS[function](**{name: value})
        strange_values.assert_one_line(caught.value, name)


@pytest.mark.parametrize(
    "name", ["label_smoothing", "z_loss", "softcap", "logit_scale", "normalizer"]
)
def test_tensors_of_one_element_mean_their_number(name):
    expected = ct.cross_entropy(INPUT, TARGET, **{name: 0.5})
    for value in (
        torch.tensor(0.5), torch.tensor([[0.5]]), torch.tensor(0.5, dtype=torch.bfloat16),
        torch.nn.Parameter(torch.tensor(0.5), requires_grad=False),
    ):  # fmt: skip
        assert torch.equal(ct.cross_entropy(INPUT, TARGET, **{name: value}), expected)


@pytest.mark.parametrize("name", ["label_smoothing", "z_loss", "softcap", "normalizer"])
def test_an_option_that_vmap_goes_through_is_named(name):
    mapped = torch.func.vmap(lambda value: ct.cross_entropy(INPUT, TARGET, **{name: value}))
    with pytest.raises(ValueError, match=f"^{name} is one of many that vmap goes through"):
        mapped(torch.ones(3))


@pytest.mark.parametrize("value", [2**63, 2**64, -(2**63) - 1, 10**400], ids=int.bit_length)
@pytest.mark.parametrize("function", [name for name in CALLS if name[0].islower()])
def test_an_ignore_index_beyond_int64_ignores_nothing_or_is_named(function, value):
    torch.testing.assert_close(CALLS[function](ignore_index=value), CALLS[function]())
    refused = pytest.raises(ValueError, match=r"^ignore_index=.* is not an int64")
    with refused, operator_path():
        CALLS[function](ignore_index=value)
    with refused:
        torch.func.vmap(lambda scale: CALLS[function](ignore_index=value, logit_scale=scale))(
            torch.ones(2)
        )


def test_an_ignore_index_of_unsigned_labels_may_be_the_largest():
    target = torch.tensor([0, 1, 2, 2**64 - 1], dtype=torch.uint64)
    expected = ct.cross_entropy(INPUT[:3], TARGET[:3])
    found = ct.cross_entropy(INPUT, target, ignore_index=2**64 - 1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("function", ["cross_entropy", "linear_cross_entropy"])
def test_a_compiler_that_breaks_off_inside_gives_the_same(function):
    compiled = torch.compile(lambda z: CALLS[function](z_loss=z), backend="eager")
    torch.testing.assert_close(compiled(torch.tensor(0.5)), CALLS[function](z_loss=0.5))

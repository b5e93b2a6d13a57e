"""Options are stated once: every public signature and every document says what options.py says."""

import inspect
import re
from pathlib import Path

import cases
import numpy as np
import pytest

import crossent
from crossent import _core, options, reference

LOSSES = (
    crossent.cross_entropy,
    crossent.cross_entropy_and_grad,
    crossent.cross_entropy_hvp,
    crossent.linear_cross_entropy,
    crossent.linear_cross_entropy_and_grad,
    crossent.evaluate,
)
SCORES = (crossent.token_scores, crossent.linear_token_scores)


def options_in(function):
    """Name, default and annotation of the options that a signature spells out, in its order."""
    parameters = inspect.signature(function).parameters.values()
    return [(p.name, p.default, p.annotation) for p in parameters if p.name in options.DEFAULTS]


def stated(names=options.Options._fields):
    annotations = {
        name: type_.__forward_arg__ for name, type_ in options.Options.__annotations__.items()
    }
    return [(name, options.DEFAULTS[name], annotations[name]) for name in names]


@pytest.mark.parametrize("function", LOSSES, ids=lambda function: function.__name__)
def test_losses_take_every_option_by_its_name_default_and_type(function):
    assert options_in(function) == stated()


@pytest.mark.parametrize("function", SCORES, ids=lambda function: function.__name__)
def test_scores_take_the_options_that_change_them(function):
    assert options_in(function) == stated(("ignore_index", "softcap", "logit_scale"))


def test_the_tests_of_the_core_and_of_pytorch_try_every_option_of_a_row():
    text = Path(__file__).with_name("pytorch").joinpath("torch_cases.py").read_text("utf-8")
    for name in options.OF_ROW:
        assert any(name in given for given in cases.OPTIONS.values()), name
        assert f'{{"{name}":' in text, name


def test_the_core_reads_the_options_in_their_order():
    assert _core.option_names == options.Options._fields


def test_the_reference_has_the_same_options_and_defaults():
    there = reference.Options()._asdict()
    assert {name: there[name] for name in options.DEFAULTS} == dict(options.DEFAULTS)


def test_the_documentation_of_the_loss_gives_each_option_its_meaning():
    text = re.sub(r"\s+", " ", inspect.getdoc(crossent.cross_entropy))
    for name, option in options.OPTIONS.items():
        assert f"{name}: {option.meaning}." in text, name


def test_options_are_told_apart_by_type_where_their_values_are_equal():
    assert options.checked({**options.DEFAULTS, "label_smoothing": 1.0}).label_smoothing == 1.0
    with pytest.raises(TypeError, match="label_smoothing must be a number, not bool"):
        options.checked({**options.DEFAULTS, "label_smoothing": True})


OTHER_VALUES = {
    "ignore_index": 1,
    "reduction": "sum",
    "label_smoothing": 0.3,
    "z_loss": 0.2,
    "softcap": 3.0,
    "logit_scale": 0.5,
    "normalizer": 7.0,
    "when_empty": "zero",
}


def test_every_option_has_another_value_here():
    assert OTHER_VALUES.keys() == options.DEFAULTS.keys()


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_an_evaluation_takes_every_option_into_its_loss(name):
    logits = np.random.default_rng(0).normal(size=(40, 5))
    targets = np.arange(40) % 5 if name != "when_empty" else np.full(40, -100)
    given = {name: OTHER_VALUES[name]}
    found = crossent.evaluate(logits, targets, **given).loss
    assert abs(found - crossent.cross_entropy(logits, targets, **given)) < 1e-14 * max(
        1, abs(found)
    )
    if name != "when_empty":
        assert found != crossent.evaluate(logits, targets).loss


def test_negative_class_weights_leave_an_evaluation_without_a_standard_error():
    logits, targets = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 3
    weight = np.array([1.0, -0.25, 2.0])
    result = crossent.evaluate(logits, targets, weight=weight)
    assert abs(result.loss - crossent.cross_entropy(logits, targets, weight=weight)) < 1e-14
    assert np.isnan(result.loss_standard_error)
    assert any("no standard error" in warning for warning in result.warnings)


def test_options_are_remembered_by_what_was_given():
    given = {**options.DEFAULTS, "z_loss": 1e-310}
    first = options.checked(given)
    assert options.checked(given) is first
    assert options.checked({**given, "z_loss": 1}).z_loss == 1
    assert options.checked({**given, "z_loss": 0.0}).z_loss == 0
    changing = np.array(0.25)  # a number that may change is looked at every time
    assert options.checked({**given, "z_loss": changing}).z_loss == 0.25
    changing[()] = 0.5
    assert options.checked({**given, "z_loss": changing}).z_loss == 0.5

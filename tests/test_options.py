"""Options are stated once: every public signature and every document says what options.py says."""

import inspect
import re

import pytest

import crossent
from crossent import options, reference

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

"""Options are stated once: every public signature and every document says what options.py says."""

import inspect
import re
from contextlib import nullcontext
from pathlib import Path

import cases
import numpy as np
import pytest
import strange_values

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


LOGITS = np.array([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]])
CALLS = {
    "cross_entropy": lambda **given: crossent.cross_entropy(LOGITS, [0, 1], **given),
    "cross_entropy_and_grad": lambda **given: crossent.cross_entropy_and_grad(
        LOGITS, [0, 1], **given
    ),
    "cross_entropy_hvp": lambda **given: crossent.cross_entropy_hvp(
        LOGITS, [0, 1], LOGITS, **given
    ),
    "linear_cross_entropy": lambda **given: crossent.linear_cross_entropy(
        np.eye(2), LOGITS.T, [0, 1], **given
    ),
    "linear_cross_entropy_and_grad": lambda **given: crossent.linear_cross_entropy_and_grad(
        np.eye(2), LOGITS.T, [0, 1], **given
    ),
    "token_scores": lambda **given: crossent.token_scores(LOGITS, [0, 1], **given),
    "linear_token_scores": lambda **given: crossent.linear_token_scores(
        np.eye(2), LOGITS.T, [0, 1], **given
    ),
    "CrossEntropyLoss": lambda **given: crossent.CrossEntropyLoss(**given).forward(
        LOGITS, np.eye(3)[:2]
    ),
    "evaluate": lambda **given: crossent.evaluate(LOGITS, [0, 1], **given),
}


def _taken_by(function):
    if function == "CrossEntropyLoss":
        return tuple(options.DEFAULTS)
    parameters = inspect.signature(getattr(crossent, function)).parameters
    return [name for name in options.DEFAULTS if name in parameters]


@pytest.mark.filterwarnings("ignore:.*masked element:UserWarning")
@pytest.mark.parametrize(
    ("function", "name"), [(each, name) for each in CALLS for name in _taken_by(each)]
)
def test_a_value_that_is_no_option_is_one_line_with_its_name(function, name):
    for value in strange_values.refused(name).values():
        with pytest.raises((TypeError, ValueError)) as caught:
            CALLS[function](**{name: value})
        strange_values.assert_one_line(caught.value, name)


@pytest.mark.parametrize(
    "name", ["label_smoothing", "z_loss", "softcap", "logit_scale", "normalizer"]
)
def test_whatever_is_a_number_means_that_number(name):
    for values, meant in ((strange_values.HALVES, 0.5), (strange_values.ONES, 1.0)):
        for value in values.values():
            found = getattr(options.checked({**options.DEFAULTS, name: value}), name)
            assert type(found) is float
            assert found == meant


def test_whatever_is_a_word_means_that_word():
    for value in strange_values.MEANS.values():
        found = options.checked({**options.DEFAULTS, "reduction": value}).reduction
        assert type(found) is str
        assert found == "mean"
    given = {**options.DEFAULTS, "when_empty": strange_values.Words.NAN}
    assert type(options.checked(given).when_empty) is str


@pytest.mark.parametrize(
    "value", [2**63, 2**64, -(2**63) - 1, 10**400, -(10**400), 10**5000], ids=int.bit_length
)
def test_an_ignore_index_that_no_label_has_ignores_nothing(value):
    expected = crossent.cross_entropy(LOGITS, [0, 1])
    assert crossent.cross_entropy(LOGITS, [0, 1], ignore_index=value) == expected
    with (
        pytest.raises(ValueError, match="^ignore_index=.* has no meaning")
        if value > 0
        else (nullcontext())
    ):
        crossent.cross_entropy(LOGITS, np.eye(3)[:2], ignore_index=value)


AXIS_CALLS = {
    "cross_entropy": lambda axis: crossent.cross_entropy(LOGITS, [0, 1], axis=axis),
    "softmax": lambda axis: crossent.softmax(LOGITS, axis=axis),
    "token_scores": lambda axis: crossent.token_scores(LOGITS, [0, 1], axis=axis),
}


@pytest.mark.parametrize("function", AXIS_CALLS)
@pytest.mark.parametrize(
    "axis",
    [10**400, -(10**5000), 2**70, 1.0, None, "1", 1j, [1], np.array([1, 1]), np.array(1.0),
     np.ma.masked, strange_values.Raises(), strange_values.GivesText()],
    ids=lambda axis: type(axis).__name__,
)  # fmt: skip
def test_what_is_no_axis_is_one_line(axis, function):
    with pytest.raises((TypeError, ValueError)) as caught:
        AXIS_CALLS[function](axis)
    strange_values.assert_one_line(caught.value, "axis")


@pytest.mark.parametrize("set_it", [crossent.set_num_threads, crossent.set_working_memory])
def test_what_is_no_size_is_one_line_and_changes_nothing(set_it):
    before = crossent.get_num_threads(), crossent.get_working_memory()
    for value in {
        **strange_values.NEVER,
        **strange_values.BEYOND,
        "no": None,
        "less": -(10**5000),
    }.values():
        with pytest.raises((TypeError, ValueError)) as caught:
            set_it(value)
        strange_values.assert_one_line(caught.value, "the ")
    with pytest.raises(ValueError, match="from 1 to 1024, not 1000000"):
        crossent.set_num_threads(10**400)
    assert (crossent.get_num_threads(), crossent.get_working_memory()) == before


def accumulator_of(**sizes):
    return crossent.EvaluationAccumulator(**{"classes": 3, **sizes})


def evaluation_of(**sizes):
    return crossent.evaluate(LOGITS, [0, 1], **sizes)


@pytest.mark.parametrize(
    ("function", "name"),
    [(evaluation_of, "hardest"), (evaluation_of, "memory"), (evaluation_of, "bytes"),
     (accumulator_of, "hardest"), (accumulator_of, "classes"), (accumulator_of, "first_row")],
)  # fmt: skip
def test_what_is_no_size_of_an_evaluation_is_one_line(function, name):
    for value in {**strange_values.NEVER, "less": -(10**5000)}.values():
        with pytest.raises((TypeError, ValueError)) as caught:
            function(**{name: value})
        strange_values.assert_one_line(caught.value, name)


def test_a_working_memory_may_be_of_any_size():
    before = crossent.get_working_memory()
    expected = crossent.linear_cross_entropy(np.eye(2), LOGITS.T, [0, 1])
    try:
        crossent.set_working_memory(10**400)
        assert crossent.linear_cross_entropy(np.eye(2), LOGITS.T, [0, 1]) == expected
    finally:
        crossent.set_working_memory(before)

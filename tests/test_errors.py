"""Every rule of _arguments.py for NumPy: the argument named, the fix said, nothing written.

The torch front-end's messages are tested with it.
"""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from cases import BFLOAT16, bits, logits_of

import crossent

LOGITS = logits_of((4, 3), np.float64)
LABELS = np.array([0, 1, 2, 0])
SOFT = np.full((4, 3), 1 / 3)


class Silent:
    """Something that is no number."""


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


# What is wrong: (changed arguments, error, what its message says)
CASES = {
    # Logits and the class axis
    "integer logits": (
        {"logits": np.ones((4, 3), np.int64)},
        TypeError,
        "logits have dtype int64; they must be float64, float32, float16 or bfloat16. "
        "Convert them first, e.g. logits.astype(np.float32)",
    ),
    "bool logits": ({"logits": np.ones((4, 3), bool)}, TypeError, "logits have dtype bool"),
    "complex logits": (
        {"logits": np.ones((4, 3), complex)},
        TypeError,
        "logits have dtype complex128; they must be float64, float32, float16 or bfloat16",
    ),
    "object logits": ({"logits": np.ones((4, 3), object)}, TypeError, "logits have dtype object"),
    "text for labels": (
        {"targets": ["a", "b", "c", "d"]},
        TypeError,
        "must be integers, not text: ",
    ),
    "text for logits": ({"logits": np.full((4, 3), "1")}, TypeError, "logits have dtype <U1"),
    "ragged logits": (
        {"logits": [[1.0, 2.0], [3.0]]},
        TypeError,
        "logits must be an array or nested lists of real numbers: ",
    ),
    "complex list": ({"logits": [[1j, 2.0]]}, TypeError, "nested lists of real numbers"),
    "no logits": ({"logits": None}, TypeError, "nested lists of real numbers, not None"),
    "a number for logits": (
        {"logits": 3.0},
        ValueError,
        "logits are a single number; they need a class axis, e.g. shape (N, C)",
    ),
    "no classes": (
        {"logits": np.ones((4, 0))},
        ValueError,
        "logits of shape (4, 0) have no classes on axis 1; C must be at least 1",
    ),
    "axis out of range": (
        {"axis": 2},
        ValueError,
        "axis=2 is not an axis of logits of shape (4, 3); it must be from -2 to 1",
    ),
    "axis out of range below": ({"axis": -3}, ValueError, "it must be from -2 to 1"),
    "float axis": ({"axis": 1.0}, TypeError, "axis must be an integer, not float"),
    # Targets
    "float labels": (
        {"targets": LABELS.astype(np.float32)},
        TypeError,
        "targets of shape (4,) are class indices, so they must be integers, not float32: convert "
        "them, e.g. targets.astype(np.int64). Distributions have the logits' shape (4, 3)",
    ),
    "bool labels": (
        {"targets": np.array([True, False, True, False])},
        TypeError,
        "not bool: for two classes use targets.astype(np.int64)",
    ),
    "list of float labels": ({"targets": [0.0, 1.0, 2.0, 0.0]}, TypeError, "not float64: convert"),
    "bfloat16 labels": ({"targets": LABELS.astype(BFLOAT16)}, TypeError, "not bfloat16"),
    "object labels": ({"targets": LABELS.astype(object)}, TypeError, "not object"),
    "complex distributions": (
        {"targets": SOFT.astype(complex)},
        TypeError,
        "targets have dtype complex128; distributions must be real numbers",
    ),
    "wrong shape of targets": (
        {"targets": [0, 1]},
        ValueError,
        "targets have shape (2,); with logits of shape (4, 3) and classes on axis 1 they must "
        "have shape (4,) (class indices) or (4, 3) (distributions)",
    ),
    "the other axis": (
        {"logits": np.zeros((2, 5, 3)), "targets": np.zeros((2, 3), int)},
        ValueError,
        "With axis=1 they would fit as indices",
    ),
    "a last axis of 1": (
        {"targets": LABELS[:, None]},
        ValueError,
        "Drop their last axis: targets[..., 0]",
    ),
    "label out of range": (
        {"targets": [0, 3, 1, -1]},
        IndexError,
        "targets[1] is 3 (row 1), not a class: labels start at 0, so 3 classes are 0 .. 2, and "
        "ignore_index marks rows to leave out",
    ),
    "labels from 1": ({"targets": [1, 2, 3, 1]}, IndexError, "labels start at 0"),
    "labels of another axis": (
        {"logits": np.zeros((5, 2, 5)), "targets": np.full((5, 2), 4), "axis": 0},
        (IndexError, ValueError),
        "axis=2",
    ),
    "-100 that is not ignored": (
        {"targets": [0, -100, 1, 2], "ignore_index": -1},
        IndexError,
        "To leave such rows out, give their value as ignore_index",
    ),
    "156 in uint8": (
        {"targets": np.array([0, 156, 1, 2], np.uint8)},
        IndexError,
        "targets[1] is 156 (row 1), not a class",
    ),
    # ignore_index
    "float ignore_index": (
        {"ignore_index": 1.0},
        TypeError,
        "ignore_index must be an integer, not float",
    ),
    "no ignore_index": ({"ignore_index": None}, TypeError, "ignore_index must be an integer"),
    "ignore_index for distributions": (
        {"targets": SOFT, "ignore_index": 0},
        ValueError,
        "ignore_index=0 has no meaning for targets that are distributions; leave it out, or give "
        "class indices",
    ),
    # Class weights
    "wrong shape of weight": (
        {"weight": np.ones(4)},
        ValueError,
        "weight has shape (4,); it must hold one number for each of the 3 classes, shape (3,)",
    ),
    "scalar weight": ({"weight": 1.0}, ValueError, "weight has shape ()"),
    "complex weight": (
        {"weight": np.ones(3, complex)},
        TypeError,
        "weight has dtype complex128; it must hold real numbers",
    ),
    "nan weight": (
        {"weight": [1, 2, np.nan]},
        ValueError,
        "weight[2] is nan; class weights must be finite",
    ),
    "infinite weight": ({"weight": [np.inf, 2, 1]}, ValueError, "weight[0] is inf"),
    # Numbers
    "softcap 0": (
        {"softcap": 0.0},
        ValueError,
        "softcap must be finite and > 0, or None for no cap; not 0.0",
    ),
    "negative softcap": ({"softcap": -1.0}, ValueError, "softcap must be finite and > 0"),
    "infinite softcap": ({"softcap": np.inf}, ValueError, "softcap must be finite and > 0"),
    "nan softcap": ({"softcap": np.nan}, ValueError, "softcap must be finite and > 0"),
    "text for softcap": ({"softcap": "30"}, TypeError, "softcap must be a number, not str"),
    "infinite scale": (
        {"logit_scale": np.inf},
        ValueError,
        "logit_scale must be finite, not inf",
    ),
    "nan scale": ({"logit_scale": np.nan}, ValueError, "logit_scale must be finite"),
    "no scale": ({"logit_scale": None}, TypeError, "logit_scale must be a number, not NoneType"),
    "bool scale": ({"logit_scale": True}, TypeError, "logit_scale must be a number, not bool"),
    "array for scale": (
        {"logit_scale": np.ones(2)},
        TypeError,
        "logit_scale must be a number, not ndarray",
    ),
    "smoothing above 1": (
        {"label_smoothing": 1.1},
        ValueError,
        "label_smoothing must be from 0 to 1, not 1.1",
    ),
    "smoothing below 0": ({"label_smoothing": -0.1}, ValueError, "label_smoothing must be from"),
    "nan smoothing": ({"label_smoothing": np.nan}, ValueError, "label_smoothing must be from"),
    "no smoothing": ({"label_smoothing": Silent()}, TypeError, "label_smoothing must be a number"),
    "negative z_loss": ({"z_loss": -1e-4}, ValueError, "z_loss must be finite and >= 0, not -0"),
    "infinite z_loss": ({"z_loss": np.inf}, ValueError, "z_loss must be finite and >= 0"),
    # Reduction
    "unknown reduction": (
        {"reduction": "average"},
        ValueError,
        'reduction must be "none", "sum" or "mean", not \'average\'',
    ),
    "no reduction": ({"reduction": None}, ValueError, "not None"),
    "unknown when_empty": (
        {"when_empty": "skip"},
        ValueError,
        'when_empty must be "nan", "zero" or "raise", not \'skip\'',
    ),
    "normalizer without mean": (
        {"reduction": "sum", "normalizer": 2.0},
        ValueError,
        'normalizer divides the mean; with reduction="sum" it has no meaning: leave it out or '
        'use reduction="mean"',
    ),
    "normalizer 0": (
        {"normalizer": 0.0},
        ValueError,
        "normalizer must be finite and > 0, not 0.0",
    ),
    "negative normalizer": ({"normalizer": -2}, ValueError, "normalizer must be finite and > 0"),
    "nan normalizer": ({"normalizer": np.nan}, ValueError, "normalizer must be finite and > 0"),
    "text for normalizer": ({"normalizer": "4"}, TypeError, "normalizer must be a number"),
    "nothing to divide by": (
        {"targets": [-100] * 4, "when_empty": "raise"},
        ValueError,
        'the mean has nothing to divide by: no row counts, and when_empty is "raise". '
        'Use when_empty="zero" for a loss of 0 with gradient 0',
    ),
    # The incoming gradient
    "rows of grad_loss for a mean": (
        {"grad_loss": np.ones(4)},
        ValueError,
        'grad_loss has shape (4,); with reduction="mean" the loss is one number, and so is its '
        "incoming gradient",
    ),
    "wrong shape of grad_loss": (
        {"grad_loss": np.ones(3), "reduction": "none"},
        ValueError,
        'grad_loss has shape (3,); with reduction="none" it must hold one number a row, shape (4,)',
    ),
    "complex grad_loss": (
        {"grad_loss": np.ones(4, complex), "reduction": "none"},
        TypeError,
        "grad_loss has dtype complex128; it must hold real numbers",
    ),
    "text for grad_loss": ({"grad_loss": "1"}, TypeError, "grad_loss must be a number"),
    # out
    "a list for out": ({"out": [[0.0] * 3] * 4}, ValueError, "out must be a NumPy array, not list"),
    "wrong shape of out": (
        {"out": np.zeros((3, 4))},
        ValueError,
        "out has shape (3, 4) and dtype float64; it must have those of the logits: (4, 3), float64",
    ),
    "wrong dtype of out": (
        {"out": np.zeros((4, 3), np.float32)},
        ValueError,
        "out has shape (4, 3) and dtype float32; it must have those of the logits",
    ),
    "other byte order of out": (
        {"out": np.zeros((4, 3), np.dtype(float).newbyteorder())},
        ValueError,
        "it must have those of the logits",
    ),
    "read-only out": (
        {"out": read_only(np.zeros((4, 3)))},
        ValueError,
        "out is read-only: give a writable array, e.g. out=np.empty_like(logits)",
    ),
    "broadcast out": (
        {"out": np.lib.stride_tricks.as_strided(np.zeros(3), (4, 3), (0, 8))},
        ValueError,
        "out has elements that share memory (a broadcast array): give a full one",
    ),
    "out whose rows overlap": (
        {"out": np.lib.stride_tricks.as_strided(np.zeros(12), (4, 3), (16, 8))},
        ValueError,
        "out has elements that share memory",
    ),
}


def call_with(function=crossent.cross_entropy_and_grad, **changes):
    arguments = {"logits": LOGITS, "targets": LABELS, **changes}
    return function(arguments.pop("logits"), arguments.pop("targets"), **arguments)


@pytest.mark.parametrize("case", CASES)
def test_bad_arguments_are_named(case):
    changes, error, message = CASES[case]
    with pytest.raises(error, match=re.escape(message)):
        call_with(**changes)
    if not {"grad_loss", "out"} & set(changes):
        with pytest.raises(error, match=re.escape(message)):
            call_with(crossent.cross_entropy, **changes)


@pytest.mark.parametrize("case", [c for c in CASES if "logits" not in CASES[c][0]])
@pytest.mark.parametrize("in_place", [False, True], ids=["out", "in place"])
def test_a_failing_call_writes_nothing(case, in_place):
    changes, error, _ = CASES[case]
    logits = LOGITS.copy()
    out = logits if in_place else np.full_like(logits, 7)
    before = bits(logits), bits(out), bits(np.asarray(changes.get("out", 0)))
    for function, extra in (
        (crossent.cross_entropy_and_grad, ()),
        (crossent.cross_entropy_hvp, (SOFT,)),
    ):
        with pytest.raises(error):
            function(
                logits, changes.get("targets", LABELS), *extra,
                **{"out": out, **{k: v for k, v in changes.items() if k != "targets"}},
            )  # fmt: skip
    assert (bits(logits), bits(out), bits(np.asarray(changes.get("out", 0)))) == before


def test_a_bad_label_names_the_other_axis_that_the_shapes_allow():
    with pytest.raises(IndexError, match=r"axis=0 would fit the shapes too"):
        crossent.cross_entropy(np.zeros((4, 4)), [-1, 0, 1, 2])


@pytest.mark.parametrize("function", ["softmax", "log_softmax", "logsumexp", "softmax_jacobian"])
def test_functions_of_logits_alone_have_the_same_rules(function):
    call = getattr(crossent, function)
    with pytest.raises(TypeError, match="logits have dtype int64"):
        call(np.ones((4, 3), int))
    with pytest.raises(ValueError, match="logits are a single number"):
        call(1.0)
    with pytest.raises(ValueError, match=r"axis=5 is not an axis of logits of shape \(4, 3\)"):
        call(LOGITS, axis=5)
    with pytest.raises(ValueError, match="C must be at least 1"):
        call(np.ones((4, 0)))


@pytest.mark.parametrize("function", [crossent.softmax, crossent.log_softmax])
def test_their_out_has_the_same_rules(function):
    for case in (
        "a list for out",
        "wrong shape of out",
        "read-only out",
        "broadcast out",
        "out whose rows overlap",
    ):
        changes, error, message = CASES[case]
        with pytest.raises(error, match=re.escape(message)):
            function(LOGITS, **changes)


def test_v_has_the_shape_of_the_logits_and_a_floating_dtype():
    for call in (
        lambda v: crossent.softmax_jvp(LOGITS, v),
        lambda v: crossent.cross_entropy_hvp(LOGITS, LABELS, v),
    ):
        with pytest.raises(
            ValueError, match=r"v has shape \(3, 4\); it must have the logits' shape \(4, 3\)"
        ):
            call(np.zeros((3, 4)))
        with pytest.raises(TypeError, match=r"v (have|has) dtype int64"):
            call(np.zeros((4, 3), int))


def test_probs_are_named_as_such():
    with pytest.raises(TypeError, match="probs have dtype int64"):
        crossent.grad_wrt_probabilities(np.ones((4, 3), int), LABELS)
    with pytest.raises(ValueError, match="axis=9 is not an axis of probs"):
        crossent.grad_wrt_probabilities(SOFT, LABELS, axis=9)


def test_scores_are_of_one_class_a_row():
    with pytest.raises(ValueError, match=r"targets have shape \(4, 3\); scores are of one class"):
        crossent.token_scores(LOGITS, SOFT)
    with pytest.raises(IndexError, match=r"targets\[2\] is 3"):
        crossent.token_scores(LOGITS, [0, 1, 3, 0])


# out beside the inputs


def test_out_may_be_the_logits_memory_under_another_name():
    logits = LOGITS.copy()
    expected = crossent.cross_entropy_and_grad(LOGITS, LABELS)[1]
    view = logits[:]
    _, grad = crossent.cross_entropy_and_grad(logits, LABELS, out=view)
    assert grad is view
    assert bits(logits) == bits(expected)


OVERLAP = "out overlaps an input without being the logits' own memory"


def test_out_that_overlaps_an_input_is_an_error_and_nothing_is_written():
    memory = np.zeros((8, 3))
    memory[:4], memory[4:] = LOGITS, SOFT
    square = logits_of((3, 3), np.float64)
    cases = {
        "logits, a row later": (memory[:4], LABELS, memory[1:5], {}),
        "logits, backwards": (memory[:4], LABELS, memory[:4][::-1], {}),
        "logits, transposed": (square, [0, 1, 2], square.T, {}),
        "targets": (LOGITS, memory[4:], memory[4:], {}),
        "targets beside logits": (memory[:4], memory[4:], memory[2:6], {}),
        "weight": (LOGITS, LABELS, memory[3:7], {"weight": memory[5]}),
        "grad_loss": (LOGITS, LABELS, memory[:4], {"grad_loss": memory.reshape(-1)[3:7]}),
    }
    for name, (logits, targets, out, options) in cases.items():
        before = bits(memory), bits(square)
        options = {"reduction": "none", **options}
        with pytest.raises(ValueError, match=OVERLAP):
            crossent.cross_entropy_and_grad(logits, targets, out=out, **options)
        assert (bits(memory), bits(square)) == before, name
    with pytest.raises(ValueError, match=OVERLAP):
        crossent.cross_entropy_hvp(LOGITS, LABELS, memory[:4], out=memory[:4])
    with pytest.raises(ValueError, match=OVERLAP):
        crossent.softmax(memory[:4], out=memory[1:5])


def test_out_between_the_elements_of_an_input_is_no_overlap():
    memory = np.zeros((4, 6))
    memory[:, ::2] = LOGITS
    _, grad = crossent.cross_entropy_and_grad(memory[:, ::2], LABELS, out=memory[:, 1::2])
    assert bits(memory[:, ::2]) == bits(LOGITS)
    assert bits(grad) == bits(crossent.cross_entropy_and_grad(LOGITS, LABELS)[1])


def test_in_place_read_only_logits_are_an_error():
    logits = read_only(LOGITS)
    for out in (logits, logits[:]):
        with pytest.raises(ValueError, match="out is read-only"):
            crossent.cross_entropy_and_grad(logits, LABELS, out=out)
    with pytest.raises(ValueError, match="share memory"):
        crossent.softmax(broadcast := writable_broadcast(), out=broadcast)


def writable_broadcast():
    return np.lib.stride_tricks.as_strided(np.zeros(3), (4, 3), (0, 8))


# Threads and instruction sets


@pytest.mark.parametrize("count", [0, -1, 1025, 2**40])
def test_a_thread_count_out_of_range_is_an_error(count):
    said = f"the number of threads must be from 1 to 1024, not {count}"
    with pytest.raises(ValueError, match=said):
        crossent.set_num_threads(count)


@pytest.mark.parametrize("count", [1.0, "2", None])
def test_a_thread_count_that_is_no_integer_is_an_error(count):
    with pytest.raises(TypeError, match="the number of threads must be an integer, not"):
        crossent.set_num_threads(count)


@pytest.mark.parametrize(("given", "shown"), [("mmx", "mmx"), (b"\xff\x1b[2J", "??[2J")])
def test_an_unknown_instruction_set_in_the_environment_is_an_error_that_lists_them(given, shown):
    environment = {**os.environb, b"CROSSENT_ISA": os.fsencode(given)}
    done = subprocess.run(
        [sys.executable, "-c", "import crossent; crossent.softmax([0.0, 1.0])"],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    listed = ", ".join(crossent.available_isas())
    assert last == (
        f"ValueError: CROSSENT_ISA='{shown}' is not available here; choose one of {listed}, or unset it"
    )


def masked(*numbers):
    """An array whose first entry is masked."""
    return np.ma.masked_array(numbers, mask=[True] + [False] * (len(numbers) - 1))


MASKED = {
    "logits": lambda: crossent.cross_entropy(masked(1.0, 2.0), 1),
    "targets": lambda: crossent.cross_entropy(np.zeros((2, 3)), masked(1, 2)),
    "weight": lambda: crossent.cross_entropy(np.zeros((2, 3)), [1, 2], weight=masked(1, 2, 3)),
    "grad_loss": lambda: crossent.cross_entropy_and_grad(
        np.zeros((2, 3)), [1, 2], reduction="none", grad_loss=masked(1, 2)
    ),
    "data": lambda: crossent.evaluate(np.zeros((2, 3)), masked(1, 2)),
}


@pytest.mark.parametrize("call", MASKED.values(), ids=MASKED)
def test_masks_are_not_dropped_without_a_word(call):
    with pytest.raises(TypeError, match="masks are not followed; fill what is masked"):
        call()


def test_an_array_that_masks_nothing_is_like_any_other():
    unmasked = np.ma.masked_array(np.zeros((2, 3)))
    assert crossent.cross_entropy(unmasked, [0, 1]) == crossent.cross_entropy(unmasked.data, [0, 1])


@pytest.mark.parametrize("name", crossent.available_isas())
def test_the_environment_chooses_the_instruction_set(name):
    environment = {**os.environ, "CROSSENT_ISA": name}
    done = subprocess.run(
        [sys.executable, "-c", "import crossent; print(crossent.isa())"],
        capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == name


@pytest.mark.parametrize("targets", [[0, 0, 0], [1, 1, 0], [0, 2, 0], [0, -1, 2]])
@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool"])
def test_integer_targets_of_a_single_row_are_one_hot(targets, dtype):
    if dtype == "bool" and max(targets) > 1:
        targets = [1, 1, 1]
    targets = np.array(targets).astype(dtype)
    message = r"one row of 3 classes: .* For 3 binary scores z stack \[0, z\]"
    with pytest.raises(ValueError, match=message):
        crossent.cross_entropy([0.5, 0.0, 1.0], targets)


@pytest.mark.parametrize("dtype", ["int8", "uint64", "bool", "float32"])
def test_one_hot_targets_of_a_single_row_are_read_in_any_type(dtype):
    loss = crossent.cross_entropy([0.5, 0.0, 1.0], np.array([0, 0, 1]).astype(dtype))
    assert loss == crossent.cross_entropy([0.5, 0.0, 1.0], 2)

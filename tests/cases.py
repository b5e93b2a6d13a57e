"""The shapes, types, options and rows that every test of the core draws from. N rows, C classes."""

from contextlib import contextmanager

import ml_dtypes
import numpy as np

from crossent import _core

ISAS = tuple(_core.available_isas())  # the instruction sets that this machine has
INF, NAN = np.inf, np.nan

# Class counts around every vector width, the transposed tile (128) and a block (512 or 1,024).
CLASSES = (1, 7, 8, 15, 16, 17, 64, 128, 129, 1000, 1024, 1025, 32003)
SEGMENTED = 70_000  # classes of a row that several threads may share
PATHS = {"tile": 5, "blocks": 1100, "segments": SEGMENTED}  # class counts, one for each kind of row

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": BFLOAT16,
}
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
NUMBERS = ("bool", *INTEGERS, *DTYPES)  # of distributions


def loss_dtype(dtype):
    """The dtype of the loss of logits of `dtype`."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def rows_of(classes, elements=4096, least=3):
    """How many rows make a test of `classes` classes worth its while, and no longer than that."""
    return max(least, min(40, elements // classes))


def weights_of(classes):
    """Class weights, the first of them 0 if there are several."""
    weight = np.linspace(0.0, 2.0, classes) if classes > 1 else np.array([0.75])
    weight[-1] = 0.3
    return weight


# Options by name; the class weights are made to measure by `options_of`.
OPTIONS = {
    "plain": {},
    "weight": {"weight": True},
    "z-loss": {"z_loss": 0.01},
    "weight, z-loss": {"weight": True, "z_loss": 0.3},
    "smoothing": {"label_smoothing": 0.1},
    "smoothing, weight": {"label_smoothing": 0.3, "weight": True},
    "smoothing 1": {"label_smoothing": 1.0},
    "scale": {"logit_scale": 0.7},
    "scale below 0": {"logit_scale": -1.3},
    "softcap": {"softcap": 30.0},
    "tight softcap": {"softcap": 2.0},
    "softcap, scale": {"softcap": 15.0, "logit_scale": 3.0},
    "all": {
        "weight": True,
        "label_smoothing": 0.2,
        "z_loss": 0.05,
        "softcap": 8.0,
        "logit_scale": 1.7,
    },
}


def options_of(name, classes):
    """The named options, their weights for `classes` classes."""
    options = dict(OPTIONS[name])
    if "weight" in options:
        options["weight"] = weights_of(classes)
    return options


def logits_of(shape, dtype, scale=3.0, seed=0):
    """Normal logits, rounded to `dtype`."""
    rng = np.random.default_rng([seed, *shape])
    return (scale * rng.standard_normal(shape)).astype(dtype)


def labels_of(rows, classes, seed=0):
    """Index targets, the first and the last class among them."""
    labels = np.random.default_rng([seed, rows, classes]).integers(0, classes, rows)
    labels[:1], labels[1:2] = 0, classes - 1
    return labels


def soft_targets_of(shape, seed=0):
    """Distributions: most of them soft, the first one-hot, the last of no mass at all."""
    soft = np.random.default_rng([seed, *shape, 1]).random(shape)
    soft /= soft.sum(-1, keepdims=True)
    soft[0] = 0
    soft[0, shape[1] // 2] = 1
    if shape[0] > 1:
        soft[-1] = 0
    return soft


def bits(array):
    """An array's bytes in C order: equal for the same numbers, nan for nan, -0 unlike 0."""
    array = np.asarray(array)
    return array.astype(array.dtype.newbyteorder("="), copy=False).tobytes()


def near(got, expected, rel=0.0, abs=0.0):
    """Whether every number is within rel of the expected size or abs; infinities must be equal."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    return got.shape == expected.shape and np.allclose(got, expected, rel, abs)


@contextmanager
def using_isa(name):
    """Runs the kernels of one instruction set inside, those from before afterwards."""
    before = _core.isa()
    assert _core.select_isa(name)
    try:
        yield
    finally:
        _core.select_isa(before)

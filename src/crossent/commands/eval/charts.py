"""The charts of a report: one figure a function, in the look of the demo's figure.

C classes. Each chart's title is in the page, so a figure holds axes alone; sizes are inches, chosen
so that text is readable at the width of a phone.
"""

from __future__ import annotations

import html
import io
import math
import re
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from crossent.commands.demo.figure import (
    FAINT,
    HELD_OUT,
    INK,
    LINE,
    TRAINING,
    fill_confusion,
    style_axes,
)
from crossent.commands.eval.text import figure as number
from crossent.evaluation.interval import wilson_interval
from crossent.evaluation.result import Classes, EvaluationResult

WIDTH, HEIGHT = 4.6, 3.1
FONT = 10
SMALLEST_LOSS = 1e-7  # rows below it share the first bar
BARS = 40
FEW_DECADES = 1e3  # losses that differ by less have numbers within their decades
LUMPED = 0.005  # the share of easy rows that the first bar holds too
MATRIX_CLASSES = 12  # up to which confusion is drawn as a matrix
LISTED = 12  # classes or pairs that are drawn
RED = "#c2410c"

Edges = NDArray[np.float64]


def svg(axes: Axes, name: str, description: str) -> str:
    """The figure of axes as an <svg> element without size, ids of its own, and text as text."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        assert isinstance(axes.figure, Figure)
        axes.figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    return text.replace(
        "<svg ", f'<svg role="img" aria-label="{html.escape(description)}" ', 1
    ).strip()


def new_axes(height: float = HEIGHT, *, left: float = 0.74, bottom: float = 0.52) -> Axes:
    """Axes on a figure of their own, with room in inches for what stands beside them."""
    figure = Figure(figsize=(WIDTH, height), facecolor="none")
    figure.subplots_adjust(left / WIDTH, bottom / height, 1 - 0.2 / WIDTH, 1 - 0.1 / height)
    axes = figure.add_subplot()
    axes.set_facecolor("none")
    style_axes(axes)
    axes.tick_params(labelsize=FONT)
    return axes


def label_axes(axes: Axes, x: str, y: str, *, shares: str = "") -> None:
    """Names of the axes; those in ``shares`` ("x", "y" or both) are read as percentages."""
    axes.set_xlabel(x, fontsize=FONT, color=INK)
    axes.set_ylabel(y, fontsize=FONT, color=INK)
    for which in shares:
        axis = axes.xaxis if which == "x" else axes.yaxis
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g}%"))


def note(
    axes: Axes, text: str, place: tuple[Any, Any], offset: tuple[float, float],
    color: str = INK, size: float = FONT, **settings: Any,
) -> None:  # fmt: skip
    """A text at some points from a place."""
    axes.annotate(
        text, place, xytext=offset, textcoords="offset points", fontsize=size, color=color,
        **settings,
    )  # fmt: skip


def diagonal(axes: Axes, text: str, place: float, offset: tuple[float, float]) -> None:
    """The line on which x and y are equal, and what that means."""
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=":")
    note(axes, text, (place, place), offset, FAINT)


def loss_distribution(result: EvaluationResult) -> Axes:
    """Rows by their loss, on a logarithmic scale, with the median and the mean."""
    low, high, counts = result.histogram
    finite = np.isfinite(high)
    middle = np.maximum(0.5 * (low + high)[finite], SMALLEST_LOSS)
    shares = counts[finite] / counts.sum()
    first = middle[int(np.searchsorted(np.cumsum(shares), LUMPED))]
    edges = np.geomspace(first, max(middle.max() * 1.1, first * 4), BARS + 1)
    bars, _ = np.histogram(np.maximum(middle, first), bins=edges, weights=shares)
    axes = new_axes()
    axes.bar(edges[:-1], bars, width=np.diff(edges), align="edge", color=HELD_OUT, alpha=0.75)
    axes.set_xscale("log")
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, 1.3 * bars.max())
    if edges[-1] < FEW_DECADES * edges[0]:
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    marks = [("median", result.quantiles["median"], INK), ("mean", result.nll, RED)]
    marks.sort(key=lambda mark: mark[1])
    for (name, value, color), side, height in zip(marks, ("right", "left"), (1, 0.91), strict=True):
        if not edges[0] < value < edges[-1]:
            continue
        place = math.log(value / edges[0]) / math.log(edges[-1] / edges[0])
        side = "left" if place < 0.35 else "right" if place > 0.65 else side
        axes.axvline(value, ymax=height - 0.09, color=color, linewidth=1.2)
        note(
            axes, f"{name} {number(value)}", (value, height), (0, 0), color,
            xycoords=("data", "axes fraction"), ha=side, va="top", weight="bold",
        )  # fmt: skip
    label_axes(axes, "-log p of the truth, nats", "rows", shares="y")
    return axes


def concentration(result: EvaluationResult) -> tuple[Edges, Edges]:
    """Shares of the rows, hardest first, and the share of all loss that they carry."""
    low, high, counts = result.histogram
    finite = np.isfinite(high) & (high > 0)
    middle, rows = 0.5 * (low + high)[finite][::-1], counts[finite][::-1]
    loss = np.cumsum(middle * rows)
    if not len(rows) or loss[-1] <= 0:
        return np.array([0.0, 1.0]), np.array([0.0, 1.0])
    return (
        np.concatenate([[0.0], np.cumsum(rows) / counts.sum()]),
        np.concatenate([[0.0], loss / loss[-1]]),
    )


def share_of_hardest(result: EvaluationResult, share: float) -> float:
    """The share of all loss that the hardest rows carry."""
    return float(np.interp(share, *concentration(result)))


def share_of_first(classes: Classes) -> float:
    """The share of the rows whose label is the first answer."""
    first = sum(one.rows for one in classes.ranks if one.low == 1)
    return first / max(1, sum(one.rows for one in classes.ranks))


def loss_concentration(result: EvaluationResult) -> Axes:
    """The share of all loss that the hardest rows carry, against how many of them there are."""
    rows, loss = concentration(result)
    axes = new_axes()
    diagonal(axes, "all rows alike", 0.62, (6, -10))
    axes.fill_between(rows, loss, color=HELD_OUT, alpha=0.12, linewidth=0)
    axes.plot(rows, loss, color=HELD_OUT, linewidth=2)
    carried = share_of_hardest(result, 0.1)
    axes.plot([0.1], [carried], "o", color=RED, markersize=5)
    text = f"hardest 10%: {carried:.0%} of the loss"
    note(axes, text, (0.1, carried), (9, -13), RED, weight="bold")
    axes.set(xlim=(0, 1), ylim=(0, 1.03))
    label_axes(axes, "rows, the hardest first", "share of the loss", shares="xy")
    return axes


def reliability(classes: Classes) -> Axes:
    """How often answers are right against how sure the model was of them."""
    bins = [one for one in classes.calibration if one.weight]
    confidence, accuracy, weight = (
        np.array([getattr(one, name) for one in bins])
        for name in ("confidence", "accuracy", "weight")
    )
    axes = new_axes()
    diagonal(axes, "as sure as right", 0.06, (8, -4))
    low, high = np.transpose([wilson_interval(one.accuracy, one.weight) for one in bins])
    error = [accuracy - low, high - accuracy]
    axes.errorbar(confidence, accuracy, yerr=error, fmt="none", ecolor=HELD_OUT, elinewidth=1)
    axes.plot(confidence, accuracy, color=HELD_OUT, linewidth=1, alpha=0.5)
    axes.scatter(
        confidence, accuracy, s=12 + 180 * weight / weight.max(), color=HELD_OUT, alpha=0.75,
        linewidth=0, zorder=3,
    )  # fmt: skip
    axes.set(xlim=(0, 1.03), ylim=(0, 1.05))
    label_axes(axes, "confidence in the answer", "answers that are right", shares="xy")
    return axes


def loss_by_rank(classes: Classes) -> Axes:
    """Where the truth stands among the answers, and what it costs there."""
    few = len(classes.ranks) <= 6
    names = [
        f"{one.low}-{one.high}" if few and one.low != one.high else f"{one.low}"
        for one in classes.ranks
    ]
    rows = np.array([one.rows for one in classes.ranks], float)
    axes = new_axes()
    places = np.arange(len(names))
    axes.bar(places, rows / rows.sum(), color=TRAINING, alpha=0.45, width=0.72)
    for place, share in zip(places, rows / rows.sum(), strict=True):
        if not few and share < 0.1:
            continue
        text = f"{share:.1%}" if share >= 0.001 else f"{share:.1e}"
        note(axes, text, (place, share), (0, 2), FAINT, 8, ha="center")
    axes.set_ylim(0, 1.15 * float((rows / rows.sum()).max()))
    axes.set_xticks(places, names, fontsize=FONT if few else 8)
    axes.grid(visible=False, axis="x")
    label_axes(axes, "rank of the truth" + (", and up" * (not few)), "rows (bars)", shares="y")
    over = axes.twinx()
    loss = np.array([one.loss for one in classes.ranks])
    over.plot(places, loss, "o-", color=RED, linewidth=1.6, markersize=4)
    over.set_ylim(0, 1.15 * float(np.max(loss[np.isfinite(loss)], initial=0.1)))
    over.set_ylabel("mean -log p there (line)", fontsize=FONT, color=RED)
    over.tick_params(labelsize=FONT, labelcolor=RED, color=LINE)
    over.spines[:].set_visible(False)
    axes.set_position((0.74 / WIDTH, 0.52 / HEIGHT, 3.28 / WIDTH, 2.48 / HEIGHT))
    return axes


def loss_by_class(classes: Classes) -> Axes:
    """The classes of largest loss."""
    order = classes.hardest(LISTED)
    values = classes.loss_of_class[order]
    notes = [
        f"{number(float(value))}, {classes.accuracy_of_class[k]:.0%} right of "
        f"{classes.rows_of_class[k]:,}"
        for k, value in zip(order, values, strict=True)
    ]
    return bars([f"{k}" for k in order], values, notes, "class", "mean -log p, nats", HELD_OUT)


def top_pairs(classes: Classes) -> Axes:
    """The mistakes that are made most often."""
    pairs = classes.top_pairs[:LISTED]
    about = "" if classes.top_pairs_are_exact else "about "
    return bars(
        [f"{pair.label} for {pair.predicted}" for pair in pairs],
        np.array([pair.times for pair in pairs], float),
        [f"{about}{pair.times:,}" for pair in pairs], "", "rows", RED,
    )  # fmt: skip


def bars(
    names: list[str], values: Edges, notes: list[str], y: str, x: str, color: str
) -> Axes:  # fmt: skip
    """Bars from the left, each with its name before it and a note behind it."""
    left = 0.3 + 0.085 * max(map(len, names)) + (0.2 if y else 0)
    axes = new_axes(max(1.2, 0.68 + 0.225 * len(names)), left=left)
    places = np.arange(len(names))
    axes.barh(places, np.where(np.isfinite(values), values, 0), color=color, alpha=0.75, height=0.7)
    largest = float(np.max(values[np.isfinite(values)], initial=0)) or 1.0
    axes.set_xlim(0, 1.9 * largest)
    for place, value, text in zip(places, values, notes, strict=True):
        end = value if math.isfinite(value) else 0
        note(axes, text, (end, place), (4, 0), size=9, va="center")
    axes.set_yticks(places, names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    label_axes(axes, x, y)
    return axes


def confusion_matrix(classes: Classes) -> Axes:
    """Counts of label by answer."""
    assert classes.confusion is not None
    axes = new_axes(4.3, left=0.5, bottom=0.5)
    axes.grid(visible=False)
    fill_confusion(axes, classes.confusion, label="label")
    axes.set_xlabel("answer", fontsize=FONT)
    axes.set_ylabel("label", fontsize=FONT)
    return axes

"""The pictures that the commands save, drawn with matplotlib's objects: no global state, no window.

Positions are inches from the top left corner of the page.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from crossent.commands.demo.training import DemoResult
from crossent.digits import CREDIT

WIDTH, HEIGHT = 12.0, 10.85
LEFT = 0.3  # where every line of text begins
COLUMN, PITCH, TILE = 0.75, 1.1022, 1.03  # ten columns of small images: first, distance, size

TRAINING, HELD_OUT = "#7d838c", "#1b6ca8"  # grey and blue: told apart in print and by every eye
INK, FAINT, LINE = "#22262b", "#6b7280", "#d1d5db"
Look = dict[str, Any]
HEADING: Look = {"fontsize": 11.5, "weight": "bold", "color": INK}
NOTE: Look = {"weight": "normal", "color": FAINT}
AGAINST_FOR = "RdBu_r"  # blue: against the class, red: for it


def demo_figure(result: DemoResult) -> Figure:
    """The demo on one page: loss curves, mistakes, what each class learns, hardest digits."""
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=130, facecolor="white")
    held_out = result.held_out
    heading = (
        f"Softmax regression on {result.confusion.sum():,} handwritten digits: "
        f"{held_out.accuracy:.1%} right on images held out"
    )
    figures = (
        f"{len(result.held_out_curves)} models, each judged on the images that it never saw. "
        f"Held out: cross-entropy {held_out.loss:.3f} nats, perplexity {held_out.perplexity:.3f}, "
        f"calibration error {held_out.calibration_error:.1%}."
    )
    write(figure, LEFT, 0.45, heading, fontsize=17)
    write(figure, LEFT, 0.75, figures, fontsize=10.5, **NOTE)
    draw_loss_curves(figure, result)
    draw_confusion(figure, result.confusion)
    draw_class_images(figure, result)
    draw_hardest(figure, result)
    write(figure, LEFT, 10.65, CREDIT, fontsize=8.5, **NOTE)
    return figure


def draw_loss_curves(figure: Figure, result: DemoResult) -> None:
    """Training and held-out loss by step: a thin line a fold, a thick one for their mean."""
    axes = place(figure, 1.0, 1.45, 5.5, 3.55)
    write(figure, LEFT, 1.3, "The loss falls, on unseen images too (thin: each model)")
    for name, color, curves, loss in (
        ("held out", HELD_OUT, result.held_out_curves, result.held_out.loss),
        ("training", TRAINING, result.training_curves, result.training_loss),
    ):
        steps = np.arange(1, curves.shape[1] + 1)
        axes.plot(steps, curves.T, color=color, linewidth=0.7, alpha=0.5)
        axes.plot(steps, curves.mean(axis=0), color=color, linewidth=2.2)
        axes.annotate(
            f"{name} {loss:.3f}", (steps[-1], curves[:, -1].mean()), xytext=(6, 0),
            textcoords="offset points", va="center", color=color, weight="bold",
        )  # fmt: skip
    classes = len(result.confusion)
    axes.axhline(np.log(classes), color=FAINT, linewidth=0.8, linestyle=":")
    axes.annotate(
        f"log {classes} = {np.log(classes):.3f}: a guess among {classes}",
        (steps[-1], np.log(classes)),
        xytext=(0, 4), textcoords="offset points", ha="right", fontsize=9, color=FAINT,
    )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=(1, steps[-1]))
    axes.set_xticks([1, 10, 100, steps[-1]], ["1", "10", "100", f"{steps[-1]}"])
    axes.set_yticks([0.05, 0.1, 0.2, 0.5, 1, 2], ["0.05", "0.1", "0.2", "0.5", "1", "2"])
    axes.minorticks_off()
    axes.set_xlabel("step", color=INK)
    axes.set_ylabel("cross-entropy, nats per image", color=INK)
    style_axes(axes)


def draw_confusion(figure: Figure, confusion: NDArray[np.int64]) -> None:
    """Counts of digit by answer."""
    mistakes = int(confusion.sum() - np.trace(confusion))
    write(figure, 7.75, 1.3, f"{mistakes} mistakes: which digit is taken for which")
    fill_confusion(place(figure, 8.15, 1.45, 3.55, 3.55), confusion, label="digit")


def style_axes(axes: Axes) -> None:
    """Faint lines, no box: as every chart of ours looks."""
    axes.tick_params(color=LINE, labelcolor=INK)
    axes.grid(color="#e5e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LINE)


def fill_confusion(axes: Axes, confusion: NDArray[np.int64], *, label: str) -> None:
    """Counts of label by answer; the colour shows mistakes only, which the diagonal would drown."""
    classes = len(confusion)
    mistakes = np.where(np.eye(classes, dtype=bool), 0, confusion)
    axes.imshow(mistakes, cmap="Oranges", vmin=0, vmax=max(1.0, 1.5 * mistakes.max()))
    for (truth, answer), count in np.ndenumerate(confusion):
        right = truth == answer
        look: Look = {"fontsize": 8, "color": FAINT} if right else {"fontsize": 9, "weight": "bold"}
        if count or right:
            axes.text(answer, truth, f"{count}", ha="center", va="center", **look)
    axes.set(xticks=range(classes), yticks=range(classes))
    axes.tick_params(length=0, labelcolor=INK)
    axes.spines[:].set_color(LINE)
    axes.set_xlabel("answer", color=INK)
    axes.set_ylabel(label, color=INK)


def draw_class_images(figure: Figure, result: DemoResult) -> None:
    """Class by class, what the first step adds to the weights, and all steps together."""
    heading = (
        "The gradient p - y, carried back to the pixels, is the image that each class learns from"
    )
    legend = "ink here speaks for the digit: red, against it: blue"
    write(figure, LEFT, 5.9, heading)
    write(figure, WIDTH - LEFT, 5.9, legend, fontsize=9, ha="right", **NOTE)
    for top, name, images in (
        (6.3, "first step", result.first_step_images),
        (7.42, "all steps:\nthe weights", result.weight_images),
    ):
        limit = float(np.abs(images).max())
        for label, image in enumerate(images):
            axes = draw_image(figure, label, top, image, cmap=AGAINST_FOR, vmin=-limit, vmax=limit)
            if images is result.first_step_images:
                axes.set_title(f"{label}", fontsize=11, color=INK, pad=4)
            if label == 0:
                axes.set_ylabel(name, fontsize=9, color=INK)


def draw_hardest(figure: Figure, result: DemoResult) -> None:
    """The held-out images with the largest loss, what they are and what they were taken for."""
    heading = (
        "The hardest images: what each is, what it was taken for, the probability of the truth"
    )
    write(figure, LEFT, 8.88, heading)
    for column, digit in enumerate(result.hardest):
        image = result.hardest_images[column]
        axes = draw_image(figure, column, 9.0, image, cmap="Greys", vmin=0, vmax=16)
        told = f"{digit.label}, taken for {digit.predicted}\np = {digit.probability:.1%}"
        axes.set_xlabel(told, fontsize=9, color=INK, labelpad=4)


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a position in inches from the page's top left corner."""
    bottom = HEIGHT - top - height
    return figure.add_axes((left / WIDTH, bottom / HEIGHT, width / WIDTH, height / HEIGHT))


def write(figure: Figure, left: float, baseline: float, text: str, **look: Any) -> None:
    """Text at a position in inches; as it stands, a section's heading."""
    figure.text(left / WIDTH, 1 - baseline / HEIGHT, text, **HEADING | look)


def draw_image(figure: Figure, column: int, top: float, image: NDArray[Any], **colors: Any) -> Axes:
    """The axes of a small image in one of ten columns: in a thin frame, without ticks."""
    axes = place(figure, COLUMN + column * PITCH, top, TILE, TILE)
    axes.imshow(image, **colors)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color=LINE, linewidth=0.7)
    return axes

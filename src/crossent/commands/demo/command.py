"""The ``crossent demo`` command: runs the demo, saves its picture, prints its figures."""

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossent.commands.demo.training import STEPS, DemoResult, HardDigit, run_demo
from crossent.commands.terminal import check_picture_path, print_json, progress
from crossent.digits import CREDIT, FOLDS

SHADES, ASCII_SHADES = " ░▒▓█", " .:*#"
IMAGES_IN_A_ROW = 4  # of 16 columns and a gap: fits 80


def demo_command(out: Path, *, as_json: bool) -> None:
    """Run the demo, save its picture to ``out``, print the figures as text or JSON."""
    check_picture_path(out, "--out")
    from crossent.commands.demo.figure import (
        save_demo_figure,  # before the work: matplotlib may be missing
    )

    with progress("training on digits", FOLDS * STEPS) as advance:
        result = run_demo(on_step=lambda: advance(1))
    save_demo_figure(result, out)
    if as_json:
        print_json(result.as_dict() | {"picture": str(out)})
    else:
        print(format_result(result, out, shades_for(sys.stdout.encoding)))


def format_result(result: DemoResult, picture: Path, shades: str = SHADES) -> str:
    """The figures, what each means, and the hardest images drawn with ``shades``."""
    images = int(result.confusion.sum())
    wrong = images - int(np.trace(result.confusion))
    folds = ", ".join(f"{accuracy:.1%}" for accuracy in result.accuracy_of_folds)
    return "\n".join(
        (
            f"Softmax regression on {images:,} handwritten digits of 8 x 8 pixels",
            f"{FOLDS} models, {STEPS} steps each, every image judged by the one that never saw it",
            "",
            f"  loss               {result.loss:.3f} nats  (images trained on: "
            f"{result.training_loss:.3f}; guessing: {np.log(len(result.confusion)):.3f})",
            f"  perplexity         {result.perplexity:.3f}  (as unsure as among that many answers)",
            f"  accuracy           {result.accuracy:.1%}  ({wrong} wrong; each model: {folds})",
            f"  calibration error  {result.calibration_error:.1%}"
            "  (how far confidence is from the share that is right)",
            "",
            "The hardest images",
            "",
            draw_digits(result.hardest[: 2 * IMAGES_IN_A_ROW], shades),
            f"Picture: {picture}",
            textwrap.fill(CREDIT, 80),
        )
    )


def draw_digits(digits: Sequence[HardDigit], shades: str) -> str:
    """The images side by side in characters, with what each is and was taken for below."""
    lines = []
    for start in range(0, len(digits), IMAGES_IN_A_ROW):
        row = digits[start : start + IMAGES_IN_A_ROW]
        drawn = [shade_image(digit.image, shades) for digit in row]
        drawn_rows = ["   ".join(parts) for parts in zip(*drawn, strict=True)]
        truth = "   ".join(f"{digit.label}, taken for {digit.predicted}".ljust(16) for digit in row)
        prob = "   ".join(f"p = {digit.probability:.1%}, #{digit.index}".ljust(16) for digit in row)
        lines += [*drawn_rows, truth, prob, ""]
    return "\n".join(f"  {line}".rstrip() for line in lines)


def shade_image(image: NDArray[np.uint8], shades: str) -> list[str]:
    """Eight lines of sixteen characters: two for each pixel, the more ink the darker."""
    levels = (image.astype(int) * (len(shades) - 1) + 8) // 16
    return ["".join(2 * shades[level] for level in row) for row in levels]


def shades_for(encoding: str | None) -> str:
    """Block characters where the output can take them."""
    try:
        SHADES.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII_SHADES
    return SHADES

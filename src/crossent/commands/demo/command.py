"""The ``crossent demo`` command: runs the demo, saves its picture, prints its figures."""

import sys
import textwrap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossent.commands.demo.training import STEPS, DemoResult, run_demo
from crossent.commands.terminal import (
    check_picture_path,
    print_json,
    progress,
    save_picture,
    say,
)
from crossent.digits import CREDIT, FOLDS

SHADES, ASCII_SHADES = " ░▒▓█", " .:*#"
IMAGES_IN_A_ROW = 4  # of 16 columns and a gap: fits 80


def demo_command(out: Path, *, as_json: bool) -> None:
    """Run the demo, save its picture to ``out``, print the figures as text or JSON."""
    check_picture_path(out, "--out")
    from crossent.commands.demo.figure import demo_figure  # now, as matplotlib may be missing

    with progress("training on digits", FOLDS * STEPS) as advance:
        result = run_demo(on_step=lambda: advance(1))
    save_picture(demo_figure(result), out)
    if as_json:
        print_json(result.as_dict() | {"picture": str(out)})
    else:
        say(format_result(result, out, shades_for(sys.stdout.encoding)))


def format_result(result: DemoResult, picture: Path, shades: str = SHADES) -> str:
    """The figures, what each means, and the hardest images drawn with ``shades``."""
    images = int(result.confusion.sum())
    wrong = images - int(np.trace(result.confusion))
    held_out = result.held_out
    folds = ", ".join(f"{accuracy:.1%}" for accuracy in held_out.accuracy_of_folds)
    guessing = np.log(len(result.confusion))
    figures = (
        ("loss", f"{held_out.loss:.3f} nats",
         f"images trained on: {result.training_loss:.3f}; guessing: {guessing:.3f}"),
        ("perplexity", f"{held_out.perplexity:.3f}", "as unsure as among that many answers"),
        ("accuracy", f"{held_out.accuracy:.1%}", f"{wrong} wrong; each model: {folds}"),
        ("calibration error", f"{held_out.calibration_error:.1%}",
         "how far confidence is from the share that is right"),
    )  # fmt: skip
    return "\n".join(
        (
            f"Softmax regression on {images:,} handwritten digits of 8 x 8 pixels",
            f"{FOLDS} models, {STEPS} steps each, every image judged by the one that never saw it",
            "",
            *(f"  {name:<17}  {figure}  ({meaning})" for name, figure, meaning in figures),
            "",
            "The hardest images",
            "",
            draw_hardest(result, shades),
            f"Picture: {picture}",
            textwrap.fill(CREDIT, 80),
        )
    )


def draw_hardest(result: DemoResult, shades: str) -> str:
    """Two rows of images in characters, with what each is and was taken for below."""
    lines = []
    for start in (0, IMAGES_IN_A_ROW):
        row = slice(start, start + IMAGES_IN_A_ROW)
        columns = [
            [
                *shade_image(image, shades),
                f"{digit.label}, taken for {digit.predicted}".ljust(16),
                f"p = {digit.probability:.1%}, #{digit.index}".ljust(16),
            ]
            for digit, image in zip(result.hardest[row], result.hardest_images[row], strict=True)
        ]
        lines += [*map("   ".join, zip(*columns, strict=True)), ""]
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

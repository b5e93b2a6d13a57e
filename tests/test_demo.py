"""The demo: its figures are right, honest and the same every run; its picture and its data."""

import hashlib
import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

import crossent
from crossent import digits as digits_module
from crossent.commands.demo.command import (
    ASCII_SHADES,
    SHADES,
    format_result,
    shade_image,
    shades_for,
)
from crossent.commands.demo.figure import demo_figure
from crossent.commands.demo.training import (
    HARDEST,
    STEPS,
    DemoResult,
    run_demo,
    train,
)
from crossent.digits import FOLDS, fold_of_images, load_digits
from crossent.evaluation.tallies import calibration_error


@pytest.fixture(scope="module")
def result() -> DemoResult:
    return run_demo()


def test_held_out_accuracy_is_at_least_96_percent(result: DemoResult) -> None:
    assert result.held_out.accuracy >= 0.96


def test_figures_are_the_same_every_run(result: DemoResult) -> None:
    again = run_demo()
    for field in fields(DemoResult):
        if field.name not in ("seconds", "hardest", "held_out"):
            assert np.array_equal(getattr(result, field.name), getattr(again, field.name)), field
    assert (result.hardest, result.held_out) == (again.hardest, again.held_out)


def test_first_loss_is_that_of_a_guess_among_ten(result: DemoResult) -> None:
    assert result.training_curves[:, 0] == pytest.approx(math.log(10), rel=1e-6)
    assert result.held_out_curves[:, 0] == pytest.approx(math.log(10), rel=1e-6)


def test_training_loss_falls_at_every_step(result: DemoResult) -> None:
    assert (np.diff(result.training_curves, axis=1) < 0).all()


def test_figures_agree_with_one_another(result: DemoResult) -> None:
    assert result.held_out.perplexity == pytest.approx(math.exp(result.held_out.loss))
    assert result.confusion.sum() == 1797
    assert result.held_out.accuracy == pytest.approx(np.trace(result.confusion) / 1797)
    assert result.training_curves.shape == result.held_out_curves.shape == (FOLDS, STEPS)
    assert result.training_loss < result.held_out.loss
    assert 0 <= result.held_out.calibration_error < 0.05


def test_class_images_cancel_over_the_classes(result: DemoResult) -> None:
    """The rows of p - y sum to 0, so what one class learns the others unlearn."""
    for images in (result.first_step_images, result.weight_images):
        assert np.abs(images.sum(axis=0)).max() < 1e-5 * np.abs(images).max()


def test_hardest_images_have_the_largest_losses_and_their_own_truth(result: DemoResult) -> None:
    digits = load_digits()
    losses = [digit.loss for digit in result.hardest]
    assert len(losses) == HARDEST
    assert losses == sorted(losses, reverse=True)
    for digit in result.hardest:
        assert digit.label == digits.labels[digit.index]
        assert digit.probability == pytest.approx(math.exp(-digit.loss), rel=1e-5)
    rows = [digit.index for digit in result.hardest]
    assert np.array_equal(result.hardest_images, digits.images[rows])


def test_folds_deal_every_class_out_evenly() -> None:
    labels = load_digits().labels
    fold = fold_of_images(labels)
    counts = np.array(
        [np.bincount(labels[fold == number], minlength=10) for number in range(FOLDS)]
    )
    assert counts.sum() == labels.size
    assert (np.ptp(counts, axis=0) <= 1).all()


def test_held_out_images_do_not_touch_the_weights() -> None:
    rng = np.random.default_rng(0)
    images = rng.random((30, 5), dtype=np.float32)
    labels = np.arange(30, dtype=np.uint8) % 10
    one = train(images, labels, images[:3], labels[:3], lambda: None)
    other = train(images, labels, images[3:9], labels[:6], lambda: None)
    assert np.array_equal(one.weight, other.weight)
    assert not np.array_equal(one.held_out_curve, other.held_out_curve)


def test_first_step_is_the_gradient_carried_back_to_the_pixels() -> None:
    images = np.eye(4, dtype=np.float32)
    labels = np.array([0, 1, 2, 3], np.uint8)
    probs = crossent.softmax(np.zeros((4, 10), np.float32))
    wanted = images.T @ (np.eye(10, dtype=np.float32)[labels] - probs) / 4
    assert train(images, labels, images, labels, lambda: None).first_step == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("confidence", "correct", "wanted"),
    [
        ([1.0, 1.0], [True, True], 0.0),
        ([1.0, 1.0], [False, False], 1.0),
        ([0.75] * 4, [True, True, True, False], 0.0),
        ([0.9, 0.3], [False, True], 0.8),
    ],
)
def test_calibration_error_by_hand(
    confidence: list[float], correct: list[bool], wanted: float
) -> None:
    assert calibration_error(confidence, correct) == pytest.approx(wanted)


def test_calibration_error_of_no_rows_is_nan() -> None:
    assert math.isnan(calibration_error([], []))


def test_digits_are_the_bytes_that_their_readme_names() -> None:
    digits = load_digits()
    digest = hashlib.sha256(digits.images.tobytes() + digits.labels.tobytes()).hexdigest()
    readme = (Path(digits_module.__file__).parent / "data" / "README.md").read_text("utf-8")
    assert digest in readme
    assert "CC BY 4.0" in readme
    assert "10.24432/C50P49" in readme
    assert np.bincount(digits.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@pytest.mark.parametrize(
    ("name", "begins"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")]
)
def test_picture_is_saved(result: DemoResult, tmp_path: Path, name: str, begins: bytes) -> None:
    demo_figure(result).savefig(tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begins)


def test_report_fits_a_terminal_and_says_what_matters(result: DemoResult) -> None:
    text = format_result(result, Path("digits.png"))
    assert max(map(len, text.splitlines())) <= 80
    for wanted in ("loss", "perplexity", "accuracy", "calibration error", "hardest", "digits.png"):
        assert wanted in text
    assert f"{result.held_out.accuracy:.1%}" in text


def test_report_is_plain_where_the_output_is_ascii(result: DemoResult) -> None:
    assert shades_for("utf-8") == SHADES
    assert shades_for("ascii") == shades_for(None) == ASCII_SHADES
    assert format_result(result, Path("digits.png"), ASCII_SHADES).isascii()


def test_shades_go_from_paper_to_ink() -> None:
    assert shade_image(np.array([[0, 4, 8, 12, 16]], np.uint8), "01234") == ["0011223344"]

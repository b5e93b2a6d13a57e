"""The figures as lines of text for a terminal of 80 columns, and what they amount to."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from itertools import zip_longest

from crossent.evaluation.interval import LEVEL, Interval
from crossent.evaluation.result import Classes, Comparison, EvaluationResult
from crossent.evaluation.tallies import CALIBRATION_BINS

NAME = 18  # columns of a figure's name
LISTED = 5  # classes and pairs that are listed
SURE = 2.0  # standard errors beyond which a difference is called one


def format_result(result: EvaluationResult) -> str:
    """Everything a person wants first; ``--json`` has the rest."""
    parts = [headline(result), "", *(line(*one) for one in figures(result)), ""]
    parts += [f"  {part}" for sentence in verdict(result) for part in textwrap.wrap(sentence, 78)]
    if result.comparison is not None:
        parts += ["", *comparison_lines(result)]
    if result.classes is not None and result.classes.count > 2:
        parts += ["", *class_lines(result.classes)]
    if result.hardest:
        parts += ["", *hardest_lines(result)]
    return "\n".join(parts)


def headline(result: EvaluationResult) -> str:
    """How much was evaluated, and what was left out."""
    text = f"{result.rows:,} row{'s' * (result.rows != 1)}"
    if result.classes is not None:
        text += f", {result.classes.count:,} class{'es' * (result.classes.count != 1)}"
    if result.ignored:
        text += f"; {result.ignored:,} left out as ignored or of weight 0"
    bad = result.bad_labels + result.bad_logits
    if bad:
        text += (
            f"\n{bad:,} bad row{'s' * (bad != 1)} skipped ({result.bad_labels:,} by label, "
            f"{result.bad_logits:,} by nan); the first is row {result.first_bad_row:,}"
        )
    return text


def figures(result: EvaluationResult) -> Iterator[tuple[str, str, str]]:
    """(name, value with its standard error, what it means) of each figure."""
    classes, fit = result.classes, result.temperature
    is_plain = result.loss == result.nll or (math.isnan(result.loss) and math.isnan(result.nll))
    kind = "nats a row" if result.options["reduction"] != "sum" else "nats in all"
    yield "loss", with_error(result.loss, result.loss_standard_error), kind
    if not is_plain:
        nll = with_error(result.nll, result.nll_standard_error)
        yield "-log p", nll, "no weights, smoothing, z-loss"
    if classes is not None:
        by_frequency, uniform = figure(classes.prior_loss), figure(classes.uniform_loss)
        yield "guessing", f"{by_frequency} by class frequency, {uniform} uniform", ""
    yield "perplexity", figure(result.perplexity), "as unsure as among that many"
    yield "bits", figure(result.bits), "a row"
    if result.bits_per_byte is not None:
        yield "bits per byte", figure(result.bits_per_byte), f"of {result.bytes:,}"
    if classes is not None:
        shares = [("accuracy", classes.accuracy, classes.accuracy_interval)]
        if classes.count > 5:
            shares.append(("top 5", classes.top5, classes.top5_interval))
        for name, share, between in shares:
            yield name, f"{share:.2%}", f"{LEVEL:.0%} interval: {interval(between)}"
        brier = with_error(classes.brier, classes.brier_standard_error)
        yield "Brier score", brier, "0 is perfect, 2 the worst"
        note = f"confidence - accuracy, {CALIBRATION_BINS} bins"
        yield "calibration error", f"{classes.calibration_error:.2%}", note
    parts = ", ".join(f"{name} {figure(value)}" for name, value in result.quantiles.items())
    yield "-log p of rows", parts, ""
    if fit is not None:
        note = f"-log p {figure(fit.nll)} ({fit.passes} further passes)"
        yield "best temperature", f"{fit.temperature:.4g}", note


def line(name: str, value: str, note: str) -> str:
    """One figure."""
    text = f"  {name:<{NAME}} {value}"
    return f"{text:<{NAME + 26}} {note}".rstrip() if note else text


def interval(of: Interval, form: str = ".2%") -> str:
    """From where to where a share may lie.

    >>> interval(Interval(0.9956, 1.0))
    '99.56% to 100.00%'
    """
    return f"{of.low:{form}} to {of.high:{form}}"


def with_error(value: float, error: float) -> str:
    """A value and its standard error, with digits to suit the error.

    >>> with_error(0.123456, 0.00123), with_error(2.5, float("nan"))
    ('0.1235 +- 0.0012', '2.500')
    """
    if not 0 < error < math.inf or not math.isfinite(value):
        return figure(value)
    places = 1 - math.floor(math.log10(error))
    if not 0 <= places <= 6:
        return f"{value:.6g} +- {error:.2g}"
    return f"{value:.{places}f} +- {error:.{places}f}"


def comparison_lines(result: EvaluationResult) -> list[str]:
    """The paired difference, and who is right where."""
    comparison = result.comparison
    assert comparison is not None
    lines = [
        "  This model less the other, row by row",
        line("loss", with_error(comparison.difference, comparison.standard_error),
             f"the other's loss: {figure(comparison.other_loss)}"),
    ]  # fmt: skip
    if result.classes is not None:
        lines.append(
            f"  right: both {comparison.both_right:,}, only this {comparison.only_this_right:,}, "
            f"only the other {comparison.only_other_right:,}, neither {comparison.both_wrong:,}"
        )
    if comparison.only_this_right + comparison.only_other_right:
        lines.append(
            f"  of those only one has right, this has {comparison.only_this_share:.1%} "
            f"({LEVEL:.0%} interval: {interval(comparison.only_this_interval, '.1%')})"
        )
    return lines


def class_lines(classes: Classes) -> list[str]:
    """The classes with the largest loss, and the most frequent mistakes."""
    lines = [f"  {'hardest classes':<34}most frequent mistakes"]
    left = [
        f"{k:>6}: -log p {figure(classes.loss_of_class[k])}, "
        f"{classes.accuracy_of_class[k]:.1%} right"
        for k in classes.hardest(LISTED)
    ]
    about = "" if classes.top_pairs_are_exact else "about "
    right = [
        f"{pair.label} taken for {pair.predicted}: {about}{pair.times:,}"
        for pair in classes.top_pairs[:LISTED]
    ] or ["none"]
    pairs = zip_longest(left, right, fillvalue="")
    return [*lines, *(f"{first:<36}{second}".rstrip() for first, second in pairs)]


def hardest_lines(result: EvaluationResult) -> list[str]:
    """The rows with the largest loss, and what they were taken for where that is known."""
    has_answers = result.classes is not None
    label = f"{'label':>9}   taken for" if has_answers else ""
    lines = [f"  {'hardest rows':>12}{'-log p':>10}{label}"]
    for row in result.hardest:
        answers = ", ".join(
            f"{k} ({prob:.1%})" for k, prob in zip(row.classes[:2], row.probs[:2], strict=True)
        )
        label = f"{row.label:>9,}   {answers}" if has_answers else ""
        lines.append(f"  {row.row:>12,}{figure(row.loss):>10}{label}")
    return lines


def verdict(result: EvaluationResult) -> list[str]:
    """One sentence a finding, the most important first."""
    if not result.rows:
        return ["No row counts, so there is nothing to judge."]
    found = []
    if result.infinite_rows:
        rows = "row" if result.infinite_rows == 1 else "rows"
        found.append(
            f"In {result.infinite_rows:,} {rows} the truth has probability 0: the loss is infinite."
        )
    elif result.classes is not None:
        found.append(against_guessing(result, result.classes))
    if result.classes is not None and result.classes.count > 1:
        found.append(of_confidence(result.classes))
    if result.comparison is not None:
        found.append(of_comparison(result.comparison, *compared_names(result.files)))
    if result.temperature is not None:
        fit = result.temperature
        if fit.at_limit:
            found.append(
                "No temperature minimises the loss: it goes on falling to the end of those tried."
            )
        else:
            found.append(
                f"Dividing the logits by {fit.temperature:.4g} would bring the loss from "
                f"{figure(result.nll)} to {figure(fit.nll)} on these rows."
            )
    return found


def against_guessing(result: EvaluationResult, classes: Classes) -> str:
    """The loss beside that of knowing the classes' frequencies and nothing else."""
    gain = classes.prior_loss - result.nll
    if not math.isfinite(gain) or classes.prior_loss == 0:
        return "The targets hold a single class, so there is nothing to guess."
    if gain < -SURE * result.nll_standard_error:
        return (
            f"Worse than guessing by the classes' frequencies, which would cost "
            f"{figure(classes.prior_loss)} nats a row."
        )
    if gain < SURE * result.nll_standard_error:
        return "No better than guessing by the classes' frequencies, as far as these rows can tell."
    return (
        f"Of the {figure(classes.prior_loss)} nats that guessing by the classes' frequencies "
        f"costs, the model saves {gain / classes.prior_loss:.1%}."
    )


def of_confidence(classes: Classes) -> str:
    """Whether the model is as often right as it says."""
    gap, (low, high) = classes.confidence - classes.accuracy, classes.accuracy_interval
    said = f"{classes.confidence:.1%} sure on average and right {classes.accuracy:.1%} of the time"
    if not (classes.confidence < low or classes.confidence > high):
        return f"It is about as sure as it should be: {said}."
    return f"It is {'surer' if gap > 0 else 'less sure'} than it should be: {said}."


def compared_names(files: dict[str, list[str]]) -> tuple[str, str]:
    """What the two models of a comparison are called: by their files, where these have names."""
    names = []
    for role, keys in (("this one", ("logits", "logprobs")), ("the other", ("compare",))):
        given = next((files[key] for key in keys if key in files), [])
        more = f" and {len(given) - 1} more" if len(given) > 1 else ""
        names.append(f"{role} ({given[0]}{more})" if given else role)
    return names[0], names[1]


def of_comparison(comparison: Comparison, this: str, other: str) -> str:
    """Which of two models is better, if these rows can tell."""
    difference, error = comparison.difference, comparison.standard_error
    if not abs(difference) > SURE * error:
        return (
            f"These rows cannot tell the two models apart: {this} differs from {other} by "
            f"{difference:+.4g} +- {error:.2g} nats."
        )
    better, worse = (this, other) if difference < 0 else (other, this)
    return (
        f"Of the two models {better} is better than {worse}, by {abs(difference):.4g} +- "
        f"{error:.2g} nats a row."
    )


def figure(value: float) -> str:
    """A loss with the digits that matter: small ones keep theirs.

    >>> figure(2.30258), figure(0.0001234), figure(float("inf"))
    ('2.303', '0.000123', 'inf')
    """
    if value == 0 or 0.1 <= abs(value) < 1000:
        return f"{value:.3f}"
    return f"{value:.3g}" if abs(value) < 0.1 else f"{value:.5g}"

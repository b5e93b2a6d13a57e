"""What the figures amount to, in sentences."""

from __future__ import annotations

import math

from crossent.evaluation.result import Classes, Comparison, EvaluationResult

SURE = 2.0  # standard errors beyond which a difference is called one


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
        found.append(of_comparison(result.comparison))
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
    gap = classes.confidence - classes.accuracy
    said = f"{classes.confidence:.1%} sure on average and right {classes.accuracy:.1%} of the time"
    if not abs(gap) > SURE * classes.accuracy_standard_error:
        return f"It is about as sure as it should be: {said}."
    return f"It is {'surer' if gap > 0 else 'less sure'} than it should be: {said}."


def of_comparison(comparison: Comparison) -> str:
    """Which of two models is better, if these rows can tell."""
    difference, error = comparison.difference, comparison.standard_error
    if not abs(difference) > SURE * error:
        return (
            f"These rows cannot tell the two models apart: they differ by "
            f"{difference:+.4g} +- {error:.2g} nats."
        )
    which = "this" if difference < 0 else "the other"
    return (
        f"Of the two models {which} one is better, by {abs(difference):.4g} +- {error:.2g} nats "
        "a row."
    )


def figure(value: float) -> str:
    """A loss with the digits that matter: small ones keep theirs.

    >>> figure(2.30258), figure(0.0001234), figure(float("inf"))
    ('2.303', '0.000123', 'inf')
    """
    if value == 0 or 0.1 <= abs(value) < 1000:
        return f"{value:.3f}"
    return f"{value:.3g}" if abs(value) < 0.1 else f"{value:.5g}"

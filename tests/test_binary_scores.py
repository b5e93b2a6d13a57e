"""Scores of a binary classifier, one a row, are never taken in silence for one row of N classes."""

from pathlib import Path

import numpy as np
import pytest

import crossent
from crossent.commands import cli

N = 2000
SCORES = np.random.default_rng(0).standard_normal(N)
LABELS = (SCORES + np.random.default_rng(1).standard_normal(N) > 0).astype(np.int64)
STACKED = np.stack([np.zeros(N), SCORES], axis=1)
STACK = rf"For {N} binary scores z stack \[0, z\], so that logits have shape \({N}, 2\)"
FUNCTIONS = {
    "cross_entropy": crossent.cross_entropy,
    "cross_entropy_and_grad": crossent.cross_entropy_and_grad,
    "cross_entropy_hvp": lambda z, y: crossent.cross_entropy_hvp(z, y, z),
    "token_scores": crossent.token_scores,
    "grad_wrt_probabilities": crossent.grad_wrt_probabilities,
    "CrossEntropyLoss": lambda z, y: crossent.CrossEntropyLoss()(z, y),
    "linear_cross_entropy": lambda z, y: crossent.linear_cross_entropy(z[:3], np.ones((N, 3)), y),
    "linear_cross_entropy_and_grad": lambda z, y: crossent.linear_cross_entropy_and_grad(
        z[:3], np.ones((N, 3)), y
    ),
    "linear_token_scores": lambda z, y: crossent.linear_token_scores(z[:3], np.ones((N, 3)), y),
    "evaluate": crossent.evaluate,
}


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_scores_and_labels_of_one_shape_are_refused(name: str, dtype: str) -> None:
    with pytest.raises(ValueError, match=STACK):
        FUNCTIONS[name](SCORES, LABELS.astype(dtype))


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("labels", [LABELS, 2 * LABELS - 1, 0 * LABELS])
def test_evaluation_refuses_floating_labels_of_the_scores_shape(labels, dtype: str) -> None:
    with pytest.raises(ValueError, match=STACK):
        crossent.evaluate(SCORES, labels.astype(dtype))


@pytest.mark.parametrize("dtype", ["int64", "bool", "float32"])
def test_the_command_refuses_them_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], dtype: str
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("z.npz", logits=SCORES, targets=LABELS.astype(dtype))
    assert cli.main(["eval", "z.npz"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("crossent: z.npz:targets: targets have shape (2000,)")
    assert "stack [0, z]" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("targets", [[0, 0, 1], [0.2, 0.3, 0.5], 2])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_single_row_is_still_evaluated(targets, dtype: str) -> None:
    logits, targets = np.array([0.5, 0.0, 1.0]), np.array(targets)
    if targets.dtype.kind == "f":
        targets = targets.astype(dtype)
    for _ in range(20):  # once it was memory that nobody wrote that was read
        result = crossent.evaluate(logits, targets)
        assert result.rows == 1
        assert result.loss == pytest.approx(crossent.cross_entropy(logits, targets))


def test_shards_of_scores_are_not_joined_as_rows(tmp_path: Path) -> None:
    for name, array in {"z": SCORES, "y": LABELS, "soft": np.full(N, 1 / N)}.items():
        for part, some in enumerate(np.split(array, 2)):
            np.save(tmp_path / f"{name}-{part}.npy", some)
    with pytest.raises(ValueError, match=STACK):
        crossent.evaluate(tmp_path / "z-*.npy", tmp_path / "y-*.npy")
    with pytest.raises(ValueError, match="axis=0 is the classes'"):
        crossent.evaluate(tmp_path / "z-*.npy", tmp_path / "soft-*.npy")


def test_the_accumulator_says_how_to_stack_scores() -> None:
    with pytest.raises(ValueError, match=r"not \(N, 2\). For N binary scores z stack \[0, z\]"):
        crossent.EvaluationAccumulator(2).update(SCORES, LABELS)


@pytest.mark.parametrize("name", ["cross_entropy", "token_scores", "evaluate"])
def test_a_label_1_of_a_single_class_is_refused_with_what_to_do(name: str) -> None:
    said = r"the only class is 0.*\. For N binary scores z stack \[0, z\]"
    with pytest.raises((IndexError, ValueError), match=said):
        FUNCTIONS[name](SCORES[:, None], LABELS)


@pytest.mark.parametrize("targets", [LABELS[:, None], LABELS[:, None].astype(float), 0 * LABELS])
def test_an_evaluation_of_a_single_class_warns_of_what_it_may_be(targets) -> None:
    """One class is legal, and its loss 0: an evaluation of it is most likely meant otherwise."""
    result = crossent.evaluate(SCORES[:, None], targets)
    assert result.loss == 0
    (warning,) = result.warnings
    assert "its probability is 1 whatever its logit. For N binary scores z stack [0, z]" in warning


def test_stacked_scores_give_the_binary_loss() -> None:
    probability = 1 / (1 + np.exp(-SCORES))
    wanted = -np.log(np.where(LABELS == 1, probability, 1 - probability))
    losses = crossent.cross_entropy(STACKED, LABELS, reduction="none")
    assert losses == pytest.approx(wanted, rel=1e-12)
    result = crossent.evaluate(STACKED, LABELS)
    assert result.loss == pytest.approx(wanted.mean(), rel=1e-12)
    assert result.classes.accuracy == ((SCORES > 0) == LABELS).mean()


@pytest.mark.parametrize(
    "targets", [["cat", "dog", "cat"], np.array(["cat", "dog", "cat"], object), [b"x", b"y", b"x"]]
)
def test_the_fix_for_labels_that_are_names_works(targets) -> None:
    logits = np.array([[2.0, 1.0], [0.5, 0.0], [1.0, 3.0]])
    with pytest.raises(TypeError) as caught:
        crossent.cross_entropy(logits, targets)
    fix = "np.unique(targets, return_inverse=True)[1]"
    assert fix in str(caught.value)
    numbered = eval(fix, {"np": np, "targets": targets})
    assert numbered.tolist() == [0, 1, 0]
    assert crossent.cross_entropy(logits, numbered) == crossent.cross_entropy(logits, [0, 1, 0])

"""The walk as a NumPy program: for a homework, and to see each line do what the page says."""

from __future__ import annotations

from crossent.commands.explain.state import FullRow
from crossent.commands.explain.steps import Walk, asset


def program(walk: Walk) -> str:
    """A program that needs NumPy alone, checks itself and prints what the page shows."""
    view, state = walk.view, walk.state
    rows = [FullRow.of(view, state, r) for r in range(len(view.rows))]
    steps = walk.steps(
        "program",
        logits=table([row.folded_logits.tolist() for row in rows]),
        targets=table([row.fold(row.y).tolist() for row in rows]),
        chosen=state.chosen,
    )
    head: list[str] = [asset("course_class.jinja")]
    if view.hidden:
        indices = ", ".join(str(row.index) for row in view.rows)
        head.append(f"# Of {view.N} rows these {len(view.rows)}: {indices}. Means are over them.")
    if view.row.rest:
        head.append(
            f"# Of {view.C} classes {len(view.row.classes)} a row; the last column stands for the\n"
            "# others: its logit is the logarithm of the sum of their exponentials."
        )
    return "\n\n".join((*head, "\n".join(step.told for step in steps)))


def table(rows: list[list[float]]) -> str:
    """Nested lists, a row a line."""
    lines = ",\n    ".join("[" + ", ".join(f"{x!r}" for x in row) + "]" for row in rows)
    return f"[\n    {lines},\n]"

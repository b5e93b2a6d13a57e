"""The walk as a NumPy program: for a homework, and to see each line do what the page says."""

from crossent.commands.explain.inputs import Floats
from crossent.commands.explain.steps import Walk, asset


def program(walk: Walk) -> str:
    """A program that needs NumPy alone, checks itself and prints what the page shows."""
    view, values = walk.view, walk.values
    N, C = view.problem.N, view.problem.C
    steps = walk.steps(
        "numpy", logits=table(values["A"]), targets=table(values["Y"]), chosen=values["chosen"]
    )
    head: list[str] = [asset("course_class.jinja")]
    if view.hidden.count:
        indices = ", ".join(str(row.index) for row in view.rows)
        head.append(f"# Of {N} rows these {len(view.rows)}: {indices}. Means are over them.")
    if view.row.rest:
        head.append(
            f"# Of {C} classes {len(view.row.classes)} a row; the last column stands for the\n"
            "# others: its logit is the logarithm of the sum of their exponentials."
        )
    return "\n\n".join((*head, "\n".join(step.told for step in steps)))


def table(rows: list[Floats]) -> str:
    """Nested lists, a row a line."""
    lines = ",\n    ".join(f"{row.tolist()}" for row in rows)
    return f"[\n    {lines},\n]"

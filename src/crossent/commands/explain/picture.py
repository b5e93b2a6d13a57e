"""The picture of the whole pass as a file of its own; assets/picture.jinja draws it.

``docs/pass.svg`` is the one for the worked example, written by

    python -m crossent.commands.explain.picture docs/pass.svg
"""

import re
import sys
from pathlib import Path

from crossent.commands.explain.inputs import read_problem
from crossent.commands.explain.page import page_vocabulary
from crossent.commands.explain.steps import Walk, macros
from crossent.commands.explain.view import make_view


def example_picture() -> str:
    """The wide picture of the worked example."""
    walk = Walk.of(make_view(read_problem(None, None, None)))
    drawn = macros("picture.jinja", page_vocabulary(walk)).standalone()
    drawn = re.sub(r' data-[\w-]+="[^"]*"', "", drawn)
    return re.sub(r">\s*<", ">\n<", drawn).strip() + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(example_picture(), encoding="utf-8")

"""The picture of the whole pass as a file of its own; assets/picture.jinja draws it.

``docs/pass.svg`` is the one for the worked example, written by

    python -m crossent.commands.explain.picture docs/pass.svg
"""

import re
import sys
from pathlib import Path

from crossent.commands.explain.inputs import read_problem
from crossent.commands.explain.page import page_vocabulary
from crossent.commands.explain.steps import Walk, asset, macros
from crossent.commands.explain.view import make_view
from crossent.commands.terminal import save_text


def example_picture() -> str:
    """The wide picture of the worked example, for any viewer: it need not know CSS's variables."""
    walk = Walk.of(make_view(read_problem(None, None, None)))
    drawn = macros("picture.jinja", page_vocabulary(walk)).standalone()
    drawn = re.sub(r' (?:data-[\w-]+|style)="[^"]*"', "", drawn)
    light = dict(re.findall(r"--(\w+):([^;}]+)", asset("colors.css").partition("@media")[0]))
    drawn = re.sub(
        r"([\w-]+):var\(--(\w+)\)", lambda rule: f"{rule[1]}:{light[rule[2]]};{rule[0]}", drawn
    )
    return re.sub(r">\s*<", ">\n<", drawn).strip() + "\n"


if __name__ == "__main__":
    save_text(example_picture(), Path(sys.argv[1]))

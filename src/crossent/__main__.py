"""``python -m crossent`` is the ``crossent`` command."""

import sys

from crossent.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m lra_tasks`: the same as the command `lra-tasks`."""

from __future__ import annotations

import sys

from lra_tasks.cli import main

if __name__ == "__main__":
    sys.exit(main())

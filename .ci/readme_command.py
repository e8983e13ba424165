"""Print the shell command that follows the comment ``<!-- ci: NAME -->`` in README.md."""

from __future__ import annotations

import re
import sys
from pathlib import Path


def command(text: str, name: str) -> str:
    """The body of the one bash block right after the comment."""
    found = re.findall(rf"<!-- ci: {re.escape(name)} -->\s*```bash\n(.*?)```", text, flags=re.DOTALL)
    if len(found) != 1:
        raise SystemExit(f"README.md has {len(found)} commands named {name!r}, expected one")
    return str(found[0])


if __name__ == "__main__":
    print(command((Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8"), sys.argv[1]))

"""``python -m longconv info [--json]`` prints what this machine offers longconv."""

from __future__ import annotations

import argparse
import json
import sys

from longconv import info


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m longconv", description="Long convolutions for PyTorch.")
    commands = parser.add_subparsers(dest="command", required=True)
    report = commands.add_parser("info", help="versions, libraries, threads, GPUs, and the backends of every op")
    report.add_argument("--json", action="store_true", help="as JSON")
    options = parser.parse_args(arguments)
    try:
        found = info()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(found.as_dict(), indent=2) if options.json else found)
    return 0


if __name__ == "__main__":
    sys.exit(main())

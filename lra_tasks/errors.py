"""The errors of a command that the user can mend: `lra-tasks` prints their text without a traceback."""

from __future__ import annotations


class UsageError(Exception):
    """The command asks for something that does not exist or does not fit; nothing was started (exit code 2)."""


class RunError(Exception):
    """A run could not go on: a full disk, an unwritable folder, a loss that is not finite (exit code 1)."""

"""The one exception of the data layer."""

from __future__ import annotations


class DataError(RuntimeError):
    """A data file is missing, corrupt or cannot be written; the message says which, why and how to mend it."""

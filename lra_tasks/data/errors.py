"""The exceptions of the data layer."""

from __future__ import annotations


class DataError(RuntimeError):
    """A data file is missing, corrupt or cannot be written; the message says which, why and how to mend it."""


class KilledProcessError(DataError):
    """A process that prepared data was killed, by no fault of the data: what was noted stays, to go on from."""


def spoils(kind: type[BaseException]) -> bool:
    """Whether an error of this kind leaves nothing that another preparation could go on from; an interrupt does.

    >>> spoils(OSError), spoils(KeyboardInterrupt), spoils(KilledProcessError)
    (True, False, False)
    """
    return issubclass(kind, Exception) and not issubclass(kind, KilledProcessError)

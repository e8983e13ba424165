"""How the backends of a GPU cut sizes into blocks."""

from __future__ import annotations


def power_of_two(size: int) -> int:
    """The least power of two at or above ``size``.

    >>> [power_of_two(size) for size in (1, 2, 3, 64, 65)]
    [1, 2, 4, 64, 128]
    """
    return 1 << max(size - 1, 0).bit_length()


def blocks(size: int, block: int) -> int:
    """How many blocks cover ``size``."""
    return -(-size // block)

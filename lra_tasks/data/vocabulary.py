"""The tokens of characters and bytes: which there are, and how chunks of documents are counted and encoded.

Tokens are 0 padding, 1 unknown, 2 ``<eos>``, then the symbols: at level "char" the characters that the training
documents have at least ``min_freq`` times, most frequent first, at most 253 of them; at level "byte" the 256 bytes of
the text as UTF-8.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

log = logging.getLogger(__name__)

PAD, UNKNOWN, EOS, FIRST = 0, 1, 2, 3
"""Numbers of the special tokens and of the first symbol."""
N_TOKENS = FIRST + 256
"""Size of the vocabulary at both levels, so that it does not depend on the data."""
CODE_POINTS = 0x110000
"""How many Unicode has."""
_MOST_CHARACTERS = 256 - FIRST

Row = tuple[tuple[str | bytes, ...], int]
"""The documents of a sample, one or two, and its label; those in bytes are for level "byte" alone."""


def code_points(text: str) -> np.ndarray:
    """The characters of a text as numbers.

    >>> code_points("aé").tolist()
    [97, 233]
    """
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def encode_chunk(
    read: Callable[[Any], Iterable[Row]], kept: int, known: Sequence[int] | None, chunk: Any
) -> tuple[list[np.ndarray], list[int]]:
    """Tokens uint8 of every document of a chunk, at most ``kept`` of each, and the labels.

    Args:
        read: gives the samples of a chunk.
        kept: where documents are cut.
        known: the code points of the vocabulary, in order; None for the bare bytes of UTF-8.
        chunk: what is read.

    >>> encode_chunk(list, 3, [98, 97], [(("abba", "c"), 7)])
    ([array([4, 3, 3], dtype=uint8), array([1], dtype=uint8)], [7])
    >>> encode_chunk(list, 2, None, [(("aé",), 7)])
    ([array([ 97, 195], dtype=uint8)], [7])
    """
    numbers: np.ndarray | None = None
    if known is not None:
        numbers = np.full(CODE_POINTS, UNKNOWN, np.uint8)
        numbers[known] = np.arange(FIRST, FIRST + len(known))
    rows = list(read(chunk))
    encoded = [_encode(text, kept, numbers) for documents, _ in rows for text in documents]
    return encoded, [label for _, label in rows]


def _encode(text: str | bytes, kept: int, numbers: np.ndarray | None) -> np.ndarray:
    if numbers is not None:
        assert isinstance(text, str)
        return numbers[code_points(text[:kept])]
    content = text if isinstance(text, bytes) else text[:kept].encode("utf-8", "surrogatepass")
    return np.frombuffer(content[:kept], np.uint8)


def count_chunk(read: Callable[[Any], Iterable[Row]], kept: int, chunk: Any) -> tuple[np.ndarray, np.ndarray]:
    """The code points of the first ``kept`` characters of every document of a chunk, and how often it has each.

    >>> count_chunk(list, 3, [(("abba", "b"), 0)])
    (array([97, 98]), array([1, 3]))
    """
    texts = [text[:kept] for documents, _ in read(chunk) for text in documents if isinstance(text, str)]
    counts = np.bincount(code_points("".join(texts)))
    points = np.flatnonzero(counts)
    return points, counts[points]


def choose_characters(counts: np.ndarray, min_freq: int) -> np.ndarray:
    """The code points of the vocabulary: those at least as frequent, most frequent first, ties by number.

    >>> choose_characters(np.array([0, 2, 3, 2, 1]), 2).tolist()
    [2, 1, 3]
    """
    candidates = np.flatnonzero(counts >= min_freq)
    ordered = candidates[np.argsort(-counts[candidates], kind="stable")]
    if len(ordered) > _MOST_CHARACTERS:
        n_unknown = len(ordered) - _MOST_CHARACTERS
        log.warning("%d characters are frequent; the rarest %d become unknown", len(ordered), n_unknown)
    return ordered[:_MOST_CHARACTERS]

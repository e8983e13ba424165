"""Sequences of several lengths on disk: three arrays for every split.

``tokens`` holds the sequences one after the other, number i from offsets[i] to offsets[i + 1], and ``labels`` those of
the rows, each of which may have more than one sequence.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

KINDS = {"tokens": np.uint8, "offsets": np.int64, "labels": np.uint8}
"""The arrays of a split, and of which type each is."""


def arrays(splits: Iterable[str]) -> dict[str, tuple[tuple[int, ...], Any]]:
    """The arrays of all splits as a :class:`~lra_tasks.data.journal.Journal` wants them described."""
    return {f"{split}_{kind}": ((), dtype) for split in splits for kind, dtype in KINDS.items()}


def pack(split: str, sequences: Sequence[np.ndarray], labels: Sequence[int], start: int = 0) -> dict[str, np.ndarray]:
    """The arrays of a split's rows, of which the first stands at the position ``start`` of all tokens.

    >>> pack("val", [np.array([7, 8]), np.array([9])], [1, 0])["val_offsets"]
    array([0, 2, 3])
    >>> pack("val", [np.array([7, 8]), np.array([9])], [1, 0], 5)["val_offsets"]
    array([7, 8])
    """
    offsets = np.cumsum([start, *map(len, sequences)], dtype=np.int64)
    return {
        f"{split}_tokens": np.concatenate(sequences),
        f"{split}_offsets": offsets[1:] if start else offsets,
        f"{split}_labels": np.array(labels, np.uint8),
    }

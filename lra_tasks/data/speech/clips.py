"""Clips of sound as a data set, and the mean and deviation by which they are standardised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lra_tasks.data.base import Sample
from lra_tasks.data.cache import MappedArray
from lra_tasks.data.parallel import cut

A = TypeVar("A")

SPLITS = ("train", "val", "test")
FULL_SCALE = 32768.0
_AT_ONCE = 256
"""Clips whose mean and deviation are taken together."""
_LEAST_DEVIATION = 1e-5
"""Added to deviations, for time steps at which every training clip is silent."""


class Clips(Dataset[Sample]):
    """Clips of a split, memory-mapped: int16 (n, L) samples or float32 (n, T, 20) coefficients.

    Args:
        path: the ``.npy`` file.
        labels: class of every clip.
        mean: what is taken off, (L, 1) or (1, 20).
        deviation: what the rest is divided by, of the same shape.
        every: one in so many samples is taken.
    """

    def __init__(self, path: Path, labels: np.ndarray, mean: Tensor, deviation: Tensor, every: int = 1) -> None:
        self.clips, self.labels, self.every = MappedArray(path), labels, every
        self.mean, self.deviation = mean, deviation + _LEAST_DEVIATION

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        clip = self.clips[index, :: self.every]
        values = torch.from_numpy(clip.astype(np.float32))
        if clip.ndim == 1:
            values = (values / FULL_SCALE)[:, None]
        return {"inputs": (values - self.mean) / self.deviation, "label": int(self.labels[index])}


def open_clips(folder: Path, mean: Tensor, deviation: Tensor, every: int = 1) -> Mapping[str, Dataset[Sample]]:
    """The three splits of a folder with {split}_clips.npy and {split}_labels.npy."""
    return {
        split: Clips(
            folder / f"{split}_clips.npy",
            np.load(folder / f"{split}_labels.npy"),
            mean.float(),
            deviation.float(),
            every,
        )
        for split in SPLITS
    }


def cut_splits(splits: Mapping[str, Sequence[A]], size: int) -> list[Sequence[tuple[str, A]]]:
    """The clips of all splits, each after the name of its split, in chunks of one split each.

    >>> cut_splits({"train": "abc", "val": "d"}, 2)
    [[('train', 'a'), ('train', 'b')], [('train', 'c')], [('val', 'd')]]
    """
    return [chunk for split, clips in splits.items() for chunk in cut([(split, clip) for clip in clips], size)]


def measure(path: Path, over_time: bool) -> np.ndarray:
    """Mean and deviation of a file of clips: (2, L, channels) of every time step, or (2, 1, channels) over all of them.

    Those of samples are fractions of full scale.
    """
    clips = np.load(path, mmap_mode="r")
    samples = clips.ndim == 2
    n, total, square = len(clips), np.zeros(()), np.zeros(())
    for start in range(0, n, _AT_ONCE):
        part = clips[start : start + _AT_ONCE]
        # Channel by channel, so that sums along time are numpy's pairwise ones.
        values = np.array(part[:, None] if samples else part.swapaxes(1, 2), np.float64, order="C")
        total, square = total + values.sum(axis=0), square + np.square(values).sum(axis=0)
    if over_time:
        n, total, square = n * len(clips[0]), total.sum(axis=1)[:, None], square.sum(axis=1)[:, None]
    mean = total / n
    deviation = np.sqrt(np.maximum(square / n - np.square(mean), 0.0))
    return np.stack([mean.T, deviation.T]) / (FULL_SCALE if samples else 1.0)

"""Clips of sound as a data set, and the mean and deviation by which they are standardised."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lra_tasks.data.base import Sample
from lra_tasks.data.cache import MappedArray

SPLITS = ("train", "val", "test")
FULL_SCALE = 32768.0
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


class Moments:
    """Mean and deviation over clips, gathered a few clips at a time."""

    def __init__(self) -> None:
        self.n = 0
        self.total: Any = 0.0
        self.square: Any = 0.0

    def add(self, values: np.ndarray) -> None:
        """Clips (n, L, channels)."""
        wide = values.astype(np.float64)
        self.n += len(wide)
        self.total = self.total + wide.sum(axis=0)
        self.square = self.square + np.square(wide).sum(axis=0)

    def finish(self, over_time: bool) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation (L, channels) of every time step, or (1, channels) over all of them."""
        n, total, square = self.n, self.total, self.square
        if over_time:
            n, total, square = n * len(total), total.sum(axis=0)[None], square.sum(axis=0)[None]
        mean = total / n
        return mean, np.sqrt(np.maximum(square / n - np.square(mean), 0.0))

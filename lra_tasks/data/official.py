"""Tasks whose data is only read, in the layout in which it is published."""

from __future__ import annotations

import logging
import tarfile
import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lra_tasks.data.base import Task, marks, official_folder
from lra_tasks.data.errors import DataError

log = logging.getLogger(__name__)

SPLIT_SEED = 42


class OfficialTask(Task):
    """A task that reads published files; a subclass says which (``files``) and what of its options shapes the cache.

    Args:
        data_dir: where prepared data is kept; None for $LONGCONV_DATA or ~/.cache/longconv.
        batch_size: samples a batch.
        num_workers: processes that load batches; 0 loads them in the training process.
        seed: of the training order; not of the data.
        official_dir: folder of the published files; None looks in data_dir.
    """

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

    @property
    def read_from(self) -> Path:
        """The folder in which the published files are looked for."""
        return self.data_dir.absolute() if self.official_dir is None else self.official_dir

    @abstractmethod
    def files(self) -> Sequence[Path]:
        """The files that stand for the whole of the data.

        Raises:
            DataError: they are not there; says what is expected and where to get it.
        """

    def shaping(self) -> dict[str, Any]:
        """The options that change the prepared files, as JSON values."""
        return {}

    def parameters(self) -> dict[str, Any]:
        """The folder of the published files, and the options that change what is made of them."""
        official = None if self.official_dir is None else str(self.official_dir)
        return {"version": 1, "official": official, **self.shaping()}

    def source(self) -> Any:
        """Names, sizes and times of the published files."""
        with suppress(DataError):
            return marks(self.files())


def first_folder(folder: Path, layouts: Iterable[str], name: str) -> Path | None:
    """The first of the folders ``layouts`` below ``folder`` that has an entry ``name``."""
    return next((found for layout in layouts if ((found := folder / layout) / name).exists()), None)


def compare_size(where: object, n: int, published: int) -> None:
    """Tell where what is read has another number of samples than what is published: it may be unpacked in part."""
    if n != published:
        log.warning("%s has %d samples, the official release %d", where, n, published)


def held_out(n: int, n_val: int) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the samples to train and to validate on: a permutation seeded with 42, the last of it held out."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(SPLIT_SEED)).numpy()
    return order[: n - n_val], order[n - n_val :]


def stratified(labels: np.ndarray, part: int = 7, of: int = 10) -> dict[str, np.ndarray]:
    """Numbers of the samples of every split: ``part`` of ``of`` rounded down, half of the rest, and what is left.

    All three are spread evenly over the classes.

    >>> labels = np.repeat(np.arange(3), 20)
    >>> [np.bincount(labels[chosen]).tolist() for chosen in stratified(labels).values()]
    [[14, 14, 14], [3, 3, 3], [3, 3, 3]]
    """
    generator = np.random.default_rng(SPLIT_SEED)
    shuffled = generator.permutation(len(labels))
    grouped = shuffled[np.argsort(labels[shuffled], kind="stable")]
    rest, train = _every(grouped, part, of)
    test, val = _every(rest, 1, 2)
    return {
        "train": generator.permutation(train),
        "val": generator.permutation(val),
        "test": generator.permutation(test),
    }


def _every(items: np.ndarray, part: int, of: int) -> tuple[np.ndarray, np.ndarray]:
    """Evenly spread over ``items``, ``part`` of ``of`` taken out: what is left, and what was taken."""
    steps = np.arange(len(items) + 1) * part // of
    taken = np.diff(steps) > 0
    return items[~taken], items[taken]


def read_archive(path: Path, wanted: Callable[[list[str]], bool]) -> list[tuple[list[str], bytes]]:
    """Names, as folders and a file, and contents of the wanted files of an archive, by name.

    Raises:
        DataError: the archive is corrupt or cut off.
    """
    found: list[tuple[list[str], bytes]] = []
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                folders = member.name.removeprefix("./").split("/")
                if member.isfile() and wanted(folders) and (file := archive.extractfile(member)) is not None:
                    found.append((folders, file.read()))
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path} is corrupt or cut off ({error}): download it again") from error
    return sorted(found)

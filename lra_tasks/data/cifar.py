"""CIFAR-10 as sequences of pixels: gray (``image``, of the Long Range Arena) and in colours (``scifar``).

========= =============================================================================================================
source    CIFAR-10 (60,000 pictures of 32 x 32), in ``official_dir`` or data_dir: its python or its binary version, as a
          folder (``cifar-10-batches-py``, ``cifar-10-batches-bin``) or as the archive (``cifar-10-python.tar.gz``,
          ``cifar-10-binary.tar.gz``), from https://www.cs.toronto.edu/~kriz/cifar.html
length    1024: the 32 x 32 pixels row by row
input     image: 1 channel, gray p = .299 R + .587 G + .114 B rounded to a byte, then (p - 122.6) / 61;
          scifar: 3 channels, each less its mean (.4914, .4822, .4465), over its deviation (.247, .243, .261)
classes   10, chance 10 %; metric: accuracy
sizes     45,000 / 5,000 / 10,000: the test batch is the test set, a tenth of the others is held out with seed 42
protocol  S4's (arXiv:2111.00396); the Long Range Arena's own code reads the gray bytes as tokens
========= =============================================================================================================

References:
    Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    Tay et al., Long Range Arena: A Benchmark for Efficient Transformers, arXiv:2011.04006.
"""

from __future__ import annotations

import codecs
import io
import logging
import pickle
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch.utils.data import Dataset

from lra_tasks.data.base import Sample, TaskInfo
from lra_tasks.data.cache import ArrayWriter, save_array
from lra_tasks.data.errors import DataError
from lra_tasks.data.official import OfficialTask
from lra_tasks.data.pixels import load_parts

log = logging.getLogger(__name__)

_LAYOUTS = {
    "cifar-10-python.tar.gz": ("cifar-10-batches-py", ""),
    "cifar-10-binary.tar.gz": ("cifar-10-batches-bin", ".bin"),
}
"""Folder and ending of the batches in each official archive."""
_BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
_OFFICIAL_ROWS = 10000
_GET = "download cifar-10-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html and unpack it there"
_GRAY = np.array([19595, 38470, 7471], np.uint32)
"""The weights .299, .587 and .114 of the colours in 2^16ths, as Pillow's grayscale has them."""

Batch = tuple[np.ndarray, np.ndarray]
"""Pixels uint8 (n, 1024, 3) and labels uint8 (n,)."""


class ColourCIFAR(OfficialTask):
    """CIFAR-10 pixel by pixel in colours: L = 1024, three channels, 10 classes, 45,000 / 5,000 / 10,000.

    Args:
        data_dir: where prepared data is kept; None for $LONGCONV_DATA or ~/.cache/longconv.
        batch_size: samples a batch.
        num_workers: processes that load batches; 0 loads them in the training process.
        seed: of the training order; not of the data.
        official_dir: folder that holds the batches, their folder or their archive; None looks in data_dir.
    """

    cache_name = "cifar10"
    gray: ClassVar[bool] = False
    mean: ClassVar[tuple[float, ...]] = (0.4914, 0.4822, 0.4465)
    deviation: ClassVar[tuple[float, ...]] = (0.247, 0.243, 0.261)
    info: ClassVar[TaskInfo] = TaskInfo(
        name="scifar",
        title="sequential CIFAR-10 in colours, pixel by pixel",
        source="CIFAR-10, its python or binary version (www.cs.toronto.edu/~kriz/cifar.html)",
        length=1024,
        n_classes=10,
        d_input=3,
        n_tokens=None,
        sizes=(45000, 5000, 10000),
        split="the official test set; of the training set a tenth held out, random with seed 42",
        chance=0.1,
        protocol="S4 (arXiv:2111.00396): pixels row by row, every channel normalised; no augmentation",
    )

    def files(self) -> list[Path]:
        """The archive, or the six batches."""
        return find_batches(self.read_from)

    def shaping(self) -> dict[str, Any]:
        """Whether the pictures are gray."""
        return {"gray": self.gray}

    def build(self, folder: Path) -> None:
        """Write the pictures and labels of the two official parts."""
        with open_batches(self.files()) as read:
            for part, names in _BATCHES.items():
                labels: list[np.ndarray] = []
                channels = 1 if self.gray else 3
                with ArrayWriter(folder / f"{part}_images.npy", (1024, channels), np.uint8) as images:
                    for name in names:
                        pixels, classes = read(name)
                        images.append(to_gray(pixels) if self.gray else pixels)
                        labels.append(classes)
                save_array(folder / f"{part}_labels.npy", np.concatenate(labels))

    def load(self, folder: Path) -> Mapping[str, Dataset[Sample]]:
        """The three splits of the memory-mapped pictures."""
        return load_parts(folder, self.mean, self.deviation)


class GrayCIFAR(ColourCIFAR):
    """CIFAR-10 in gray, the Image task of the Long Range Arena: L = 1024, one channel, 10 classes."""

    gray = True
    mean = (122.6 / 255,)
    deviation = (61 / 255,)
    info: ClassVar[TaskInfo] = replace(
        ColourCIFAR.info,
        name="image",
        title="gray CIFAR-10, pixel by pixel",
        d_input=1,
        protocol="Long Range Arena (arXiv:2011.04006) as S4: gray pixels less 122.6 / 255, over 61 / 255",
    )


def to_gray(pixels: np.ndarray) -> np.ndarray:
    """Colours uint8 (..., 3) to gray uint8 (..., 1), to the bit as Pillow does.

    >>> to_gray(np.array([[255, 255, 255], [255, 0, 0], [10, 200, 30]], np.uint8)).ravel().tolist()
    [255, 76, 124]
    """
    return ((pixels @ _GRAY + 0x8000) >> 16).astype(np.uint8)[..., None]


def find_batches(folder: Path) -> list[Path]:
    """The six batches in ``folder`` or the folder of their version below it, or else the archive.

    Raises:
        DataError: they are not there, or some of them only.
    """
    for below, ending in _LAYOUTS.values():
        for place in (folder, folder / below):
            paths = [place / f"{name}{ending}" for names in _BATCHES.values() for name in names]
            missing = [path for path in paths if not path.is_file()]
            if not missing:
                return paths
            if len(missing) < len(paths):
                raise DataError(f"{missing[0]} is missing beside the other batches: unpack the archive again")
    for archive in _LAYOUTS:
        if (folder / archive).is_file():
            return [folder / archive]
    places = ", ".join(below for below, _ in _LAYOUTS.values())
    raise DataError(
        f"no CIFAR-10 in {folder} (data_batch_1 to data_batch_5 and test_batch, in it or in {places}; or the archive "
        f"{' or '.join(_LAYOUTS)}): {_GET}, or name its folder with --data.official_dir"
    )


@contextmanager
def open_batches(files: list[Path]) -> Iterator[Callable[[str], Batch]]:
    """A function that reads a batch by its name, from what ``find_batches`` found.

    Raises:
        DataError: a file is corrupt or cut off, has other columns or labels out of range.
    """
    if files[0].name not in _LAYOUTS:
        by_name = {path.name.removesuffix(".bin"): path for path in files}
        yield lambda name: parse_batch(by_name[name].read_bytes(), str(by_name[name]), by_name[name].suffix == ".bin")
        return
    below, ending = _LAYOUTS[files[0].name]
    with _open_archive(files[0]) as members:
        yield lambda name: parse_batch(
            members(f"{below}/{name}{ending}"), f"{files[0]}: {name}{ending}", ending == ".bin"
        )


@contextmanager
def _open_archive(path: Path) -> Iterator[Callable[[str], bytes]]:
    """A function that reads a file of an archive, whose faults are a DataError."""
    try:
        with tarfile.open(path) as archive:

            def read(name: str) -> bytes:
                file = archive.extractfile(name)
                if file is None:
                    raise KeyError(f"{name} is a folder")
                return file.read()

            yield read
    except (tarfile.TarError, EOFError, zlib.error, KeyError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"{path} is corrupt or cut off ({error}): download it again") from error


def parse_batch(content: bytes, where: str, binary: bool) -> Batch:
    """Pictures and labels of one batch of either version.

    Args:
        content: of the file.
        where: what an error calls the file.
        binary: a row is a byte of label and 3072 of red, green and blue; else a pickled dictionary holds both.

    Raises:
        DataError: the content is not such a batch.
    """
    planes, labels = _parse_binary(content, where) if binary else _parse_pickle(content, where)
    if planes.ndim != 2 or planes.shape[1] != 3072 or planes.dtype != np.uint8 or labels.shape != planes.shape[:1]:
        raise DataError(
            f"{where} holds data {planes.dtype} {planes.shape} and labels {labels.shape}, expected uint8 (n, 3072) "
            "and (n,)"
        )
    wrong = np.flatnonzero((labels < 0) | (labels > 9))
    if len(wrong):
        raise DataError(f"{where}: label {wrong[0]} is {labels[wrong[0]]}, expected 0..9")
    if len(labels) != _OFFICIAL_ROWS:
        log.warning("%s has %d pictures, the official batch has %d", where, len(labels), _OFFICIAL_ROWS)
    return planes.reshape(-1, 3, 1024).transpose(0, 2, 1), labels.astype(np.uint8)


def _parse_binary(content: bytes, where: str) -> Batch:
    if not content or len(content) % 3073:
        raise DataError(f"{where} has {len(content)} bytes, expected rows of 3073: is the file cut off?")
    rows = np.frombuffer(content, np.uint8).reshape(-1, 3073)
    return rows[:, 1:], rows[:, 0]


def _parse_pickle(content: bytes, where: str) -> Batch:
    try:
        entries = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
        return np.asarray(entries[b"data"]), np.asarray(entries[b"labels"], np.int64)
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to mean
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{where} is no batch of CIFAR-10 ({reason}): unpack the archive again") from error


class _ArraysOnly(pickle.Unpickler):
    """Reads plain values and numpy arrays; a pickle that names anything else is refused, for it could run code."""

    _ALLOWED: ClassVar[dict[tuple[str, str], Any]] = {
        ("_codecs", "encode"): codecs.encode,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        **{
            (f"numpy.{core}.multiarray", "_reconstruct"): np.empty(0, np.uint8).__reduce__()[0]
            for core in ("core", "_core")
        },
    }

    def find_class(self, module: str, name: str) -> Any:
        """One of the few functions that make an array."""
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self._ALLOWED[module, name]

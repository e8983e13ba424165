"""The files of MNIST and Fashion-MNIST: ``{train,t10k}-{images-idx3,labels-idx1}-ubyte``, each as it is or as ``.gz``.

A file is two zero bytes, the type (8: uint8), the number of axes, every axis as 4 bytes with the greatest first, then
the values. Images are (n, 28, 28), labels (n,).
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lra_tasks.data.cache import save_array
from lra_tasks.data.errors import DataError
from lra_tasks.data.official import compare_size

_UINT8 = 8
_STEMS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def find_idx(folders: Sequence[Path], get: str) -> list[Path]:
    """The files of the first folder that has any: images and labels to train on, then those to test on.

    Args:
        folders: where to look.
        get: how to get the data, for the message.

    Raises:
        DataError: no folder has the files, or one has some of them only.
    """
    for folder in folders:
        found = [[path for path in (folder / f"{stem}.gz", folder / stem) if path.is_file()] for stem in _STEMS]
        if all(found):
            return [paths[0] for paths in found]
        if any(found):
            missing = next(stem for stem, paths in zip(_STEMS, found, strict=True) if not paths)
            raise DataError(f"{folder / missing}.gz is missing beside the other files: {get}")
    looked = ", ".join(str(folder) for folder in folders)
    raise DataError(f"no {_STEMS[0]}.gz, {_STEMS[1]}.gz, {_STEMS[2]}.gz and {_STEMS[3]}.gz in {looked}: {get}")


def read_idx(images: Path, labels: Path, n_classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 (n, 28, 28) and labels uint8 (n,).

    Raises:
        DataError: a file is corrupt or cut off, holds other shapes, or labels out of range.
    """
    pictures, classes = _read(images), _read(labels)
    if pictures.shape[1:] != (28, 28) or classes.ndim != 1:
        raise DataError(f"{images} is {pictures.shape} and {labels} {classes.shape}, expected (n, 28, 28) and (n,)")
    if len(pictures) != len(classes) or len(classes) == 0:
        raise DataError(f"{images} has {len(pictures)} pictures, {labels} {len(classes)} labels")
    if classes.max() >= n_classes:
        where = int(classes.argmax())
        raise DataError(f"{labels}: label {where} is {classes[where]}, expected 0..{n_classes - 1}")
    return pictures, classes


def write_parts(files: list[Path], folder: Path) -> None:
    """Write {train,test}_{images,labels}.npy from the four files of ``find_idx``."""
    for part, n, (images, labels) in (("train", 60000, files[:2]), ("test", 10000, files[2:])):
        pictures, classes = read_idx(images, labels)
        compare_size(images, len(pictures), n)
        save_array(folder / f"{part}_images.npy", pictures)
        save_array(folder / f"{part}_labels.npy", classes)


def _read(path: Path) -> np.ndarray:
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is corrupt or cut off ({error}): get it again") from error
    head = content[:4]
    axes = head[3] if len(head) == 4 else 0
    start = 4 + 4 * axes
    if len(content) < start or head[:3] != bytes([0, 0, _UINT8]):
        raise DataError(f"{path} begins with {head.hex(' ') or 'nothing'}, expected 00 00 08 (an idx file of bytes)")
    shape = struct.unpack(f">{axes}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise DataError(f"{path} has {len(content) - start} values, expected {shape}: is the file cut off?")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)

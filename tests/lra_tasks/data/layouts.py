"""Small data sets of random values in the layouts in which the real ones are published."""

from __future__ import annotations

import gzip
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np


def random_bytes(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def random_labels(n: int, n_classes: int = 10, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.arange(n) % n_classes).astype(np.uint8)


def idx(array: np.ndarray) -> bytes:
    """A file of MNIST's form."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def fashion(folder: Path, n_train: int = 80, n_test: int = 20, packed: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, n in (("train", n_train), ("t10k", n_test)):
        for kind, array in (("images-idx3", random_bytes(n, 28, 28)), ("labels-idx1", random_labels(n))):
            content, ending = idx(array), ""
            if packed:
                content, ending = gzip.compress(content, mtime=0), ".gz"
            (folder / f"{part}-{kind}-ubyte{ending}").write_bytes(content)
    return folder


def cifar_batch(number: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    return random_bytes(rows, 3072, seed=number), random_labels(rows, seed=number)


def cifar(folder: Path, rows: int = 16, binary: bool = False, archive: bool = False) -> Path:
    """The six batches (number 0 is the test batch) as the python or the binary version, or its archive."""
    below = folder / ("cifar-10-batches-bin" if binary else "cifar-10-batches-py")
    below.mkdir(parents=True, exist_ok=True)
    for number in range(6):
        data, labels = cifar_batch(number, rows)
        name = f"data_batch_{number}" if number else "test_batch"
        if binary:
            (below / f"{name}.bin").write_bytes(np.concatenate([labels[:, None], data], axis=1).tobytes())
        else:
            entries = {b"batch_label": name.encode(), b"labels": labels.tolist(), b"data": data, b"filenames": []}
            (below / name).write_bytes(pickle.dumps(entries, protocol=2))
    if archive:
        name = f"cifar-10-{'binary' if binary else 'python'}.tar.gz"
        with tarfile.open(folder / name, "w:gz") as packed:
            for path in sorted(below.iterdir()):
                packed.add(path, f"{below.name}/{path.name}")
                path.unlink()
        below.rmdir()
    return folder


LAYOUTS: dict[str, Callable[[Path], Path]] = {"fashion": fashion, "image": cifar, "scifar": cifar}
"""How to write the data of a task that can only be read."""

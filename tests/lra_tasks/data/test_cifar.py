"""CIFAR-10, in colours and gray, from every form in which it is published."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lra_tasks.data import DataError, create_task
from lra_tasks.data.cifar import to_gray
from tests.lra_tasks.data.layouts import cifar, cifar_batch, random_bytes

MEAN, DEVIATION = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.247, 0.243, 0.261])


def picture(number: int, row: int) -> tuple[np.ndarray, int]:
    """A picture as (32, 32, 3) and its label, by the definition of the file."""
    data, labels = cifar_batch(number, 16)
    return data[row].reshape(3, 32, 32).transpose(1, 2, 0), int(labels[row])


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize("binary", [False, True])
def test_reads_every_published_form(tmp_path: Path, binary: bool, archive: bool) -> None:
    cifar(tmp_path / "source", binary=binary, archive=archive)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(42)).tolist()
    for name in ("scifar", "image"):
        task = create_task(name, data_dir=tmp_path / "data", official_dir=tmp_path / "source")
        task.prepare_data()
        assert task.sizes == (72, 8, 16)
        for split, start, n in (("train", 0, 72), ("val", 72, 8)):
            for index in range(n):
                _check(task.dataset(split)[index], *picture(1 + order[start + index] // 16, order[start + index] % 16))
        for index in range(16):
            _check(task.dataset("test")[index], *picture(0, index))


def _check(sample: object, colours: np.ndarray, label: int) -> None:
    assert isinstance(sample, dict) and sample["label"] == label
    inputs = sample["inputs"]
    if inputs.shape[1] == 3:
        expected = (torch.from_numpy(colours).reshape(1024, 3) / 255 - MEAN) / DEVIATION
    else:
        gray = np.array(Image.fromarray(colours).convert("L"), np.float32).reshape(1024, 1)
        expected = (torch.from_numpy(gray) - 122.6) / 61
    torch.testing.assert_close(inputs, expected, rtol=1e-5, atol=1e-5)


def test_gray_is_pillows_to_the_bit() -> None:
    colours = random_bytes(200, 200, 3)
    assert np.array_equal(to_gray(colours)[..., 0], np.asarray(Image.fromarray(colours).convert("L")))


def test_looks_in_data_dir_by_default(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no CIFAR-10 in .*cifar-10-batches-py.*cifar-10-python.tar.gz.*kriz/cifar"):
        create_task("image", data_dir=tmp_path).prepare_data()
    cifar(tmp_path)
    task = create_task("image", data_dir=tmp_path)
    task.prepare_data()
    assert task.sizes == (72, 8, 16)
    direct = create_task("image", data_dir=tmp_path, official_dir=tmp_path / "cifar-10-batches-py")
    direct.prepare_data()
    assert torch.equal(direct.dataset("val")[3]["inputs"], task.dataset("val")[3]["inputs"])


def test_other_sizes_than_the_official_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    create_task("image", data_dir=cifar(tmp_path)).prepare_data()
    assert "test_batch has 16 pictures, the official batch has 10000" in caplog.text


def dumped(**changes: object) -> bytes:
    data, labels = cifar_batch(3, 16)
    return pickle.dumps({b"data": data, b"labels": labels.tolist()} | {k.encode(): v for k, v in changes.items()}, 2)


class Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("a pickle ran code",)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "is missing beside the other batches"),
        (dumped()[:-9], "no batch of CIFAR-10"),
        (pickle.dumps([1, 2]), "no batch of CIFAR-10"),
        (pickle.dumps({b"data": Harmful(), b"labels": []}), "asks for builtins.print"),
        (dumped(labels=[1] * 15 + [10]), r"label 15 is 10, expected 0\.\.9"),
        (dumped(labels=[1] * 15 + [-1]), r"label 15 is -1, expected 0\.\.9"),
        (dumped(labels=[1] * 15), r"labels \(15,\)"),
        (dumped(data=random_bytes(16, 3071)), r"\(16, 3071\)"),
        (dumped(data=np.zeros((16, 3072))), "float64"),
    ],
)
def test_a_bad_python_batch_is_named(
    tmp_path: Path, content: bytes | None, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cifar(tmp_path) / "cifar-10-batches-py" / "data_batch_3"
    path.unlink() if content is None else path.write_bytes(content)
    task = create_task("scifar", data_dir=tmp_path)
    with pytest.raises(DataError, match=f"data_batch_3.*{named}"):
        task.prepare_data()
    assert not task.folder.exists() and "ran code" not in capsys.readouterr().out


@pytest.mark.parametrize(("cut", "named"), [(1, "expected rows of 3073"), (16 * 3073, "has 0 bytes")])
def test_a_binary_batch_cut_off_is_named(tmp_path: Path, cut: int, named: str) -> None:
    path = cifar(tmp_path, binary=True) / "cifar-10-batches-bin" / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match=f"data_batch_3.bin.*{named}"):
        create_task("scifar", data_dir=tmp_path).prepare_data()


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_an_archive_cut_off_is_named(tmp_path: Path, kept: float) -> None:
    path = cifar(tmp_path, archive=True) / "cifar-10-python.tar.gz"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    task = create_task("scifar", data_dir=tmp_path)
    with pytest.raises(DataError, match="cifar-10-python.tar.gz is corrupt or cut off"):
        task.prepare_data()
    assert not task.folder.exists()

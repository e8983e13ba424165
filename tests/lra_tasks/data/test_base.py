"""The contract of every task: names, batches, order, resuming."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

from lra_tasks.data import TASKS, VIDEO_TASKS, DataError, Task, create_task
from lra_tasks.data.base import IGNORED, EpochSampler
from lra_tasks.data.speech.synthesis import missing
from tests.lra_tasks.data.layouts import LAYOUTS

SMALL: dict[str, dict[str, Any]] = {
    "smnist": {},
    "pmnist": {},
    "fashion": {},
    "image": {},
    "scifar": {},
    "listops": {"n_train": 60, "n_val": 20, "n_test": 20, "min_length": 5, "max_length": 60, "processes": 1},
    "text": {"l_max": 40, "min_freq": 1},
    "retrieval": {"l_max": 40},
    "sc10": {},
    "sc10-half": {},
    "sc10-mfcc": {},
    "sc35": {},
    "sc35-8k": {},
    "pathfinder32": {"n_samples": 100, "processes": 1},
    "pathfinder64": {"n_samples": 30, "processes": 1},
    "pathx": {"n_samples": 10, "processes": 1},
    "path256": {"n_samples": 10, "processes": 1},
    "path512": {"n_samples": 10, "processes": 1},
    "associative_recall": {"n_train": 60, "n_val": 20, "n_test": 20, "seq_len": 12},
    "spam": {"l_max": 60},
    "espeak35": {"n_train": 70, "n_val": 35, "n_test": 35, "processes": 1},
}
WORDS = missing()
NAMES = [
    pytest.param(name, marks=pytest.mark.skipif(name == "espeak35" and WORDS is not None, reason=f"{WORDS}"))
    for name in sorted(SMALL)
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def prepared(name: str, root: Path, **options: Any) -> Task:
    official = root / "official" / name
    if name in LAYOUTS and not official.exists():
        LAYOUTS[name](official)
    found = {"official_dir": official} if name in LAYOUTS else {}
    task = create_task(name, data_dir=root, **found, **SMALL[name], **{"batch_size": 16, **options})
    task.prepare_data()
    task.setup()
    return task


def test_every_task_is_tested() -> None:
    assert set(SMALL) == set(TASKS) - set(VIDEO_TASKS)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_facts(name: str) -> None:
    info, module = TASKS[name].info, inspect.getmodule(TASKS[name])
    assert info.name == name and info.metric == "accuracy" and 0 < info.chance < 1
    assert (info.d_input is None) != (info.n_tokens is None)
    assert module is not None and module.__doc__ is not None
    for heading in ("source", "length", "classes", "sizes", "metric", "protocol", "chance"):
        assert heading in module.__doc__, heading


@pytest.mark.parametrize("name", NAMES)
def test_batches(name: str, root: Path) -> None:
    task = prepared(name, root)
    info = task.info
    for size, loader in zip(
        task.sizes, (task.train_dataloader(), task.val_dataloader(), task.test_dataloader()), strict=True
    ):
        seen = 0
        for batch in loader:
            inputs, labels = batch["inputs"], batch["labels"]
            seen += len(labels)
            assert labels.dtype == torch.int64 and labels.shape == (
                inputs.shape[:2] if info.per_position else (len(inputs),)
            )
            counted = labels[labels != IGNORED] if info.per_position else labels
            assert counted.min() >= 0 and counted.max() < info.n_classes
            if info.d_input is not None:
                assert inputs.shape == (len(labels), info.length, info.d_input) and inputs.dtype == torch.float32
                assert inputs.std() > 0.1 and inputs.abs().max() <= 20  # peaks of a word in silence: a dozen deviations
            else:
                assert inputs.shape[1:-1] == (2,) * info.pair
                assert inputs.dtype == torch.int64 and inputs.max() < (info.n_tokens or 0)
            assert ("lengths" in batch) == task.variable_length
            if task.variable_length:
                lengths = batch["lengths"]
                valid = torch.arange(inputs.shape[-1]) < lengths[..., None]
                assert lengths.shape == inputs.shape[:-1] and lengths.max() == inputs.shape[-1]
                assert (inputs[valid] > 0).all() and (inputs[~valid] == 0).all()
        assert seen == size


@pytest.mark.parametrize("name", NAMES)
def test_order_depends_on_seed_and_epoch_alone(name: str, root: Path) -> None:
    def labels(seed: int, epoch: int, workers: int = 0) -> list[int]:
        loader = prepared(name, root, seed=seed, num_workers=workers).train_dataloader()
        assert isinstance(loader.sampler, EpochSampler)
        loader.sampler.set_epoch(epoch)
        return torch.cat([batch["labels"] for batch in loader]).tolist()

    first = labels(0, 0)
    assert labels(0, 0) == first == labels(0, 0, workers=2)
    assert sorted(labels(0, 1)) == sorted(labels(1, 0)) == sorted(first)
    assert first != labels(0, 1) != labels(1, 0) != first


def test_setup_without_preparation(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="smnist is not prepared .* run `lra-tasks prepare smnist"):
        create_task("smnist", data_dir=tmp_path).setup()


def test_bad_names_and_options(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name is 'listop'.*did you mean 'listops'"):
        create_task("listop")
    with pytest.raises(TypeError, match="no option 'n_trian'; did you mean 'n_train'"):
        create_task("listops", n_trian=3)
    for option, value, error in (
        ("batch_size", 0, ValueError),
        ("batch_size", 2.5, TypeError),
        ("num_workers", -1, ValueError),
        ("seed", "0", TypeError),
    ):
        with pytest.raises(error, match=option):
            create_task("smnist", data_dir=tmp_path, **{option: value})


def test_an_unwritable_data_dir_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write to"):
        create_task("smnist", data_dir=tmp_path / "file").prepare_data()

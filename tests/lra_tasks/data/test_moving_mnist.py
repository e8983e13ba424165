"""Moving MNIST: the bouncing rule, the digits of each split, seeds and lengths."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lra_tasks.data import DataError, VideoTask, create_task
from lra_tasks.data.moving_mnist import DIGIT, SIZE, STEP, BouncingDigits, draw, trajectories
from lra_tasks.data.official_video import read_video


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def prepared(root: Path, **options: Any) -> VideoTask:
    small = {"n_train": 6, "n_val": 3, "n_test": 3, "frames": 7, "context": 4, "horizons": (2, 5), "batch_size": 2}
    task = create_task("moving_mnist", data_dir=root, **{**small, **options})
    assert isinstance(task, VideoTask)
    task.prepare_data()
    return task


def test_digits_move_straight_on_and_bounce() -> None:
    places = trajectories(np.random.default_rng(0), 50, 200)
    assert places.min() == 0 and places.max() == 1
    moved = np.diff(places, axis=0)
    free = ((places > 0) & (places < 1))[1:]
    speed = np.abs(moved[0])
    for digit in range(50):
        for axis in range(2):
            steps, inside = moved[:, digit, axis], places[:, digit, axis]
            whole = (inside[:-1] > 0) & (inside[:-1] < 1) & (inside[1:] > 0) & (inside[1:] < 1)
            sizes = np.abs(steps[whole])
            assert np.allclose(sizes, sizes[0]) and sizes[0] <= STEP + 1e-12
            turned = np.sign(steps[1:]) != np.sign(steps[:-1])
            assert set(inside[1:-1][turned & (steps[1:] != 0)]) <= {0.0, 1.0}
    assert np.allclose(np.hypot(*speed[free[0].all(-1)].T), STEP)


def test_longer_videos_begin_as_the_shorter_ones() -> None:
    digits = np.random.default_rng(0).integers(256, size=(5, DIGIT, DIGIT)).astype(np.uint8)
    short, long = (BouncingDigits(digits, 3, frames, (7, 0)) for frames in (5, 1200))
    assert torch.equal(long[1]["inputs"][:5], short[1]["inputs"])
    assert long[1]["inputs"].shape == (1200, 1, SIZE, SIZE)
    assert not torch.equal(short[0]["inputs"], short[1]["inputs"])
    other = BouncingDigits(digits, 3, 5, (8, 0))
    assert not torch.equal(other[0]["inputs"], short[0]["inputs"])
    with pytest.raises(IndexError):
        short[3]


def test_the_brighter_pixel_stays() -> None:
    digits = np.stack([np.full((DIGIT, DIGIT), level, np.uint8) for level in (100, 200)])
    places = np.array([[[0.0, 0.0], [0.5, 0.5]], [[1.0, 1.0], [1.0, 1.0]]])
    video = draw(digits, places)
    assert video.shape == (2, SIZE, SIZE) and video.dtype == np.uint8
    assert video[0, 0, 0] == 100 and video[0, 18, 18] == 200 and video[0, 27, 17] == 100 and video[0, 46, 46] == 0
    assert (video[1, SIZE - DIGIT :, SIZE - DIGIT :] == 200).all() and video[1].sum() == 200 * DIGIT**2


def test_splits_share_no_digit_and_have_their_lengths(root: Path) -> None:
    task = prepared(root)
    assert task.sizes == (6, 3, 3)
    lengths = {"train": 7, "val": 9, "test": 9}
    digits = {}
    for split, frames in lengths.items():
        dataset = task.dataset(split)
        assert isinstance(dataset, BouncingDigits)
        assert dataset[0]["inputs"].shape == (frames, 1, SIZE, SIZE)
        assert dataset[0]["inputs"].dtype == torch.float32
        assert 0 == dataset[0]["inputs"].min() < dataset[0]["inputs"].max() <= 1
        digits[split] = {digit.tobytes() for digit in dataset.digits}
    assert [len(digits[split]) for split in lengths] == [4000, 500, 500]
    assert not digits["train"] & digits["test"] and not digits["train"] & digits["val"]
    assert not digits["val"] & digits["test"]
    (batch, *_) = task.train_dataloader()
    assert batch["inputs"].shape == (2, 7, 1, SIZE, SIZE)


def test_videos_are_the_same_every_time(root: Path) -> None:
    first, again = prepared(root).dataset("test"), prepared(root).dataset("test")
    assert torch.equal(first[2]["inputs"], again[2]["inputs"])
    other = prepared(root, data_seed=1).dataset("test")
    assert not torch.equal(first[2]["inputs"], other[2]["inputs"])
    fewer = prepared(root, horizons=(2,)).dataset("test")
    assert torch.equal(first[2]["inputs"][:6], fewer[2]["inputs"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"frames": 1}, ValueError, "frames is 1"),
        ({"context": 0}, ValueError, "context is 0"),
        ({"horizons": ()}, ValueError, r"horizons is \[\], expected one or more"),
        ({"horizons": (5, 2)}, ValueError, r"horizons is \[5, 2\].*rising"),
        ({"horizons": (2, 2.5)}, TypeError, r"horizons is 2\.5"),
        ({"n_digits": 0}, ValueError, "n_digits is 0"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str, root: Path) -> None:
    with pytest.raises(error, match=message):
        create_task("moving_mnist", data_dir=root, **options)


# --- the official releases --------------------------------------------------------------------------------------------


def release(root: Path, n_train: int = 52, frames: int = 12) -> Path:
    """A little DMLab."""
    random = np.random.default_rng(0)
    for split, count in (("train", n_train), ("test", 3)):
        for index in range(count):
            folder = root / split / str(index % 2)
            folder.mkdir(parents=True, exist_ok=True)
            video = random.integers(256, size=(frames, 16, 16, 3)).astype(np.uint8)
            np.savez(folder / f"{index:03d}.npz", video=video, actions=np.zeros(frames, np.int64))
    return root


def dmlab(root: Path, folder: Path | None, **options: Any) -> VideoTask:
    small = {"frames": 5, "context": 4, "horizons": (2, 5), "official_dir": folder}
    task = create_task("dmlab", data_dir=root / "cache", **{**small, **options})
    assert isinstance(task, VideoTask)
    return task


def test_dmlab_is_read_as_it_is_released(tmp_path: Path) -> None:
    folder = release(tmp_path / "dmlab")
    task = dmlab(tmp_path, folder)
    task.prepare_data()
    assert task.sizes == (50, 2, 3)
    sample = task.dataset("test")[0]["inputs"]
    assert sample.shape == (9, 3, 16, 16) and sample.dtype == torch.float32
    with np.load(folder / "test" / "0" / "000.npz") as file:
        want = torch.from_numpy(file["video"][:9]).movedim(-1, 1) / 255
    assert torch.equal(sample, want)
    assert task.dataset("train")[0]["inputs"].shape == (5, 3, 16, 16)


@pytest.mark.parametrize(("name", "suffix"), [("dmlab", "npz"), ("minecraft", "mp4"), ("habitat", "mp4")])
def test_a_release_that_is_not_there_is_named(name: str, suffix: str, tmp_path: Path) -> None:
    layout = rf"FOLDER/train/\*/\*\.{suffix} of https://github.com/wilson1yan/teco \(scripts/download/{name}\.sh"
    with pytest.raises(DataError, match=rf"{name} is not shipped.*{layout}.*--data\.official_dir"):
        create_task(name, data_dir=tmp_path).prepare_data()
    with pytest.raises(DataError, match=rf"nowhere/train has no videos, expected {name}: {layout}"):
        create_task(name, data_dir=tmp_path, official_dir=tmp_path / "nowhere").prepare_data()


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    folder = release(tmp_path / "dmlab", n_train=2)
    task = dmlab(tmp_path, folder, frames=300)
    task.prepare_data()
    with pytest.raises(DataError, match=r"\d\.npz has 12 frames, but 300 are asked for"):
        task.dataset("train")[0]
    task = dmlab(tmp_path, folder)
    task.prepare_data()
    (folder / "test" / "0" / "000.npz").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match="000.npz is damaged"):
        task.dataset("test")[0]
    np.savez(folder / "test" / "0" / "000.npz", frames=np.zeros(3))
    with pytest.raises(DataError, match="holds frames, expected an array 'video'"):
        task.dataset("test")[0]
    np.savez(folder / "test" / "0" / "000.npz", video=np.zeros((12, 16, 16)))
    with pytest.raises(DataError, match=r"holds a \(12, 16, 16\) float64 video, expected \(T, H, W, 3\) uint8"):
        task.dataset("test")[0]
    (folder / "test" / "0" / "000.npz").unlink()
    with pytest.raises(DataError, match="000.npz is missing"):
        task.dataset("test")[0]


@pytest.mark.parametrize("name", ["minecraft", "habitat"])
def test_films_need_their_reader(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "test"):
        (tmp_path / split / "0").mkdir(parents=True)
        for index in range(2):
            (tmp_path / split / "0" / f"{index}.mp4").write_bytes(b"no film")
    task = create_task(name, data_dir=tmp_path / "cache", official_dir=tmp_path)
    task.prepare_data()
    assert task.sizes == (1, 1, 2)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DataError, match=r"0\.mp4 is read by PyAV, which is missing: `pip install longconv\[video\]`"):
        task.dataset("test")[0]


def film(path: Path, frames: int = 12) -> None:
    """An MP4 whose t-th frame is of the gray level 20 t."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        shots = (av.VideoFrame.from_ndarray(np.full((32, 32, 3), 20 * t, np.uint8)) for t in range(frames))
        for shot in (*shots, None):
            container.mux(stream.encode(shot))


def test_films_are_read(tmp_path: Path) -> None:
    path = tmp_path / "0.mp4"
    film(path)
    video = read_video(path, 5, 3)
    assert video.shape == (5, 32, 32, 3)
    assert np.abs(video.mean((1, 2, 3)) - 20 * np.arange(3, 8)).max() < 4
    with pytest.raises(DataError, match=r"0\.mp4 has 12 frames, but 13 are asked for"):
        read_video(path, 13)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"0\.mp4 is damaged"):
        read_video(path, 5)

"""Pathfinder: the drawn pictures agree with what was grown and with the published generator's statistics."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lra_tasks.data import DataError, create_task
from lra_tasks.data.pathfinder.draw import draw, draw_chunk
from lra_tasks.data.pathfinder.official import read_picture
from lra_tasks.data.pathfinder.paddles import N_SEEDS, Paddles, paddles
from lra_tasks.data.pathfinder.settings import SETTINGS
from lra_tasks.data.pathfinder.snakes import Scenes, grow_scenes

N = {32: 400, 64: 12, 128: 24, 256: 24, 512: 4}
SIZES = sorted(N)


@pytest.fixture(scope="module")
def scenes() -> dict[int, tuple[Scenes, np.ndarray, np.ndarray]]:
    """Geometry, margins and pictures by size."""
    grown = {size: grow_scenes(size, n, np.random.default_rng(7)) for size, n in N.items()}
    return {size: (scene, margins, draw(size, scene, margins)) for size, (scene, margins) in grown.items()}


def far_ends(size: int, margin: int, paddles_: np.ndarray) -> np.ndarray:
    """The other end (n, 2) of later paddles (n, 3), where each leans on its pivot: near its predecessor's head."""
    return paddles_[:, 1:] - paddles(size, margin).reach[paddles_[:, 0] - N_SEEDS]


@pytest.mark.parametrize("size", SIZES)
def test_shapes_and_range(size: int, scenes: dict[int, tuple[Scenes, np.ndarray, np.ndarray]]) -> None:
    _, margins, images = scenes[size]
    assert images.shape == (N[size], size, size) and images.dtype == np.uint8
    assert (images.min(axis=(1, 2)) == 0).all() and (images.max(axis=(1, 2)) == 255).all()
    assert set(margins) == set(SETTINGS[size].margins)
    assert len(np.unique(images, axis=0)) == N[size]


@pytest.mark.parametrize("size", SIZES)
def test_targets_are_chains(size: int, scenes: dict[int, tuple[Scenes, np.ndarray, np.ndarray]]) -> None:
    """Fourteen paddles in the picture; each starts within reach of its predecessor and turns less than the limit."""
    settings = SETTINGS[size]
    scene, margins, _ = scenes[size]
    assert scene.targets.shape == (N[size], 2, 14, 3)
    assert (scene.targets[..., 1:] >= 0).all() and (scene.targets[..., 1:] < size).all()
    for row in range(min(N[size], 60)):
        margin = int(margins[row])
        tables = paddles(size, margin)
        angles = np.arctan2(tables.reach[:, 0], tables.reach[:, 1])
        for chain in scene.targets[row]:
            ends, pivots = chain[1:, 1:], far_ends(size, margin, chain[1:])
            gaps = np.linalg.norm(pivots[1:] - ends[:-1], axis=1)
            assert gaps.max() <= margin + 2.5
            direction = angles[chain[1:, 0] - N_SEEDS]
            turn = np.abs((np.diff(direction) + np.pi) % (2 * np.pi) - np.pi)
            assert (turn * settings.continuity).max() < np.pi / 2


@pytest.mark.parametrize("size", SIZES)
def test_markers_sit_on_the_ends_that_the_label_says(
    size: int, scenes: dict[int, tuple[Scenes, np.ndarray, np.ndarray]]
) -> None:
    scene, _, images = scenes[size]
    origins, tips = scene.targets[:, :, 0, 1:], scene.targets[:, :, -1, 1:]
    # As in the published pictures both snakes may end in one pixel, where the label cannot be seen; very rarely.
    undecided = (tips[:, 0] == tips[:, 1]).all(axis=1)
    assert undecided.sum() <= 5
    assert ((scene.marked[:, 0] == scene.marked[:, 1]) == scene.labels).all()
    for row in range(N[size]):
        start, end = scene.markers[row]
        at_origin = (origins[row] == start).all(axis=1)
        at_tip = (tips[row] == end).all(axis=1)
        assert at_origin.any() and at_tip.any()
        assert undecided[row] or (at_origin & at_tip).any() == bool(scene.labels[row])
        for y, x in (start, end):
            assert images[row, y, x] > 100, "a marker shines at its centre"
        spot = images[row, max(start[0] - 1, 0) : start[0] + 1, max(start[1] - 1, 0) : start[1] + 1]
        assert spot.mean() > 80


@pytest.mark.parametrize("size", SIZES)
def test_every_paddle_is_drawn_and_nothing_else(
    size: int, scenes: dict[int, tuple[Scenes, np.ndarray, np.ndarray]]
) -> None:
    """Along every paddle there is ink, and ink lies only within reach of a paddle or a marker."""
    settings = SETTINGS[size]
    scene, margins, images = scenes[size]
    for row in range(min(N[size], 20)):
        tables = paddles(size, int(margins[row]))
        placed = np.concatenate([scene.targets[row].reshape(-1, 3), scene.distractors[row].reshape(-1, 3)])
        placed = placed[placed[:, 0] >= 0]
        near = np.zeros((size, size), bool)
        for direction, y, x in placed:
            peak = np.argwhere(tables.lines[direction] == tables.lines[direction].max())[0] - tables.radius + (y, x)
            if (peak >= 0).all() and (peak < size).all():
                assert images[row, peak[0], peak[1]] > 60
            reach = settings.paddle_length + 3
            near[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1] = True
        for y, x in scene.markers[row]:
            reach = int(settings.marker_radius) + 4
            near[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1] = True
        assert images[row][~near].max(initial=0) == 0


def test_labels_are_a_fair_coin_and_independent_of_the_marked_snake() -> None:
    scene, _ = grow_scenes(32, 1500, np.random.default_rng(3))
    for share in (scene.labels.mean(), scene.marked[:, 0].mean(), (scene.labels ^ scene.marked[:, 0]).mean()):
        assert abs(share - 0.5) < 4 * 0.5 / 1500**0.5
    assert ((scene.marked[:, 0] == scene.marked[:, 1]) == scene.labels).all()


def test_statistics_of_the_published_generator() -> None:
    """Recorded from 750 pictures of the published code with its old image functions: mean (standard error)."""
    scene, margins = grow_scenes(32, 1500, np.random.default_rng(4))
    images = draw(32, scene, margins).astype(float)
    distance = np.linalg.norm(scene.markers[:, 0] - scene.markers[:, 1], axis=1)
    spread = np.abs(scene.markers - 16).sum(axis=2)
    measured = {
        "mean pixel": (images.mean(axis=(1, 2)), 27.732, 0.062),
        "deviation": (images.std(axis=(1, 2)), 57.809, 0.088),
        "pixels above 0.6": ((images > 153).mean(axis=(1, 2)), 0.0708, 0.00035),
        "centre half": (images[:, 8:-8, 8:-8].mean(axis=(1, 2)), 38.793, 0.244),
        "distractors": ((scene.distractors[:, :, 0, 0] >= 0).sum(axis=1), 4.657, 0.020),
        "marker distance": (distance, 13.174, 0.203),
        "spread of origins": (spread[:, 0], 6.375, 0.164),
        "spread of ends": (spread[:, 1], 15.813, 0.226),
    }
    for name, (values, mean, error) in measured.items():
        bound = 4 * np.hypot(error, values.std() / len(values) ** 0.5)
        assert abs(values.mean() - mean) < bound, f"{name}: {values.mean():.4f}, expected {mean} +- {bound:.4f}"


@pytest.mark.parametrize("size", SIZES)
def test_tables(size: int) -> None:
    """Tables say what they claim: weights by the turn alone, a margin of free room around each line, a round marker."""
    settings = SETTINGS[size]
    for margin in settings.margins:
        tables = Paddles(settings, margin)
        radius = np.linalg.norm(tables.reach, axis=1)
        step = settings.paddle_length + margin
        assert radius.min() > step - 1.5 and radius.max() < step + 1.5
        assert len(np.unique(tables.reach, axis=0)) == len(tables.reach)
        straight = tables.choices[N_SEEDS:][np.arange(len(tables.reach)), tables.turns[N_SEEDS:].argmax(axis=1)]
        angles = np.arctan2(tables.reach[:, 0], tables.reach[:, 1])
        assert (angles[straight] == angles).all(), "going straight weighs most"
        assert tables.turns.max() == 1 and tables.turns.min() >= 0
        assert (tables.masks[tables.lines > 128] >= 240).all(), "full up to the ringing of the scaling down"
        assert (tables.masks.mean(axis=(1, 2)) > 1.5 * tables.lines.mean(axis=(1, 2))).all()
        area = (tables.marker / 255).sum()
        assert abs(area / (np.pi * settings.marker_radius**2) - 1) < 0.15


@pytest.mark.parametrize("length", [3, 6, 9])
def test_shorter_contours(length: int) -> None:
    """Distractors have a third of a target's paddles, and there are as many as share those of the size."""
    scene, margins = grow_scenes(32, 60, np.random.default_rng(5), length)
    assert scene.targets.shape == (60, 2, length, 3) and (scene.targets >= 0).all()
    assert scene.distractors.shape == (60, 20 // (length // 3), length // 3, 3)
    assert (scene.distractors[:, :, 0, 0] >= 0).any(axis=1).all()
    assert (scene.markers[:, 0] == scene.targets[np.arange(60), scene.marked[:, 0], 0, 1:]).all()
    assert (scene.markers[:, 1] == scene.targets[np.arange(60), scene.marked[:, 1], -1, 1:]).all()
    images, labels = draw_chunk(32, 20, 0, 0, length)
    assert images.shape == (20, 32, 32) and set(labels) == {0, 1}
    # Less than in the task's pictures: the targets' ink grows with their length.
    assert (draw(32, scene, margins) > 0).mean() < 0.9 * (draw_chunk(32, 60, 0, 0)[0] > 0).mean()


def test_contours_of_different_lengths_are_different_data(tmp_path: Path) -> None:
    folders = {}
    for length in (6, 14):
        task = create_task("pathfinder32", data_dir=tmp_path, n_samples=100, processes=1, contour_length=length)
        task.prepare_data()
        folders[length] = task.folder
        images = np.load(task.folder / "images.npy")
        assert np.array_equal(images, draw_chunk(32, 500, 0, 0, length)[0][:100])
    assert folders[6] != folders[14]
    assert "contour_length" not in str(task.parameters()), "as in the caches of old"


def test_chunks_depend_on_seed_and_number_alone() -> None:
    first, labels = draw_chunk(32, 30, 5, 2)
    again, same = draw_chunk(32, 30, 5, 2)
    assert np.array_equal(first, again) and np.array_equal(labels, same)
    for other in (draw_chunk(32, 30, 5, 3), draw_chunk(32, 30, 6, 2)):
        assert not np.array_equal(first, other[0])


def test_data_does_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    contents = []
    for processes in (1, 2):
        task = create_task("pathfinder32", data_dir=tmp_path / str(processes), n_samples=1100, processes=processes)
        task.prepare_data()
        contents.append([(task.folder / name).read_bytes() for name in ("images.npy", "labels.npy")])
    assert contents[0] == contents[1]
    train, val, test = task.sizes
    assert (train, val, test) == (880, 110, 110)


def test_splits_and_pixels(tmp_path: Path) -> None:
    random, first = (
        create_task("pathfinder32", data_dir=tmp_path, n_samples=100, processes=1, split=split)
        for split in ("random", "first")
    )
    random.prepare_data()
    assert random.folder == first.folder
    images = np.load(random.folder / "images.npy")
    labels = np.load(random.folder / "labels.npy")
    parts = torch.utils.data.random_split(
        torch.utils.data.TensorDataset(torch.arange(100)), [80, 10, 10], torch.Generator().manual_seed(42)
    )
    for task, expected in ((random, list(parts[2].indices)), (first, list(range(90, 100)))):
        for index, source in enumerate(expected):
            sample = task.dataset("test")[index]
            assert sample["label"] == labels[source]
            assert torch.allclose(sample["inputs"][:, 0], torch.from_numpy(images[source].ravel()) / 127.5 - 1)
    copy = pickle.dumps(random.dataset("train"))
    assert len(copy) < 5000, "a worker gets the path, not the pictures"


def release(folder: Path, n: int = 20, size: int = 32, name: str = "curv_contour_length_14") -> Path:
    """A small release: two metadata files, in an order that only numbers sort well."""
    level = folder / f"pathfinder{size}" / name
    (level / "metadata").mkdir(parents=True)
    images, labels = draw_chunk(size, n, 0, 0)
    for batch, rows in ((2, range(n // 2)), (10, range(n // 2, n))):
        (level / "imgs" / str(batch)).mkdir(parents=True)
        lines = []
        for row in rows:
            Image.fromarray(images[row]).save(level / "imgs" / str(batch) / f"sample_{row}.png")
            lines.append(f"imgs/{batch} sample_{row}.png {row} {labels[row]} 1.0 14 4 2 0.5 1 1\n")
        (level / "metadata" / f"{batch}.npy").write_text("".join(lines))
    return level


@pytest.mark.parametrize("parent", ["", "lra_release", "lra_release/lra_release"])
def test_reads_the_official_folders(tmp_path: Path, parent: str) -> None:
    level = release(tmp_path / "source" / parent)
    images, labels = draw_chunk(32, 20, 0, 0)
    for official in (tmp_path / "source", level, level.parent):
        task = create_task("pathfinder32", data_dir=tmp_path / "data", official_dir=official, split="first")
        task.prepare_data()
        assert task.sizes == (16, 2, 2)
        assert np.array_equal(np.load(task.folder / "images.npy"), images)
        assert np.array_equal(np.load(task.folder / "labels.npy"), labels)


def test_reads_the_easier_levels(tmp_path: Path) -> None:
    for n, length, name in (
        (20, 6, "curv_baseline"),
        (30, 9, "curv_contour_length_9"),
        (40, 14, "curv_contour_length_14"),
    ):
        level = release(tmp_path / "source", n, name=name)
        for official in (tmp_path / "source", level, level.parent):
            task = create_task("pathfinder32", data_dir=tmp_path / "data", official_dir=official, contour_length=length)
            task.prepare_data()
            assert sum(task.sizes) == n
    level = tmp_path / "source" / "pathfinder32" / "curv_contour_length_9"
    with pytest.raises(ValueError, match=f"contour_length is 14, but {level} has contours of 9"):
        create_task("pathfinder32", data_dir=tmp_path, official_dir=level)


def test_a_release_of_another_size_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    level = release(tmp_path)
    (level / "metadata" / "2.npy").unlink()
    create_task("pathfinder32", data_dir=tmp_path / "data", official_dir=tmp_path).prepare_data()
    assert f"{level} has 10 samples, the official release 200000" in caplog.text


def test_a_whole_cache_needs_its_source_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    level = release(tmp_path / "source")
    monkeypatch.chdir(tmp_path)

    def prepared() -> list[int]:
        task = create_task("pathfinder32", data_dir=tmp_path / "data", official_dir="source", split="first")
        task.prepare_data()
        return np.load(task.folder / "labels.npy").tolist()

    labels = prepared()
    (tmp_path / "source").rename(tmp_path / "moved")
    assert prepared() == labels
    (tmp_path / "moved").rename(tmp_path / "source")
    text = (level / "metadata" / "2.npy").read_text()
    (level / "metadata" / "2.npy").write_text("".join(text.splitlines(keepends=True)[1:]))
    assert prepared() == labels[1:]
    task = create_task("pathfinder32", data_dir=tmp_path / "empty", official_dir="source", split="first")
    (tmp_path / "source").rename(tmp_path / "moved")
    with pytest.raises(DataError, match="no pathfinder32/curv_contour_length_14"):
        task.prepare_data()


def test_bad_pictures_are_skipped_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    level = release(tmp_path)
    folder = level / "imgs" / "2"
    (folder / "sample_0.png").write_bytes(b"")
    (folder / "sample_1.png").write_bytes((folder / "sample_1.png").read_bytes()[:150])
    (folder / "sample_2.png").unlink()
    Image.new("L", (64, 32)).save(folder / "sample_3.png")
    (folder / "sample_4.png").write_bytes(b"not a picture")
    task = create_task("pathfinder32", data_dir=tmp_path / "data", official_dir=level, split="first")
    task.prepare_data()
    assert "5 of 20 pictures were skipped" in caplog.text
    reasons = ["empty file", "corrupt", "missing file", "64 x 32 pixels", "corrupt"]
    for number, reason in enumerate(reasons):
        assert f"sample_{number}.png: {reason}" in caplog.text
    assert task.sizes == (13, 1, 1)
    images, labels = draw_chunk(32, 20, 0, 0)
    assert np.array_equal(np.load(task.folder / "images.npy"), images[5:])
    assert np.array_equal(np.load(task.folder / "labels.npy"), labels[5:])
    assert (task.folder / "skipped.txt").read_text().count("\n") == 5
    caplog.clear()
    again = create_task("pathfinder32", data_dir=tmp_path / "data", official_dir=level, split="first")
    again.prepare_data()
    again.setup()
    assert f"5 pictures of the release were skipped, listed in {task.folder / 'skipped.txt'}" in caplog.text


def test_a_release_of_mostly_bad_pictures_is_refused(tmp_path: Path) -> None:
    level = release(tmp_path)
    for path in (level / "imgs" / "10").iterdir():
        path.write_bytes(b"")
    task = create_task("pathfinder32", data_dir=tmp_path / "data", official_dir=level)
    with pytest.raises(DataError, match="only 10 of 20 pictures can be read.*sample_10.png: empty file"):
        task.prepare_data()
    assert not task.folder.exists()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"imgs/2 sample_0.png 0\n", "line 1: 3 fields"),
        (b"imgs/2 sample_0.png 0 1 1.0\nimgs/2 sample_1.png 1 2 1.0\n", "line 2: the label is '2'"),
        (b"\x93NUMPY\x01\x00\xff", "is not text"),
    ],
)
def test_bad_metadata_is_named_with_the_line(tmp_path: Path, content: bytes, named: str) -> None:
    level = release(tmp_path)
    (level / "metadata" / "2.npy").write_bytes(content)
    task = create_task("pathfinder32", data_dir=tmp_path / "data", official_dir=level)
    with pytest.raises(DataError, match=f"2.npy.*{named}"):
        task.prepare_data()


def test_a_missing_release_is_described(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no pathfinder32/curv_contour_length_14 .*lra_release.gz"):
        create_task("pathfinder32", data_dir=tmp_path, official_dir=tmp_path).prepare_data()
    with pytest.raises(DataError, match=r"no pathfinder512/curv_contour_length_14 .*none of 512 x 512 is published"):
        create_task("path512", data_dir=tmp_path, official_dir=tmp_path).prepare_data()
    level = release(tmp_path)
    for path in (level / "metadata").iterdir():
        path.rename(path.with_suffix(".txt"))
    with pytest.raises(DataError, match=r"metadata has no file, expected <number>.npy"):
        create_task("pathfinder32", data_dir=tmp_path, official_dir=level).prepare_data()


def test_read_picture_makes_colours_gray(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), (7, 7, 7)).save(tmp_path / "a.png")
    assert np.array_equal(read_picture(tmp_path / "a.png", 32), np.full((32, 32), 7))
    assert isinstance(read_picture(tmp_path / "b.png", 32), str)


@pytest.mark.parametrize(
    "options",
    [
        {"n_samples": 9},
        {"split": "last"},
        {"processes": 0},
        {"data_seed": -1},
        {"contour_length": 2},
        {"contour_length": 15},
    ],
)
def test_bad_options(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        create_task("pathfinder32", **options)


def test_the_release_has_three_contour_lengths(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="contour_length is 7, but the official release has 6, 9, 14"):
        create_task("pathfinder32", official_dir=tmp_path, contour_length=7)


def test_512_is_256_with_every_length_doubled() -> None:
    lengths = ("size", "seed_distance", "marker_radius", "thickness", "paddle_length", "padding")
    small, large = SETTINGS[256], SETTINGS[512]
    doubled = {name: 2 * getattr(small, name) for name in lengths}
    margins = tuple(2 * margin for margin in small.margins)
    assert large == dataclasses.replace(small, margins=margins, **doubled)


@pytest.mark.parametrize(("name", "size"), [("pathfinder64", 64), ("pathx", 128), ("path256", 256)])
def test_reads_the_official_folders_of_larger_sizes(tmp_path: Path, name: str, size: int) -> None:
    release(tmp_path, size=size)
    images, labels = draw_chunk(size, 20, 0, 0)
    task = create_task(name, data_dir=tmp_path / "data", official_dir=tmp_path, split="first")
    task.prepare_data()
    assert np.array_equal(np.load(task.folder / "images.npy"), images)
    sample = task.dataset("test")[1]
    assert sample["inputs"].shape == (size * size, 1) and sample["label"] == labels[19]
    assert torch.allclose(sample["inputs"][:, 0], torch.from_numpy(images[19].ravel()) / 127.5 - 1)

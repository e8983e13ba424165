"""DMLab, Minecraft and Habitat: videos of agents that walk through 3D worlds, in the official release's layout.

========= =============================================================================================================
source    https://github.com/wilson1yan/teco (its scripts/download, Internet Archive; DMLab 54 GB, Minecraft 210 GB);
          Habitat is collected with https://github.com/wilson1yan/collect-habitat
layout    FOLDER/train/*/* and FOLDER/test/*/*: DMLab one NAME.npz a video with ``video`` (T, H, W, 3) uint8 and
          ``actions`` (T,); Minecraft and Habitat NAME.mp4 beside NAME.npz with ``actions``
input     DMLab 64 x 64, the others 128 x 128 pixels, three channels in [0, 1], videos of 300 frames
split     test as released; of train, sorted by name, every 50th video validates
actions   are not read: a model predicts from frames alone
metric    as moving_mnist
========= =============================================================================================================

References:
    Temporally Consistent Transformers for Video Generation (Yan, Hafner, James, Abbeel), arXiv:2210.02396.
"""

from __future__ import annotations

import importlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import Dataset

from longconv._checks import check_int
from lra_tasks.data.base import Sample, TaskInfo, official_folder
from lra_tasks.data.errors import DataError
from lra_tasks.data.video import HORIZONS, VideoTask

VALIDATES = 50
"""Of so many training videos one validates."""


def read_video(path: Path, frames: int, first: int = 0) -> np.ndarray:
    """Frames of a released video, uint8 (frames, H, W, 3).

    Raises:
        DataError: the file is missing, damaged, too short or of another layout; or PyAV, which reads mp4, is missing.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing")
    video = _read_npz(path) if path.suffix == ".npz" else _read_mp4(path, first + frames)
    if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != np.uint8:
        raise DataError(f"{path} holds a {video.shape} {video.dtype} video, expected (T, H, W, 3) uint8")
    if len(video) < first + frames:
        raise DataError(f"{path} has {len(video)} frames, but {first + frames} are asked for: choose fewer")
    return video[first : first + frames]


def _read_npz(path: Path) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as file:
            if "video" not in file:
                raise DataError(f"{path} holds {', '.join(file.files) or 'nothing'}, expected an array 'video'")
            return file["video"]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged: {error}") from error


def _read_mp4(path: Path, most: int) -> np.ndarray:
    try:
        av: Any = importlib.import_module("av")
    except ImportError as error:
        raise DataError(f"{path} is read by PyAV, which is missing: `pip install longconv[video]`") from error
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"{path} holds no video")
            shots = [frame.to_ndarray(format="rgb24") for frame in islice(container.decode(video=0), most)]
    except (OSError, ValueError, av.FFmpegError) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    return np.stack(shots) if shots else np.empty((0, 1, 1, 3), np.uint8)


class OfficialVideos(Dataset[Sample]):
    """The first frames of released videos.

    Args:
        folder: the release.
        names: paths of the videos in it.
        frames: frames of a sample.
    """

    def __init__(self, folder: Path, names: Sequence[str], frames: int) -> None:
        self.folder, self.names, self.frames = folder, list(names), frames

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        video = torch.from_numpy(read_video(self.folder / self.names[index], self.frames))
        return {"inputs": video.movedim(-1, 1).float() / 255, "label": 0}


class OfficialVideo(VideoTask):
    """Videos of the official release; a subclass says which.

    Args:
        data_dir: where the list of files is kept; None for $LONGCONV_DATA or ~/.cache/longconv.
        batch_size: videos a batch.
        num_workers: processes that load batches; 0 loads them in the training process.
        seed: of the training order.
        official_dir: the folder of the release, with ``train`` and ``test`` in it.
        frames: frames of a training video.
        context: frames that are given before the prediction.
        horizons: the places after the context at which predictions are scored, rising.
        n_test: how many of the released test videos are taken, at most.
    """

    channels = 3
    suffix: ClassVar[str] = ".mp4"

    def __init__(
        self,
        data_dir: str | Path | None = None,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        *,
        official_dir: str | Path | None = None,
        frames: int = 300,
        context: int = 144,
        horizons: Sequence[int] = HORIZONS,
        n_test: int = 1024,
    ) -> None:
        super().__init__(data_dir, batch_size, num_workers, seed, frames=frames, context=context, horizons=horizons)
        self.official_dir, self.n_test = official_folder(official_dir), check_int("n_test", n_test)

    def parameters(self) -> dict[str, Any]:
        """The release and the split."""
        return {"version": 1, "folder": str(self.official_dir), "suffix": self.suffix, "validates": VALIDATES}

    def build(self, folder: Path) -> None:
        """List the files of the release; the videos stay where they are.

        Raises:
            DataError: no folder is given, or it has not the layout of the release.
        """
        found = {split: self._find(split) for split in ("train", "test")}
        parts = {
            "train": [name for i, name in enumerate(found["train"]) if i % VALIDATES],
            "val": found["train"][::VALIDATES],
            "test": found["test"],
        }
        (folder / "videos.json").write_text(json.dumps(parts))

    def _find(self, split: str) -> list[str]:
        """The videos of a released split, by name."""
        wanted = f"{self.info.name}: FOLDER/{split}/*/*{self.suffix} of {self.info.source}"
        if self.official_dir is None:
            raise DataError(
                f"{self.info.name} is not shipped: get the official release ({wanted}) and name its FOLDER "
                "with --data.official_dir"
            )
        paths = sorted((self.official_dir / split).glob(f"*/*{self.suffix}"))
        if not paths:
            raise DataError(f"{self.official_dir / split} has no videos, expected {wanted}")
        return [str(path.relative_to(self.official_dir)) for path in paths]

    def load(self, folder: Path) -> Mapping[str, Dataset[Sample]]:
        """The three splits, read when they are asked for."""
        parts = json.loads((folder / "videos.json").read_text())
        lengths = {"train": self.frames, "val": self.scored_frames, "test": self.scored_frames}
        assert self.official_dir is not None
        root = self.official_dir
        chosen = {**parts, "test": parts["test"][: self.n_test]}
        return {split: OfficialVideos(root, names, lengths[split]) for split, names in chosen.items()}


def _info(name: str, title: str, source: str) -> TaskInfo:
    return TaskInfo(
        name=name,
        title=title,
        source=source,
        length=300,
        n_classes=0,
        d_input=None,
        n_tokens=None,
        sizes=(0, 0, 0),
        split="test as released; of train every 50th video validates",
        chance=0.0,
        metric="mse",
        protocol="TECO (arXiv:2210.02396), without actions",
    )


class DMLab(OfficialVideo):
    """DMLab: mazes, 64 x 64 pixels, 300 frames."""

    cache_name = "dmlab"
    suffix = ".npz"
    info: ClassVar[TaskInfo] = _info(
        "dmlab", "DMLab, walks through mazes", "https://github.com/wilson1yan/teco (scripts/download/dmlab.sh, 54 GB)"
    )


class Minecraft(OfficialVideo):
    """Minecraft: walks through a marsh, 128 x 128 pixels, 300 frames."""

    cache_name = "minecraft"
    info: ClassVar[TaskInfo] = _info(
        "minecraft",
        "Minecraft, walks through a landscape",
        "https://github.com/wilson1yan/teco (scripts/download/minecraft.sh, 210 GB)",
    )


class Habitat(OfficialVideo):
    """Habitat: walks through scanned homes, 128 x 128 pixels, 300 frames."""

    cache_name = "habitat"
    info: ClassVar[TaskInfo] = _info(
        "habitat",
        "Habitat, walks through scanned homes",
        "https://github.com/wilson1yan/teco (scripts/download/habitat.sh), or collected by "
        "https://github.com/wilson1yan/collect-habitat",
    )

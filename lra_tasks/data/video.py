"""What tasks of video share: a model predicts the frames after a context.

Shapes: T frames, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from longconv._checks import check_int
from lra_tasks.data.base import Task

HORIZONS = (10, 40)


class VideoTask(Task):
    """Videos with values in [0, 1]: inputs float32 (T, C, H, W), no classes.

    Training videos have ``frames`` frames; those of validation and test ``context + max(horizons)``: the model sees the
    context and predicts the rest, and is scored at the horizons, counted in frames after the context.

    Args:
        data_dir: where prepared data is kept; None for $LONGCONV_DATA or ~/.cache/longconv.
        batch_size: videos a batch.
        num_workers: processes that load batches; 0 loads them in the training process.
        seed: of the training order; not of the data.
        frames: frames of a training video.
        context: frames that are given before the prediction.
        horizons: the places after the context at which predictions are scored, rising.
    """

    channels: ClassVar[int]

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
    ) -> None:
        super().__init__(data_dir, batch_size, num_workers, seed)
        self.frames, self.context = check_int("frames", frames, least=2), check_int("context", context)
        self.horizons = tuple(check_int("horizons", horizon) for horizon in horizons)
        if not self.horizons or list(self.horizons) != sorted(set(self.horizons)):
            raise ValueError(f"horizons is {list(horizons)}, expected one or more numbers of frames, rising")

    @property
    def length(self) -> int:
        """Frames of a training video."""
        return self.frames

    @property
    def scored_frames(self) -> int:
        """Frames of a video of validation or test."""
        return self.context + self.horizons[-1]

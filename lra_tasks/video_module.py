"""Training and scoring of video predictors."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from torchmetrics import MeanSquaredError, Metric
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from longconv.models import VideoPredictor
from lra_tasks.data import Batch, VideoTask
from lra_tasks.module import TrainingModule
from lra_tasks.recipes import OptimizerSettings

KEPT = 4
"""Rollouts that are kept to be drawn."""
GUESSES = ("model", "copy")
"""What is scored: the model's rollout, and the last frame of the context, which stands for all that follow."""


def frame_metrics() -> dict[str, Metric]:
    """The scores of a frame, by name, of values in [0, 1]."""
    return {
        "mse": MeanSquaredError(),
        "psnr": PeakSignalNoiseRatio(data_range=1.0),
        "ssim": StructuralSimilarityIndexMeasure(data_range=1.0),
    }


class VideoModule(TrainingModule):
    """Training of a video predictor, scored by its rollouts.

    The scores are ``mse@10``, ``psnr@10`` and ``ssim@10``, of the tenth frame after the context alone, and so on for
    all horizons of the task; ``copy_mse@10`` and the like are those of the context's last frame. The loss of validation
    and test is that of clips as long as training's, so that a farther horizon asks for more steps, not for more memory.

    Args:
        model: the predictor.
        optimizer: settings of the optimiser and its schedule.
        loss: the error that training minimises, see :meth:`~longconv.models.VideoPredictor.loss`.
        rollout_from: share of the training's steps that is teacher forced. After it, and in validation and test, the
            loss is that of a rollout after the task's context, in training of 1 frame at first and of all frames of a
            clip from the middle of these steps on. 1 leaves it at teacher forcing.
        forced_frames: frames, from the first on, of a clip in teacher-forced steps; None: all.
        task: whose context, horizons and frames count.
        seed: seed of the run.

    Raises:
        ValueError: clips that end with the context, so that no rollout can be trained.
    """

    model: VideoPredictor
    parts = ()  # a rollout steps through them, frame by frame, which is not their forward pass

    def __init__(
        self,
        model: VideoPredictor,
        optimizer: OptimizerSettings,
        *,
        loss: str,
        rollout_from: float,
        forced_frames: int | None,
        task: VideoTask,
        seed: int,
    ) -> None:
        super().__init__(model, optimizer, seed=seed)
        self.loss, self.rollout_from, self.forced_frames = loss, rollout_from, forced_frames
        self.context, self.frames, self.horizons = task.context, task.frames, task.horizons
        if rollout_from < 1 and task.frames <= task.context:
            raise ValueError(
                f"frames is {task.frames} with context = {task.context} and rollout_from = {rollout_from:g}, expected "
                "frames after the context for training to roll out"
            )
        self.scores = nn.ModuleDict(
            {
                f"{stage}_{guess}_{name}_{horizon}": metric
                for stage in ("val", "test")
                for guess in GUESSES
                for horizon in self.horizons
                for name, metric in frame_metrics().items()
            }
        )
        self.rollouts: list[tuple[Tensor, Tensor]] = []
        """Some videos (T, C, H, W) of the last test, each with its prediction after the context."""

    def configure_model(self) -> None:
        """Divide the parameters as other models do; training calls ``loss``, which has to gather them too."""
        divided = isinstance(self.model, FSDPModule)
        super().configure_model()
        if not divided:
            register_fsdp_forward_method(self.model, "loss")

    def compile_model(self) -> None:
        """Have torch.compile compile ``loss``, which training calls in place of the model."""
        loss: Any = torch.compile(self.model.loss)
        self.model.loss = loss  # type: ignore[method-assign]

    def forward(self, batch: Batch) -> Tensor:
        """Predictions (B, T, C, H, W) of a batch."""
        return self.model(batch["inputs"])

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """The loss of a batch; one that is not finite ends the run before it can reach the parameters."""
        self.seed_epoch(batch_idx)
        return {"loss": self._loss(batch, "train")}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the validation loss."""
        self._loss(batch, "val")
        if self.trainer.state.fn == "validate":
            self._score(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the rollouts of a batch to the scores."""
        if batch_idx == 0:
            self.rollouts = []
        self._loss(batch, "test")
        self._score(batch, "test")

    def _loss(self, batch: Batch, stage: Literal["train", "val", "test"]) -> Tensor:
        frames, rolled = batch["inputs"], self.rollout_from < 1
        if stage == "train" and (horizon := self._horizon(frames.shape[1] - self.context)) is not None:
            frames = frames[:, : self.context + horizon]
        elif stage == "train":
            frames, rolled = frames[:, : self.forced_frames], False
        else:
            frames = frames[:, : self.frames]
        loss = self.model.loss(frames, self.loss, context=self.context if rolled else None)
        self.refuse_infinite(loss, stage)
        self.log(f"{stage}/loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["inputs"]), sync_dist=True)
        if stage == "train":
            self.log("train/loss_step", loss, on_step=True, on_epoch=False)
        return loss

    def _horizon(self, longest: int) -> int | None:
        """How many frames this training step rolls out; None: it is teacher forced.

        They double at a steady rate from one to the longest, and stay there for the second half of these steps.
        """
        steps = self.trainer.estimated_stepping_batches
        first = self.rollout_from * steps
        if self.global_step < first:
            return None
        return round(longest ** min(1.0, 2 * (self.global_step - first) / max(steps - first, 1)))

    def _score(self, batch: Batch, stage: Literal["val", "test"]) -> None:
        frames = batch["inputs"]
        context, wanted = frames[:, : self.context], frames[:, self.context :]
        predicted = self.model.rollout(context, self.horizons[-1])
        guesses = {"model": predicted, "copy": context[:, -1:].expand_as(predicted)}
        for guess, found in guesses.items():
            for horizon in self.horizons:
                for name in frame_metrics():
                    metric: Any = self.scores[f"{stage}_{guess}_{name}_{horizon}"]
                    metric.update(found[:, horizon - 1].float().contiguous(), wanted[:, horizon - 1].contiguous())
                    label = f"{stage}/{'copy_' if guess == 'copy' else ''}{name}@{horizon}"
                    self.log(label, metric, on_step=False, on_epoch=True, batch_size=len(frames))
        missing = KEPT - len(self.rollouts)
        pairs = zip(frames[:missing].cpu(), predicted[:missing].float().cpu(), strict=True)
        self.rollouts += list(pairs) if missing > 0 else []


def score_table(metrics: dict[str, Any], stage: str = "test") -> str:
    """The scores of a run beside those of its context's last frame, a line a horizon."""
    start = f"{stage}/mse@"
    horizons = sorted(int(name.removeprefix(start)) for name in metrics if name.startswith(start))
    lines = [f"{'horizon':>7}  {'MSE':>7} {'PSNR':>6} {'SSIM':>6}   copy of the last frame: MSE, PSNR, SSIM"]
    for horizon in horizons:
        cells = []
        for guess in ("", "copy_"):
            mse, psnr, ssim = (metrics[f"{stage}/{guess}{name}@{horizon}"] for name in frame_metrics())
            cells.append(f"{mse:7.4f} {psnr:6.2f} {ssim:6.3f}")
        lines.append(f"{horizon:>7}  {'   '.join(cells)}")
    return "\n".join(lines)


__all__ = ["VideoModule", "score_table"]

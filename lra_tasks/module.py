"""The training module: a classifier with its loss, metrics, optimiser and schedule."""

from __future__ import annotations

import math
from abc import ABC
from typing import Any, Literal

import numpy as np
import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torchmetrics.classification import MulticlassAccuracy

from longconv.distributed import Ranks
from longconv.models import Block, optimizer_groups
from lra_tasks.data import Batch
from lra_tasks.data.base import IGNORED
from lra_tasks.errors import RunError
from lra_tasks.recipes import OptimizerSettings
from lra_tasks.shards import cross_entropy, shared

Stage = Literal["train", "val", "test"]


def learning_rate_factor(step: int, n_steps: int, warmup: float, schedule: str = "cosine") -> float:
    """Share of the highest learning rate at a step: a linear rise over ``warmup n_steps``, then half a cosine to 0.

    With the schedule "constant" the highest learning rate stays.

    >>> [round(learning_rate_factor(step, 10, 0.2), 2) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    n_warmup = math.ceil(warmup * n_steps)
    if step < n_warmup:
        return (step + 1) / n_warmup
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - n_warmup) / max(1, n_steps - n_warmup))))


def one_in(rate: int, batch: Batch) -> Batch:
    """A batch of sequences with one in ``rate`` samples, and the labels of those where positions have labels."""
    if rate == 1:
        return batch
    less = {**batch, "inputs": batch["inputs"][:, ::rate]}
    if "lengths" in batch:
        less["lengths"] = (batch["lengths"] + rate - 1) // rate
    if batch["labels"].ndim == 2:
        less["labels"] = batch["labels"][:, ::rate]
    return less


class TrainingModule(LightningModule, ABC):
    """A model with its optimiser and schedule.

    The random state is set from (seed, epoch) at the first batch of an epoch, so that a resumed run draws the dropout
    masks that an uninterrupted one draws.

    Args:
        model: any model.
        optimizer: settings of the optimiser and its schedule.
        seed: seed of the run.

    Attributes:
        parts: kinds of modules whose parameters fsdp2 gathers for their forward pass alone.
    """

    parts: tuple[type[nn.Module], ...] = (Block,)

    def __init__(self, model: nn.Module, optimizer: OptimizerSettings, *, seed: int) -> None:
        super().__init__()
        self.model = model
        self.settings = optimizer
        self.seed = seed

    def configure_model(self) -> None:
        """Divide the parameters of all ``parts``, and the rest, among the processes where the strategy is fsdp2."""
        if self.device_mesh is None or isinstance(self.model, FSDPModule):
            return
        mesh = self.device_mesh["data_parallel"]
        for module in [*self.model.modules()]:
            if isinstance(module, self.parts):
                fully_shard(module, mesh=mesh)
        fully_shard(self.model, mesh=mesh)

    def compile_model(self) -> None:
        """Have torch.compile compile what a step of training calls."""
        self.model.compile()

    def seed_epoch(self, batch_idx: int) -> None:
        """Set the random state, at the first batch of an epoch."""
        if batch_idx == 0:
            words = np.random.SeedSequence([self.seed, self.current_epoch, self.global_rank]).generate_state(1)
            torch.manual_seed(int(words[0]))

    def refuse_infinite(self, loss: Tensor, stage: Stage) -> None:
        """Raise a RunError for a loss of training or validation that is not finite."""
        if stage != "test" and not torch.isfinite(loss):
            raise RunError(
                f"the {stage} loss is {loss.item()} at step {self.global_step} (epoch {self.current_epoch + 1}); "
                "the checkpoints of earlier epochs are kept: try a lower --optimizer.lr, a longer --optimizer.warmup "
                "or --trainer.gradient_clip_val 1"
            )

    def configure_optimizers(self) -> Any:
        """AdamW over the parameter groups of the model, and the schedule, a step a batch."""
        groups = optimizer_groups(
            self.model,
            lr=self.settings.lr,
            weight_decay=self.settings.weight_decay,
            filter_lr=self.settings.filter_lr,
            dt_lr=self.settings.dt_lr,
            b_lr=self.settings.b_lr,
            c_lr=self.settings.c_lr,
            decayed=self.settings.decayed,
        )
        optimizer = torch.optim.AdamW(groups, lr=self.settings.lr)
        n_steps, warmup = int(self.trainer.estimated_stepping_batches), self.settings.warmup
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, n_steps, warmup, self.settings.schedule)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class SequenceModule(TrainingModule):
    """Cross-entropy training of a classifier of sequences or of their positions.

    Args:
        model: maps inputs (B, L, ...) and lengths (B,) or None to logits (B, n_classes), or (B, L, n_classes) where
            every position has a label.
        optimizer: settings of the optimiser and its schedule.
        n_classes: number of classes.
        seed: seed of the run.

    Attributes:
        rate: one in so many samples is read, with the step sizes of the model multiplied by it.
        ranks: those that share the sequences of a batch; None: they are whole.
    """

    rate: int = 1
    ranks: Ranks | None = None

    def __init__(self, model: nn.Module, optimizer: OptimizerSettings, *, n_classes: int, seed: int) -> None:
        super().__init__(model, optimizer, seed=seed)
        self.train_accuracy = MulticlassAccuracy(n_classes, average="micro", ignore_index=IGNORED)
        self.val_accuracy = MulticlassAccuracy(n_classes, average="micro", ignore_index=IGNORED)
        self.test_accuracy = MulticlassAccuracy(n_classes, average="micro", ignore_index=IGNORED)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, n_classes) or (B, L, n_classes) of the samples of a batch that are read."""
        options = {} if self.rate == 1 else {"rate": self.rate}
        return self.model(batch["inputs"], lengths=batch.get("lengths"), **options)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Loss and accuracy of a batch; a loss that is not finite ends the run before it can reach the parameters."""
        self.seed_epoch(batch_idx)
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the validation metrics."""
        self._step(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the test metrics."""
        self._step(batch, "test")

    def _step(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        with shared(one_in(self.rate, batch), self.ranks) as (batch, shard):
            labels = batch["labels"].flatten()
            logits = self(batch).flatten(0, -2)
            loss = cross_entropy(logits, labels, shard)
        self.refuse_infinite(loss, stage)
        accuracy: MulticlassAccuracy = getattr(self, f"{stage}_accuracy")
        batch_accuracy = accuracy(logits, labels)
        n_samples = len(batch["labels"])
        self.log(f"{stage}/accuracy", accuracy, on_step=False, on_epoch=True, batch_size=n_samples)
        self.log(f"{stage}/loss", loss, on_step=False, on_epoch=True, batch_size=n_samples, sync_dist=True)
        if stage == "train":
            self.log("train/loss_step", loss, on_step=True, on_epoch=False)
        return {"loss": loss, "accuracy": batch_accuracy}

"""Checkpoints of a run: the best by validation accuracy and the last, each written whole or not at all."""

from __future__ import annotations

import csv
import io
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from lra_tasks.config import RunConfig
from lra_tasks.errors import RunError
from lra_tasks.files import load_checkpoint, save_checkpoint, write_text
from lra_tasks.results import RunFolder

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_MEASURED = ("seconds", "samples_per_s", "memory_mb")
COLUMNS = ("epoch", "step", "train/loss", "train/accuracy", "val/loss", "val/accuracy", "lr", *_MEASURED)
"""Columns of ``history.csv``: losses in nats, accuracies in [0, 1], the wall time of the epoch in seconds, samples a
second of its training alone, of all processes together, and the peak memory of a process so far in MB: resident on the
CPU, allocated on a GPU."""


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's way to disk: through a temporary file in the same folder and a rename."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint; a RunError names the path where the disk is full or not writable."""
        save_checkpoint(checkpoint, Path(path))

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        """Read a checkpoint onto the CPU; only tensors and plain values are accepted."""
        return load_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


class EpochCheckpoints(Checkpoint):
    """After each epoch: one more row of the history, ``best.ckpt`` where the epoch is the best yet, ``last.ckpt``.

    The best epoch has the highest validation accuracy; among equals, and where a task has none, the lower validation
    loss, then the earlier epoch.
    The history travels inside the checkpoints, so a resumed run continues it. A kill between the two files is
    harmless: the resumed run repeats the epoch from ``last.ckpt`` and writes the same ``best.ckpt`` again.

    With ``trainer.early_stopping`` the run ends after that many epochs without a better one.

    Args:
        folder: the run's folder.
        config: the run's configuration; kept in each checkpoint, so that a lone ``.ckpt`` can be evaluated.
    """

    def __init__(self, folder: RunFolder, config: RunConfig) -> None:
        self.folder = folder
        self.config = config
        self.history: list[dict[str, float]] = []
        self._started = self._trained = 0.0
        self._samples = 0

    @property
    def best(self) -> dict[str, float] | None:
        """The row of the best epoch, or None before the first."""
        return max(self.history, key=_merit, default=None)

    @property
    def exhausted(self) -> bool:
        """Whether the last epochs, as many as early stopping waits for, brought no better one."""
        patience, best = self.config.recipe.trainer.early_stopping, self.best
        return patience is not None and best is not None and self.history[-1]["epoch"] - best["epoch"] >= patience

    def state_dict(self) -> dict[str, Any]:
        """The history, for a checkpoint."""
        return {"history": [dict(row) for row in self.history]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the history of a checkpoint."""
        unmeasured = dict.fromkeys(_MEASURED, math.nan)
        self.history = [unmeasured | row for row in state_dict["history"]]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the configuration and the epoch's row."""
        checkpoint["run"] = {"config": self.config.to_dict(), "row": dict(self.history[-1]) if self.history else {}}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave a resumed run as it is where it has stopped early."""
        trainer.should_stop = self.exhausted

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the epoch."""
        self._started = self._trained = time.perf_counter()
        self._samples = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count samples and the time they took."""
        n_batches = trainer.world_size // self.config.recipe.trainer.sequence_parallel
        self._samples += len(batch["inputs"]) * n_batches
        self._trained = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Extend the history and write the checkpoints."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = {name: metrics.get(name, math.nan) for name in COLUMNS if "/" in name}
        if not math.isfinite(row["val/loss"]):
            raise RunError(f"epoch {trainer.current_epoch + 1} has no finite validation loss: {row['val/loss']}")
        seconds = time.perf_counter() - self._started
        learning_rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.history.append(
            {"epoch": trainer.current_epoch + 1, "step": trainer.global_step, **row}
            | {"lr": learning_rate, "seconds": seconds}
            | {"samples_per_s": self._samples / max(self._trained - self._started, 1e-9)}
            | {"memory_mb": peak_memory(trainer.strategy.root_device)}
        )
        trainer.should_stop = self.exhausted
        if self.best is self.history[-1]:
            trainer.save_checkpoint(self.folder.best)
        trainer.save_checkpoint(self.folder.last)
        if trainer.is_global_zero:
            write_history(self.folder.history, self.history)


def peak_memory(device: torch.device) -> float:
    """Most memory in MB that this process has held so far: allocated on a GPU, else resident; NaN where unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if resource is None:
        return math.nan
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _merit(row: dict[str, float]) -> tuple[float, float]:
    """What the best epoch has most of."""
    accuracy = row["val/accuracy"]
    return (0.0 if math.isnan(accuracy) else accuracy), -row["val/loss"]


def write_history(path: Path, history: list[dict[str, float]]) -> None:
    """Write the rows of all epochs as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(path, text.getvalue())

"""What a run shows: one bar over all epochs and one line an epoch."""

from __future__ import annotations

import math
from typing import Any

from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lra_tasks.checkpoints import EpochCheckpoints

_SMOOTHING = 0.9


class RunProgress(Callback):
    """A rich progress bar with loss, accuracy and the time left of the whole run, and a line after each epoch.

    Where the output is no terminal only the lines are printed.

    Args:
        console: where to print.
        checkpoints: the callback that keeps the history.
    """

    def __init__(self, console: Console, checkpoints: EpochCheckpoints) -> None:
        self.console = console
        self.checkpoints = checkpoints
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._shown: dict[str, float] = {}
        self._printed = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the bar, at the epochs that a resumed run has behind it."""
        self._printed = len(self.checkpoints.history)  # a resumed run does not repeat the lines of earlier epochs
        per_epoch, n_epochs = int(trainer.num_training_batches), trainer.max_epochs or 0
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:3.0f} %"),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not (self.console.is_terminal and trainer.is_global_zero),
            transient=True,
        )
        done = trainer.current_epoch
        self._task = self._bar.add_task(
            "train", total=per_epoch * n_epochs, completed=per_epoch * done, epoch=f"{done + 1}/{n_epochs}", status=""
        )
        self._bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance the bar."""
        if self._bar is None or self._bar.disable:
            return
        for name in ("loss", "accuracy"):
            if name in outputs:
                value = float(outputs[name])
                self._shown[name] = _SMOOTHING * self._shown.get(name, value) + (1 - _SMOOTHING) * value
        status = f"loss {self._shown['loss']:.4f}"
        best = self.checkpoints.best
        if "accuracy" in self._shown:
            status += f"  accuracy {100 * self._shown['accuracy']:.1f} %"
        if best is not None:
            has_accuracy = not math.isnan(best["val/accuracy"])
            shown = f"{100 * best['val/accuracy']:.1f} %" if has_accuracy else f"loss {best['val/loss']:.4f}"
            status += f"  best validation {shown}"
        epoch = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
        self._bar.update(self._task, advance=1, epoch=epoch, status=status)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the epoch before, whose row is complete by now."""
        self._print_rows(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the last line and take the bar away."""
        self._print_rows(trainer)
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take the bar away."""
        self._stop()

    def _print_rows(self, trainer: Trainer) -> None:
        history = self.checkpoints.history
        for row in history[self._printed :] if trainer.is_global_zero else []:
            mark = "  best" if row is self.checkpoints.best else ""
            train, val = (100 * row[f"{stage}/accuracy"] for stage in ("train", "val"))
            shown = f"accuracy {train:.2f} %  validation {val:.2f} %"
            if math.isnan(val):
                shown = f"validation {row['val/loss']:.4f}"
            self.console.print(
                f"epoch {row['epoch']:>3.0f}  loss {row['train/loss']:.4f}  {shown}  {row['seconds']:.1f} s{mark}",
                highlight=False,
            )
        self._printed = len(history)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

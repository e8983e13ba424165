"""Lightning's Trainer as these commands use it: from settings, quiet, and with errors that name what to change."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import ModelParallelStrategy

from lra_tasks.errors import UsageError
from lra_tasks.files import cannot_write
from lra_tasks.recipes import TrainerSettings

_QUIET = (
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*GPU available but not used.*",
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
)
"""Warnings of Lightning that tell a user of these commands nothing to act on."""


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Leave out Lightning's tips; what it refuses is a UsageError."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _QUIET:
                warnings.filterwarnings("ignore", message)
            yield
    except MisconfigurationException as error:
        raise UsageError(f"the trainer refuses its settings: {error}") from error
    finally:
        logger.setLevel(level)


def create_trainer(settings: TrainerSettings, **others: Any) -> Trainer:
    """A trainer with nothing on the screen.

    Args:
        settings: its settings.
        others: further arguments of Lightning's Trainer.

    Raises:
        UsageError: a setting does not fit, or not this machine.
    """
    given = asdict(settings)
    for name in ("early_stopping", "compile", "sequence_parallel"):
        given.pop(name)
    if settings.strategy == "fsdp2":
        given["strategy"] = _fully_sharded(settings.devices)
    try:
        return Trainer(
            **{**given, **others},
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (ValueError, TypeError, ImportError, MisconfigurationException) as error:
        raise UsageError(f"the trainer refuses its settings: {error}") from error


def _fully_sharded(devices: int | str) -> ModelParallelStrategy:
    """FSDP2 over so many devices, with checkpoints in one file that a single process can read."""
    if not isinstance(devices, int) or devices < 1:
        raise UsageError(
            f"trainer.devices is {devices!r}, expected an integer >= 1: the strategy fsdp2 divides the model by it"
        )
    return ModelParallelStrategy(data_parallel_size=devices, tensor_parallel_size=1, save_distributed_checkpoint=False)


@contextmanager
def process_group() -> Iterator[None]:
    """Leave no group of a distributed training behind, and none of its variables: this process may go on alone.

    With a rank among its variables a later training of this process, or of one that it starts, would wait for others.
    """
    names = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


class RunLogger(TensorBoardLogger):
    """TensorBoard's log of a run; a failed write is a RunError that names the folder.

    Args:
        folder: where the events go.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(save_dir=folder.parent, name="", version=folder.name)
        self.folder = folder

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Log numbers of a step."""
        with self._writing():
            super().log_metrics(metrics, step)

    def save(self) -> None:
        """Write what is still in memory."""
        with self._writing():
            super().save()

    def finalize(self, status: str) -> None:
        """Write what is still in memory, and close the file."""
        with self._writing():
            super().finalize(status)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise cannot_write(self.folder, error) from error

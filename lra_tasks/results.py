"""The folder of a run and the metrics in it."""

from __future__ import annotations

import csv
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch

import longconv
from lra_tasks.config import RunConfig
from lra_tasks.errors import RunError
from lra_tasks.files import write_text


@dataclass(frozen=True)
class RunFolder:
    """The layout of a run's folder."""

    path: Path

    @property
    def config(self) -> Path:
        """What the run was asked to do."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """Its results; there once it has finished."""
        return self.path / "metrics.json"

    @property
    def history(self) -> Path:
        """A row an epoch."""
        return self.path / "history.csv"

    @property
    def best(self) -> Path:
        """The checkpoint with the highest validation accuracy."""
        return self.path / "checkpoints" / "best.ckpt"

    @property
    def last(self) -> Path:
        """The checkpoint of the last epoch, to resume from."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def learning_curve(self) -> Path:
        """Loss and accuracy over the epochs."""
        return self.path / "learning_curve.png"

    @property
    def filters(self) -> Path:
        """Filters of the best checkpoint."""
        return self.path / "filters.png"

    @property
    def logs(self) -> Path:
        """TensorBoard events."""
        return self.path / "logs"

    def is_empty(self) -> bool:
        """Whether the folder is missing or holds nothing."""
        return not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir()))


def versions() -> dict[str, str]:
    """Versions of what decides the numbers of a run."""
    return {
        "longconv": longconv.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "numpy": np.__version__,
    }


def write_metrics(folder: RunFolder, metrics: dict[str, Any]) -> None:
    """Write ``metrics.json``."""
    write_text(folder.metrics, json.dumps(metrics, indent=2) + "\n")


@dataclass(frozen=True)
class Run:
    """A finished run, read back."""

    name: str
    config: RunConfig
    metrics: dict[str, Any]


def read_run(path: Path) -> Run:
    """Read the folder of a finished run.

    Raises:
        RunError: there is no run, it has not finished, or a file of it is damaged.
    """
    folder = RunFolder(path)
    if not folder.config.is_file():
        raise RunError(f"{path} is no run: it has no config.yaml")
    config = RunConfig.load(folder.config)
    if not folder.metrics.is_file():
        n_epochs = config.recipe.trainer.max_epochs
        raise RunError(f"{path} has not finished: {count_epochs(folder)} of {n_epochs} epochs; go on with --resume")
    try:
        metrics = json.loads(folder.metrics.read_text())
        float(metrics["test/accuracy"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder.metrics} is damaged: {error!r}") from error
    return Run(path.name, config, metrics)


def count_epochs(folder: RunFolder) -> int:
    """The number of epochs in the history of a run."""
    try:
        with folder.history.open(newline="") as file:
            return sum(1 for _ in csv.DictReader(file))
    except OSError:
        return 0

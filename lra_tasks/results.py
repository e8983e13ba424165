"""The folder of a run and the metrics in it."""

from __future__ import annotations

import csv
import json
import math
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
from lra_tasks.files import LEFTOVERS, write_text


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
    def rollouts(self) -> Path:
        """Predicted videos beside the true ones, moving."""
        return self.path / "rollouts.gif"

    @property
    def contact_sheet(self) -> Path:
        """The same, frame by frame."""
        return self.path / "rollouts.png"

    @property
    def logs(self) -> Path:
        """TensorBoard events."""
        return self.path / "logs"

    def leftovers(self) -> list[Path]:
        """Temporary files of a killed process."""
        return list(self.path.rglob(LEFTOVERS))

    def is_empty(self) -> bool:
        """Whether there is no folder, or nothing in it but leftovers."""
        return not self.path.is_dir() or set(self.path.iterdir()) <= set(self.leftovers())


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


_DRAWN = {"epoch", "seconds", "train/loss", "val/loss", "val/accuracy"}
"""The columns of a history that a report draws."""


@dataclass(frozen=True)
class Run:
    """A finished run, read back."""

    folder: RunFolder
    config: RunConfig
    metrics: dict[str, Any]

    @property
    def name(self) -> str:
        """What its folder is called."""
        return self.folder.path.resolve().name

    def history(self) -> list[dict[str, float]]:
        """A row an epoch; NaN where a number is missing, and no row where the file or one of its columns is."""
        rows = [row for row in _read_rows(self.folder.history) if row.keys() >= _DRAWN]
        return [{name: _number(cell) for name, cell in row.items()} for row in rows]


def _read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a history; none where it is missing or no text."""
    try:
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError):
        return []


def _number(cell: Any) -> float:
    """The number in a cell; a row that is too long ends in a list of cells."""
    try:
        return float(cell or "nan")
    except (TypeError, ValueError):
        return math.nan


def find_runs(path: Path) -> list[Path]:
    """The folders of the runs in a folder; itself where it is one, or has none."""
    if RunFolder(path).config.is_file():
        return [path]
    return sorted(file.parent for file in path.glob("*/config.yaml")) or [path]


_NUMBERS = ("parameters", "wall_time_s", "epochs", "best_epoch")
"""What every ``metrics.json`` holds, and a report needs, beside the accuracy or the scores of rollouts."""


def read_config(folder: RunFolder) -> RunConfig:
    """The configuration of the run in a folder; a RunError where there is none or it is damaged."""
    if not folder.config.is_file():
        raise RunError(f"{folder.path} is no run: it has no config.yaml")
    return RunConfig.load(folder.config)


def read_run(path: Path) -> Run:
    """Read the folder of a finished run.

    Raises:
        RunError: there is no run, it has not finished, or a file of it is damaged.
    """
    folder = RunFolder(path)
    config = read_config(folder)
    metrics = _read_metrics(folder.metrics) if folder.metrics.is_file() else None
    n_epochs, n_done = config.recipe.trainer.max_epochs, count_epochs(folder)
    if metrics is None or not _has_ended(metrics, config, n_done):
        raise RunError(f"{path} has not finished: {n_done} of {n_epochs} epochs; go on with --resume")
    return Run(folder, config, metrics)


def _has_ended(metrics: dict[str, Any], config: RunConfig, n_done: int) -> bool:
    """Whether the metrics are those of the end: a finished run that is being extended keeps its old ones."""
    n_scored, patience = metrics["epochs"], config.recipe.trainer.early_stopping
    exhausted = patience is not None and n_scored - metrics["best_epoch"] >= patience
    return n_scored >= config.recipe.trainer.max_epochs or (exhausted and n_done <= n_scored)


def _read_metrics(path: Path) -> dict[str, Any]:
    try:
        metrics = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is damaged: {error}") from error
    if not isinstance(metrics, dict):
        raise RunError(f"{path} is damaged: it holds no mapping")
    scores = [name for name in metrics if name.startswith("test/mse@")] or ["test/accuracy"]
    for name in (*_NUMBERS, *(["test/loss"] if "objective" in metrics else scores)):
        value = metrics.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise RunError(f"{path} is damaged: {name} is {value!r}, expected a number")
    return metrics


def count_epochs(folder: RunFolder) -> int:
    """The number of epochs in the history of a run."""
    return len(_read_rows(folder.history))

"""Training, resuming and evaluating a run."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console

from longconv.models import SequenceClassifier
from lra_tasks.checkpoints import AtomicCheckpointIO, EpochCheckpoints
from lra_tasks.config import RESUME_MAY_CHANGE, RunConfig, differences
from lra_tasks.data import Task, create_task
from lra_tasks.errors import RunError, UsageError
from lra_tasks.files import cannot_write, check_writable, load_checkpoint
from lra_tasks.module import SequenceModule
from lra_tasks.plots import plot_filters, plot_learning_curve
from lra_tasks.progress import RunProgress
from lra_tasks.results import RunFolder, versions, write_metrics

Split = Literal["val", "test"]

_QUIET = (
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*GPU available but not used.*",
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
)
"""Warnings of Lightning that tell a user of these commands nothing to act on."""


def train(config: RunConfig, folder: RunFolder, *, resume: bool, console: Console) -> dict[str, Any]:
    """Train, test the best checkpoint and fill the run's folder.

    Args:
        config: what to run.
        folder: where it is kept.
        resume: continue the run in the folder, or begin it where none of its epochs was finished.
        console: where progress is printed.

    Returns:
        The contents of ``metrics.json``.

    Raises:
        UsageError: the folder holds a run already, or another one than is to be resumed, or a setting does not fit.
        RunError: the run cannot go on; what was saved before stays usable.
        DataError: a data file is missing or corrupt.
    """
    _check_folder(config, folder, resume=resume)
    task, module = build(config)
    checkpoints = EpochCheckpoints(folder, config)
    with quiet_lightning():
        trainer = _create_trainer(config, folder, checkpoints, console)
        check_writable(folder.path)
        task.prepare_data()
        config.save(folder.config)
        folder.metrics.unlink(missing_ok=True)
        start = folder.last if folder.last.is_file() else None
        console.print(_headline(config, module, folder, start), highlight=False, soft_wrap=True)
        try:
            trainer.fit(module, datamodule=task, ckpt_path=start, weights_only=True)
        except OSError as error:
            raise cannot_write(Path(error.filename or folder.path), error) from error
        except SystemExit as error:  # Lightning's answer to Ctrl-C and SIGTERM
            raise RunError(f"stopped in epoch {trainer.current_epoch + 1}: go on with --resume") from error
    return _finish(config, folder, checkpoints, console) if trainer.is_global_zero else {}


def build(config: RunConfig) -> tuple[Task, SequenceModule]:
    """The task and the module with its initial parameters, drawn from the seed.

    Raises:
        UsageError: an option of the task, the model or the mixer has a value that does not fit.
    """
    recipe = config.recipe
    try:
        task = create_task(config.task, data_dir=config.data_dir, seed=config.seed, **recipe.data)
        torch.manual_seed(config.seed)
        model = SequenceClassifier(
            task.info.n_classes,
            d_input=task.info.d_input,
            n_tokens=task.info.n_tokens,
            mixer=config.mixer,
            mixer_options=dict(recipe.mixer_options),
            **asdict(recipe.model),
        )
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error
    return task, SequenceModule(model, recipe.optimizer, n_classes=task.info.n_classes, seed=config.seed)


def score(config: RunConfig, checkpoint: Path, split: Split = "test") -> dict[str, float]:
    """Loss and accuracy of a checkpoint, by the one path that training and ``lra-tasks evaluate`` share.

    Args:
        config: the run's configuration.
        checkpoint: a checkpoint of the run.
        split: which part of the data.

    Returns:
        ``{"test/accuracy": ..., "test/loss": ...}``, or the same with "val".

    Raises:
        RunError: the checkpoint is missing, damaged or of another model.
        DataError: a data file is missing or corrupt.
    """
    task, module = build(config)
    try:
        module.load_state_dict(load_checkpoint(checkpoint)["state_dict"])
    except (KeyError, RuntimeError) as error:
        raise RunError(f"{checkpoint} does not fit the run's configuration: {error}") from error
    settings = config.recipe.trainer
    with quiet_lightning():
        trainer = Trainer(
            accelerator=settings.accelerator,
            devices=1,
            precision=settings.precision,  # type: ignore[arg-type]
            deterministic=settings.deterministic,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=settings.limit_val_batches,
            limit_test_batches=settings.limit_test_batches,
        )
        run = trainer.test if split == "test" else trainer.validate
        (metrics,) = run(module, datamodule=task, verbose=False)
    return {name: float(value) for name, value in metrics.items()}


def evaluate(path: Path, *, data_dir: str | None = None, split: Split = "test") -> tuple[RunConfig, dict[str, float]]:
    """Score the best checkpoint of a run's folder, or a ``.ckpt``, which carries its configuration.

    Raises:
        RunError: there is no run or no usable checkpoint.
        DataError: a data file is missing or corrupt.
    """
    if path.is_dir():
        folder = RunFolder(path)
        if not folder.config.is_file():
            raise RunError(f"{path} is no run: it has no config.yaml")
        config, checkpoint = RunConfig.load(folder.config), folder.best
        if not checkpoint.is_file():
            raise RunError(f"{path} has no finished epoch yet, so no checkpoint to evaluate; go on with --resume")
    else:
        checkpoint = path
        try:
            config = RunConfig.from_dict(load_checkpoint(checkpoint)["run"]["config"])
        except (KeyError, UsageError) as error:
            raise RunError(f"{checkpoint} is no checkpoint of a run of lra-tasks: {error}") from error
    if data_dir is not None:
        config = replace(config, data_dir=data_dir)
    return config, score(config, checkpoint, split)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Leave out Lightning's tips and the warnings that tell nothing here; all others are shown."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _QUIET:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        logger.setLevel(level)


def _check_folder(config: RunConfig, folder: RunFolder, *, resume: bool) -> None:
    if folder.path.exists() and not folder.path.is_dir():
        raise RunError(f"cannot write in the run folder {folder.path}: it is a file")
    if not resume:
        if not folder.is_empty():
            raise UsageError(
                f"{folder.path} is not empty: continue the run in it with --resume, or choose another --run-dir"
            )
        return
    if not folder.config.is_file():
        raise UsageError(f"there is no run to resume in {folder.path}")
    differing = differences(RunConfig.load(folder.config), config)
    if differing:
        raise UsageError(
            f"{folder.path} holds a run with other settings, so it cannot be resumed with these: "
            f"{'; '.join(differing)} (only {', '.join(RESUME_MAY_CHANGE)} may change)"
        )


def _create_trainer(config: RunConfig, folder: RunFolder, checkpoints: EpochCheckpoints, console: Console) -> Trainer:
    try:
        return Trainer(
            **asdict(config.recipe.trainer),
            logger=TensorBoardLogger(save_dir=folder.path, name="", version=folder.logs.name),
            callbacks=[RunProgress(console, checkpoints), checkpoints],
            plugins=[AtomicCheckpointIO()],
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise UsageError(f"the trainer refuses its settings: {error}") from error


def _headline(config: RunConfig, module: SequenceModule, folder: RunFolder, start: Path | None) -> str:
    verb = "resuming" if start else "training"
    return (
        f"{verb} {config.mixer} on {config.task} (preset {config.preset}, seed {config.seed}, "
        f"{count_parameters(module):,} parameters) in {folder.path}"
    )


def count_parameters(module: torch.nn.Module) -> int:
    """Number of trained parameters; a complex one counts twice."""
    return sum(p.numel() * (2 if p.is_complex() else 1) for p in module.parameters() if p.requires_grad)


def _finish(config: RunConfig, folder: RunFolder, checkpoints: EpochCheckpoints, console: Console) -> dict[str, Any]:
    best = checkpoints.best
    if best is None:
        raise RunError("no epoch was trained: trainer.max_epochs is 0")
    test = score(config, folder.best)
    task, module = build(config)
    module.load_state_dict(load_checkpoint(folder.best)["state_dict"])
    title = f"{config.mixer} on {config.task}"
    plot_learning_curve(checkpoints.history, folder.learning_curve, title=title, chance=task.info.chance)
    plot_filters(module.model, task.info.length, folder.filters, title=f"filters of {title}, best checkpoint")
    metrics: dict[str, Any] = {
        "task": config.task,
        "mixer": config.mixer,
        "preset": config.preset,
        "seed": config.seed,
        "test/accuracy": test["test/accuracy"],
        "test/loss": test["test/loss"],
        "val/accuracy": best["val/accuracy"],
        "val/loss": best["val/loss"],
        "best_epoch": int(best["epoch"]),
        "epochs": len(checkpoints.history),
        "parameters": count_parameters(module),
        "wall_time_s": sum(row["seconds"] for row in checkpoints.history),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "device": "cuda" if torch.cuda.is_available() and config.recipe.trainer.accelerator != "cpu" else "cpu",
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "versions": versions(),
    }
    write_metrics(folder, metrics)
    console.print(
        f"test accuracy {100 * test['test/accuracy']:.2f} % (best checkpoint, epoch {metrics['best_epoch']})",
        highlight=False,
    )
    return metrics

"""Training and resuming a run."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from rich.console import Console

from lra_tasks.checkpoints import AtomicCheckpointIO, EpochCheckpoints
from lra_tasks.config import RESUME_MAY_CHANGE, RunConfig, differences
from lra_tasks.data import Task
from lra_tasks.errors import RunError, UsageError
from lra_tasks.evaluation import build, load_own, restore, score
from lra_tasks.module import SequenceModule, TrainingModule
from lra_tasks.plots import plot_filters, plot_learning_curve
from lra_tasks.pretraining import PREDICTED, PretrainingModule, start_from
from lra_tasks.progress import RunProgress
from lra_tasks.results import RunFolder, versions, write_metrics
from lra_tasks.rollouts import save_contact_sheet, save_gif
from lra_tasks.sharing import SequenceParallel
from lra_tasks.trainer import RunLogger, create_trainer, process_group, quiet_lightning
from lra_tasks.video_module import VideoModule, score_table


def train(config: RunConfig, folder: RunFolder, *, resume: bool, console: Console) -> dict[str, Any]:
    """Train, test the best checkpoint and fill the run's folder.

    Of several processes that train together the first alone writes, and tests.

    Args:
        config: what to run.
        folder: where it is kept.
        resume: continue the run in the folder; where none of its epochs was finished, begin it, with any settings.
        console: where progress is printed.

    Returns:
        The contents of ``metrics.json``; empty in all but the first process.

    Raises:
        UsageError: the folder holds a run already, or another one than is to be resumed, or a setting or the run
            to start from does not fit.
        RunError: the run cannot go on; what was saved before stays usable.
        DataError: a data file is missing or corrupt.
    """
    task, module = build(config)
    if not folder.last.is_file():
        _start(module, config)
    if config.recipe.trainer.compile:
        module.compile_model()
    checkpoints = EpochCheckpoints(folder, config)
    sharing = SequenceParallel.callbacks(config.recipe.trainer, task, module)
    with quiet_lightning():
        trainer = create_trainer(
            config.recipe.trainer,
            logger=RunLogger(folder.logs),
            callbacks=[RunProgress(console, checkpoints), checkpoints, *sharing],
            plugins=[AtomicCheckpointIO()],
        )
        if trainer.is_global_zero:
            _check_folder(config, folder, resume=resume)
            console.print(_headline(config, module, folder), highlight=False, soft_wrap=True)
            task.prepare_data()
            _check_folder(config, folder, resume=resume)  # preparing takes minutes, in which another run may come
            _enter(config, folder)
        start = folder.last if folder.last.is_file() else None
        with process_group():
            trainer.fit(module, datamodule=task, ckpt_path=start, weights_only=True)
    return _finish(_Trained(config, folder, checkpoints, trainer), console) if trainer.is_global_zero else {}


def _start(module: TrainingModule, config: RunConfig) -> None:
    """Carry over the weights that the run starts from, if any."""
    if config.from_run is not None:
        start_from(Path(config.from_run), module, config)


def _check_folder(config: RunConfig, folder: RunFolder, *, resume: bool) -> None:
    """Raise unless the run may start in its folder."""
    if not folder.is_empty():
        if not resume:
            raise UsageError(
                f"{folder.path} is not empty: continue the run in it with --resume, or choose another --run-dir"
            )
        _check_resumable(config, folder)


def _enter(config: RunConfig, folder: RunFolder) -> None:
    """Save the run's configuration in its folder, which makes it a run's; what a killed process left goes."""
    config.save(folder.config)
    for path in folder.leftovers():
        path.unlink(missing_ok=True)


def _check_resumable(config: RunConfig, folder: RunFolder) -> None:
    """Raise unless the folder holds this very run with a readable checkpoint, or a run that has done no epoch yet."""
    if not folder.config.is_file():
        raise UsageError(f"there is no run to resume in {folder.path}, but other files: choose another --run-dir")
    if not folder.last.is_file():
        return
    differing = differences(RunConfig.load(folder.config), config)
    if differing:
        raise UsageError(
            f"{folder.path} holds a run with other settings, so it cannot be resumed with these: "
            f"{'; '.join(differing)} (only {', '.join(RESUME_MAY_CHANGE)} may change)"
        )
    n_done, n_epochs = int(load_own(folder.last, config)["run"]["row"]["epoch"]), config.recipe.trainer.max_epochs
    if n_done > n_epochs:
        raise UsageError(f"trainer.max_epochs is {n_epochs}, but {n_done} epochs of {folder.path} are done")


def _headline(config: RunConfig, module: TrainingModule, folder: RunFolder) -> str:
    verb = "training" if config.recipe.pretraining is None else "pretraining"
    verb = f"resuming the {verb} of" if folder.last.is_file() else verb
    start = f" from {config.from_run}" if config.from_run else ""
    return (
        f"{verb} {config.mixer} on {config.task} (preset {config.preset}, seed {config.seed}, "
        f"{count_parameters(module):,} parameters){start} in {folder.path}"
    )


def count_parameters(module: torch.nn.Module) -> int:
    """Number of trained parameters; a complex one counts twice."""
    return sum(p.numel() * (2 if p.is_complex() else 1) for p in module.parameters() if p.requires_grad)


@dataclass(frozen=True)
class _Trained:
    """A run whose epochs are done."""

    config: RunConfig
    folder: RunFolder
    checkpoints: EpochCheckpoints
    trainer: Trainer


def _finish(run: _Trained, console: Console) -> dict[str, Any]:
    """Test the best checkpoint, write and print the result; then draw, which may fail."""
    config, folder, history = run.config, run.folder, run.checkpoints.history
    best = run.checkpoints.best
    if best is None:
        raise RunError(f"{folder.last} has no history of epochs")
    task, module = restore(config, folder.best)
    metrics: dict[str, Any] = {
        "task": config.task,
        "mixer": config.mixer,
        "preset": config.preset,
        "seed": config.seed,
        **({} if config.recipe.pretraining is None else asdict(config.recipe.pretraining)),
        **score(config, task, module),
        **({} if math.isnan(best["val/accuracy"]) else {"val/accuracy": best["val/accuracy"]}),
        "val/loss": best["val/loss"],
        "best_epoch": int(best["epoch"]),
        "epochs": len(history),
        "parameters": count_parameters(module),
        "stopped_early": run.checkpoints.exhausted,
        "wall_time_s": sum(row["seconds"] for row in history),
        **_measured("samples_per_s", statistics.median, [row["samples_per_s"] for row in history]),
        **_measured("peak_memory_mb", max, [row["memory_mb"] for row in history]),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "device": run.trainer.strategy.root_device.type,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "versions": versions(),
    }
    write_metrics(folder, metrics)
    _print_result(metrics, console)
    try:
        _draw(run, task, module)
    except RunError as error:
        console.print(f"warning: the result stands, but a plot of it is missing: {error}", markup=False, soft_wrap=True)
    return metrics


def _measured(name: str, of: Callable[[list[float]], float], values: list[float]) -> dict[str, float]:
    """What the epochs have in common, of those that were measured; nothing where none was."""
    known = [value for value in values if math.isfinite(value)]
    return {name: of(known)} if known else {}


def _draw(run: _Trained, task: Task, module: TrainingModule) -> None:
    """The learning curve, and the filters or the rollouts of the best checkpoint."""
    config, folder = run.config, run.folder
    title = f"{config.mixer} on {config.task}"
    chance = task.info.chance if isinstance(module, SequenceModule) else None
    loss = {VideoModule: "loss", PretrainingModule: "loss of what is predicted"}.get(
        type(module), "cross-entropy (nats)"
    )
    plot_learning_curve(run.checkpoints.history, folder.learning_curve, title=title, loss=loss, chance=chance)
    if isinstance(module, VideoModule):
        save_gif(module.rollouts, module.context, folder.rollouts)
        save_contact_sheet(module.rollouts, module.context, folder.contact_sheet)
        return
    _, start = build(config)
    before: torch.nn.Module | None = start.model
    try:
        _start(start, config)
    except (RunError, UsageError):  # what it started from is gone, or no more what it was
        before = None
    plot_filters(module.model, task.length, folder.filters, title=f"filters of {title}", before=before)


def _print_result(metrics: dict[str, Any], console: Console) -> None:
    """The accuracy, or the scores of rollouts."""
    which = f"(best checkpoint, epoch {metrics['best_epoch']})"
    if "test/accuracy" in metrics:
        console.print(f"test accuracy {100 * metrics['test/accuracy']:.2f} % {which}", highlight=False)
    elif "objective" in metrics:
        console.print(
            f"test loss {metrics['test/loss']:.4f} of {PREDICTED[metrics['objective']]} {which}", highlight=False
        )
    else:
        console.print(f"test rollouts {which}\n{score_table(metrics)}", highlight=False, soft_wrap=True)

"""Scoring a checkpoint: the one path that training and ``lra-tasks evaluate`` share."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from longconv.models import LanguageModel, PairClassifier, SequenceClassifier, VideoPredictor
from lra_tasks.config import RunConfig, differences, load_with_config
from lra_tasks.data import Task, VideoTask, create_task
from lra_tasks.errors import RunError, UsageError
from lra_tasks.mixers import refuse_the_future
from lra_tasks.module import SequenceModule, TrainingModule
from lra_tasks.pretraining import build_pretraining
from lra_tasks.results import RunFolder, read_config
from lra_tasks.trainer import create_trainer, quiet_lightning
from lra_tasks.video_module import VideoModule

Split = Literal["val", "test"]


def build(config: RunConfig) -> tuple[Task, TrainingModule]:
    """The task and the module with its initial parameters, drawn from the seed.

    Raises:
        UsageError: an option of the task, the model or the mixer has a value that does not fit.
    """
    recipe = config.recipe
    try:
        task = create_task(config.task, data_dir=config.data_dir, seed=config.seed, **recipe.data)
        torch.manual_seed(config.seed)
        if recipe.pretraining is not None:
            return task, build_pretraining(task, config, recipe.pretraining)
        if isinstance(task, VideoTask):
            return task, _build_video(task, config)
        model = _build_model(task, config)
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error
    return task, SequenceModule(model, recipe.optimizer, n_classes=task.info.n_classes, seed=config.seed)


def _build_video(task: VideoTask, config: RunConfig) -> VideoModule:
    """The module of a video predictor."""
    settings: dict[str, Any] = asdict(config.recipe.model)
    training = {name: settings.pop(name) for name in ("loss", "rollout_from", "forced_frames")}
    options = dict(config.recipe.mixer_options)
    model = VideoPredictor(task.channels, mixer=config.mixer, mixer_options=options, **settings)
    return VideoModule(model, config.recipe.optimizer, **training, task=task, seed=config.seed)


def _build_model(task: Task, config: RunConfig) -> nn.Module:
    """The classifier of whole sequences or pairs of them, or of every position where the task has a label there."""
    settings: dict[str, Any] = asdict(config.recipe.model)
    settings |= {"mixer": config.mixer, "mixer_options": dict(config.recipe.mixer_options)}
    info = task.info
    if not info.per_position:
        classifier = PairClassifier if info.pair else SequenceClassifier
        return classifier(info.n_classes, d_input=info.d_input, n_tokens=info.n_tokens, **settings)
    assert info.n_tokens == info.n_classes
    pooling = settings.pop("pooling")
    if pooling is not None:
        raise ValueError(
            f"model.pooling is {pooling!r}, expected null: {info.name} has a label at every "
            "position, so that nothing is pooled"
        )
    model = LanguageModel(info.n_tokens, **settings)
    if task.needs_causal:
        refuse_the_future(model, f"the targets of {info.name} stand in its input", "--data.targets hidden, or last")
    return model


def load_own(checkpoint: Path, config: RunConfig) -> dict[str, Any]:
    """Read a checkpoint of a run, whose folders may have moved; one of another run may have the same shapes.

    Raises:
        RunError: the checkpoint is missing, damaged or of another run.
    """
    contents, saved = load_with_config(checkpoint)
    differing = differences(saved.with_folders_alike(), config.with_folders_alike())
    if differing:
        raise RunError(f"{checkpoint} is of another run than its folder: {'; '.join(differing)}")
    return contents


def restore(config: RunConfig, checkpoint: Path) -> tuple[Task, TrainingModule]:
    """The task, and the module with the parameters of a checkpoint.

    Raises:
        RunError: the checkpoint is missing, damaged or of another model.
    """
    task, module = build(config)
    try:
        module.load_state_dict(load_own(checkpoint, config)["state_dict"])
    except (RuntimeError, TypeError) as error:
        raise RunError(f"{checkpoint} does not fit the run's configuration: {error}") from error
    return task, module


def score(config: RunConfig, task: Task, module: TrainingModule, split: Split = "test") -> dict[str, float]:
    """Loss and accuracy, or the scores of rollouts, of a module on one device.

    Args:
        config: the run's configuration; of its trainer's settings the accelerator and the precision count, and how
            many batches of the split are taken.
        task: the data.
        module: the model.
        split: which part of the data.

    Returns:
        ``{"test/accuracy": ..., "test/loss": ...}``, of pretraining the loss alone, of video
        ``{"test/mse@10": ..., ...}``, or the same with "val".

    Raises:
        UsageError: this machine lacks the accelerator, or it the precision.
        DataError: a data file is missing or corrupt.
    """
    settings = replace(config.recipe.trainer, devices=1, strategy="auto", sequence_parallel=1)
    with quiet_lightning():
        trainer = create_trainer(settings, logger=False, enable_checkpointing=False)
        run = trainer.test if split == "test" else trainer.validate
        (metrics,) = run(module, datamodule=task, verbose=False)
    return {name: float(value) for name, value in metrics.items()}


def evaluate(
    path: Path, *, data_dir: str | None = None, split: Split = "test", accelerator: str = "auto", rate: int = 1
) -> tuple[RunConfig, dict[str, float]]:
    """Score the best checkpoint of a run's folder, or a ``.ckpt``, which carries its configuration.

    Args:
        path: the folder or the checkpoint.
        data_dir: where the data lies now; None: where the run had it.
        split: which part of the data.
        accelerator: cpu, gpu or auto; the run's own need not be here.
        rate: one in so many samples is read, with no low-pass, and the step sizes of the model are multiplied by it.

    Raises:
        UsageError: this machine lacks the accelerator, or the model has no step sizes for another rate.
        RunError: there is no run or no usable checkpoint.
        DataError: a data file is missing or corrupt.
    """
    if path.is_dir():
        folder = RunFolder(path)
        config, checkpoint = read_config(folder), folder.best
        if not checkpoint.is_file():
            raise RunError(f"{path} has no finished epoch yet, so no checkpoint to evaluate; go on with --resume")
    else:
        checkpoint = path
        _, config = load_with_config(checkpoint)
    config = replace(config, recipe=config.recipe.override({"trainer": {"accelerator": accelerator}}))
    if data_dir is not None:
        config = replace(config, data_dir=data_dir)
    task, module = restore(config, checkpoint)
    if rate == 1:
        return config, score(config, task, module, split)
    _resample(task, module, rate)
    try:
        return config, score(config, task, module, split)
    except ValueError as error:
        raise UsageError(f"{config.mixer} on {config.task}: {error}") from error


def _resample(task: Task, module: TrainingModule, rate: int) -> None:
    """Have the module read one in ``rate`` samples."""
    if rate < 1:
        raise UsageError(f"--rate is {rate}, expected 1 or more")
    if not isinstance(module, SequenceModule):
        raise UsageError(f"--rate is {rate}, expected 1: only classifiers are tested at another rate")
    if task.info.d_input is None:
        raise UsageError(f"--rate is {rate}, expected 1: {task.info.name} has no samples of a continuous signal")
    module.rate = rate

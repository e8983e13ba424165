"""Tiny runs of `lra-tasks` for the tests: a model of a few hundred parameters, a few batches an epoch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lra_tasks.cli import main

MEASURED = ("wall_time_s", "samples_per_s", "peak_memory_mb", "finished")
ROOT = Path(__file__).parents[2]


def tiny(run_dir: Path, data_dir: Path, *extra: str, task: str = "smnist") -> list[str]:
    """The arguments of a `train` command that takes a second; dropout makes it depend on the random state."""
    settings = {
        "--run-dir": run_dir,
        "--data-dir": data_dir,
        "--data.batch_size": 10,
        "--model.d_model": 8,
        "--model.n_layers": 1,
        "--model.dropout": 0.2,
        "--trainer.max_epochs": 3,
        "--trainer.limit_train_batches": 6,
        "--trainer.limit_val_batches": 4,
        "--trainer.limit_test_batches": 4,
        "--trainer.accelerator": "cpu",
    }
    return ["train", task, *(str(word) for pair in settings.items() for word in pair), *extra]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """Start the command in a process of its own, on one thread; Ctrl-C reaches it even where it would not reach us.

    (A shell starts its background jobs with SIGINT ignored, which children inherit.)
    """
    return subprocess.Popen(
        [sys.executable, "-m", "lra_tasks", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def run(arguments: list[str]) -> None:
    """Run a command in this process; it has to succeed."""
    assert main(arguments) == 0


def read_metrics(folder: Path) -> dict[str, Any]:
    """What decides whether two runs are the same: their metrics without times."""
    metrics = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in metrics.items() if name not in MEASURED}


def read_weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    """The parameters in a checkpoint of a run."""
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]

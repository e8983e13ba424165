"""Batches of the tasks as a trainer gets them, beside a step of the training that they feed.

The loader keeps a trainer busy where its time is a small part of the step's: it runs in the training's own process.
"""

from __future__ import annotations

import functools
import tempfile
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.case import OURS, WHOLE, Case, Problem

TASKS: dict[str, dict[str, Any]] = {
    "smnist": {},
    "listops": {"n_train": 400, "n_val": 10, "n_test": 10, "min_length": 500, "max_length": 2000, "l_max": 2048},
    "pathfinder32": {"n_samples": 500},
}
"""Options of the data: their samples have the published lengths, and are few."""
MIXER = "s4d"
BATCH = 50


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Where the data is prepared, once a process."""
    return tempfile.TemporaryDirectory(prefix="longconv-bench-")


def problem(name: str) -> Problem:
    """A batch of given samples, from the prepared files; and the same with a step of a quick recipe behind it."""
    from lra_tasks.config import RunConfig  # bench runs without what the tasks need, but for these cases
    from lra_tasks.evaluation import build
    from lra_tasks.recipes import create_recipe

    options = {**TASKS[name], "batch_size": BATCH}
    recipe = create_recipe(name, MIXER, data=options).override({"data": options})
    device = torch.get_default_device()
    with torch.device("cpu"):
        task, module = build(RunConfig(name, MIXER, "quick", 0, _folder().name, recipe))
    module.to(device)
    task.prepare_data()
    dataset: Any = task.dataset("train")
    collate: Any = task.train_dataloader().collate_fn
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4)

    def load(chosen: Tensor) -> Tensor:
        return collate([dataset[index] for index in chosen.tolist()])["inputs"].float()

    def step(chosen: Tensor) -> Tensor:
        batch = collate([dataset[index] for index in chosen.tolist()])
        batch = {name: value.to(device) for name, value in batch.items() if isinstance(value, Tensor)}
        with torch.enable_grad():
            F.cross_entropy(module(batch), batch["labels"]).backward()
        optimizer.step()
        optimizer.zero_grad()
        return chosen

    def exact(chosen: Tensor) -> Tensor:
        inputs = [dataset[index]["inputs"].double() for index in chosen.tolist()]
        padded = inputs[0].new_zeros(len(inputs), max(map(len, inputs)), *inputs[0].shape[1:])
        for row, values in zip(padded, inputs, strict=True):
            row[: len(values)] = values
        return padded

    return Problem((torch.randperm(len(dataset), device="cpu")[:BATCH],), {OURS: load, WHOLE: step}, exact)


def cases() -> list[Case]:
    """Pixels, tokens of all lengths, and pictures drawn here."""
    return [Case(f"loaders/{name}/batch", functools.partial(problem, name)) for name in TASKS]

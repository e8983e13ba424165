"""Tasks: each a Lightning data module that prepares, caches and loads one data set.

>>> "listops" in TASKS, TASKS["listops"].info.n_classes
(True, 10)
>>> sorted(VIDEO_TASKS)
['dmlab', 'habitat', 'minecraft', 'moving_mnist']
"""

from __future__ import annotations

import inspect
from typing import Any

from longconv._checks import check_choice, check_options
from lra_tasks.data.base import Batch, Task, TaskInfo
from lra_tasks.data.cifar import ColourCIFAR, GrayCIFAR
from lra_tasks.data.errors import DataError
from lra_tasks.data.fashion import Fashion
from lra_tasks.data.listops.task import ListOps
from lra_tasks.data.mnist import PermutedMNIST, SequentialMNIST
from lra_tasks.data.moving_mnist import MovingMNIST
from lra_tasks.data.official_video import DMLab, Habitat, Minecraft
from lra_tasks.data.pathfinder.task import Path256, Path512, Pathfinder32, Pathfinder64, PathX
from lra_tasks.data.recall import AssociativeRecall
from lra_tasks.data.retrieval import Retrieval
from lra_tasks.data.spam import Spam
from lra_tasks.data.speech.espeak import Espeak35
from lra_tasks.data.speech.task import (
    SpeechCommands10,
    SpeechCommands10Half,
    SpeechCommands10MFCC,
    SpeechCommands35,
    SpeechCommands35Half,
)
from lra_tasks.data.text import Text
from lra_tasks.data.video import VideoTask

_SEQUENCES: tuple[type[Task], ...] = (
    SequentialMNIST, PermutedMNIST, Fashion, ColourCIFAR, GrayCIFAR,
    ListOps, Text, Retrieval, Spam, AssociativeRecall,
    Pathfinder32, Pathfinder64, PathX, Path256, Path512,
    SpeechCommands10, SpeechCommands10Half, SpeechCommands10MFCC, SpeechCommands35, SpeechCommands35Half, Espeak35,
)  # fmt: skip
_VIDEOS: tuple[type[VideoTask], ...] = (MovingMNIST, DMLab, Minecraft, Habitat)
VIDEO_TASKS: dict[str, type[VideoTask]] = {task.info.name: task for task in _VIDEOS}
"""The tasks whose models predict video."""
TASKS: dict[str, type[Task]] = {**{task.info.name: task for task in _SEQUENCES}, **VIDEO_TASKS}
"""Every task by name; a new one enters here."""


def create_task(name: str, **options: Any) -> Task:
    """A task by name.

    Args:
        name: one of ``TASKS``.
        options: arguments of the task's class, such as ``data_dir``, ``batch_size``, ``num_workers``, ``seed``.

    Raises:
        ValueError: no such task; names the nearest.
        TypeError: an unknown option; names the nearest.

    >>> create_task("smnist", batch_size=10).info.length
    784
    """
    task = TASKS[check_choice("name", name, list(TASKS))]
    check_options(f"task {name!r}", options, list(inspect.signature(task.__init__).parameters)[1:])
    return task(**options)


__all__ = ["TASKS", "VIDEO_TASKS", "Batch", "DataError", "Task", "TaskInfo", "VideoTask", "create_task"]

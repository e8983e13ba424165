"""Processes that share the sequences of a batch: each has a part of their length, and all the same loss."""

from __future__ import annotations

from typing import Any

from lightning import Callback, LightningModule, Trainer
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from longconv.distributed import Ranks
from longconv.mixers import Mixer
from lra_tasks.data import Task
from lra_tasks.errors import UsageError
from lra_tasks.module import SequenceModule
from lra_tasks.recipes import TrainerSettings


class SequenceParallel(Callback):
    """Tells the module of a training which ranks share its batches, as long as it is trained.

    The processes are a mesh (data, sequence): those of one row have the same batches, the next row the next ones.

    Args:
        size: number of processes that share a batch.
        task: deals out its batches to as many processes less in the meantime.
    """

    def __init__(self, size: int, task: Task) -> None:
        self.size, self.task = size, task

    @classmethod
    def callbacks(cls, settings: TrainerSettings, task: Task, module: LightningModule) -> list[Callback]:
        """The callback where sequences are shared.

        Raises:
            UsageError: a model or a setting that can't share sequences.
        """
        size = settings.sequence_parallel
        if size == 1:
            return []
        if reason := _refusal(settings, module):
            raise UsageError(f"trainer.sequence_parallel is {size}, expected 1: {reason}")
        return [cls(size, task)]

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Form the groups, all processes together."""
        shape = trainer.world_size // self.size, self.size
        kind = trainer.strategy.root_device.type
        mesh = init_device_mesh(kind, shape, mesh_dim_names=("data", "sequence"))
        pl_module.ranks, self.task.sharing = Ranks(mesh["sequence"]), self.size

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """What follows, the test, is done by one process."""
        pl_module.ranks, self.task.sharing = None, 1


def _refusal(settings: TrainerSettings, module: LightningModule) -> str | None:
    """Why a training can't share sequences, or None."""
    if not isinstance(module, SequenceModule):
        return "only classifiers of sequences can have them shared"
    if settings.compile:
        return "trainer.compile is True, and what ranks tell each other can't be compiled"
    return next((reason for part in module.modules() if (reason := _refusal_of(part))), None)


def _refusal_of(part: nn.Module) -> str | None:
    reason = part.shard_refusal() if isinstance(part, Mixer) else None
    return reason and f"of {type(part).__name__}, {reason}"

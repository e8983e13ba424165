"""What a process computes of the sequences of a batch where several share them, and of their loss.

Symbols: N labels, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

from longconv.distributed import Ranks, SequenceShard, sequence_parallel
from longconv.distributed.agreement import Shards
from lra_tasks.data import Batch
from lra_tasks.data.base import IGNORED


@contextmanager
def shared(batch: Batch, ranks: Ranks | None) -> Iterator[tuple[Batch, SequenceShard | None]]:
    """A batch as the ranks share it: this rank's part of the inputs, and of labels that positions have.

    Without ranks it is the batch itself.
    """
    if ranks is None:
        yield batch, None
        return
    pairs = "lengths" in batch and batch["lengths"].ndim == 2
    axis = 2 if pairs else 1
    sizes = Shards.even(batch["inputs"].shape[axis], ranks.size).sizes
    with sequence_parallel(ranks, sizes=sizes) as shard:
        part = {**batch, "inputs": shard.cut(batch["inputs"], axis)}
        if batch["labels"].ndim == 2:
            part["labels"] = shard.cut(batch["labels"])
        yield part, shard


def cross_entropy(logits: Tensor, labels: Tensor, shard: SequenceShard | None) -> Tensor:
    """The mean over all labels that count, (N,) for logits (N, C); those of all ranks where positions have labels.

    It is in single precision at least.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if shard is None:
        return F.cross_entropy(logits, labels, ignore_index=IGNORED)
    return shard.mean(F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none"), labels != IGNORED)

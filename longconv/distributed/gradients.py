"""Gradients of parameters that every rank has."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from longconv.distributed.agreement import Shards, Tensors, agree_on_all
from longconv.distributed.exchange import exchange, gather
from longconv.distributed.ranks import Group, Ranks


@torch.no_grad()
def average_gradients(module: nn.Module, group: Group = None) -> None:
    """Replace the gradients of a module's parameters by their means over the ranks, as DDP does in the backward pass.

    After a backward pass within :func:`~longconv.distributed.sequence_parallel`, of the loss of the whole on every
    rank, they are the gradients of that loss. A parameter without a gradient on some ranks alone counts as 0 there;
    without one on any rank it stays so. Each rank adds up a share of all numbers, and sends twice as much as a gradient
    has.

    Args:
        module: alike on all ranks.
        group: a process group, a ``DeviceMesh`` of one dimension, a :class:`Ranks`, or None for all ranks.

    Raises:
        TypeError: FSDP2 has divided the module, and averages its gradients by itself.
        ValueError: the modules of the ranks aren't alike.
        RankError: another rank has failed or hangs.

    >>> store = torch.distributed.HashStore()
    >>> torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    >>> model = torch.nn.Linear(2, 1)
    >>> model(torch.ones(1, 2)).sum().backward()
    >>> average_gradients(model)
    >>> model.weight.grad
    tensor([[1., 1.]])
    >>> torch.distributed.destroy_process_group()
    """
    ranks = Ranks.of(group)
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        return
    have = torch.tensor([p.grad is not None for p in parameters], device=parameters[0].device)
    numbers = sum(p.numel() for p in parameters)

    def check() -> tuple[Tensors, Tensors]:
        from torch.distributed.tensor import DTensor  # takes seconds to import

        if any(isinstance(p, DTensor) for p in parameters):
            raise TypeError("module has parameters that FSDP2 has divided, whose gradients it averages by itself")
        return {}, {"parameters": have}

    agree_on_all(ranks, "average_gradients", check, 0, numbers=numbers)
    some = torch.stack(gather(ranks, have)).any(0).tolist()
    parameters = [p for p, found in zip(parameters, some, strict=True) if found]
    for dtype in sorted({p.dtype for p in parameters}, key=str):
        _average(ranks, [p for p in parameters if p.dtype == dtype])


def _average(ranks: Ranks, parameters: Iterable[nn.Parameter]) -> None:
    """Those of one dtype: summed in parts, a part a rank, and the sums sent round."""
    grads: list[Tensor] = []
    for p in parameters:
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        grads.append(p.grad)
    joined = torch.cat([grad.flatten() for grad in grads])
    sizes = Shards.even(len(joined), ranks.size).sizes
    own = sizes[ranks.rank]
    parts = exchange(ranks, joined.split(list(sizes)), [(own,)] * ranks.size)()
    mean = torch.stack(parts).sum(0) / ranks.size
    means = torch.cat(exchange(ranks, [mean] * ranks.size, [(size,) for size in sizes])())
    for grad, part in zip(grads, means.split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(part.view_as(grad))

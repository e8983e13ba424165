"""The linear recurrence along sequences that are cut along time."""

from __future__ import annotations

import torch
from torch import Tensor

from longconv import _sequence, ops
from longconv.distributed.agreement import Tensors, agree
from longconv.distributed.exchange import gather
from longconv.distributed.ranks import Group, Ranks
from longconv.ops.linear_scan import check_arguments
from longconv.ops.linear_scan.reference import result_dtype


@_sequence.using(None)
def linear_scan(
    a: Tensor,
    b: Tensor,
    initial: Tensor | None = None,
    *,
    dim: int = 1,
    reverse: bool = False,
    group: Group = None,
    backend: str = "auto",
) -> Tensor:
    r"""States of a linear recurrence along sequences that are cut along time; :func:`longconv.ops.linear_scan` of all.

        h_t = a_t h_{t-1} + b_t,    h_{-1} = initial        (reverse: h_t = a_t h_{t+1} + b_t,    h_L = initial)

    with t counted over all shards in the order of the ranks. Every rank scans its shard from the state 0, and sends its
    last state and the product of its coefficients to the others: the state before a shard, which follows from those of
    the ranks before it, begins its second scan. Where such a product overflows, a state 0 before it stays 0 as on one
    device, but gradients are NaN. All ranks of the group call it
    together, and later its backward pass; of what every rank has whole, its gradient is a share, as for
    :func:`~longconv.distributed.fft_conv`.

    Args:
        a: coefficients that broadcast with b; of size 1 along ``dim``, or without that axis, they are the same at all
            times and on all ranks, else this rank's shard.
        b: this rank's shard (..., L_r, ...), with L_r >= 0 along ``dim``.
        initial: the state before the first step of all, the same on all ranks, or None for 0.
        dim: the axis of time, counted in b.
        reverse: run from the last time to the first.
        group: a process group, a ``DeviceMesh`` of one dimension, a :class:`Ranks`, or None for all ranks.
        backend: of the scans that a rank does by itself.

    Returns:
        h: the states at this rank's times. Every tensor has a gradient; gradients of gradients are refused.

    Raises:
        TypeError, ValueError: an argument is wrong, here or on another rank, or those of the ranks don't fit together;
            all ranks raise, and the message gives what they hold.
        RankError: another rank has failed or hangs.

    References:
        G. E. Blelloch, "Prefix Sums and Their Applications", CMU-CS-90-190.

    >>> store = torch.distributed.HashStore()
    >>> torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    >>> linear_scan(torch.tensor(0.5), torch.tensor([1.0, 1.0, 1.0]), dim=0)
    tensor([1.0000, 1.5000, 1.7500])
    >>> torch.distributed.destroy_process_group()
    """
    ranks, start, axis = Ranks.of(group), initial, 0

    def check() -> tuple[Tensors, Tensors]:
        nonlocal a, b, start, axis
        a, b, start, axis, *_ = check_arguments(a, b, initial, dim, reverse, backend)
        axis += b.ndim
        return {"b": b, "a": a}, {"initial": initial}

    agree(ranks, "linear_scan", check, dim, dim=dim, reverse=reverse, backend=backend)
    dtype = torch.promote_types(result_dtype(a, b, start), torch.float32)
    result, a, b = result_dtype(a, b, start), a.to(dtype), b.to(dtype)

    def scan(before: Tensor | None) -> Tensor:
        if b.shape[axis] == 0:
            nothing = a.narrow(axis, 0, 0) * b
            return nothing if before is None else nothing + before.narrow(axis, 0, 0)
        start = None if before is None else before.squeeze(axis)
        return ops.linear_scan(a, b, start, dim=axis, reverse=reverse, backend=backend)

    before = _before(ranks, scan(None), _product(a, axis, b.shape[axis]), start, axis, reverse)
    return scan(before).to(result)


def _product(a: Tensor, axis: int, count: int) -> Tensor:
    """The product of the coefficients of so many times, with an axis of time of size 1."""
    return a.prod(axis, keepdim=True) if a.shape[axis] == count else a**count


def _before(ranks: Ranks, local: Tensor, product: Tensor, start: Tensor | None, axis: int, reverse: bool) -> Tensor:
    """The state before this rank's shard, with an axis of time of size 1."""
    if local.shape[axis]:
        end = local.narrow(axis, 0 if reverse else local.shape[axis] - 1, 1)
    else:
        end = local.sum(axis, keepdim=True)  # zeros
    state = torch.zeros_like(end) if start is None else start.to(end.dtype).expand_as(end)
    parts = gather(ranks, torch.cat([end.flatten(), product.flatten()]))
    befores = []
    for part in reversed(parts) if reverse else parts:
        befores.append(state)
        local_end, decay = part.split([end.numel(), product.numel()])
        decay = decay.view_as(product)
        overflown = (state == 0) & ~decay.isfinite()
        state = local_end.view_as(end) + torch.where(overflown, 0, decay) * state
    # of all ranks, so that the backward pass comes by on the first rank too, which needs no state of others
    return torch.stack(befores)[-1 - ranks.rank if reverse else ranks.rank]

"""The linear recurrence along sequences that are cut along time."""

from __future__ import annotations

import torch
from torch import Tensor

from longconv import ops
from longconv.distributed.agreement import Tensors, agree
from longconv.distributed.exchange import gather
from longconv.distributed.ranks import Group, Ranks
from longconv.ops.linear_scan import check_arguments
from longconv.ops.linear_scan.reference import result_dtype


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

    with t counted over all shards in the order of the ranks. Every rank scans its shard from the state 0, and sends one
    state and one product of coefficients to the others: with p_t the product of its a up to t and s the state before
    the shard, which follows from those of the ranks before, h_t = local_t + p_t s. All ranks of the group call it
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

    agree(ranks, "linear_scan", check, dim, dim=dim, reverse=reverse)
    dtype = torch.promote_types(result_dtype(a, b, start), torch.float32)
    local, p = _from_zero(a.to(dtype), b.to(dtype), axis, reverse, backend)
    before = _before(ranks, local, p, None if start is None else start.to(dtype), axis, reverse)
    return (local + p * before).to(result_dtype(a, b, start))


def _from_zero(a: Tensor, b: Tensor, axis: int, reverse: bool, backend: str) -> tuple[Tensor, Tensor]:
    """The states of a shard that start from 0, and the products of its coefficients up to every time."""
    if b.shape[axis] == 0:
        none = a.narrow(axis, 0, 0)
        return none * b, none
    lead = list(a.shape)
    lead[axis] = b.shape[axis]
    ones = a.new_ones([size for place, size in enumerate(lead) if place != axis])
    p = ops.linear_scan(a, a.new_zeros(lead), ones, dim=axis, reverse=reverse, backend=backend)
    return ops.linear_scan(a, b, dim=axis, reverse=reverse, backend=backend), p


def _before(ranks: Ranks, local: Tensor, p: Tensor, start: Tensor | None, axis: int, reverse: bool) -> Tensor:
    """The state before this rank's shard, with an axis of time of size 1."""
    last = slice(0, 1) if reverse else slice(-1, None)
    place = (slice(None),) * axis + (last,)
    ends = []
    for states, empty in ((local, 0.0), (p, 1.0)):
        sizes = list(states.shape)
        sizes[axis] = 1
        ends.append(states[place] if states.shape[axis] else states.new_full(sizes, empty) + states.sum(axis, True))
    end, product = ends
    state = torch.zeros_like(end) if start is None else start.expand_as(end)
    parts = gather(ranks, torch.cat([end.flatten(), product.flatten()]))
    befores = []
    for part in reversed(parts) if reverse else parts:
        befores.append(state)
        local_end, decay = part.split([end.numel(), product.numel()])
        state = local_end.view_as(end) + decay.view_as(product) * state
    # of all ranks, so that the backward pass comes by on the first rank too, which needs no state of others
    return torch.stack(befores)[-1 - ranks.rank if reverse else ranks.rank]

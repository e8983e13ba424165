"""The short convolution of sequences that are cut along time."""

from __future__ import annotations

import torch
from torch import Tensor

from longconv import _sequence, ops
from longconv.distributed.agreement import Tensors, agree
from longconv.distributed.exchange import redistribute
from longconv.distributed.ranks import Group, Ranks
from longconv.ops.short_conv import check_arguments


@_sequence.using(None)
def short_conv(
    u: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    initial: Tensor | None = None,
    group: Group = None,
    backend: str = "auto",
) -> Tensor:
    r"""Causal convolution with a few taps of sequences cut along time; :func:`longconv.ops.short_conv` of the whole.

        y[b, h, t] = activation(bias[h] + sum_k w[h, k] u[b, h, t - (K - 1) + k]),    u[., ., t < 0] = initial or 0

    with t counted over all shards in the order of the ranks. Every rank gets the K - 1 samples before its shard, from
    as many ranks as have them. All ranks of the group call it together, and later its backward pass; of what every rank
    has whole, its gradient is a share, as for :func:`~longconv.distributed.fft_conv`.

    Args:
        u: this rank's shard (B, H, L_r), L_r >= 0.
        w: taps (H, K).
        bias: (H,), or None.
        activation: None, or one of "silu", "gelu", "relu", "tanh", "sigmoid".
        initial: (B, H, K - 1), the samples before the first of all, the same on all ranks, or None for 0.
        group: a process group, a ``DeviceMesh`` of one dimension, a :class:`Ranks`, or None for all ranks.
        backend: of the convolution that a rank does by itself.

    Returns:
        y (B, H, L_r) in u's dtype. Every tensor has a gradient; gradients of gradients are refused.

    Raises:
        TypeError, ValueError: an argument is wrong, here or on another rank, or those of the ranks don't fit together;
            all ranks raise, and the message gives what they hold.
        RankError: another rank has failed or hangs.

    References:
        M. Poli, S. Massaroli, E. Nguyen, D. Y. Fu, T. Dao, S. Baccus, Y. Bengio, S. Ermon, C. Ré, "Hyena Hierarchy:
        Towards Larger Convolutional Language Models", arXiv:2302.10866.

    >>> store = torch.distributed.HashStore()
    >>> torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    >>> short_conv(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[10.0, 1.0]]))
    tensor([[[ 1., 12., 23.]]])
    >>> torch.distributed.destroy_process_group()
    """
    ranks = Ranks.of(group)

    def check() -> tuple[Tensors, Tensors]:
        check_arguments(u, w, bias, initial, activation, backend)
        return {"u": u}, {"w": w, "bias": bias, "initial": initial}

    shards = agree(ranks, "short_conv", check, -1, activation=activation, backend=backend)
    count, ranges = w.shape[-1] - 1, shards.ranges()
    past = u.new_zeros(*u.shape[:2], count) if initial is None else initial
    halos = [[(max(0, start - count), start)] for start, _ in ranges]
    (halo,) = redistribute(ranks, u, [[ends] for ends in ranges], halos)
    before = torch.cat([past, halo], -1)[..., halo.shape[-1] :]
    if u.shape[-1] == 0:
        y = (u + before[..., :0]) * w[:, :1].to(u.dtype)
        return y if bias is None else y + bias[:, None].to(u.dtype)
    return ops.short_conv(u, w, bias, activation=activation, initial=before, backend=backend)

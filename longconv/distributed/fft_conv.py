"""The FFT convolution of sequences that are cut along time."""

from __future__ import annotations

import torch
from torch import Tensor

from longconv import ops
from longconv._checks import check_choice, check_int, check_lengths
from longconv.distributed.agreement import Tensors, agree
from longconv.distributed.convolutions import WAYS, Convolution, cast
from longconv.distributed.cost import MACHINES, METHODS, Call, choose, refusal
from longconv.distributed.ranks import Group, Ranks
from longconv.ops.fft_conv import check_arguments
from longconv.ops.fft_conv.plain import arithmetic


def fft_conv(
    u: Tensor,
    k: Tensor,
    *,
    k_reverse: Tensor | None = None,
    skip: Tensor | None = None,
    pre_gate: Tensor | None = None,
    post_gate: Tensor | None = None,
    mode: str = "causal",
    lengths: Tensor | None = None,
    group: Group = None,
    method: str = "auto",
    chunks: int | None = None,
    backend: str = "auto",
) -> Tensor:
    r"""Long convolution of sequences that are cut along time, a shard a rank; :func:`longconv.fft_conv` of the whole.

    With x = pre_gate u, t counted over all shards in the order of the ranks, and L the sum of their lengths:

        causal      y[t] = sum_{s<=t} k[t-s] x[s] + sum_{s>t} k_reverse[s-t-1] x[s] + skip x[t]
        circular    y[t] = sum_s k[(t-s) mod L] x[s] + skip x[t]

    and the result is post_gate y. All ranks of the group call it together, and later its backward pass. Filters and
    skip are whole and alike on every rank; what a rank has of their gradients is its share, and the sum over the ranks
    is the gradient of the sum of the ranks' losses, as DDP and FSDP add it up.

    Args:
        u: this rank's shard (B, H, L_r). Shards may differ in L_r, and have none of the positions.
        k: filter (H, K), or (B, H, K) with one filter a sample.
        k_reverse: anticausal filter, or None.
        skip: (H,), or None.
        pre_gate, post_gate: this rank's shards (B, H, L_r), or None.
        mode: ``"causal"`` or ``"circular"``.
        lengths: (B,) valid lengths in 0..L of the whole sequences, the same on all ranks, or None.
        group: a process group, a ``DeviceMesh`` of one dimension, a :class:`Ranks`, or None for all ranks.
        method: ``"channels"`` (all times of some channels a rank), ``"neighbours"`` (what leaves a shard goes to the
            next; for filters no longer than a shard), ``"four_step"`` (a transform that all ranks take part in; not
            circular), or ``"auto"``, the cheapest by :mod:`longconv.distributed.cost`.
        chunks: parts that an exchange by channels is cut into, to overlap with the work; None: at most 4, by size.
        backend: of the convolutions that a rank computes by itself.

    Returns:
        y (B, H, L_r) in u's dtype. Every tensor argument but ``lengths`` has a gradient; gradients of gradients are
        refused.

    Raises:
        TypeError, ValueError: an argument is wrong, here or on another rank, or those of the ranks don't fit together;
            all ranks raise, and the message gives what they hold.
        RankError: another rank has failed or hangs.

    References:
        M. Li, J. Wang, S. Zheng et al., "DeepSpeed Ulysses: System Optimizations for Enabling Training of Extreme Long
        Sequence Transformer Models", arXiv:2309.14509 (redistribution by all-to-all).
        D. H. Bailey, "FFTs in External or Hierarchical Memory", 1990 (the four steps).

    >>> store = torch.distributed.HashStore()
    >>> torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    >>> fft_conv(torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[1.0, 0.5]])).round(decimals=4)
    tensor([[[1.0000, 2.5000, 4.0000]]])
    >>> torch.distributed.destroy_process_group()
    """
    ranks = Ranks.of(group)

    def check() -> tuple[Tensors, Tensors]:
        nonlocal k, k_reverse, skip, pre_gate, post_gate
        check_choice("method", method, ("auto", *METHODS))
        if chunks is not None:
            check_int("chunks", chunks)
        checked = check_arguments(u, k, k_reverse, skip, pre_gate, post_gate, lengths, mode, backend)
        k, k_reverse, skip, pre_gate, post_gate = checked[1:6]
        gates = {"pre_gate": pre_gate, "post_gate": post_gate}
        return {"u": u, **gates}, {"k": k, "k_reverse": k_reverse, "skip": skip}

    shards = agree(
        ranks, "fft_conv", check, -1, mode=mode, lengths=lengths, method=method, chunks=chunks, backend=backend
    )
    check_lengths(lengths, shards.length)
    if u.shape[0] == 0 or u.shape[1] == 0 or shards.length == 0:  # there is nothing on any rank
        return ops.fft_conv(u, k, k_reverse=k_reverse, skip=skip, pre_gate=pre_gate, post_gate=post_gate)
    reach = shards.length
    k = k[..., :reach]
    k_reverse = None if k_reverse is None or reach < 2 else k_reverse[..., : reach - 1]
    dtype = u.dtype
    if pre_gate is not None or post_gate is not None:  # products with gates are rounded once, as on one device
        dtype = arithmetic(u.dtype)
        k, k_reverse, skip = k.to(dtype), cast(k_reverse, dtype), cast(skip, dtype)
    inside = _inside(lengths, shards.ranges()[ranks.rank], u.device)

    def masked(x: Tensor) -> Tensor:
        return x.to(dtype) if inside is None else torch.where(inside, x, x.new_zeros(())).to(dtype)

    x = masked(u) if pre_gate is None else masked(u) * masked(pre_gate)
    call = Convolution(ranks, shards, k, k_reverse, skip, mode, lengths, chunks, backend)
    y = WAYS[_method(method, call, x)](call, x)
    y = masked(y)
    return (y if post_gate is None else y * masked(post_gate)).to(u.dtype)


def _inside(lengths: Tensor | None, ends: tuple[int, int], device: torch.device) -> Tensor | None:
    """(B, 1, L_r): which positions of a shard are valid."""
    return None if lengths is None else (torch.arange(*ends, device=device) < lengths[:, None])[:, None]


def _method(method: str, call: Convolution, x: Tensor) -> str:
    """The way that is asked for, if it serves the call, or the cheapest."""
    taps_reverse = 0 if call.k_reverse is None else call.k_reverse.shape[-1]
    batch, channels, _ = x.shape
    sizes, taps, circular = call.shards.sizes, call.k.shape[-1], call.mode == "circular"
    sizes_of = Call(batch, channels, sizes, taps, taps_reverse, circular, x.element_size())
    if method == "auto":
        return choose(sizes_of, MACHINES.get(x.device.type, MACHINES["cuda"]))
    if reason := refusal(method, sizes_of):
        raise ValueError(f"method is {method!r}, but it can't serve this call: {reason}")
    return method

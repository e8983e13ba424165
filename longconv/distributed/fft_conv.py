"""The FFT convolution of sequences that are cut along time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from longconv import _sequence, ops
from longconv._checks import check_choice, check_int, check_lengths
from longconv.distributed.agreement import Shards, Tensors, agree_on_all
from longconv.distributed.convolutions import WAYS, Convolution
from longconv.distributed.cost import MACHINES, METHODS, Call, choose, refusal
from longconv.distributed.ranks import Group, Ranks
from longconv.ops.fft_conv import check_arguments
from longconv.ops.fft_conv.plain import arithmetic

FILTERS = ("whole", "sharded")
"""What every rank has of a filter."""


@_sequence.using(None)
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
    filters: str = "whole",
    group: Group = None,
    method: str = "auto",
    chunks: int | None = None,
    backend: str = "auto",
) -> Tensor:
    r"""Long convolution of sequences that are cut along time, a shard a rank; :func:`longconv.fft_conv` of the whole.

    With x = pre_gate u, t counted over all shards in the order of the ranks, and L the sum of their lengths:

        causal      y[t] = sum_{s<=t} k[t-s] x[s] + sum_{s>t} k_reverse[s-t-1] x[s] + skip x[t]
        circular    y[t] = sum_s k[(t-s) mod L] x[s] + skip x[t]

    and the result is post_gate y. All ranks of the group call it together, and later its backward pass.

    Every rank has skip whole, and the filters, unless ``filters`` says that they are cut too. What a rank has of the
    gradient of such a tensor is its share, and the sum over the ranks is the gradient of the sum of the ranks' losses,
    as DDP and FSDP add it up. Of what is cut, a rank has all of the gradient of its shard.

    Args:
        u: this rank's shard (B, H, L_r). Shards may differ in L_r, and have none of the positions.
        k: filter (H, K), or (B, H, K) with one filter a sample; or this rank's shard of it, of K_r >= 0 taps.
        k_reverse: anticausal filter, or a shard of it, or None.
        skip: (H,), or None.
        pre_gate, post_gate: this rank's shards (B, H, L_r), or None.
        mode: ``"causal"`` or ``"circular"``.
        lengths: (B,) valid lengths in 0..L of the whole sequences, the same on all ranks, or None.
        filters: ``"whole"`` on every rank, or ``"sharded"``: cut along their taps in the order of the ranks, for
            filters that no device holds. The shards of k, those of k_reverse and those of u may differ in size.
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
    given = u, k, k_reverse, skip, pre_gate, post_gate, lengths, mode, filters, method, chunks, backend
    call, cuts = _agreed(ranks, Arguments(*given))
    shards = cuts["u"]
    if 0 in (*u.shape[:2], shards.length):
        return _on_one_rank(call._replace(lengths=None))
    if ranks.size == 1 and method == "auto":
        return _on_one_rank(call)
    convolution, dtype = _convolution(call, ranks, cuts), u.dtype
    if call.pre_gate is not None or call.post_gate is not None:  # products are rounded once, as on one device
        dtype = arithmetic(u.dtype)
        convolution = convolution.to(dtype)
    inside = _inside(lengths, shards.ranges()[ranks.rank], u.device)
    x = _gated(u, call.pre_gate, inside, dtype)
    y = WAYS[_way(method, convolution, x)](convolution, x)
    return _gated(y, call.post_gate, inside, dtype).to(u.dtype)


class Arguments(NamedTuple):
    """What this rank gives to a call."""

    u: Tensor
    k: Tensor
    k_reverse: Tensor | None
    skip: Tensor | None
    pre_gate: Tensor | None
    post_gate: Tensor | None
    lengths: Tensor | None
    mode: str
    filters: str
    method: str
    chunks: int | None
    backend: str

    def checked(self) -> Arguments:
        """With dtypes that go together, if everything is right by itself.

        Raises:
            TypeError, ValueError: something isn't.
        """
        check_choice("method", self.method, ("auto", *METHODS))
        check_choice("filters", self.filters, FILTERS)
        if self.chunks is not None:
            check_int("chunks", self.chunks)
        given = self if self.filters == "whole" else self.with_a_tap()
        _, k, k_reverse, skip, pre_gate, post_gate, *_ = check_arguments(*given[:8], self.backend)
        k = k[..., : self.k.shape[-1]]
        k_reverse = None if self.k_reverse is None else k_reverse[..., : self.k_reverse.shape[-1]]
        return self._replace(k=k, k_reverse=k_reverse, skip=skip, pre_gate=pre_gate, post_gate=post_gate)

    def with_a_tap(self) -> Arguments:
        """With filters as whole ones are, which have a tap at least, a 0 where a shard has none."""
        return self._replace(k=_with_a_tap(self.k), k_reverse=_with_a_tap(self.k_reverse))

    def tensors(self) -> tuple[Tensors, Tensors]:
        """Those that are cut, and those that every rank has whole."""
        sequences = {"u": self.u, "pre_gate": self.pre_gate, "post_gate": self.post_gate}
        filters, skip = {"k": self.k, "k_reverse": self.k_reverse}, {"skip": self.skip}
        return (sequences, {**filters, **skip}) if self.filters == "whole" else ({**sequences, **filters}, skip)

    def options(self) -> dict[str, Any]:
        """What has to be the same on all ranks."""
        return {name: getattr(self, name) for name in ("mode", "lengths", "filters", "method", "chunks", "backend")}


def _agreed(ranks: Ranks, call: Arguments) -> tuple[Arguments, dict[str, Shards]]:
    """The arguments, checked, and how the tensors among them are cut, once the ranks agree on the call."""

    def check() -> tuple[Tensors, Tensors]:
        nonlocal call
        call = call.checked()
        return call.tensors()

    cuts = agree_on_all(ranks, "fft_conv", check, -1, **call.options())
    check_lengths(call.lengths, cuts["u"].length)
    for name in ("k", "k_reverse"):
        if name in cuts and cuts[name].length == 0:
            raise ValueError(f"{name} is shards without a tap on any rank, expected at least one tap, K >= 1")
    return call, cuts


def _on_one_rank(call: Arguments) -> Tensor:
    """The call of a rank that has everything, or nothing."""
    u, k, k_reverse, skip, pre_gate, post_gate, lengths, mode, *_ = call.with_a_tap()
    gates = {"pre_gate": pre_gate, "post_gate": post_gate}
    return ops.fft_conv(u, k, k_reverse=k_reverse, skip=skip, **gates, mode=mode, lengths=lengths, backend=call.backend)


def _convolution(call: Arguments, ranks: Ranks, cuts: Mapping[str, Shards]) -> Convolution:
    """What is left of a call once its input is gated and masked, with the taps that meet a sample."""
    shards = cuts["u"]
    k, taps = _reaching(call.k, cuts.get("k"), shards.length, ranks)
    k_reverse, taps_reverse = _reaching(call.k_reverse, cuts.get("k_reverse"), max(1, shards.length - 1), ranks)
    return Convolution(
        ranks, shards, k, k_reverse, taps, taps_reverse, call.skip, call.mode, call.lengths, call.chunks, call.backend
    )


def _reaching(k: Any, taps: Shards | None, reach: int, ranks: Ranks) -> tuple[Any, Shards | None]:
    """A filter without the taps from ``reach`` on, and how it is cut then."""
    if k is None or taps is None:
        return (None if k is None else k[..., :reach]), None
    taps = taps.first(reach)
    return k[..., : taps.sizes[ranks.rank]], taps


def _with_a_tap(k: Any) -> Any:
    """A filter, with a tap 0 where it has none."""
    return F.pad(k, (0, 1)) if isinstance(k, Tensor) and k.ndim > 0 and k.shape[-1] == 0 else k


def _gated(x: Tensor, gate: Tensor | None, inside: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The product of the two in a dtype, 0 at positions that aren't valid, whatever stands there."""

    def masked(x: Tensor) -> Tensor:
        return x.to(dtype) if inside is None else torch.where(inside, x, x.new_zeros(())).to(dtype)

    return masked(x) if gate is None else masked(x) * masked(gate)


def _inside(lengths: Tensor | None, ends: tuple[int, int], device: torch.device) -> Tensor | None:
    """(B, 1, L_r): which positions of a shard are valid."""
    return None if lengths is None else (torch.arange(*ends, device=device) < lengths[:, None])[:, None]


def _way(method: str, it: Convolution, x: Tensor) -> str:
    """The way that is asked for, if it serves the call, or the cheapest."""

    def count(k: Tensor | None, taps: Shards | None) -> int:
        return 0 if k is None else k.shape[-1] if taps is None else taps.length

    batch, channels, _ = x.shape
    sizes = Call(
        batch,
        channels,
        it.shards.sizes,
        count(it.k, it.taps),
        count(it.k_reverse, it.taps_reverse),
        it.mode == "circular",
        x.element_size(),
        it.taps is not None,
        it.k.ndim == 3,
    )
    if method == "auto":
        return choose(sizes, it.ranks.machine or MACHINES.get(x.device.type, MACHINES["cuda"]))
    if reason := refusal(method, sizes):
        raise ValueError(f"method is {method!r}, but it can't serve this call: {reason}")
    return method

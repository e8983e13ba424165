"""Mixers and models on sequences that are cut along time, through one context.

Shapes: B batch, H channels, n positions of a rank, P ranks.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from longconv import _sequence
from longconv._checks import check_int
from longconv._sequence import Channelwise, Decay, Run, Shard, StatePassing
from longconv.distributed.agreement import Shards, agree, agree_on_all
from longconv.distributed.convolutions import from_channels, to_channels
from longconv.distributed.exchange import exchange, gather, redistribute
from longconv.distributed.fft_conv import fft_conv
from longconv.distributed.linear_scan import linear_scan
from longconv.distributed.ranks import Group, Ranks
from longconv.distributed.short_conv import short_conv


@contextmanager
def sequence_parallel(group: Group = None, *, sizes: Sequence[int] | None = None) -> Iterator[SequenceShard]:
    """A context in which every sequence is cut along time, and each rank has its shard of it.

    Within, what this library does along time it does on the whole: :func:`longconv.fft_conv`, ``short_conv``,
    ``linear_scan`` and ``sparse_fft_conv``, all mixers, ``prefill`` of those with a recurrence, backbones and the
    models on them, whose pooling and BatchNorm run over all ranks. Inputs (B, L, ...) are this rank's shards (B, n,
    ...), whose n may differ and be 0; outputs are shards likewise, and what has no time, logits of a class or the state
    after a prefill, is whole and the same on all ranks. ``lengths`` are those of the whole sequences. All ranks make
    the same calls in the same order, and their backward passes too.

    Every rank computes the loss of the whole sequence from such outputs, or from its own positions by
    :meth:`SequenceShard.mean`. The mean of the ranks' gradients of the parameters is then the gradient of that
    loss: DDP and FSDP2 over all processes take it, of data and of sequence ranks together; without them
    :func:`average_gradients` does. What has a value on one rank alone, its shard of the input, has P times that
    gradient. Where several ranks have a maximum of pooling, they have equal parts of its gradient, however often
    each has it.

    The context is one of the process, with all its threads, and the last one to be entered is the first to be left.
    ``backward`` may come after it, but with activation checkpoints, which compute again, it has to come within. What
    ``torch.compile`` has compiled runs as it is written within. A mixer of one's own acts on shards once it says so by
    ``Mixer.shards``.

    The filters of Hyena and Orchid, those that depend on the data too, are cut as sequences are: a rank computes and
    holds its own taps, of a distilled Hyena all up to its last. Every rank has those of the other convolutions whole,
    (filters, L) numbers, and of long_conv with a trained transform and of Orchid's circular form some channels for all
    times. S5 and ConvS5 have no filter. The outer products of fewer heads than ranks are whole on some of the ranks.

    Dropout of single numbers is drawn by every rank for itself, from a generator that had better be seeded
    differently; masks that all positions share are those of the first rank.

    Args:
        group: a process group, a ``DeviceMesh`` of one dimension (``mesh["sequence"]`` of a larger one), a
            :class:`Ranks`, or None for all ranks.
        sizes: n of every rank, where all sequences of the context are cut alike, which saves many small exchanges;
            None: the ranks tell each other whenever the length of the whole is asked for.

    Yields:
        The shard; its ``cut`` takes this rank's part of a tensor that all have.

    Raises:
        TypeError, ValueError: ``sizes`` that are no numbers, not one for each rank, or others on another rank.
        RuntimeError: on leaving it before a context that was entered later.
        NotImplementedError: within, by mixers that can't act on shards, which it names, and by what takes or makes
            samples one by one: ``step``, streams, ``generate`` and the losses and rollouts of models of video.

    >>> from longconv import create_mixer
    >>> store = torch.distributed.HashStore()
    >>> torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    >>> with sequence_parallel() as shard:
    ...     create_mixer("s4d", 4)(shard.cut(torch.randn(2, 100, 4))).shape
    torch.Size([2, 100, 4])
    >>> torch.distributed.destroy_process_group()
    """
    shard = SequenceShard.agreed(Ranks.of(group), sizes)
    with torch.compiler.set_stance("force_eager"), _sequence.using(shard):
        yield shard


class SequenceShard(Shard):
    """This rank's part of every sequence, as :func:`sequence_parallel` gives it.

    Attributes:
        ranks: those that hold the sequence.
    """

    def __init__(self, ranks: Ranks, given: Shards | None) -> None:
        self.ranks, self._given = ranks, given

    @classmethod
    def agreed(cls, ranks: Ranks, sizes: Sequence[int] | None) -> SequenceShard:
        """That of sequences of given sizes, if these are right on all ranks."""

        def check() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
            for size in sizes or ():
                check_int("sizes", size, least=0)
            if sizes is not None and len(sizes) != ranks.size:
                raise ValueError(f"sizes is {tuple(sizes)}, expected one number for each of {ranks.size} ranks")
            return {}, {}

        agree_on_all(ranks, "sequence_parallel", check, 0, sizes=None if sizes is None else str(tuple(sizes)))
        return cls(ranks, None if sizes is None else Shards(tuple(sizes)))

    # --- for those who write a training loop --------------------------------------------------------------------------

    def cut(self, x: Tensor, dim: int = 1) -> Tensor:
        """This rank's part of a whole sequence, in the given sizes or in even ones, the first longer by one."""
        length = x.shape[dim]
        shards = self._given or Shards.even(length, self.ranks.size)
        if shards.length != length:
            raise ValueError(f"x has {length} positions along dim {dim}, expected {shards.length}, the sum of sizes")
        start, stop = shards.ranges()[self.ranks.rank]
        return x.narrow(dim, start, stop - start)

    def mean(self, numbers: Tensor, counted: Tensor | None = None) -> Tensor:
        """The mean of numbers at the positions of all ranks, such as losses; of those that are ``counted`` (bool)."""
        counted = torch.ones_like(numbers, dtype=torch.bool) if counted is None else counted
        total = self.add(numbers.masked_fill(~counted, 0).sum())
        return total / self.add(counted.sum())

    # --- sizes --------------------------------------------------------------------------------------------------------

    def shards(self, size: int) -> Shards:
        """How the sequence is cut of which this rank has ``size`` positions."""
        if self._given is None:
            some = torch.empty(size, device="meta")
            return agree(self.ranks, "the length of a sequence", lambda: ({"x": some}, {}), 0)
        expected = self._given.sizes[self.ranks.rank]
        if size != expected:
            raise ValueError(f"a shard has {size} positions on rank {self.ranks.rank}, expected {expected}, by sizes")
        return self._given

    def total(self, size: int) -> int:
        """L of the whole."""
        return self.shards(size).length

    def start(self, size: int) -> int:
        """The number of this rank's first position."""
        return self.shards(size).ranges()[self.ranks.rank][0]

    def evenly(self, length: int) -> SequenceShard:
        """That of other sequences, of so many positions, the first shards longer by one."""
        return SequenceShard(self.ranks, Shards.even(length, self.ranks.size))

    def share(self, length: int) -> int:
        """The positions of this rank in :meth:`evenly`."""
        return Shards.even(length, self.ranks.size).sizes[self.ranks.rank]

    # --- tensors of all ranks -----------------------------------------------------------------------------------------

    def add(self, part: Tensor) -> Tensor:
        """The sum of the ranks' tensors, in the same order on all of them."""
        return torch.stack(self._gather("a sum over the sequence", part)).sum(0)

    def greatest(self, part: Tensor) -> Tensor:
        """The greatest of the ranks' numbers, each by itself."""
        return torch.stack(self._gather("a maximum over the sequence", part)).amax(0)

    def first(self, x: Tensor) -> Tensor:
        """The tensor of the first rank, without a gradient."""
        x, first = x.detach(), self.ranks.rank == 0
        self._agree("a mask", x)
        pieces = [x if first else x.flatten()[:0]] * self.ranks.size
        shapes = [tuple(x.shape), *[(0,)] * (self.ranks.size - 1)]
        return exchange(self.ranks, pieces, shapes)()[0]

    def _agree(self, name: str, x: Tensor) -> None:
        agree_on_all(self.ranks, name, lambda: ({}, {"x": x}), 0)

    def _gather(self, name: str, x: Tensor) -> tuple[Tensor, ...]:
        self._agree(name, x)
        return gather(self.ranks, x)

    def around(self, x: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """This rank's positions of x (B, H, n) and as many more at either end as ``before`` and ``after`` have."""
        shards, reach = self.shards(x.shape[-1]), before.shape[-1]
        ranges = shards.ranges()
        windows = [[(start - reach, stop + reach)] for start, stop in ranges]
        (window,) = redistribute(self.ranks, x, [[ends] for ends in ranges], windows)
        start, stop = ranges[self.ranks.rank]
        first, last = max(0, reach - start), max(0, stop + reach - shards.length)  # of those that no rank has
        return torch.cat([before[..., reach - first :], window, after[..., :last]], -1)

    def channelwise(self, function: Channelwise, sequences: tuple[Tensor, ...], size: int) -> Tensor:
        """A function of whole sequences: every rank gets some channels for all times, and gives back what it made.

        A rank that gets none calls it on zeros, so that it too comes by in the backward pass.
        """
        ranks, channels = self.ranks, sequences[0].shape[1]

        def check() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
            parts = {f"sequence {i}": x for i, x in enumerate(sequences)}
            return {**parts, "the result": torch.empty(1, 1, size, device="meta")}, {}

        *cuts, made = agree_on_all(ranks, "channelwise", check, 2).values()
        parts = Shards.even(channels, ranks.size).ranges()
        coming = [to_channels(ranks, x, cut, parts) for x, cut in zip(sequences, cuts, strict=True)]
        wholes = [finish() for finish in coming]
        start, stop = parts[ranks.rank]
        with _sequence.using(None):
            if start == stop and channels > 0:
                y = function(slice(0, 1), *(F.pad(x, (0, 0, 0, 1)) for x in wholes))[:, :0]
            else:
                y = function(slice(start, stop), *wholes)
        return torch.cat(from_channels(ranks, y, made, parts)()).transpose(0, 1)

    # --- recurrences --------------------------------------------------------------------------------------------------

    def scan(self, run: Run, decay: Decay, start: Tensor, size: int, reverse: bool) -> tuple[Tensor, Tensor]:
        """The states from 0 give what the ranks tell each other; those from the state that follows are the result."""
        sizes = self.shards(size).sizes
        with _sequence.using(None):
            states = run(torch.zeros_like(start))
            end = states[:, -1] if size else states.sum(1)
            before, after = self._pass(end, decay, start, sizes, reverse)
            return run(before), after

    def prefill(self, mixer: Any, u: Tensor, state: Any) -> tuple[Tensor, Any]:
        """A chunk of which every rank has a shard."""
        if not isinstance(mixer, StatePassing):
            raise NotImplementedError(
                f"{type(mixer).__name__} can't prefill a sequence whose shards are on several ranks: it has no form of "
                "prefill for them; its forward acts on shards"
            )
        size, shape = u.shape[1], u.shape
        sizes = self.shards(size).sizes
        with _sequence.using(None):
            zero = state._replace(x=torch.zeros_like(state.x))
            # a rank without samples takes in a zero, which leaves the state 0, so that it too has all gradients
            some = u if size else torch.cat([u, u.new_zeros(shape[0], 1, *shape[2:])], 1)
            end = mixer._after(some, zero).to(state.x.dtype)
            start = state.x if state.x.shape == end.shape else torch.zeros_like(end)
            before, after = self._pass(end, functools.partial(mixer._decay, state), start, sizes, False)
            y, _ = mixer._prefill(some, state._replace(x=before))
        return y[:, :size], state._replace(x=after)

    def _pass(
        self, end: Tensor, decay: Decay, start: Tensor, sizes: Sequence[int], reverse: bool
    ) -> tuple[Tensor, Tensor]:
        """The state before this rank's samples and that after all, from those at the ends of the ranks' scans from 0.

            before[r + 1] = end[r] + decay(before[r], n[r]),    before[0] = start

        Every rank tells all others, and goes through these few steps by itself.
        """
        ends, state = self._gather("the state after a shard", end), start
        states = [start.to(end.dtype)]
        left = {size: decay(size) for size in set(sizes)}
        pairs = list(zip(ends, sizes, strict=True))
        for other, size in reversed(pairs) if reverse else pairs:
            state = other + left[size](state)
            states.append(state.to(end.dtype))
        # of all ranks, so that the backward pass comes by on the first rank too, which needs no state of others
        every = torch.stack(states)
        return every[self.ranks.size - 1 - self.ranks.rank if reverse else self.ranks.rank], every[-1]

    # --- operators ----------------------------------------------------------------------------------------------------

    def fft_conv(self, u: Tensor, k: Tensor, **options: Any) -> Tensor:
        """:func:`longconv.distributed.fft_conv`."""
        return fft_conv(u, k, **options, group=self.ranks)

    def short_conv(self, u: Tensor, w: Tensor, bias: Tensor | None, **options: Any) -> Tensor:
        """:func:`longconv.distributed.short_conv`."""
        return short_conv(u, w, bias, **options, group=self.ranks)

    def linear_scan(self, a: Tensor, b: Tensor, initial: Tensor | None, **options: Any) -> Tensor:
        """:func:`longconv.distributed.linear_scan`."""
        return linear_scan(a, b, initial, **options, group=self.ranks)

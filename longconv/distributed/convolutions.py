"""Three ways to convolve sequences that are cut along time, each exact; :mod:`longconv.distributed.cost` compares them.

Symbols: P ranks, B batch, H channels, L length of the whole sequence, K taps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from longconv import ops
from longconv.distributed.agreement import Shards
from longconv.distributed.exchange import Range, exchange, redistribute
from longconv.distributed.four_steps import Steps
from longconv.distributed.ranks import Ranks
from longconv.ops.fft_conv.plain import arithmetic
from longconv.ops.fft_conv.torch_fft import Twisted, next_fast_length, twist


class Convolution(NamedTuple):
    """C x + skip x, what is left of a call once the input is gated and masked."""

    ranks: Ranks
    shards: Shards
    k: Tensor  # (H, K) or (B, H, K), this rank's taps where they are cut
    k_reverse: Tensor | None
    taps: Shards | None  # how k is cut; None: every rank has all of it
    taps_reverse: Shards | None
    skip: Tensor | None
    mode: str
    lengths: Tensor | None
    chunks: int | None
    backend: str

    def to(self, dtype: torch.dtype) -> Convolution:
        """That with filters and skip in a dtype."""
        return self._replace(k=self.k.to(dtype), k_reverse=cast(self.k_reverse, dtype), skip=cast(self.skip, dtype))


CHUNK_BYTES = 1 << 20
"""An exchange by channels is cut into chunks that overlap with the work, but not into smaller ones."""

MOST_CHUNKS = 4


def by_channels(call: Convolution, x: Tensor) -> Tensor:
    """Every rank gets some channels for all times, convolves them as ever, and gives them back.

    The channels of a rank are worked on in chunks: while one is convolved the next is on its way. Filters that are cut
    come to the ranks of their channels, all at once.
    """
    ranks, (batch, channels, _) = call.ranks, x.shape
    largest = batch * channels * max(call.shards.sizes) * x.element_size()  # of a shard: the same on all ranks
    own = Shards.even(channels, ranks.size)
    chunks = call.chunks or min(MOST_CHUNKS, largest // CHUNK_BYTES)
    chunks = max(1, min(chunks, max(own.sizes)))
    parts = [  # of every rank, of every chunk
        [(start + first, start + last) for first, last in Shards.even(stop - start, chunks).ranges()]
        for start, stop in own.ranges()
    ]
    filters = _filters_to_channels(call, own.ranges())

    def start(chunk: int) -> Callable[[], Tensor]:
        return to_channels(ranks, x, call.shards, [part[chunk] for part in parts])

    coming, going = start(0), []
    mine, offset = filters(), own.ranges()[ranks.rank][0]
    for chunk in range(chunks):
        whole = coming()
        if chunk + 1 < chunks:
            coming = start(chunk + 1)
        y = _convolve(mine, whole, slice(*(channel - offset for channel in parts[ranks.rank][chunk])))
        going.append(from_channels(ranks, y, call.shards, [part[chunk] for part in parts]))
    arrived = [finish() for finish in going]
    return torch.cat([chunk[rank] for rank in range(ranks.size) for chunk in arrived]).transpose(0, 1)


def to_channels(ranks: Ranks, x: Tensor, shards: Shards, parts: list[Range]) -> Callable[[], Tensor]:
    """Begin to bring every rank its channels for all times, of x (..., H, L_r); what waits for them."""
    rows, (first, last) = x.movedim(-2, 0), parts[ranks.rank]
    shapes = [(last - first, *rows.shape[1:-1], size) for size in shards.sizes]
    finish = exchange(ranks, [rows[slice(*part)] for part in parts], shapes)
    return lambda: torch.cat(finish(), -1).movedim(0, -2)


def from_channels(ranks: Ranks, y: Tensor, shards: Shards, parts: list[Range]) -> Callable[[], tuple[Tensor, ...]]:
    """Begin to give back channels y (B, h, L) of the whole; what waits for the ranks' ones, (h_i, B, L_r) each."""
    shapes = [(last - first, y.shape[0], shards.sizes[ranks.rank]) for first, last in parts]
    return exchange(ranks, y.transpose(0, 1).split(list(shards.sizes), 2), shapes)


def _filters_to_channels(call: Convolution, parts: list[Range]) -> Callable[[], Convolution]:
    """Begin to bring every rank the filters of its channels; what waits for them, for a call of those channels."""
    mine = slice(*parts[call.ranks.rank])

    def begin(k: Tensor | None, taps: Shards | None) -> Callable[[], Tensor | None]:
        if k is None or taps is None:
            return lambda: None if k is None else k[..., mine, :]
        return to_channels(call.ranks, k, taps, parts)

    causal, anticausal = begin(call.k, call.taps), begin(call.k_reverse, call.taps_reverse)

    def finish() -> Convolution:
        k = causal()
        assert k is not None
        return call._replace(k=k, k_reverse=anticausal(), skip=None if call.skip is None else call.skip[mine])

    return finish


def _convolve(call: Convolution, x: Tensor, channels: slice) -> Tensor:
    """Some channels x (B, h, L) of the whole sequence."""
    k = call.k[..., channels, :]
    return ops.fft_conv(
        x,
        k,
        k_reverse=None if call.k_reverse is None else call.k_reverse[..., channels, :],
        skip=None if call.skip is None else call.skip[channels],
        mode=call.mode,
        lengths=call.lengths,
        backend=call.backend,
    )


def by_neighbours(call: Convolution, x: Tensor) -> Tensor:
    """Every rank convolves its own shard, and what leaves it at its ends is added by the ranks next to it.

    What leaves goes first, and is on its way while the shard is convolved. Filters that are cut come to every rank
    before, whole: they are no longer than a shard.
    """
    ranks, dtype, (batch, channels, size) = call.ranks, arithmetic(x.dtype), x.shape
    wide, k = x.to(dtype), _whole(ranks, call.k, call.taps).to(dtype)
    k_reverse = None if call.k_reverse is None else _whole(ranks, call.k_reverse, call.taps_reverse).to(dtype)
    sizes, before, after = call.shards.sizes, ranks.rank - 1, ranks.rank + 1
    pieces, arriving = [wide[..., :0]] * ranks.size, [0] * ranks.size

    def send(piece: Tensor, to: int, from_other: int) -> None:
        """A piece to one neighbour, or nothing of it at an end, and as much from the other one."""
        if 0 <= to < ranks.size:
            pieces[to] = piece[..., : sizes[to]]
        else:  # nothing, but a part of the graph: with gradients on one rank all ranks have them
            pieces[ranks.rank] = torch.cat([pieces[ranks.rank], piece[..., :0]], -1)
        if 0 <= from_other < ranks.size:
            arriving[from_other] = min(piece.shape[-1], size)

    send(tail(wide, k), after, before)
    if k_reverse is not None:
        send(tail(wide.flip(-1), F.pad(k_reverse, (1, 0))), before, after)
    coming = exchange(ranks, pieces, [(batch, channels, count) for count in arriving])
    y = ops.fft_conv(wide, k, k_reverse=k_reverse, skip=cast(call.skip, dtype), backend=call.backend)
    arrived = coming()
    if before >= 0:
        y = y + F.pad(arrived[before], (0, size - arriving[before]))
    if after < ranks.size:
        y = y + F.pad(arrived[after].flip(-1), (size - arriving[after], 0))
    return y


def _whole(ranks: Ranks, k: Tensor, taps: Shards | None) -> Tensor:
    """All taps of a filter, on every rank."""
    if taps is None:
        return k
    everywhere = [[(0, taps.length)]] * ranks.size
    return redistribute(ranks, k, [[ends] for ends in taps.ranges()], everywhere)[0]


def tail(x: Tensor, k: Tensor) -> Tensor:
    """What a chunk x (B, H, T) adds to the K - 1 outputs after it: y[T], ..., y[T + K - 2] of k * x.

    Modulo X^n - i the product of two polynomials of n terms is the head of the convolution in its real part, and in its
    imaginary part the tail. Only the last n >= K samples of the chunk count.
    """
    n = next_fast_length(k.shape[-1])
    ring, last = Twisted(n), x[..., -n:]
    spectrum = ring.transform(F.pad(last, (n - last.shape[-1], 0))) * ring.transform(k)
    z, w = torch.fft.ifft(spectrum), twist(n, x)
    return (z.imag * w.real - z.real * w.imag)[..., : k.shape[-1] - 1]


def by_four_steps(call: Convolution, x: Tensor) -> Tensor:
    """One transform that all ranks take part in, of every row: :class:`~longconv.distributed.four_steps.Steps`.

    A rank has some of the frequencies of every row. Of filters that it has whole it makes those by itself; filters that
    are cut are transformed as the rows are.
    """
    ranks, dtype = call.ranks, arithmetic(x.dtype)
    steps, wide = Steps(ranks, call.shards.length, dtype, x.device), x.to(dtype)
    spectrum = steps.transform(wide, call.shards)
    filters = _spectrum(steps, call.k.to(dtype), call.taps)
    if call.k_reverse is not None:  # delayed by one, conjugated
        delayed = call.k_reverse.to(dtype)
        if call.taps_reverse is None or ranks.rank == 0:
            delayed = F.pad(delayed, (1, 0))
        taps = call.taps_reverse and call.taps_reverse.delayed()
        filters = filters + _spectrum(steps, delayed, taps).conj_physical()
    y = steps.inverse(spectrum * filters, call.shards)
    return y if call.skip is None else y + call.skip.to(dtype)[:, None] * wide


def _spectrum(steps: Steps, k: Tensor, taps: Shards | None) -> Tensor:
    """A filter at this rank's frequencies, (H, M) or (B, H, M)."""
    return steps.own_frequencies(k) if taps is None else steps.transform(k, taps)


def cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """The tensor, if there is one, in a dtype."""
    return None if tensor is None else tensor.to(dtype)


WAYS = {"channels": by_channels, "neighbours": by_neighbours, "four_step": by_four_steps}

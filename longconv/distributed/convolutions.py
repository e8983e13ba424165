"""Three ways to convolve sequences that are cut along time, each exact; :mod:`longconv.distributed.cost` compares them.

Symbols: P ranks, B batch, H channels, L length of the whole sequence, K taps, N points of a transform.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from longconv import ops
from longconv.distributed.agreement import Shards
from longconv.distributed.exchange import exchange, redistribute
from longconv.distributed.ranks import Ranks
from longconv.ops.fft_conv.plain import arithmetic
from longconv.ops.fft_conv.torch_fft import Twisted, next_fast_length, twist


class Convolution(NamedTuple):
    """C x + skip x, what is left of a call once the input is gated and masked."""

    ranks: Ranks
    shards: Shards
    k: Tensor  # (H, K) or (B, H, K)
    k_reverse: Tensor | None
    skip: Tensor | None
    mode: str
    lengths: Tensor | None
    chunks: int | None
    backend: str


CHUNK_BYTES = 1 << 20
"""An exchange by channels is cut into chunks that overlap with the work, but not into smaller ones."""

MOST_CHUNKS = 4


def by_channels(call: Convolution, x: Tensor) -> Tensor:
    """Every rank gets some channels for all times, convolves them as ever, and gives them back.

    The channels of a rank are worked on in chunks: while one is convolved the next is on its way.
    """
    ranks, (batch, channels, size) = call.ranks, x.shape
    largest = batch * channels * max(call.shards.sizes) * x.element_size()  # of a shard: the same on all ranks
    own = Shards.even(channels, ranks.size)
    chunks = call.chunks or min(MOST_CHUNKS, largest // CHUNK_BYTES)
    chunks = max(1, min(chunks, max(own.sizes)))
    parts = [  # of every rank, of every chunk
        [(start + first, start + last) for first, last in Shards.even(stop - start, chunks).ranges()]
        for start, stop in own.ranges()
    ]
    rows, mine = x.transpose(0, 1), parts[ranks.rank]

    def start(chunk: int) -> tuple[list[Tensor], list[tuple[int, int, int]]]:
        pieces = [rows[slice(*parts[rank][chunk])] for rank in range(ranks.size)]
        count = mine[chunk][1] - mine[chunk][0]
        return pieces, [(count, batch, length) for length in call.shards.sizes]

    coming, going = exchange(ranks, *start(0)), []
    for chunk in range(chunks):
        whole = torch.cat(coming(), 2).transpose(0, 1)
        if chunk + 1 < chunks:
            coming = exchange(ranks, *start(chunk + 1))
        y = _convolve(call, whole, slice(*mine[chunk]))
        pieces = y.transpose(0, 1).split(list(call.shards.sizes), 2)
        shapes = [(last - first, batch, size) for first, last in (part[chunk] for part in parts)]
        going.append(exchange(ranks, pieces, shapes))
    arrived = [finish() for finish in going]
    return torch.cat([chunk[rank] for rank in range(ranks.size) for chunk in arrived]).transpose(0, 1)


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

    What leaves goes first, and is on its way while the shard is convolved.
    """
    ranks, dtype, (batch, channels, size) = call.ranks, arithmetic(x.dtype), x.shape
    wide, k, k_reverse = x.to(dtype), call.k.to(dtype), cast(call.k_reverse, dtype)
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
    """One transform of N = P M points that all ranks take part in, of every row; for rows that are few.

    With w[n] = exp(i pi n / 2N) as in the ring X^N - i of :mod:`longconv.ops.fft_conv.torch_fft`, n = r M + m and
    frequencies q + P p,

        T(x)[q + P p] = sum_m e^(-2 pi i m p / M) e^(-2 pi i m q / N) sum_r e^(-2 pi i r q / P) x[n] w[n]:

    columns m are given to the ranks, which sum over r; then rank q gets all m of its q, and transforms those. It has
    the frequencies q + P p of every row, and makes those of the filters by itself. The way back is the same.
    """
    ranks, rank = call.ranks, call.ranks.rank
    dtype, length = arithmetic(x.dtype), call.shards.length
    count = ranks.size
    width = next_fast_length(max(-(-length // count), count))  # a column for every rank at least
    columns = Shards.even(width, count).ranges()
    first, last = columns[rank]
    held = [[(min(r * width + a, length), min(r * width + b, length)) for r in range(count)] for a, b in columns]
    own = [[ends] for ends in call.shards.ranges()]
    wide = x.to(dtype)

    rows = redistribute(ranks, wide, own, held)
    grid = torch.stack([F.pad(row, (0, last - first - row.shape[-1])) for row in rows], -2)  # (B, H, P, columns)
    place = torch.arange(count, device=x.device)[:, None] * width + torch.arange(first, last, device=x.device)
    w = _turns(place, 4 * count * width, dtype)
    columns_at = torch.arange(first, last, device=x.device)
    turned = _turns(-4 * columns_at * torch.arange(count, device=x.device)[:, None], 4 * count * width, dtype)
    partial = torch.fft.fft(grid * w, dim=-2) * turned

    lead = x.shape[:2]
    shapes = [(*lead, b - a) for a, b in columns]
    spectrum = torch.fft.fft(torch.cat(exchange(ranks, partial.unbind(-2), shapes)(), -1))
    product = spectrum * _own_spectrum(call, width, dtype)
    z = torch.fft.ifft(product).split([b - a for a, b in columns], -1)
    back = torch.stack(exchange(ranks, z, [(*lead, last - first)] * count)(), -2)
    y = torch.fft.ifft(back * turned.conj_physical(), dim=-2)
    y = y.real * w.real + y.imag * w.imag  # the real part of y / w
    kept = torch.cat([row[..., : b - a] for row, (a, b) in zip(y.unbind(-2), held[rank], strict=True)], -1)
    y = redistribute(ranks, kept, held, own)[0]
    return y if call.skip is None else y + call.skip.to(dtype)[:, None] * wide


def _own_spectrum(call: Convolution, width: int, dtype: torch.dtype) -> Tensor:
    """T(k) + conj(T(k_reverse delayed by one)) at this rank's frequencies, (H, M) or (B, H, M)."""
    count, rank = call.ranks.size, call.ranks.rank
    place = torch.arange(count * width, device=call.k.device)
    turned = _turns(place * (1 - 4 * rank), 4 * count * width, dtype)

    def transform(taps: Tensor) -> Tensor:
        reach = taps.shape[-1]
        folded = F.pad(taps.to(dtype) * turned[:reach], (0, -reach % width)).unflatten(-1, (-1, width)).sum(-2)
        return torch.fft.fft(folded)

    spectrum = transform(call.k)
    if call.k_reverse is not None:
        spectrum = spectrum + transform(F.pad(call.k_reverse, (1, 0))).conj_physical()
    return spectrum


def _turns(number: Tensor, whole: int, dtype: torch.dtype) -> Tensor:
    """exp(2 pi i number / whole) for integers, rounded once."""
    angle = (number % whole).double() * (2 * math.pi / whole)
    return torch.polar(torch.ones_like(angle), angle).to(torch.promote_types(dtype, torch.complex64))


def cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """The tensor, if there is one, in a dtype."""
    return None if tensor is None else tensor.to(dtype)


WAYS = {"channels": by_channels, "neighbours": by_neighbours, "four_step": by_four_steps}

"""Streams of few channels: a block of samples becomes as many channels, whose stream goes on block by block.

The work of a stream is spread over its channels, so that with few of them single steps would do very much. Polynomials
of S coefficients modulo X^S - i are as many numbers, their values at its roots; so the products of blocks x_i and k_j,
of which the real part belongs to block i + j and the imaginary part to the next one, are products of those, and three
products of real numbers each. What all blocks so far add to the next one, m + 1, is

    Re V_m + Im U_m,    V_m = sum_{i <= m} x_i k_{m+1-i},    U_m = sum_{i <= m} x_i k_{m-i} = V_{m-1} + x_m k_0

where V is an online convolution of 3 S channels for each one, with taps from k_1 on. Where the filter is a stream,
factors of block m + 1 itself are left out of V_m, and U_m has x_0 k_m as well.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from longconv.ops.fft_conv import fft_conv
from longconv.streaming.products import Known, Streamed, TapRange, folded_sum, halves
from longconv.streaming.state import Folded, OnlineState

if TYPE_CHECKING:
    from longconv.streaming.online import OnlineConv

FEW = 16
"""Channels from which on no stream is folded, and blocks a channel up to which no filter that ends is."""
LARGEST = 128
"""The largest block that is folded: its maps have 12 S^2 numbers."""


def folds(products: Known | Streamed, channels: int) -> bool:
    """Whether a stream of so many channels is folded: where a step would do much more than the work of a block.

    A function of the length alone for a filter that goes on for ever isn't: its calls are longer than any FFT.
    """
    if not (1 < products.block <= LARGEST and 0 < channels < FEW):
        return False
    if isinstance(products, Known) and products.length is not None:
        return products.length > FEW * products.block * channels
    return isinstance(products, Streamed) or products.ranges


def maps(S: int, like: Tensor) -> tuple[Tensor, ...]:
    """What takes samples and taps to 3 S factors, both (S, 3 S), and the products V and U to S outputs, (3 S, S)."""
    n = torch.arange(S, dtype=torch.float64)
    angle = n[:, None] * (1 - 4 * n) % (4 * S) * (math.pi / (2 * S))
    re, im = angle.cos(), angle.sin()
    real, imaginary = re.T / S, -im.T / S
    return tuple(
        torch.cat(parts, dim).to(like)
        for dim, parts in (
            (1, (re + im, re, im)),
            (1, (re, im - re, re + im)),
            (0, (real - imaginary, -imaginary, -real)),
            (0, (real + imaginary, real, -imaginary)),
        )
    )


def factors(z: Tensor, to_factors: Tensor) -> Tensor:
    """Blocks (Z, H, M, S), or (H, M, S) of taps, as channels: (..., 3 S H, M)."""
    return (z @ to_factors).transpose(-1, -2).flatten(-3, -2)


def tap_factors(k: Tensor, S: int, dtype: torch.dtype) -> Tensor:
    """The same of taps (H, ...) or (B, H, ...), filled up to whole blocks, computed in double precision."""
    wide = F.pad(k.double(), (0, -k.shape[-1] % S)).unflatten(-1, (-1, S))
    return factors(wide, maps(S, wide)[1]).to(dtype)


def block_taps(products: Known, k: Tensor) -> TapRange:
    """The taps of the folded stream: (3 S H, stop - start), or the same of each sample, of the blocks after the first.

    ``k`` are those that there are already.
    """
    S = products.block

    def taps(start: int, stop: int) -> Tensor:
        first, last = (start + 1) * S, (stop + 1) * S
        have = min(max(first, k.shape[-1]), last)
        part = k[..., first:have]
        if products.length is None and have < last:
            part = torch.cat((part, products.taken(have, last, k).to(k)), -1)
        return tap_factors(part, S, k.dtype)

    return taps


def begin(k_0: Tensor | None, online: OnlineState, pending: Tensor) -> Folded:
    """The first state; ``k_0`` (H, S) or (B, H, S) are the first taps, None where they are a stream."""
    S, batch, channels = pending.shape
    before = pending.new_zeros(batch, 3 * S * channels)
    first = before[:0] if k_0 is None else tap_factors(k_0, S, pending.dtype)[..., 0]
    return Folded(online, before, first if first.ndim == 2 else first[None], maps(S, pending))


def ahead(z: Tensor, folded: Folded, conv: OnlineConv) -> tuple[Tensor, Folded]:
    """What all blocks up to each of the next M blocks z (Z, H, M, S) add to the one that follows: (B, H, M, S)."""
    online, before, first, (of_samples, of_taps, to_outputs, to_next) = folded
    x, k = halves(z) if isinstance(conv.products, Streamed) else (z, None)
    a, b, begins = factors(x, of_samples), None, 0
    if k is None:
        own = a * first[..., None]
    else:
        b = factors(k, of_taps)
        begins = 0 if len(first) else 1  # the first block has no taps and samples of another one
        first = torch.cat((b[..., 0], a[..., 0])) if begins else first
        own = folded_sum(torch.cat((a, b)) * first[..., None])
        own = torch.cat((own[..., :begins] / 2, own[..., begins:]), -1)
    v = before[..., None][..., :begins]
    if begins < z.shape[2]:
        more, online = _gone_on(a[..., begins:], None if b is None else b[..., begins:], online, conv)
        v = torch.cat((v, more), -1)
    u = torch.cat((before[..., None], v[..., :-1]), -1) + own
    y = _unfolded(v, to_outputs, x.shape[1]) + _unfolded(u, to_next, x.shape[1])
    return y, folded._replace(online=online, before=v[..., -1].contiguous(), first=first)


def _gone_on(a: Tensor, b: Tensor | None, state: OnlineState, conv: OnlineConv) -> tuple[Tensor, OnlineState]:
    """The online convolution of M numbers and more for each channel."""
    if a.shape[-1] > 1:
        return conv.prefill(a, state, b)
    y, state = conv.step(a[..., 0], state, None if b is None else b[..., 0])
    return y[..., None], state


def within(z: Tensor, k: tuple[Tensor, ...], streamed: bool, begins: bool) -> Tensor:
    """The outputs (B, H, M, S) of blocks z (Z, H, M, S) from their own samples and the first taps.

    ``k`` is that of the state after them; ``begins`` says whether a stream of taps too begins with them.
    """
    S, M = z.shape[-1], z.shape[2]
    head = k[0].permute(1, 2, 0) if streamed else k[1][..., :S]
    head = head if head.ndim == 2 else head.repeat_interleave(M, 0)
    y = fft_conv(z.transpose(1, 2).flatten(0, 1), head).unflatten(0, (len(z), M)).transpose(1, 2)
    if not streamed:
        return y
    y = folded_sum(y)
    return torch.cat((y[:, :, :1] / 2, y[:, :, 1:]), 2) if begins else y


def _unfolded(v: Tensor, to_outputs: Tensor, channels: int) -> Tensor:
    """Products (B, 3 S H, M) -> outputs (B, H, M, S)."""
    return v.unflatten(1, (channels, len(to_outputs))).transpose(-1, -2) @ to_outputs

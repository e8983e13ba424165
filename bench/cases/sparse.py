"""``longconv.ops.sparse_fft_conv`` beside transforms of the whole spectrum, for several shares of it."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

import longconv
from bench.case import OURS, Case, Problem, Solve, Work, both
from bench.cases.fft_conv import flops, shapes

MASKS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "kept-1-2": ((8,), (4,)),
    "kept-1-4": ((8,), (2,)),
    "kept-1-8": ((8,), (1,)),
    "monarch-1-4": ((8, 8), (4, 4)),
}
"""The blocks along each axis, and how many of the first of them are kept."""


def block_mask(blocks: tuple[int, ...], kept: tuple[int, ...]) -> Tensor:
    """The blocks below ``kept`` along every axis."""
    mask = torch.zeros(blocks, dtype=torch.bool)
    mask[tuple(slice(count) for count in kept)] = True
    return mask


class Frequencies:
    """What a mask means for transforms at X^L = -i: prepared before the timing, as the mask of ours is.

    Attributes:
        kept: whether a frequency is, (L,).
        twist: what turns an ordinary transform into this one, (L,), by its dtype.
    """

    def __init__(self, mask: Tensor, length: int) -> None:
        angle = torch.arange(length, dtype=torch.float64, device=mask.device) * (math.pi / (2 * length))
        wide = torch.polar(torch.ones_like(angle), -angle)
        self.kept = mask.permute(*range(mask.ndim - 1, -1, -1)).flatten().repeat(length // mask.numel())
        self.twist = {torch.float32: wide.to(torch.complex64), torch.float64: wide}

    def spectrum(self, k: Tensor) -> Tensor:
        """That of k (..., L), zero where nothing is kept."""
        return torch.fft.fft(k * self.twist[k.dtype]) * self.kept

    def whole(self, u: Tensor, k: Tensor) -> Tensor:
        """The usual way: transforms of all frequencies, most of whose products are zeros."""
        twist = self.twist[u.dtype]
        return (torch.fft.ifft(torch.fft.fft(u * twist) * self.spectrum(k)) * twist.conj()).real

    def dense(self, u: Tensor, k: Tensor) -> Tensor:
        """``fft_conv`` with the taps of the masked filter, at lags below zero too."""
        taps = torch.fft.ifft(self.spectrum(k)) * self.twist[u.dtype].conj()
        return longconv.fft_conv(u, taps.real.contiguous(), k_reverse=taps.imag[..., 1:].flip(-1))


def problem(batch: int, channels: int, length: int, name: str, backward: bool) -> Problem:
    """Random filters of the whole length, under one of the :data:`MASKS`."""
    mask = block_mask(*MASKS[name])
    frequencies = Frequencies(mask, length)

    def inputs(batch: int, channels: int) -> tuple[Tensor, Tensor]:
        return torch.randn(batch, channels, length), torch.randn(channels, length) / length**0.5

    sides: dict[str, Solve | None] = {
        OURS: lambda u, k: longconv.ops.sparse_fft_conv(u, k, mask),
        "longconv fft_conv": frequencies.dense,
        "torch fft": frequencies.whole,
    }
    work = Work(flops(batch, channels, length, backward), batch * channels, length)
    return Problem(inputs(batch, channels), sides, frequencies.whole, inputs(2, 16), backward, work=work)


def cases() -> list[Case]:
    """Every share at five lengths."""
    return [
        case
        for shape in shapes(1024, 4096, 16384, 65536, 1 << 19)
        for name in MASKS
        for case in both(
            f"sparse_fft_conv/{'x'.join(map(str, shape))}/{name}", functools.partial(problem, *shape, name)
        )
    ]

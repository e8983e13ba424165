"""``longconv.ops.sparse_fft_conv`` beside transforms of the whole spectrum, for several shares of it."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

import longconv
from bench.case import OURS, Case, Problem, Solve, Work, both
from bench.cases.fft_conv import SHAPES, flops

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


def masked_spectrum(k: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The spectrum of k (..., L) at X^L = -i, zero where the mask is, and the twist of its transform."""
    length = k.shape[-1]
    angle = torch.arange(length, dtype=torch.float64) * (math.pi / (2 * length))
    twist = torch.polar(torch.ones_like(angle), -angle).to(torch.promote_types(k.dtype, torch.complex64))
    kept = mask.permute(*range(mask.ndim - 1, -1, -1)).flatten().repeat(length // mask.numel())
    return torch.fft.fft(k * twist) * kept, twist


def whole(u: Tensor, k: Tensor, mask: Tensor) -> Tensor:
    """The usual way: transforms of all frequencies, most of whose products are zeros."""
    spectrum, twist = masked_spectrum(k, mask)
    return (torch.fft.ifft(torch.fft.fft(u * twist) * spectrum) * twist.conj()).real


def dense(u: Tensor, k: Tensor, mask: Tensor) -> Tensor:
    """``fft_conv`` with the taps of the masked filter, at lags below zero too."""
    spectrum, twist = masked_spectrum(k, mask)
    taps = torch.fft.ifft(spectrum) * twist.conj()
    return longconv.fft_conv(u, taps.real.contiguous(), k_reverse=taps.imag[..., 1:].flip(-1))


def problem(batch: int, channels: int, length: int, mask: Tensor, backward: bool) -> Problem:
    """Random filters of the whole length."""

    def inputs(batch: int, channels: int) -> tuple[Tensor, Tensor]:
        return torch.randn(batch, channels, length), torch.randn(channels, length) / length**0.5

    sides: dict[str, Solve | None] = {
        OURS: lambda u, k: longconv.ops.sparse_fft_conv(u, k, mask),
        "longconv fft_conv": lambda u, k: dense(u, k, mask),
        "torch fft": lambda u, k: whole(u, k, mask),
    }
    work = Work(flops(batch, channels, length, backward), batch * channels, length)
    exact = functools.partial(whole, mask=mask)
    return Problem(inputs(batch, channels), sides, exact, inputs(2, 16), backward, work=work)


def cases() -> list[Case]:
    """Every share at two lengths."""
    return [
        case
        for shape in SHAPES[4:6]
        for name, (blocks, kept) in MASKS.items()
        for case in both(
            f"sparse_fft_conv/{'x'.join(map(str, shape))}/{name}",
            functools.partial(problem, *shape, block_mask(blocks, kept)),
        )
    ]

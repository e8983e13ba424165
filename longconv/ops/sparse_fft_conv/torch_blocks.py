r"""``sparse_fft_conv`` in plain torch: a product of matrices for the groups of blocks that are kept, then their FFTs.

Frequencies are split by f modulo Q, Q a divisor of the number of blocks: of x the group g needs, with p = n / Q,

    x_g[t] = sum_{q<Q} c_g^q x[q p + t],    c_g = exp(-2 pi i (g + 1/4) / Q),    0 <= t < p,

and S at f = g + Q h is the FFT of p numbers, at h, of x_g[t] exp(-2 pi i (g + 1/4) t / n). The sums for G groups are
one product with a real matrix A (2 G, Q), of the parts of c_g^q. Back it is A^T / Q. Groups without a block that is
kept take part in nothing.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from longconv.ops.fft_conv.plain import Filter, Gradients
from longconv.ops.sparse_fft_conv.blocks import residues, spectrum_size

PRODUCT, STAGE, OVERHEAD = 0.15, 1.0, 4.0
"""Estimates of what a number costs: its product for a group, a radix of two of its FFT, what else passes over it."""


class MaskedSpectrum:
    """C as a product with the spectrum of the groups that have a block."""

    def __init__(self, block_mask: Tensor, taps: Filter) -> None:
        k = taps.k
        kept = residues(block_mask)
        self.length, self.taps = taps.length, k
        self.n = spectrum_size(taps.length, len(kept))
        self.split = best_split(kept, self.n)
        table = kept.view(-1, self.split)  # by f // Q and f % Q
        self.groups = table.any(0).nonzero()[:, 0]
        alive = table[:, self.groups].mT
        self.alive = None if alive.all() else alive.repeat(1, self.n // len(kept))  # (G, p)
        turns = 4 * self.groups[:, None] + 1  # quarters
        powers = unit(turns * torch.arange(self.split, device=k.device), 4 * self.split, k)  # c_g^q, (G, Q)
        self.sums = torch.cat([powers.real, powers.imag])  # A
        self.twist = unit(turns * torch.arange(self.n // self.split, device=k.device), 4 * self.n, k)  # (G, p)

    @functools.cached_property
    def spectrum(self) -> Tensor:
        """S of the taps, (..., G, p), zero where no block is kept."""
        return self._kept(self.transform(self.taps))

    def _kept(self, spectrum: Tensor) -> Tensor:
        return spectrum if self.alive is None else torch.where(self.alive, spectrum, spectrum.new_zeros(()))

    def transform(self, x: Tensor) -> Tensor:
        """(..., at most n) -> (..., G, p)."""
        if len(self.groups) == 0:
            return torch.zeros((*x.shape[:-1], *self.twist.shape), dtype=self.twist.dtype, device=x.device)
        x = torch.nn.functional.pad(x, (0, self.n - x.shape[-1])).unflatten(-1, (self.split, -1))
        if self.split == 1:
            return torch.fft.fft(x * self.twist)
        return torch.fft.fft(torch.complex(*(self.sums @ x).chunk(2, -2)) * self.twist)

    def inverse(self, spectrum: Tensor) -> Tensor:
        """The real part of what has this spectrum: (..., G, p) -> (..., n)."""
        if len(self.groups) == 0:
            return self.taps.new_zeros((*spectrum.shape[:-2], self.n))
        x = torch.fft.ifft(spectrum) * self.twist.conj_physical()
        parts = x.real if self.split == 1 else self.sums.mT @ torch.cat([x.real, x.imag], -2) / self.split
        return parts.flatten(-2)

    def apply(self, x: Tensor) -> Tensor:
        return self.inverse(self.transform(x) * self.spectrum)[..., : self.length]

    def gradients(self, x: Tensor | None, g: Tensor, wanted: tuple[bool, bool, bool]) -> Gradients:
        G = self.transform(g)
        dx = self.inverse(G * self.spectrum.conj_physical())[..., : self.length] if wanted[0] else None
        if x is None or not wanted[1]:
            return dx, None, None
        product = self._kept(self.transform(x).conj_physical() * G)
        return dx, self.inverse(product.sum(0) if self.taps.ndim == 2 else product)[..., : self.taps.shape[-1]], None


def unit(numerator: Tensor, denominator: int, like: Tensor) -> Tensor:
    """exp(-2 pi i numerator / denominator), rounded once from double precision."""
    angle = (numerator % denominator).to(torch.float64) * (-2 * math.pi / denominator)
    return torch.polar(torch.ones_like(angle), angle).to(torch.promote_types(like.dtype, torch.complex64))


def best_split(kept: Tensor, n: int) -> int:
    """The divisor Q of the number of blocks with the least to do for a mask of residues (P,)."""
    splits = [q for q in range(1, len(kept) + 1) if len(kept) % q == 0]
    groups = torch.stack([kept.view(-1, q).any(0).sum() for q in splits]).tolist()
    costs = [
        count * (PRODUCT * (q > 1) + (STAGE * math.log2(2 * n / q) + OVERHEAD) / q)
        for q, count in zip(splits, groups, strict=True)
    ]
    return splits[costs.index(min(costs))]

"""The definition: the taps of the filter a * k, a by sums of cosines, and the matrix of a convolution with them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from longconv.ops.fft_conv.plain import Filter, Gradients
from longconv.ops.fft_conv.reference import MatrixConvolution
from longconv.ops.sparse_fft_conv.blocks import residues, spectrum_size


class MaskedMatrix:
    """The filter's taps at lags >= 0 and < 0 as matrices times k, each element a lag's a[e]; O(L^3)."""

    def __init__(self, block_mask: Tensor, taps: Filter) -> None:
        k, length = taps.k, taps.length
        kept = residues(block_mask)
        n = spectrum_size(length, len(kept))
        lags = torch.arange(1 - length, length, device=k.device)[:, None] - torch.arange(k.shape[-1], device=k.device)
        frequencies = torch.arange(n, device=k.device)[kept.repeat(n // len(kept))]
        quarters = (lags[..., None] * (4 * frequencies + 1)) % (4 * n)  # of a turn's n-th part, exactly
        a = (quarters.to(torch.float64) * (math.pi / (2 * n))).cos().sum(-1) / n
        before, after = a.to(k.dtype).split((length - 1, length))
        self.parts = after, before.flip(0)  # (lags, K) each
        both = Filter(k @ self.parts[0].mT, k @ self.parts[1].mT, length, "causal", None)
        self.matrix = MatrixConvolution(both)

    def apply(self, x: Tensor) -> Tensor:
        return self.matrix.apply(x)

    def gradients(self, x: Tensor | None, g: Tensor, wanted: tuple[bool, bool, bool]) -> Gradients:
        dx, *taps = self.matrix.gradients(x, g, (wanted[0], wanted[1], wanted[1]))
        found = [grad @ part for grad, part in zip(taps, self.parts, strict=True) if grad is not None]
        return dx, found[0] + found[1] if found else None, None

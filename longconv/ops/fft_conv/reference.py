"""The definition of ``fft_conv``: y = M x with the matrix of taps written out, M[t, s] = tap(t - s). O(L^2)."""

from __future__ import annotations

import torch
from torch import Tensor

from longconv.ops.fft_conv.plain import Filter, Gradients


class MatrixConvolution:
    """C as a matrix gathered from the vector of taps [k_reverse flipped, k], one row of lags a pair (t, s)."""

    def __init__(self, taps: Filter) -> None:
        self.filter = taps
        length = taps.length
        t = torch.arange(length, device=taps.k.device)
        lag = t[:, None] - t[None, :]
        if taps.mode == "circular":
            lag = lag % (length if taps.lengths is None else taps.lengths.clamp(min=1)[:, None, None, None])
        self.places = lag + length - 1  # into the vector of taps at the lags -(L - 1) .. L - 1
        if self.places.ndim == 4:  # a period a sample: (B, 1, L, L)
            self.places = self.places.expand(-1, taps.k.shape[-2], -1, -1)
        self.matrix = self._gather(self._vector())

    def _vector(self) -> Tensor:
        k, k_reverse, length = self.filter.k, self.filter.k_reverse, self.filter.length
        vector = torch.nn.functional.pad(k, (length - 1, length - k.shape[-1]))
        if k_reverse is not None:
            before = length - 1 - k_reverse.shape[-1]
            vector = vector + torch.nn.functional.pad(k_reverse.flip(-1), (before, length))
        return vector

    def _gather(self, vector: Tensor) -> Tensor:
        if self.places.ndim == 2:
            return vector[..., self.places]
        vector = vector.expand(self.places.shape[0], *vector.shape[-2:])
        return vector.gather(-1, self.places.flatten(2)).view(self.places.shape)

    def apply(self, x: Tensor) -> Tensor:
        return (self.matrix @ x[..., None])[..., 0]

    def gradients(self, x: Tensor | None, g: Tensor, wanted: tuple[bool, bool, bool]) -> Gradients:
        dx = (self.matrix.mT @ g[..., None])[..., 0] if wanted[0] else None
        if x is None or not any(wanted[1:]):
            return dx, None, None
        products = g[..., :, None] * x[..., None, :]  # (B, H, L, L)
        vector = products.new_zeros(*products.shape[:2], 2 * self.filter.length - 1)
        vector = vector.scatter_add(-1, self.places.expand_as(products).flatten(2), products.flatten(2))
        k, k_reverse, zero = self.filter.k, self.filter.k_reverse, self.filter.length - 1
        dk = d_reverse = None
        if wanted[1]:
            dk = vector[..., zero : zero + k.shape[-1]]
            dk = dk.sum(0) if k.ndim == 2 else dk
        if wanted[2] and k_reverse is not None:
            d_reverse = vector[..., zero - k_reverse.shape[-1] : zero].flip(-1)
            d_reverse = d_reverse.sum(0) if k_reverse.ndim == 2 else d_reverse
        return dx, dk, d_reverse

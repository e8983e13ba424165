"""Transforms of sequences along time, for samples of one length or of many: Fourier and cosine transforms.

Every one of them is a real FFT with weights before it and a phase behind it,

    X[k] = scale_k Re|id( phase_k sum_{t<n} weight_t x[t] exp(-2 pi i k t / m) ),    k < bins,

with a period m that depends on the length n: n for the DFT, 2n for DCT-II, 2(n - 1) for DCT-I. Samples that have
lengths of their own have periods of their own; then 2kt = k^2 + t^2 - (k - t)^2 turns the sum into a convolution with
a chirp, whose FFT has one size for all of them (Bluestein).

Shapes: B batch, D channels, L length.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

Length = TypeVar("Length", int, Tensor)
"""A length for all samples, or (B,) one for each."""


class Transform(NamedTuple):
    """One kind of transform.

    Attributes:
        kind: "dft", "dct" (DCT-II) or "dct1" (DCT-I).
        scaling: "none", "ortho" (a unitary transform) or "forward" (1/n of the sum).
    """

    kind: str
    scaling: str

    @property
    def is_real(self) -> bool:
        """Whether the spectrum is real: a cosine transform's."""
        return self.kind != "dft"

    def bins(self, length: Length) -> Length:
        """The number of values of a spectrum."""
        return length // 2 + 1 if self.kind == "dft" else length

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The spectrum of x (B, D, L): (B, D, bins), complex for the DFT. Beyond a sample's own bins it is zero.

        What x holds from a sample's length on has to be zero.
        """
        size = x.shape[-1]
        n = size if lengths is None else lengths.clamp(min=1)
        period, bins = self._period(n), self.bins(size)
        if self.kind == "dct1":
            x = x * self._ends(n, size, x)
        spectrum = _sums(x, period, bins) * self.scale(n, bins, x)
        if self.kind == "dct":
            spectrum = 2 * spectrum * _phases(n, bins, x)
        spectrum = spectrum.real if self.is_real else spectrum
        return spectrum if lengths is None else spectrum.masked_fill(~_below(self.bins(lengths), bins), 0)

    def inverse(self, spectrum: Tensor, length: int, lengths: Tensor | None = None) -> Tensor:
        """The sequence (B, D, L) that has a spectrum; of a sample of length n the first n values alone mean anything.

        As for every inverse real FFT, the imaginary parts of the values that have to be real count for nothing.
        """
        n = length if lengths is None else lengths.clamp(min=1)
        bins = spectrum.shape[-1]
        spectrum = spectrum / self.scale(n, bins, spectrum)
        if self.kind == "dct":
            spectrum = spectrum * _phases(n, bins, spectrum).conj_physical()
        if lengths is not None:
            spectrum = spectrum.masked_fill(~_below(self.bins(lengths), bins), 0)
        return _inverse_sums(spectrum, self._period(n), length)

    def scale(self, n: int | Tensor, bins: int, like: Tensor) -> Tensor:
        """What the sums of a transform of length n are multiplied by: (B or 1, 1, bins or 1).

        ``like`` gives the precision and the device.
        """
        exact = torch.as_tensor(n, dtype=torch.float64, device=like.device).reshape(-1, 1, 1)
        if self.scaling == "none":
            scale = torch.ones_like(exact)
        elif self.scaling == "forward":
            scale = 1 / exact
        elif self.kind == "dft":
            scale = exact.rsqrt()
        else:
            first = torch.arange(bins, device=like.device) == 0
            scale = torch.where(first, 0.25 / exact, 0.5 / exact).sqrt()
        return scale.to(like.real.dtype)

    def _period(self, n: int | Tensor) -> int | Tensor:
        if self.kind == "dft":
            return n
        if self.kind == "dct":
            return 2 * n
        return (2 * n - 2).clamp(min=1) if isinstance(n, Tensor) else max(2 * n - 2, 1)

    @staticmethod
    def _ends(n: int | Tensor, size: int, like: Tensor) -> Tensor:
        """2, and 1 at the first and the last sample."""
        t = torch.arange(size, device=like.device)
        last = n[:, None, None] - 1 if isinstance(n, Tensor) else n - 1
        return 2 - ((t == 0) | (t == last)).to(like.dtype)


def _below(n: Tensor, size: int) -> Tensor:
    """(B, 1, size): whether a place lies below n (B,)."""
    return (torch.arange(size, device=n.device) < n[:, None])[:, None]


def _phases(n: int | Tensor, bins: int, like: Tensor) -> Tensor:
    """exp(-i pi k / 2n), k < bins: (bins,), or (B, 1, bins)."""
    k = torch.arange(bins, dtype=torch.float64, device=like.device)
    return _unit(-math.pi / 2 * k / (n[:, None, None] if isinstance(n, Tensor) else n), like)


def _unit(angle: Tensor, like: Tensor) -> Tensor:
    """exp(i angle), rounded once to the precision of ``like``."""
    return torch.polar(torch.ones_like(angle), angle).to(torch.promote_types(like.dtype, torch.complex64))


def _sums(x: Tensor, period: int | Tensor, bins: int) -> Tensor:
    """sum_t x[t] exp(-2 pi i k t / period), k < bins, of real x."""
    if isinstance(period, Tensor):
        return _chirp(x, period, bins)
    return torch.fft.rfft(x, n=period)[..., :bins]


def _inverse_sums(spectrum: Tensor, period: int | Tensor, length: int) -> Tensor:
    """The inverse real FFT of size ``period``, its first ``length`` values."""
    if not isinstance(period, Tensor):
        return torch.fft.irfft(spectrum, n=period)[..., :length]
    m = period[:, None, None]
    k = torch.arange(spectrum.shape[-1], device=spectrum.device)
    once = (k == 0) | (2 * k == m)
    weight = torch.where(once, 1, 2).to(spectrum.real.dtype) / m.to(spectrum.real.dtype)
    mirrored = (spectrum * weight).conj_physical()
    return _chirp(mirrored, period, length).real


def _chirp(x: Tensor, period: Tensor, count: int) -> Tensor:
    """sum_t x[t] exp(-2 pi i k t / period_b), k < count, for every sample's own period (B,)."""
    size = x.shape[-1]
    reach = max(size, count)
    j = torch.arange(reach, device=x.device)
    m = period.to(torch.int64)[:, None, None]
    angle = (j * j % (2 * m)).double() * (math.pi / m.double())  # whole turns are taken off while it is exact
    chirp = _unit(-angle, x)
    points = 1
    while points < size + count - 1:  # a power of 2, which under torch.compile leaves the sizes symbolic
        points *= 2
    # The conjugate chirp at the lags k - t from -(size - 1) to count - 1, the negative ones at the end of the circle.
    kernel = torch.cat([F.pad(chirp[..., :count], (0, points - count - size + 1)), chirp[..., 1:size].flip(-1)], -1)
    product = torch.fft.fft(x * chirp[..., :size], n=points) * torch.fft.fft(kernel.conj_physical())
    return torch.fft.ifft(product)[..., :count] * chirp[..., :count]


TRANSFORMS = {
    "fft": Transform("dft", "forward"),
    "fft_ortho": Transform("dft", "ortho"),
    "dct": Transform("dct", "none"),
    "dct_ortho": Transform("dct", "ortho"),
    "dct1": Transform("dct1", "none"),
}
"""By the names that options take."""

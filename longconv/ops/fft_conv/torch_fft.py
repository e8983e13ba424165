"""``fft_conv`` by torch's FFT, in one of two rings.

Both turn a convolution into a product of spectra; they differ in what happens to the part that leaves the window.

Padded, modulo X^n - 1 with n >= L + K - 1: a real FFT of zero-padded rows, nothing wraps into the window.

Twisted, modulo X^n - i with n >= L: with w[m] = exp(i pi m / 2n), T(x) = FFT_n(x w) evaluates the polynomial x at
the n-th roots of i, so T^-1(T(x) T(k)) / w is the product modulo X^n - i: the part that leaves the window comes back
multiplied by i, and the real part is the causal convolution. No padding. At those points 1/X is the conjugate
of X, hence conj(T(k)) is correlation: lags below zero come back multiplied by -i, and the real part is again exact.

In either ring a bidirectional filter is one spectrum T(k) + conj(T(k_reverse delayed by one)), the adjoint is its
conjugate, and the filter's gradient is conj(T(x)) T(g), summed over the batch before a single inverse.

Conjugates are taken with ``conj_physical``: the lazy ``conj`` is ignored in the kernel of an operator that runs under
``torch.compile`` (torch 2.13), where the key that would resolve it is excluded.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from longconv.ops.fft_conv.plain import Filter, Gradients


class Ring(Protocol):
    """Evaluation of polynomials at n points and back; rows may be shorter than n."""

    def transform(self, x: Tensor) -> Tensor: ...
    def inverse(self, spectrum: Tensor) -> Tensor: ...


class Padded(NamedTuple):
    """Real FFT of length n, modulo X^n - 1; rows are zero-padded to n."""

    n: int

    def transform(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(x, n=self.n)

    def inverse(self, spectrum: Tensor) -> Tensor:
        return torch.fft.irfft(spectrum, n=self.n)


class Twisted(NamedTuple):
    """Complex FFT of length n, modulo X^n - i; the real part of the result."""

    n: int

    def transform(self, x: Tensor) -> Tensor:
        return torch.fft.fft(x * twist(self.n, x)[: x.shape[-1]], n=self.n)

    def inverse(self, spectrum: Tensor) -> Tensor:
        z = torch.fft.ifft(spectrum)
        w = twist(self.n, z)
        return torch.addcmul(z.real * w.real, z.imag, w.imag)  # the real part of z / w, since |w| = 1


CACHE_BYTES = 2**26
_twists: dict[tuple[int, torch.dtype, torch.device], Tensor] = {}  # the one that was used last stands last


def twist(n: int, like: Tensor) -> Tensor:
    """w[m] = exp(i pi m / 2n), m < n, rounded once from double precision to that of ``like``, on its device.

    The last ones are kept, as many as :data:`CACHE_BYTES` hold; but not those for tensors without numbers (fake ones),
    nor those of a graph that is being captured, whose memory is the graph's.
    """
    key = n, torch.promote_types(like.dtype, torch.complex64), like.device
    keep = type(like) is Tensor and not (like.is_cuda and torch.cuda.is_current_stream_capturing())
    w = _twists.pop(key, None) if keep else None
    if w is None:
        with torch.inference_mode(False):
            angle = torch.arange(n, dtype=torch.float64, device=like.device) * (math.pi / (2 * n))
            w = torch.polar(torch.ones_like(angle), angle).to(key[1])
    if keep:
        _twists[key] = w
        while sum(t.nbytes for t in list(_twists.values())) > CACHE_BYTES:
            _twists.pop(next(iter(_twists)), None)
    return w


@functools.lru_cache(maxsize=4096)
def next_fast_length(n: int) -> int:
    """The least even length >= n without a prime factor above 7, for which every FFT library is fast.

    Odd lengths are not: MKL's real FFT of 1575 points takes 2.7 times as long as that of 1568.

    >>> next_fast_length(1), next_fast_length(11), next_fast_length(4096)
    (1, 12, 4096)
    """
    n = max(n, 1)
    n += n > 1 and n % 2
    while True:
        rest = n
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 2


TWISTED_BELOW = {"cpu": 0, "cuda": 1 << 62}
"""The length below which the twisted ring serves, where the filter is about as long as the sequence, by device type."""


def choose_ring(length: int, reach: int, device: torch.device) -> Ring:
    """The faster ring for a causal or bidirectional filter that reaches ``reach`` samples to either side."""
    padded = Padded(next_fast_length(length + reach))
    if length >= TWISTED_BELOW.get(device.type, 0):
        return padded
    twisted = Twisted(next_fast_length(length))
    return padded if 2 * padded.n < 3 * twisted.n else twisted


class SpectralConvolution:
    """C as a product with a spectrum, in the ring that is given or else the faster one.

    In circular mode with ``lengths`` n_b, sample b has a period of its own: the taps from n_b on are dropped, the
    linear convolution is taken whole (2L samples), and y[t] = z[t] + z[t + n_b]. The adjoint of that fold repeats dy.
    """

    def __init__(self, taps: Filter, ring: Ring | None = None) -> None:
        k, k_reverse, length, mode, lengths = taps
        self.filter = taps
        self.periods = lengths if mode == "circular" else None
        if self.periods is not None:
            k = torch.where(self._inside(k.shape[-1]), k, k.new_zeros(()))
            self.ring: Ring = Padded(next_fast_length(2 * length))
        elif mode == "circular":
            self.ring = Padded(length)
        else:
            reach = max(k.shape[-1] - 1, 0 if k_reverse is None else k_reverse.shape[-1])
            self.ring = ring or choose_ring(length, int(reach), k.device)
        self.spectrum = self.ring.transform(k)
        if k_reverse is not None:
            delayed = torch.nn.functional.pad(k_reverse, (1, 0))
            self.spectrum = self.spectrum + self.ring.transform(delayed).conj_physical()

    def _inside(self, size: int) -> Tensor:
        """(B, 1, size): whether a place lies within each sample's period."""
        assert self.periods is not None
        return (torch.arange(size, device=self.periods.device) < self.periods[:, None])[:, None]

    def _fold(self, z: Tensor) -> Tensor:
        length = self.filter.length
        y = z[..., :length]
        if self.periods is None:
            return y
        places = torch.arange(length, device=z.device) + self.periods[:, None]
        return y + z.gather(-1, places[:, None].expand_as(y))

    def _unfold(self, g: Tensor) -> Tensor:
        if self.periods is None:
            return g
        places = torch.arange(2 * self.filter.length, device=g.device)
        twice = places < 2 * self.periods[:, None]
        places = torch.where(twice, places % self.periods.clamp(min=1)[:, None], 0)
        g = g.gather(-1, places[:, None].expand(*g.shape[:2], -1))
        return torch.where(twice[:, None], g, g.new_zeros(()))

    def apply(self, x: Tensor) -> Tensor:
        return self._fold(self.ring.inverse(_product(self.ring.transform(x), self.spectrum)))

    def gradients(self, x: Tensor | None, g: Tensor, wanted: tuple[bool, bool, bool]) -> Gradients:
        G = self.ring.transform(self._unfold(g))
        dx = dk = d_reverse = None
        if wanted[0]:
            dx = self.ring.inverse(G * self.spectrum.conj_physical())[..., : self.filter.length]
        if x is None or not any(wanted[1:]):
            return dx, None, None
        product = _product(self.ring.transform(x).conj_physical(), G)
        k, k_reverse = self.filter.k, self.filter.k_reverse
        if self.periods is not None:
            dk = self.ring.inverse(product)[..., : k.shape[-1]]
            dk = torch.where(self._inside(k.shape[-1]), dk, dk.new_zeros(()))
            return dx, dk.sum(0) if k.ndim == 2 else dk, None
        ranks = {taps.ndim for taps, want in ((k, wanted[1]), (k_reverse, wanted[2])) if want and taps is not None}
        products = {rank: product.sum(0) if rank == 2 else product for rank in ranks}
        if wanted[1]:
            dk = self.ring.inverse(products[k.ndim])[..., : k.shape[-1]]
        if wanted[2] and k_reverse is not None:
            delayed = self.ring.inverse(products[k_reverse.ndim].conj_physical())
            d_reverse = delayed[..., 1 : 1 + k_reverse.shape[-1]]
        return dx, dk, d_reverse


def _product(own: Tensor, other: Tensor) -> Tensor:
    """The product of own with other; in own's memory but under transforms, by which the second derivative is taken."""
    return own * other if torch._C._are_functorch_transforms_active() else own.mul_(other)

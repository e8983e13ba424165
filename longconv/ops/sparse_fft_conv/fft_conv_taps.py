r"""``sparse_fft_conv`` by ``fft_conv``: the masked spectrum is made taps again, at lags of both signs, which it takes.

The complex numbers z whose spectrum is the masked S, modulo X^n + i, hold the taps f of a * k at n lags >= 0 in their
real parts, and those at lags < 0 in their imaginary ones, since X^(e - n) is i X^e:

    z[e] = f[e] + i f[e - n],    0 <= e < n.

To mask is to multiply by a Hermitian matrix, so the gradient of k is that of f, masked alike. Only filters are
transformed here, so that it pays where many sequences share one, and where ``fft_conv`` is much faster than torch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from longconv.ops.fft_conv.operator import BACKENDS
from longconv.ops.fft_conv.plain import Arguments, Filter, Gradients
from longconv.ops.sparse_fft_conv.blocks import residues, spectrum_size
from longconv.ops.sparse_fft_conv.torch_blocks import unit


class MaskedTaps:
    """C as a convolution with f, by the backend that ``fft_conv`` chooses."""

    def __init__(self, block_mask: Tensor, taps: Filter) -> None:
        kept = residues(block_mask)
        self.length, self.size = taps.length, taps.k.shape[-1]
        self.n = spectrum_size(taps.length, len(kept))
        self.alive = kept.repeat(self.n // len(kept))
        self.twist = unit(torch.arange(self.n, device=taps.k.device), 4 * self.n, taps.k)
        z = self._masked(torch.nn.functional.pad(taps.k, (0, self.n - self.size)))
        self.call = Arguments(z.real[..., : self.length], z.imag[..., self.n - self.length + 1 :].flip(-1))

    def _masked(self, z: Tensor) -> Tensor:
        spectrum = torch.fft.fft(z * self.twist)
        return torch.fft.ifft(torch.where(self.alive, spectrum, spectrum.new_zeros(()))) * self.twist.conj_physical()

    def apply(self, x: Tensor) -> Tensor:
        y: Tensor = BACKENDS.choose("auto", x, *self.call).forward(x, *self.call)
        return y

    def gradients(self, x: Tensor | None, g: Tensor, wanted: tuple[bool, bool, bool]) -> Gradients:
        to_k = wanted[1] and x is not None
        backward = BACKENDS.choose("auto", g, *self.call).backward
        assert backward is not None
        found = iter(backward(g, x, *self.call, [wanted[0], to_k, to_k, False, False, False]))
        dx = next(found) if wanted[0] else None
        if not to_k:
            return dx, None, None
        pad = torch.nn.functional.pad
        after, before = next(found), next(found).flip(-1)
        dz = torch.complex(pad(after, (0, self.n - self.length)), pad(before, (self.n - self.length + 1, 0)))
        return dx, self._masked(dz).real[..., : self.size], None


def slower(u: Tensor, k: Tensor, block_mask: Tensor) -> str | None:
    """None where the spectra of sequences that the mask keeps are as much as those of the filters without it.

    Measured on a Zen 4 core for 256 to 65536 samples, 1, 4 and 16 sequences a filter, and 1/2 to 1/16 of the blocks:
    there it is 1 to 7 times as fast as the transforms of groups, elsewhere .2 to 1 times.
    """
    sequences = 1 if k.ndim == 3 else u.shape[0]
    if sequences * int(block_mask.sum()) >= block_mask.numel():
        return None
    return f"of {sequences} spectra a filter less than one is kept"

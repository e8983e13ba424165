r"""Mel-frequency cepstral coefficients.

With Hann-windowed frames of n = 200 samples every 100, reflected at both ends, and triangular bands :math:`F_{mf}` of
equal width on the mel scale :math:`2595 \log_{10}(1 + f / 700)` from 0 to 8000 Hz,

.. math::
    c_{tk} = s_k \sum_{m<64} \cos\Big(\frac{\pi k (m + 1/2)}{64}\Big)
             \log\Big(10^{-6} + \sum_f F_{mf} |\mathrm{DFT}(x_t)_f|^2\Big),
    \quad s_0 = \sqrt{1/64},\ s_{k>0} = \sqrt{2/64}.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

N_FFT = 200
N_BANDS = 64
N_COEFFICIENTS = 20


def cepstrum(audio: Tensor, rate: int = 16000) -> Tensor:
    """Coefficients (n, 1 + L // 100, 20) of waveforms (n, L) in [-1, 1].

    >>> cepstrum(torch.zeros(2, 16000)).shape
    torch.Size([2, 161, 20])
    """
    window = torch.hann_window(N_FFT, dtype=audio.dtype)
    frames = torch.stft(audio, N_FFT, N_FFT // 2, window=window, center=True, pad_mode="reflect", return_complex=True)
    power = frames.real.square() + frames.imag.square()
    bands = mel_bands(rate).to(audio.dtype) @ power
    return (cosines().to(audio.dtype) @ (bands + 1e-6).log()).mT


def mel_bands(rate: int) -> Tensor:
    """The triangular bands F (64, 101), float64; each rises from 0 at the centre of the one before to 1 at its own."""
    frequencies = torch.linspace(0, rate / 2, N_FFT // 2 + 1, dtype=torch.float64)
    top = 2595 * math.log10(1 + rate / 2 / 700)
    corners = 700 * (10 ** (torch.linspace(0, top, N_BANDS + 2, dtype=torch.float64) / 2595) - 1)
    left, centre, right = (corners[start : start + N_BANDS, None] for start in range(3))
    rising, falling = (frequencies - left) / (centre - left), (right - frequencies) / (right - centre)
    return torch.minimum(rising, falling).clamp(min=0)


def cosines() -> Tensor:
    """The first 20 rows of the orthogonal cosine transform of 64 bands, (20, 64), float64."""
    rows, bands = torch.arange(N_COEFFICIENTS, dtype=torch.float64)[:, None], torch.arange(N_BANDS) + 0.5
    basis = torch.cos(math.pi / N_BANDS * rows * bands) * math.sqrt(2 / N_BANDS)
    basis[0] /= math.sqrt(2)
    return basis

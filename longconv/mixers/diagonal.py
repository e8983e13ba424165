"""Streaming of the mixers whose filter is a diagonal state space system."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from longconv import _autocast
from longconv._checks import COMPLEX, check_state
from longconv.filters.diagonal import ModalFilter
from longconv.mixers.base import ConvolutionMixer
from longconv.ops import fft_conv, state_space_step, transpose, vandermonde_log

BLOCK_NUMBERS = 2**21
"""Bound on the numbers held at once while a chunk is folded into the state."""


class DiagonalState(NamedTuple):
    """State of a :class:`DiagonalMixer`; the system is set up once, in ``init_state``, and travels with it.

    x[t] = A_bar x[t-1] + B_bar u[t]; y[t] = 2 Re(C x[t]). The system is kept in complex128, so that its rounding does
    not add up over long streams; x is kept in the state's own precision. It is that of the parameters at its creation:
    after a step of an optimiser streams begin anew, with a new state.
    """

    x: Tensor
    """(B, H, N/2), after the last sample."""
    A_bar: Tensor
    """(H, N/2)."""
    B_bar: Tensor
    """(H, N/2)."""
    C: Tensor
    """(C, H, N/2)."""


class DiagonalMixer(ConvolutionMixer):
    """A convolution mixer with a :class:`ModalFilter`: streams with N/2 complex numbers a feature."""

    taps: ModalFilter

    def _init_state(
        self, batch_size: int, device: torch.device | str | None, dtype: torch.dtype | None, rate: float = 1.0
    ) -> DiagonalState:
        A_bar, B_bar, C = (part.to(device) for part in self.taps.discretised(rate))
        return DiagonalState(self._zero_state(batch_size, B_bar, dtype, wide=self.taps.wide), A_bar, B_bar, C)

    def _step(self, u_t: Tensor, state: DiagonalState) -> tuple[Tensor, DiagonalState]:
        self._check_state(u_t, state)
        u = u_t.to(state.x.real.dtype)
        x, y = state_space_step(state.x, u, state.A_bar, state.B_bar, state.C)
        y = 2 * y + self.D * u[:, None]
        return self._mix_features(y.to(u_t.dtype).flatten(1)), state._replace(x=x)

    def _prefill(self, u: Tensor, state: DiagonalState) -> tuple[Tensor, DiagonalState]:
        self._check_state(u, state)
        length = u.shape[1]
        if length == 0:
            return self._mix_features(u.repeat(1, 1, self.channels)), state
        x, A_bar, B_bar, C = state
        log_A_bar = torch.log(torch.where(A_bar == 0, torch.finfo(torch.float64).tiny, A_bar))
        with _autocast.off(u.device):
            k = vandermonde_log((2 * C * B_bar).to(x.dtype), log_A_bar, length, real=True)
            past = vandermonde_log((2 * C * A_bar * x[:, None]).to(x.dtype), log_A_bar, length, real=True)
        k = k.to(u.dtype if u.dtype == torch.float64 else torch.float32)
        y = fft_conv(self._features(u), k.flatten(0, 1), skip=self.D.flatten())
        y = (y + past.flatten(1, 2)).to(u.dtype)
        x = advance(x, log_A_bar, B_bar, u.transpose(1, 2)).to(x.dtype)
        return self._mix_features(transpose(y)), state._replace(x=x)

    def _check_state(self, u: Tensor, state: DiagonalState) -> None:
        modes = self.taps.modes
        outputs = (self.channels, *modes)
        check_state(state, DiagonalState, u, (u.shape[0], *modes), "(B, H, N/2)", COMPLEX, outputs)


def advance(x: Tensor, log_A_bar: Tensor, B_bar: Tensor, u: Tensor) -> Tensor:
    """The state after a chunk: A_bar^T x + sum_t A_bar^(T-1-t) B_bar u[t], block by block in bounded memory.

    Args:
        x: (B, H, N/2) complex, before the chunk.
        log_A_bar, B_bar: (H, N/2) complex128.
        u: (B, H, T) real.

    Returns:
        (B, H, N/2) complex128.
    """
    length = u.shape[-1]
    block = min(length, max(16, BLOCK_NUMBERS // (2 * log_A_bar.numel())))
    lag = torch.arange(block - 1, -1, -1, device=u.device)
    weights = B_bar[:, None] * torch.exp(lag[:, None] * log_A_bar[:, None])  # (H, block, N/2)
    real_weights = torch.view_as_real(weights).flatten(2)
    x = x.to(torch.complex128)
    for chunk in u.to(torch.float64).transpose(0, 1).split(block, dim=-1):  # (H, B, S)
        size = chunk.shape[-1]
        sums = (chunk @ real_weights[:, block - size :]).unflatten(-1, (-1, 2)).transpose(0, 1)
        x = torch.exp(size * log_A_bar) * x + torch.view_as_complex(sums.contiguous())
    return x

"""LSSL."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from longconv._checks import check_state
from longconv.filters import DenseFilter
from longconv.filters.dense import columns, halves, rows, squares
from longconv.mixers.base import ConvolutionMixer
from longconv.ops import fft_conv


class DenseState(NamedTuple):
    """State of an :class:`LSSL`; the system is set up once, in ``init_state``, and travels with it.

    x[t] = A_bar x[t-1] + B_bar u[t]; y[t] = C x[t]. The system is kept in float64, so that its rounding does not add up
    over long streams; x is kept in the state's own precision.
    """

    x: Tensor
    """(B, H, N), after the last sample."""
    A_bar: Tensor
    """(H, N, N)."""
    B_bar: Tensor
    """(H, N)."""
    C: Tensor
    """(H, M, N)."""


class LSSL(ConvolutionMixer):
    """Linear state space layer with a dense A: k[l] = C A_bar^l B_bar, then GELU and Linear.

    A_bar = (I - alpha dt A)^-1 (I + (1 - alpha) dt A) and B_bar = (I - alpha dt A)^-1 dt B, with one A and B for the
    layer, and a step dt and C a feature. Any length at any time; streams exactly with a state of N numbers a feature.

    A step costs N^2 products a feature, where a diagonal system costs N: take it for its A, which may be any matrix.

    Args:
        d_model: D.
        d_state: N, size of the state of a feature.
        channels: M, filters a feature.
        bidirectional: whether an output depends on the future too; then it can't stream.
        init: measure of A and B; see :func:`longconv.filters.hippo.transition`.
        alpha: rule of the generalised bilinear transform: 0 forward Euler, 1/2 bilinear, 1 backward Euler.
        dt_min, dt_max: the step of a feature starts log-uniform in [dt_min, dt_max].
        trainable_A: whether A and B are trained.
        trainable_dt: whether dt is trained.
        activation, output, dropout: see :class:`~longconv.mixers.base.ConvolutionMixer`.
        filter_lr: learning rate of the filter's parameters; None takes the optimiser's.

    Raises:
        ValueError: a bad option, or a system that is unstable with these dt and alpha.

    References:
        Combining Recurrent, Convolutional, and Continuous-time Models with Linear State-Space Layers (Gu, Johnson,
        Goel, Saab, Dao, Rudra, Ré, arXiv 2110.13985)

    >>> mixer = LSSL(4, d_state=8)
    >>> y, state = mixer.prefill(torch.randn(2, 10, 4))
    >>> y_t, state = mixer.step(torch.randn(2, 4), state)
    >>> y.shape, y_t.shape
    (torch.Size([2, 10, 4]), torch.Size([2, 4]))
    """

    taps: DenseFilter

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        channels: int = 1,
        bidirectional: bool = False,
        init: str = "legs",
        alpha: float = 0.5,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        trainable_A: bool = False,
        trainable_dt: bool = True,
        activation: str | None = "gelu",
        output: str | None = "linear",
        dropout: float = 0.0,
        filter_lr: float | None = None,
    ) -> None:
        taps = DenseFilter(
            d_model,
            channels * (1 + bidirectional),
            d_state,
            init=init,
            alpha=alpha,
            dt_min=dt_min,
            dt_max=dt_max,
            trainable_A=trainable_A,
            trainable_dt=trainable_dt,
            filter_lr=filter_lr,
        )
        super().__init__(
            d_model,
            taps,
            channels=channels,
            bidirectional=bidirectional,
            activation=activation,
            output=output,
            dropout=dropout,
        )

    # --- streaming ----------------------------------------------------------------------------------------------------

    def streaming_refusal(self) -> str | None:
        """Only bidirectional filters can't stream."""
        return super().streaming_refusal() if self.bidirectional else None

    def _init_state(self, batch_size: int, device: torch.device | str | None, dtype: torch.dtype | None) -> DenseState:
        A_bar, B_bar, C = (part.to(device) for part in self.taps.discretised())
        double = (dtype or self.taps.C.dtype) == torch.float64
        x = B_bar.new_zeros(batch_size, *B_bar.shape, dtype=torch.float64 if double else torch.float32)
        return DenseState(x, A_bar, B_bar, C)

    def _step(self, u_t: Tensor, state: DenseState) -> tuple[Tensor, DenseState]:
        self._check_state(u_t, state)
        x = state.x.double().transpose(0, 1) @ state.A_bar.mT  # (H, B, N)
        x = x + u_t.double().T[..., None] * state.B_bar[:, None]
        y = (x @ state.C.mT).permute(1, 2, 0) + self.D * u_t[:, None]
        y_t = self._mix_features(y.to(u_t.dtype).flatten(1))
        return y_t, state._replace(x=x.transpose(0, 1).to(state.x.dtype))

    def _prefill(self, u: Tensor, state: DenseState) -> tuple[Tensor, DenseState]:
        self._check_state(u, state)
        if u.shape[1] == 0:
            return self._mix_features(u.repeat(1, 1, self.channels)), state
        y, x = advance(u.double(), state)
        y = y + self.D * u[:, :, None]
        return self._mix_features(y.to(u.dtype).flatten(2)), state._replace(x=x.to(state.x.dtype))

    def _check_state(self, u: Tensor, state: DenseState) -> None:
        check_state(
            state,
            DenseState,
            u,
            (u.shape[0], self.d_model, self.taps.C.shape[-1]),
            "(B, H, N)",
            (torch.float64, torch.float32),
        )


def advance(u: Tensor, state: DenseState) -> tuple[Tensor, Tensor]:
    """A chunk block by block: its outputs (B, T, M, H) without the skip, and the state after it (B, H, N).

    In blocks of S samples, S about the square root of T, with x the state before a block,

        y[r] = C A_bar^(r+1) x + sum_{s<=r} C A_bar^(r-s) B_bar u[s]
        x' = A_bar^S x + sum_s A_bar^(S-1-s) B_bar u[s]

    Args:
        u: (B, T, H) float64, T >= 1.
        state: the state before the chunk.
    """
    batch, length, H = u.shape
    M = state.C.shape[1]
    x, A_bar, B_bar, C = state
    doublings = halves(length)[0]
    size = 1 << doublings
    powers = squares(A_bar, doublings + 1)
    x_columns = columns(B_bar, powers[:-1])  # (H, N, S)
    y_rows = rows(C, powers[:-1])  # (H, S M, N)
    k = (y_rows[:, :, None] @ B_bar[:, None, :, None]).flatten(1).unflatten(1, (size, -1))  # (H, S, M)
    count = -(-length // size)
    last = length - (count - 1) * size
    u = (
        torch.nn.functional.pad(u, (0, 0, 0, size - last)).unflatten(1, (count, size)).permute(3, 1, 0, 2)
    )  # (H, Q, B, S)
    inputs = u @ x_columns.flip(-1).mT[:, None]  # (H, Q, B, N)
    x, starts = x.double().transpose(0, 1), []
    for block in inputs[:, :-1].unbind(1):
        starts.append(x)
        x = x @ powers[-1].mT + block
    starts.append(x)
    past = (torch.stack(starts, 1) @ A_bar.mT[:, None]) @ y_rows.mT[:, None]  # (H, Q, B, S M)
    past = past.unflatten(-1, (size, M))
    blocks = u.permute(1, 2, 0, 3).flatten(0, 1)  # (Q B, H, S)
    present = fft_conv(blocks.repeat(1, M, 1), k.permute(2, 0, 1).flatten(0, 1))  # (Q B, M H, S)
    present = present.unflatten(0, (count, batch)).unflatten(2, (M, H))
    y = (present + past.permute(1, 2, 4, 0, 3)).permute(1, 0, 4, 2, 3).flatten(1, 2)[:, :length]
    for bit, power in enumerate(powers):
        if last >> bit & 1:
            x = x @ power.mT
    x = x + u[:, -1, :, :last] @ x_columns[..., :last].flip(-1).mT
    return y, x.transpose(0, 1)

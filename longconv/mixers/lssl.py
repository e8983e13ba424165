"""LSSL."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from longconv._checks import check_state
from longconv._sequence import StatePassing
from longconv.filters import DenseFilter
from longconv.filters.dense import require_stable
from longconv.mixers.base import ConvolutionMixer, filter_count
from longconv.mixers.dense import DenseState, advance


class LSSL(StatePassing, ConvolutionMixer):
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
        init_options: the measure's own parameters, by name, such as {"beta": 0.5} of "tlagt".
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
        init_options: Mapping[str, float] | None = None,
        trainable_A: bool = False,
        trainable_dt: bool = True,
        activation: str | None = "gelu",
        output: str | None = "linear",
        dropout: float = 0.0,
        filter_lr: float | None = None,
    ) -> None:
        taps = DenseFilter(
            d_model,
            filter_count(channels, bidirectional),
            d_state,
            init=init,
            alpha=alpha,
            dt_min=dt_min,
            dt_max=dt_max,
            init_options=init_options,
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

    def _init_state(
        self, batch_size: int, device: torch.device | str | None, dtype: torch.dtype | None, rate: float = 1.0
    ) -> DenseState:
        A_bar, B_bar, C = (part.to(device) for part in self.taps.discretised(rate))
        require_stable(self.taps.A, self.taps.steps(rate), self.taps.alpha)
        return DenseState(self._zero_state(batch_size, B_bar, dtype), A_bar, B_bar, C)

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

    def _after(self, u: Tensor, state: DenseState) -> Tensor:
        self._check_state(u, state)
        return advance(u.double(), state)[1]

    def _decay(self, state: DenseState, length: int) -> Callable[[Tensor], Tensor]:
        power = torch.linalg.matrix_power(state.A_bar, length).mT
        return lambda x: (x.double().transpose(0, 1) @ power).transpose(0, 1)

    def _check_state(self, u: Tensor, state: DenseState) -> None:
        check_state(
            state,
            DenseState,
            u,
            (u.shape[0], self.d_model, self.taps.C.shape[-1]),
            "(B, H, N)",
            (torch.float64, torch.float32),
            self.taps.C.shape,
        )

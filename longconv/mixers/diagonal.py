"""Streaming of the mixers whose filter is a diagonal state space system."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from longconv._checks import COMPLEX, check_state
from longconv._sequence import StatePassing
from longconv.filters.diagonal import ModalFilter
from longconv.mixers.base import ConvolutionMixer
from longconv.ops import transpose
from longconv.streaming import modal
from longconv.streaming.modal import DiagonalState


class DiagonalMixer(StatePassing, ConvolutionMixer):
    """A convolution mixer with a :class:`ModalFilter`: streams with N/2 complex numbers a feature."""

    taps: ModalFilter

    def _init_state(
        self, batch_size: int, device: torch.device | str | None, dtype: torch.dtype | None, rate: float = 1.0
    ) -> DiagonalState:
        A_bar, B_bar, C = (part.to(device) for part in self.taps.discretised(rate))
        return DiagonalState(self._zero_state(batch_size, B_bar, dtype, wide=self.taps.wide), A_bar, B_bar, C)

    def _step(self, u_t: Tensor, state: DiagonalState) -> tuple[Tensor, DiagonalState]:
        self._check_state(u_t, state)
        y, state = modal.step(u_t, state, self.D)
        return self._mix_features(y.flatten(1)), state

    def _prefill(self, u: Tensor, state: DiagonalState) -> tuple[Tensor, DiagonalState]:
        self._check_state(u, state)
        if u.shape[1] == 0:
            return self._mix_features(u.repeat(1, 1, self.channels)), state
        y, state = modal.prefill(transpose(u), state, self.D)
        return self._mix_features(transpose(y)), state

    def _after(self, u: Tensor, state: DiagonalState) -> Tensor:
        self._check_state(u, state)
        return modal.after(transpose(u), state)

    def _decay(self, state: DiagonalState, length: int) -> Callable[[Tensor], Tensor]:
        power = torch.exp(length * modal.log_of(state.A_bar))
        return lambda x: power * x

    def _check_state(self, u: Tensor, state: DiagonalState) -> None:
        modes = self.taps.modes
        outputs = (self.channels, *modes)
        check_state(state, DiagonalState, u, (u.shape[0], *modes), "(B, H, N/2)", COMPLEX, outputs)

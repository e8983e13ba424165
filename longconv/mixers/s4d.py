"""S4D."""

from __future__ import annotations

from longconv.filters import DiagonalFilter
from longconv.mixers.base import filter_count
from longconv.mixers.diagonal import DiagonalMixer


class S4D(DiagonalMixer):
    """Diagonal state space mixer: k[l] = 2 Re sum_n C_n B_bar_n A_bar_n^l, then GELU, Linear and GLU.

    Any length at any time; streams exactly with a state of N/2 complex numbers a feature.

    Args:
        d_model: D.
        d_state: N, size of the real state of a feature; even.
        channels: number C of filters a feature.
        bidirectional: whether an output depends on the future too; then it can't stream.
        init: start of Lambda and B: "legs", "lin", "inv", "inv2", "quad", "rand" or "real".
        discretization: how the system becomes discrete: "zoh", "bilinear" or "dss".
        dt_min: least step at the start; steps start log-uniform in [dt_min, dt_max].
        dt_max: greatest step at the start.
        dt_tied: whether the modes of a feature share one step.
        l_max: length of the normaliser of "dss"; the others ignore it, and it limits nothing.
        activation: what follows the convolution: "gelu", "relu", "silu", "tanh" or None.
        output: what joins the features: "glu" (Linear and GLU), "linear" or None (of one channel alone).
        dropout: probability that an activation is dropped in training.
        filter_lr: learning rate of the filter's parameters; None takes the optimiser's.

    References:
        On the Parameterization and Initialization of Diagonal State Space Models (Gu, Gupta, Goel, Ré,
        arXiv 2206.11893)

    >>> import torch
    >>> mixer = S4D(4, d_state=8)
    >>> y, state = mixer.prefill(torch.randn(2, 10, 4))
    >>> y_t, state = mixer.step(torch.randn(2, 4), state)
    >>> y.shape, y_t.shape
    (torch.Size([2, 10, 4]), torch.Size([2, 4]))
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        channels: int = 1,
        bidirectional: bool = False,
        init: str = "lin",
        discretization: str = "zoh",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        dt_tied: bool = True,
        l_max: int = 1024,
        activation: str | None = "gelu",
        output: str | None = "glu",
        dropout: float = 0.0,
        filter_lr: float | None = None,
    ) -> None:
        taps = DiagonalFilter(
            d_model,
            filter_count(channels, bidirectional),
            d_state,
            init=init,
            discretization=discretization,
            dt_min=dt_min,
            dt_max=dt_max,
            dt_tied=dt_tied,
            l_max=l_max,
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

"""DSS."""

from __future__ import annotations

from longconv.filters import DSSFilter
from longconv.mixers.base import filter_count
from longconv.mixers.diagonal import DiagonalMixer


class DSS(DiagonalMixer):
    """Diagonal state space mixer: k[l] = Re sum_n W_n s_n exp(a_n l), with a normaliser s, then GELU and Linear.

    With softmax, s divides a mode by the sum of its l_max powers, so that no mode dominates and growing modes are
    allowed; beyond l_max they grow on. Any length at any time; streams exactly with a state of N/2 complex numbers a
    feature.

    Args:
        d_model: D.
        d_state: N, size of the real state of a feature, even: N/2 modes, published with 64 of them.
        channels: C, filters a feature.
        bidirectional: whether an output depends on the future too; then it can't stream.
        init: of Lambda: "legs" (published), "lin", "inv", "inv2", "quad", "rand" or "real".
        variant: "softmax", "exp" or "clip"; see :func:`~longconv.filters.dss_filter` for their relatives.
        dt_min, dt_max: the step of a feature starts log-uniform in [dt_min, dt_max].
        separate_dt: a step each for the real and the imaginary part of Lambda.
        l_max: length of the normaliser of softmax; the others ignore it, and it limits nothing.
        activation, output, dropout: see :class:`~longconv.mixers.base.ConvolutionMixer`.
        filter_lr: learning rate of the filter's parameters; None takes the optimiser's.

    References:
        Diagonal State Spaces are as Effective as Structured State Spaces (Gupta, Gu, Berant, arXiv 2203.14343)

    >>> import torch
    >>> mixer = DSS(4, d_state=8)
    >>> y, state = mixer.prefill(torch.randn(2, 10, 4))
    >>> y_t, state = mixer.step(torch.randn(2, 4), state)
    >>> y.shape, y_t.shape
    (torch.Size([2, 10, 4]), torch.Size([2, 4]))
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 128,
        channels: int = 1,
        bidirectional: bool = False,
        init: str = "legs",
        variant: str = "softmax",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        separate_dt: bool = True,
        l_max: int = 1024,
        activation: str | None = "gelu",
        output: str | None = "linear",
        dropout: float = 0.0,
        filter_lr: float | None = None,
    ) -> None:
        taps = DSSFilter(
            d_model,
            filter_count(channels, bidirectional),
            d_state,
            init=init,
            variant=variant,
            dt_min=dt_min,
            dt_max=dt_max,
            separate_dt=separate_dt,
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

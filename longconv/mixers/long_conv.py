"""LongConv."""

from __future__ import annotations

from longconv.filters import FreeFilter
from longconv.mixers.base import ConvolutionMixer, filter_count


class LongConv(ConvolutionMixer):
    """Mixer with one free parameter a tap, smoothed and squashed, then GELU, Linear and GLU.

    Args:
        d_model: D.
        channels: number C of filters a feature.
        bidirectional: whether an output depends on the future too.
        l_max: sizes the parameters: taps from l_max on are zero. Inputs of any length are taken.
        init: start of the taps: "random" or "double_exp".
        threshold: lambda of the squash.
        smoothing: where the filter is smoothed: None, "time" or "frequency".
        smooth_window: taps or bins of the smoothing, odd.
        filter_dropout: probability that a tap is dropped in training.
        activation: what follows the convolution: "gelu", "relu", "silu", "tanh" or None.
        output: what joins the features: "glu" (Linear and GLU), "linear" or None (of one channel alone).
        dropout: probability that an activation is dropped in training.
        filter_lr: learning rate of the filter's parameters; None takes the optimiser's.

    References:
        Simple Hardware-Efficient Long Convolutions for Sequence Modeling (Fu, Epstein, Nguyen, Thomas, Zhang, Dao,
        Rudra, Ré, arXiv 2302.06646)

    >>> import torch
    >>> LongConv(4, l_max=64)(torch.randn(2, 100, 4)).shape
    torch.Size([2, 100, 4])
    """

    def __init__(
        self,
        d_model: int,
        *,
        channels: int = 1,
        bidirectional: bool = False,
        l_max: int = 1024,
        init: str = "random",
        threshold: float = 0.003,
        smoothing: str | None = None,
        smooth_window: int = 7,
        filter_dropout: float = 0.0,
        activation: str | None = "gelu",
        output: str | None = "glu",
        dropout: float = 0.0,
        filter_lr: float | None = None,
    ) -> None:
        taps = FreeFilter(
            d_model,
            filter_count(channels, bidirectional),
            l_max=l_max,
            init=init,
            threshold=threshold,
            smoothing=smoothing,
            smooth_window=smooth_window,
            filter_dropout=filter_dropout,
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

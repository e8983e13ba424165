"""SGConv."""

from __future__ import annotations

from longconv.filters import MultiscaleFilter
from longconv.mixers.base import ConvolutionMixer, filter_count


class SGConv(ConvolutionMixer):
    """Mixer with a filter of sub-filters at doubling scales and decaying weights, then GELU and Linear.

    Args:
        d_model: D.
        channels: number C of filters a feature.
        bidirectional: whether an output depends on the future too.
        l_max: sizes the parameters: taps from l_max on are zero. Inputs of any length are taken.
        kernel_dim: d, taps of a sub-filter.
        decay_min: decay of the first feature's sub-filters; those of the others are evenly spaced.
        decay_max: decay of the last feature's sub-filters.
        mode: "linear", "nearest", "sum", "cos" or "learnable": how a sub-filter is stretched to its scale.
        init_scale: every scale is stretched by 2^init_scale more.
        trainable_decay: whether the decay of mode "learnable" is trained, not only drawn.
        scales: number of sub-filters; None: as many as reach l_max.
        filter_dropout: probability that a tap is dropped in training, as in LongConv; the published layer has none.
        activation: what follows the convolution: "gelu", "relu", "silu", "tanh" or None.
        output: what joins the features: "glu" (Linear and GLU), "linear" or None (of one channel alone).
        dropout: probability that an activation is dropped in training.
        norm: of the activations at a time before the output layer: "layer", "scalar_layer" (one scale and one shift for
            all features, no epsilon, as the published layer has it for (B, D, L)) or None.
        filter_lr: learning rate of the filter's parameters; None takes the optimiser's.

    References:
        What Makes Convolutional Models Great on Long Sequence Modeling? (Li, Cai, Zhang, Chen, Dey, arXiv 2210.09298)

    >>> import torch
    >>> SGConv(4, l_max=64)(torch.randn(2, 100, 4)).shape
    torch.Size([2, 100, 4])
    """

    def __init__(
        self,
        d_model: int,
        *,
        channels: int = 1,
        bidirectional: bool = False,
        l_max: int = 1024,
        kernel_dim: int = 64,
        decay_min: float = 2.0,
        decay_max: float = 2.0,
        mode: str = "linear",
        init_scale: int = 0,
        trainable_decay: bool = True,
        scales: int | None = None,
        filter_dropout: float = 0.0,
        activation: str | None = "gelu",
        output: str | None = "linear",
        dropout: float = 0.0,
        norm: str | None = None,
        filter_lr: float | None = None,
    ) -> None:
        taps = MultiscaleFilter(
            d_model,
            filter_count(channels, bidirectional),
            kernel_dim=kernel_dim,
            l_max=l_max,
            decay_min=decay_min,
            decay_max=decay_max,
            mode=mode,
            init_scale=init_scale,
            trainable_decay=trainable_decay,
            scales=scales,
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
            norm=norm,
        )

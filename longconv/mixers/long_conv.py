"""LongConv."""

from __future__ import annotations

from torch import Tensor

from longconv import _sequence
from longconv._checks import check_choice, check_lengths
from longconv._sequence import zero_beyond
from longconv.filters import FreeFilter
from longconv.mixers.base import ConvolutionMixer, filter_count
from longconv.mixers.butterfly import ButterflyConvolution

TRANSFORMS = ("fft", "butterfly")


class LongConv(ConvolutionMixer):
    """Mixer with one free parameter a tap, smoothed and squashed, then GELU, Linear and GLU.

    With ``transform="butterfly"`` the convolution goes through a transform that is trained together with the taps,
    :class:`~longconv.mixers.butterfly.ButterflyConvolution`, of a size N >= l_max. The mixer starts as the causal (or
    bidirectional) convolution, up to rounding, and keeps to it no longer than its matrices stay as they are: once
    trained, an output may depend on all inputs of its block of N and of the next to it, on later ones too. So it can't
    stream, nor be distilled. ``filter`` gives the taps.

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
        transform: how the convolution is computed, "fft" or "butterfly", a trained transform that starts as it.
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
    >>> plain, learned = LongConv(4), LongConv(4, transform="butterfly")
    >>> left_out = learned.load_state_dict(plain.state_dict(), strict=False)
    >>> u = torch.randn(2, 100, 4)
    >>> torch.allclose(plain(u), learned(u), atol=1e-5)
    True
    """

    butterfly: ButterflyConvolution | None

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
        transform: str = "fft",
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
        self.l_max, self.butterfly = l_max, None
        if check_choice("transform", transform, TRANSFORMS) == "butterfly":
            self.butterfly = ButterflyConvolution(l_max + self.bidirectional, filter_lr=filter_lr)

    def _taps_for(self, length: int) -> int:
        return super()._taps_for(length) if self.butterfly is None else self.l_max  # a spectrum takes all of them

    def _convolve(self, u: Tensor, k: Tensor, lengths: Tensor | None) -> Tensor:
        """Convolution, or what it has been trained to, and what follows; the latter without a transposed copy."""
        if self.butterfly is None:
            return super()._convolve(u, k, lengths)
        check_lengths(lengths, _sequence.total(u.shape[1]))
        u = zero_beyond(u, lengths)
        u = u if self.channels == 1 else u.repeat(1, 1, self.channels)
        k = k.flatten(0, 1)
        k, k_reverse = k.chunk(2) if self.bidirectional else (k, None)
        butterfly = self.butterfly

        def product(channels: slice, x: Tensor) -> Tensor:
            return butterfly(x, k[channels], None if k_reverse is None else k_reverse[channels])

        y = _sequence.channelwise(product, u.mT, size=u.shape[1]).mT + (self.D.flatten() * u).to(u.dtype)
        return zero_beyond(self._mix_features(y), lengths)

    def streaming_refusal(self) -> str | None:
        """Neither bidirectional mixers nor those with a trained transform can stream."""
        if self.butterfly is None:
            return super().streaming_refusal()
        return "its transform is trained, so that an output may depend on inputs still to come"

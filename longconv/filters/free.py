"""Filters of LongConv: one free parameter a tap, smoothed and squashed.

References:
    Simple Hardware-Efficient Long Convolutions for Sequence Modeling (Fu, Epstein, Nguyen, Thomas, Zhang, Dao, Rudra,
    Ré, arXiv 2302.06646)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longconv import _sequence
from longconv._checks import check_choice, check_int, check_real, check_tensor
from longconv.filters.base import Filter, at_most, parameter_dtype


def smooth(k: Tensor, window: int) -> Tensor:
    """Moving average over time: (1/w) sum_{|j| <= w//2} k[..., l + j], zeros outside, always divided by w.

    Args:
        k: (..., L), float64 or float32.
        window: w, odd.

    Returns:
        (..., L).

    Raises:
        TypeError: k is no such tensor, or the window no integer.
        ValueError: a window that is even or less than 1.

    References:
        Simple Hardware-Efficient Long Convolutions for Sequence Modeling (Fu et al., arXiv 2302.06646)

    >>> smooth(torch.tensor([0.0, 3.0, 0.0, 0.0]), 3)
    tensor([1., 1., 1., 0.])
    """
    _check_taps(k)
    _check_window(window)
    if k.numel() == 0:
        return k.clone()
    flat = k.reshape(-1, 1, k.shape[-1])
    return F.avg_pool1d(flat, window, stride=1, padding=window // 2, count_include_pad=True).reshape(k.shape)


def smooth_frequency(k: Tensor, window: int) -> Tensor:
    """Smoothing over frequency: correlation of rfft(k) with exp(-(i - w//2)^2 / 2), i < w, zeros outside.

    Args:
        k: (..., L), float64 or float32.
        window: w, odd.

    Returns:
        (..., L).

    Raises:
        TypeError: k is no such tensor, or the window no integer.
        ValueError: a window that is even or less than 1.

    References:
        Simple Hardware-Efficient Long Convolutions for Sequence Modeling (Fu et al., arXiv 2302.06646)

    >>> torch.allclose(smooth_frequency(torch.arange(5.0), 1), torch.arange(5.0))
    True
    """
    _check_taps(k)
    _check_window(window)
    if k.numel() == 0:
        return k.clone()
    L = k.shape[-1]
    offset = torch.arange(window, device=k.device, dtype=k.dtype) - window // 2
    spectrum = torch.view_as_real(torch.fft.rfft(k)).movedim(-1, -2)
    flat = spectrum.reshape(-1, 1, spectrum.shape[-1])
    flat = F.conv1d(flat, torch.exp(-offset.square() / 2).view(1, 1, -1), padding=window // 2)
    smoothed = torch.view_as_complex(flat.reshape(spectrum.shape).movedim(-2, -1).contiguous())
    return torch.fft.irfft(smoothed, n=L)


def squash(k: Tensor, threshold: float) -> Tensor:
    """Soft threshold: sign(k) max(|k| - threshold, 0).

    Args:
        k: (..., L), float64 or float32.
        threshold: lambda, at least 0.

    Returns:
        (..., L).

    Raises:
        TypeError: k is no such tensor, or the threshold no number.
        ValueError: a threshold that is negative or not finite.

    References:
        Simple Hardware-Efficient Long Convolutions for Sequence Modeling (Fu et al., arXiv 2302.06646)

    >>> squash(torch.tensor([-1.0, 0.25, 0.75]), 0.5)
    tensor([-0.5000,  0.0000,  0.2500])
    """
    _check_taps(k)
    check_real("threshold", threshold, least=0)
    return torch.sign(k) * F.relu(torch.abs(k) - threshold)


def _check_taps(k: Tensor) -> None:
    check_tensor("k", k, "(..., L)", ndim=tuple(range(1, 9)), dtypes=(torch.float64, torch.float32))


def _check_window(window: int) -> None:
    if check_int("window", window) % 2 == 0:
        raise ValueError(f"window is {window}, expected an odd number: the window is centred on its tap")


def _random(C: int, H: int, L: int) -> Tensor:
    return 0.002 * torch.randn(C, H, L, dtype=parameter_dtype())


def _double_exp(C: int, H: int, L: int) -> Tensor:
    draws = torch.randn(C, H, L, dtype=parameter_dtype())
    h, l = (torch.arange(size, dtype=draws.dtype) / size for size in (H, L))
    return 0.02 * draws * torch.exp(-l * ((H // 2) ** h)[:, None])


INITS: dict[str, Callable[[int, int, int], Tensor]] = {"random": _random, "double_exp": _double_exp}
"""C, H, L -> parameter (C, H, L); a new initialisation is one row."""

SMOOTHINGS: dict[str, Callable[[Tensor, int], Tensor]] = {"time": smooth, "frequency": smooth_frequency}


class FreeFilter(Filter):
    """One parameter a tap: smooth (where asked for), squash, dropout.

    Args:
        d_model: H.
        channels: C.
        l_max: number of parameters of a filter; taps from l_max on are zero.
        init: "random" (0.002 N(0, 1)) or "double_exp" (0.02 N(0, 1) exp(-(l / l_max) (H // 2)^(h / H))).
        threshold: lambda of the squash; the published 0.1 zeroes every tap of either init, so it is 0.003 here.
        smoothing: None, "time" or "frequency".
        smooth_window: taps or bins of the smoothing, odd.
        filter_dropout: probability that a tap is dropped in training.
        filter_lr: see :class:`Filter`.

    References:
        Simple Hardware-Efficient Long Convolutions for Sequence Modeling (Fu et al., arXiv 2302.06646)

    >>> FreeFilter(4, l_max=64)(100).shape
    torch.Size([1, 4, 100])
    """

    filter_parameters = ("weight",)

    def __init__(
        self,
        d_model: int,
        channels: int = 1,
        *,
        l_max: int = 1024,
        init: str = "random",
        threshold: float = 0.003,
        smoothing: str | None = None,
        smooth_window: int = 7,
        filter_dropout: float = 0.0,
        filter_lr: float | None = None,
    ) -> None:
        super().__init__(filter_lr)
        check_choice("init", init, tuple(INITS))
        sizes = check_int("channels", channels), check_int("d_model", d_model), check_int("l_max", l_max)
        if smoothing is not None:
            check_choice("smoothing", smoothing, tuple(SMOOTHINGS))
        _check_window(smooth_window)
        self.threshold = check_real("threshold", threshold, least=0)
        self.smoothing, self.smooth_window = smoothing, smooth_window
        self.dropout = nn.Dropout(check_real("filter_dropout", filter_dropout, least=0, most=1))
        self.weight = nn.Parameter(INITS[init](*sizes))
        self.support = l_max

    def forward(self, length: int) -> Tensor:
        """The first ``length`` taps, (C, H, length)."""
        check_int("length", length, least=0)
        L = self.weight.shape[-1]
        reach = {None: 0, "time": self.smooth_window // 2}.get(self.smoothing, L)  # of a tap, to later parameters
        k: Tensor = self.weight[..., : at_most(length + reach, L)]
        if self.smoothing is not None:
            k = SMOOTHINGS[self.smoothing](k, self.smooth_window)
        k = _sequence.drop_alike(self.dropout, squash(k[..., : at_most(length, L)], self.threshold))
        self.require_finite(k)
        return F.pad(k, (0, length))[..., :length]

"""A learned filter of many taps as a diagonal state space of few modes.

Symbols: R filters, L taps, n order, P modes stored, one of each conjugate pair.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from longconv._checks import FLOATS, check_int, check_tensor, check_values, describe
from longconv._modal_fit import NUMBERS, fit
from longconv.filters import DistilledFilter, Filter
from longconv.mixers import ConvolutionMixer, Hyena, Mixer

CANCELLATION = {torch.float32: 1e2, torch.float64: 1e6}
"""Bound on the sum of the modes' sizes over that of their filter: what rounding is multiplied by in a stream."""


class Distilled(NamedTuple):
    """What :func:`distill` returns."""

    mixer: Mixer
    """Streams at a constant cost a sample; has filters of its own, :class:`~longconv.filters.DistilledFilter`."""
    error: float
    """||k_hat - k|| / ||k|| over all filters and taps that were fitted."""
    errors: Tensor
    """(..., H), the same for each filter; 0 where both are zero."""
    k: Tensor
    """(..., H, L), the filters that were fitted."""
    k_hat: Tensor
    """(..., H, L), the filters of the mixer."""

    def plot(self, path: str | Path | None = None, count: int = 4) -> Any:
        """Draw the errors, and ``count`` filters beside what was fitted, from the best to the worst.

        Args:
            path: file to write, its ending says in which format; None writes none.
            count: how many filters.

        Returns:
            The matplotlib figure.

        Raises:
            ImportError: there is no matplotlib.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("plots need matplotlib: pip install 'longconv[plot]'") from error
        k, k_hat, errors = (part.detach().cpu() for part in (self.k, self.k_hat, self.errors))
        k, k_hat, errors = k.flatten(0, -2), k_hat.flatten(0, -2), errors.flatten()
        order = errors.argsort()
        chosen = order[torch.linspace(0, len(order) - 1, min(check_int("count", count), len(order))).long()]
        figure = Figure(figsize=(10, 2 + 1.6 * len(chosen)), layout="constrained")
        axes = figure.subplots(1 + len(chosen), 1, squeeze=False)[:, 0]
        axes[0].semilogy(errors[order].clamp(min=1e-16))
        axes[0].set(title=f"relative error of each filter, in all {self.error:.2e}", xlabel="filter, by error")
        for axis, row in zip(axes[1:], chosen.tolist(), strict=True):
            axis.plot(k[row], label="fitted", linewidth=1.5)
            axis.plot(k_hat[row], "--", label="distilled", linewidth=1)
            axis.set(title=f"filter {row}, error {errors[row]:.2e}", xlabel="lag")
            axis.legend()
        if path is not None:
            figure.savefig(path)
        return figure


def distill(filter: Tensor | Filter | Mixer, order: int, *, length: int | None = None, steps: int = 20) -> Distilled:
    r"""Fit a diagonal state space of few modes to learned filters, for streams at a constant cost a sample.

    .. math:: \hat k_l = d\,[l = 0] + \sum_{i=1}^{n} r_i\, \lambda_i^l, \qquad |\lambda_i| < 1

    with real poles and conjugate pairs of them, n in all for each filter. First by the Hankel matrix: the poles are
    those of the balanced realisation of rank n of (k_1, k_2, ...), or of its numerical rank, the residues least
    squares. Then by ``steps`` of the Levenberg-Marquardt method on poles and residues, none of which makes a filter
    worse. The modes of a filter have sizes ||r_i lambda_i^l|| that add up to no more than 1e2 ||k|| in float32, 1e6
    ||k|| in float64, so that streams don't lose in cancellation what the fit has gained. Of order n or less a filter
    comes out as it is if its poles are distinct, inside the unit circle, and so far apart that the bound holds; one
    with multiple poles, such as l 0.9^l or a few single taps, is approximated. The errors that are returned are those
    of the filters that the mixer has.

    Args:
        filter: what to fit: taps (H, L), a filter module of one channel, or a causal mixer with a filter.
        order: n.
        length: L, the taps that are fitted, where ``filter`` is no tensor; None: twice as many as the filter has, or
            has in its unit of time, so that what comes after its end counts too. Beyond L the modes go on decaying.
        steps: of refinement.

    Returns:
        :class:`Distilled`: of a mixer, one that is the same but for its filter; else one that is the convolution alone.

    Raises:
        TypeError: a filter of a wrong kind or dtype.
        ValueError: an order below 1, or above L / 2 - 1, which so many taps don't determine; taps that are not finite;
            a bidirectional mixer.
        NotImplementedError: a mixer that has no filter, because its taps depend on the input.

    References:
        Laughing Hyena Distillery: Extracting Compact Recurrences From Convolutions (Massaroli, Poli, Fu, Kumbong,
        Parnichkun, Timalsina, Romero, McIntyre, Chen, Rudra, Zhang, Ré, Ermon, Bengio, arXiv 2310.18780)
        A new identification and model reduction algorithm via singular value decomposition (Kung, 1978)

    >>> l = torch.arange(40, dtype=torch.float64)
    >>> k = 0.9**l * torch.cos(0.3 * l) - 0.5**l
    >>> mixer, error, *_ = distill(k[None], 3)
    >>> error < 1e-9
    True
    >>> y, state = mixer.prefill(torch.ones(1, 5, 1, dtype=torch.float64))
    >>> state.modes.x.shape  # a real pole and a pair
    torch.Size([1, 1, 2])

    A model generates by distilled filters where its mixers are replaced:

    >>> from longconv.models import LanguageModel, generate
    >>> model = LanguageModel(11, d_model=8, n_layers=2, mixer="long_conv", mixer_options={"l_max": 32})
    >>> for block in model.trunk.backbone.blocks():
    ...     block.mixer = distill(block.mixer, 8).mixer
    >>> generate(model, torch.tensor([[1, 2]]), 5).shape
    torch.Size([1, 7])
    """
    check_int("order", order)
    check_int("steps", steps, least=0)
    k = _taps(filter, length)
    check_values("the filter", k)
    L = k.shape[-1]
    if order > L // 2 - 1:
        raise ValueError(f"order is {order}, expected at most L / 2 - 1 = {L // 2 - 1} for {L} taps")
    target = k.detach().flatten(0, -2).double().cpu()
    bound = CANCELLATION[k.dtype]
    parts = [fit(part, order, steps, bound) for part in target.split(max(1, NUMBERS // (4 * order * L)))]
    count = max(z.shape[1] for z, _ in parts)
    z = torch.cat([F.pad(z, (0, count - z.shape[1]), value=-1.0) for z, _ in parts])
    c = torch.cat([F.pad(c, (0, count - c.shape[1])) for _, c in parts])
    mixer = _with_filter(filter, k, z, c, target[:, 0] - 2 * c.real.sum(1))
    with torch.no_grad():
        k_hat = mixer.taps(L).view(k.shape)
    difference, norm = (k_hat - k).double().norm(dim=-1), k.double().norm(dim=-1)
    errors = torch.where(difference == 0, 0.0, difference / norm)
    error = (difference.norm() / norm.norm()).item() if difference.any() else 0.0
    return Distilled(mixer, error, errors, k, k_hat)


# --- what is fitted, and what it becomes part of ----------------------------------------------------------------------


def _taps(filter: Tensor | Filter | Mixer, length: int | None) -> Tensor:
    """The taps of a filter in any form, (..., L), float64 or float32."""
    if isinstance(filter, Tensor):
        if length is not None:
            raise ValueError(f"length is {length}, expected None: the filter is a tensor, fitted as long as it is")
        k = check_tensor("filter", filter, "(H, L)", ndim=2, dtypes=FLOATS)
        if k.numel() == 0:
            raise ValueError(f"filter is {describe(k)}, expected at least one filter and one tap")
    else:
        k = _module(filter)(_length(filter) if length is None else check_int("length", length))
        if isinstance(filter, Filter) and (k.ndim > 3 or (k.ndim == 3 and len(k) != 1)):
            raise ValueError(
                f"filter has taps {tuple(k.shape)}, expected those of one channel, (1, H, L): fit its mixer"
            )
    return k.detach().to(torch.promote_types(k.dtype, torch.float32))


def _module(filter: Filter | Mixer) -> Filter:
    if isinstance(filter, Filter):
        return filter
    if not isinstance(filter, Mixer):
        raise TypeError(f"filter is {describe(filter)}, expected taps (H, L), a Filter or a Mixer")
    filter.filter(1)  # a mixer without a filter says so
    if not isinstance(filter, (ConvolutionMixer, Hyena)):
        raise TypeError(f"filter is {describe(filter)}, expected a mixer with one filter a feature, or Hyena")
    if filter.bidirectional:
        raise ValueError(f"filter is a bidirectional {type(filter).__name__}, expected a causal one: only those stream")
    if reason := filter.streaming_refusal():
        raise ValueError(f"filter is a {type(filter).__name__}, expected one that streams: {reason}")
    return filter.taps


def _length(filter: Filter | Mixer) -> int:
    taps = _module(filter)
    return 2 * (getattr(taps, "l_max", 1024) if taps.support is None else taps.support)


def _with_filter(filter: Tensor | Filter | Mixer, k: Tensor, z: Tensor, c: Tensor, first: Tensor) -> Any:
    """The mixer that a filter was of, or one of nothing else, with modes in place of the taps k."""
    given = _module(filter) if isinstance(filter, torch.nn.Module) else None
    lr = None if given is None else given.filter_lr
    shape = (1, len(k)) if k.ndim == 2 and not isinstance(filter, Mixer) else k.shape[:-1]
    taps = DistilledFilter(z, c, first, shape, dtype=k.dtype, filter_lr=lr).to(k.device)
    if isinstance(filter, Hyena):
        mixer: Mixer = copy.deepcopy(filter)
        mixer.taps = taps
        return mixer
    channels = filter.channels if isinstance(filter, ConvolutionMixer) else 1
    mixer = ConvolutionMixer(
        shape[1], taps, channels=channels, activation=None, output=None if channels == 1 else "linear"
    )
    if isinstance(filter, ConvolutionMixer):
        for part in ("activation", "dropout", "norm", "output", "D"):
            setattr(mixer, part, copy.deepcopy(getattr(filter, part)))
        return mixer.train(filter.training)
    mixer.D = torch.nn.Parameter(k.new_zeros(1, shape[1]))
    return mixer

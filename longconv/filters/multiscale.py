"""Filters of SGConv: a few short sub-filters at doubling scales, each weaker than the one before.

References:
    What Makes Convolutional Models Great on Long Sequence Modeling? (Li, Cai, Zhang, Chen, Dey, arXiv 2210.09298)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longconv import _sequence
from longconv._checks import (
    check_bool,
    check_choice,
    check_device,
    check_int,
    check_real,
    check_shape,
    check_tensor,
    check_values,
    describe,
)
from longconv.filters.base import Filter, at_most, parameter_dtype

MODES = ("linear", "nearest", "sum", "cos", "learnable")
REALS = (torch.float64, torch.float32)


def multiscale_filter(
    weights: Sequence[Tensor],
    length: int,
    decay: float | Tensor,
    mode: str = "linear",
    norm: Tensor | bool | None = None,
    *,
    init_scale: int = 0,
) -> Tensor:
    """Sub-filters stretched to doubling lengths, weighted and joined.

    With S sub-filters of d taps, up(w, f) the interpolation by f (half-pixel centres, edges clamped) and
    g_i = decay^(S - 1 - i):

    - linear, nearest, cos: k = [up(w_i, 2^max(0, i - 1)) g_i for i < S] one after the other, d 2^(S-1) taps in all
      ("cos" is linear; it names the initialisation of :class:`MultiscaleFilter`);
    - sum: k = sum_i up(w_i, 2^i) g_i, every term starting at tap 0;
    - learnable: as linear with g_i = 1, then k[l] (l + 1)^-decay.

    Then k / norm, cut or padded with zeros to ``length``.

    Args:
        weights: S tensors (C, H, d).
        length: L, number of taps.
        decay: number, or (H,) one a feature.
        mode: "linear", "nearest", "sum", "cos" or "learnable".
        norm: None divides by the L2 norm of the whole k, a (C, H, 1) tensor by that, False by nothing.
        init_scale: every scale is stretched by 2^init_scale more.

    Returns:
        (C, H, L).

    Raises:
        TypeError: weights, a decay or a norm of a wrong kind or dtype.
        ValueError: no weights, or weights of several shapes or devices; an unknown mode; a decay or a norm that is not
            positive (looked at on the CPU outside ``torch.compile`` alone).

    References:
        What Makes Convolutional Models Great on Long Sequence Modeling? (Li, Cai, Zhang, Chen, Dey, arXiv 2210.09298)

    >>> multiscale_filter([torch.ones(1, 1, 2)] * 3, 8, decay=2.0, norm=False)
    tensor([[[4., 4., 2., 2., 1., 1., 1., 1.]]])
    """
    check_choice("mode", mode, MODES)
    check_int("length", length, least=0)
    check_int("init_scale", init_scale, least=0)
    if len(weights) == 0:
        raise ValueError("weights is empty, expected at least one (C, H, d) tensor")
    for i, weight in enumerate(weights):
        check_tensor(f"weights[{i}]", weight, "(C, H, d)", ndim=3, dtypes=REALS if i == 0 else (weights[0].dtype,))
        check_shape(f"weights[{i}]", weight, weights[0].shape, "(C, H, d)")
        check_device(f"weights[{i}]", weight, "weights[0]", weights[0])
    if weights[0].shape[-1] == 0:
        raise ValueError(f"weights[0] is {describe(weights[0])}, expected at least one tap, d >= 1")
    decay = _per_feature(decay, weights[0])
    k = _join(weights, decay, mode, init_scale, None if norm is None else length)
    if norm is None:
        own = norm = k.norm(dim=-1, keepdim=True)
        check_values("the norm of the filter", own, positive=True, because="its weights are all zero, or not finite")
    elif isinstance(norm, Tensor):
        check_tensor("norm", norm, "(C, H, 1)", ndim=3, dtypes=REALS)
        check_shape("norm", norm, (*k.shape[:2], 1), "(C, H, 1)")
        check_device("norm", norm, "weights[0]", k)
        check_values("norm", norm, positive=True)
        norm = norm.to(k.dtype)
    elif norm is not False:
        raise TypeError(f"norm is {norm!r}, expected None, a (C, H, 1) tensor or False")
    k = k[..., :length]
    k = k if norm is False else k / norm
    return F.pad(k, (0, length - k.shape[-1]))


def _per_feature(decay: float | Tensor, weight: Tensor) -> Tensor:
    """The decay as an (H, 1) or (1, 1) tensor beside ``weight`` (C, H, d)."""
    if not isinstance(decay, Tensor):
        return weight.new_full((1, 1), check_real("decay", decay, least=0, open_least=True))
    check_tensor("decay", decay, "() or (H,)", ndim=(0, 1), dtypes=REALS)
    if decay.ndim:
        check_shape("decay", decay, (weight.shape[1],), "(H,)")
    check_device("decay", decay, "weights[0]", weight)
    check_values("decay", decay, positive=True)
    return decay.to(weight).reshape(-1, 1)


def _join(weights: Sequence[Tensor], decay: Tensor, mode: str, init_scale: int, length: int | None = None) -> Tensor:
    """The filter before the norm: all of it, or its first ``length`` taps where it has as many."""
    d, last = weights[0].shape[-1], len(weights) - 1
    factors = [2 ** (init_scale + (i if mode == "sum" else max(0, i - 1))) for i in range(last + 1)]
    total = d * (factors[-1] if mode == "sum" else sum(factors))
    end = total if length is None else at_most(length, total)
    start, pieces = 0, []
    for i, (weight, factor) in enumerate(zip(weights, factors, strict=True)):
        piece = _stretch(weight, factor, max(0, min(end - start, d * factor)), mode == "nearest")
        pieces.append(piece if mode == "learnable" else piece * decay ** (last - i))
        start += 0 if mode == "sum" else d * factor
    if mode == "sum":
        return torch.stack([F.pad(piece, (0, end - piece.shape[-1])) for piece in pieces]).sum(0)
    k = torch.cat(pieces, dim=-1)
    if mode == "learnable":
        k = k * torch.arange(1, k.shape[-1] + 1, dtype=k.dtype, device=k.device) ** -decay
    return k


def _stretch(weight: Tensor, factor: int, length: int, nearest: bool) -> Tensor:
    """The first ``length`` taps of a sub-filter stretched by a factor; its parameters are in the graph even of none."""
    if length == 0:
        return weight[..., :0]
    needed = weight[..., : 1 + -(-length // factor)]  # a tap lies between two of them at the most
    return F.interpolate(needed, scale_factor=float(factor), mode="nearest" if nearest else "linear")[..., :length]


class MultiscaleFilter(Filter):
    """Trainable multi-scale filter whose norm is fixed at construction.

    Args:
        d_model: H.
        channels: C.
        kernel_dim: d, taps of a sub-filter.
        l_max: taps from l_max on are zero; S = 1 + ceil(log2(l_max / d)) sub-filters, at least one.
        decay_min, decay_max: decay over the features, evenly spaced; with mode "learnable" drawn between them.
        mode: see :func:`multiscale_filter`.
        init_scale: see :func:`multiscale_filter`; as many sub-filters fewer.
        trainable_decay: whether the decay of mode "learnable" is trained; that of other modes isn't.
        scales: S; None takes that number, with fewer the filter ends before l_max.
        filter_dropout: probability that a tap is dropped in training, as in :class:`FreeFilter`; the published filter
            has no dropout of its own.
        filter_lr: see :class:`Filter`.

    References:
        What Makes Convolutional Models Great on Long Sequence Modeling? (Li, Cai, Zhang, Chen, Dey, arXiv 2210.09298)

    >>> MultiscaleFilter(4, kernel_dim=16, l_max=1000)(100).shape
    torch.Size([1, 4, 100])
    """

    filter_parameters = ("weights", "decay")
    norm: Tensor

    def __init__(
        self,
        d_model: int,
        channels: int = 1,
        *,
        kernel_dim: int = 64,
        l_max: int = 1024,
        decay_min: float = 2.0,
        decay_max: float = 2.0,
        mode: str = "linear",
        init_scale: int = 0,
        trainable_decay: bool = True,
        scales: int | None = None,
        filter_dropout: float = 0.0,
        filter_lr: float | None = None,
    ) -> None:
        super().__init__(filter_lr)
        H, C, d = check_int("d_model", d_model), check_int("channels", channels), check_int("kernel_dim", kernel_dim)
        self.l_max, self.mode = check_int("l_max", l_max), check_choice("mode", mode, MODES)
        self.support = self.l_max
        self.init_scale = check_int("init_scale", init_scale, least=0)
        self.dropout = nn.Dropout(check_real("filter_dropout", filter_dropout, least=0, most=1))
        least = check_real("decay_min", decay_min, least=0, open_least=True)
        most = check_real("decay_max", decay_max, least=least)
        if scales is None:
            scales = max(1, 1 + math.ceil(math.log2(l_max / d)) - init_scale)
        draw, dtype = _cosines if mode == "cos" else torch.randn, parameter_dtype()
        self.weights = nn.ParameterList(
            nn.Parameter(draw(C, H, d, dtype=dtype)) for _ in range(check_int("scales", scales))
        )
        drawn = mode == "learnable"
        decay = (
            least + torch.rand(H, dtype=dtype) * (most - least)
            if drawn
            else torch.linspace(least, most, H, dtype=dtype)
        )
        if check_bool("trainable_decay", trainable_decay) and drawn:
            self.decay = nn.Parameter(decay)
        else:
            self.register_buffer("decay", decay)
        with torch.no_grad():
            whole = _join([weight.double() for weight in self.weights], self.decay.double()[:, None], mode, init_scale)
            self.register_buffer("norm", whole.norm(dim=-1, keepdim=True))

    def forward(self, length: int) -> Tensor:
        """The first ``length`` taps, (C, H, length)."""
        check_int("length", length, least=0)
        taps = at_most(length, self.l_max)
        k = multiscale_filter(list(self.weights), taps, self.decay, self.mode, self.norm, init_scale=self.init_scale)
        k = _sequence.drop_alike(self.dropout, k)
        self.require_finite(k)
        return F.pad(k, (0, length))[..., :length]


def _cosines(C: int, H: int, d: int, dtype: torch.dtype) -> Tensor:
    """cos(i t) over t in [0, 2 pi], the H frequencies i in a random order."""
    t = torch.linspace(0, 2 * math.pi, d, dtype=dtype)
    return torch.cos(torch.randperm(H)[:, None] * t).expand(C, H, d).clone()

"""Filters of Hyena: a small network with sine activations maps the time of a tap to its value, under a window.

References:
    Hyena Hierarchy: Towards Larger Convolutional Language Models (Poli, Massaroli, Nguyen, Fu, Dao, Baccus, Bengio,
    Ermon, Ré, arXiv 2302.10866)
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TypedDict

import torch
from torch import Tensor, nn

from longconv import _sequence
from longconv._checks import check_bool, check_int, check_real
from longconv.filters.base import Filter, parameter_dtype
from longconv.ops.transpose import transpose


class ImplicitOptions(TypedDict, total=False):
    """Options of an :class:`ImplicitFilter`, taken by the same names by mixers with such filters.

    Args:
        emb_dim: number of positional features of the filters, odd, at least 3.
        width: units of a hidden layer.
        num_inner_mlps: hidden layers after the first.
        w: start of every frequency of the sines.
        modulate: whether the filters have a window.
        fast_decay_pct: when the window of the last feature has fallen to ``target``, in units of l_max.
        slow_decay_pct: the same of the first feature.
        target: what the windows fall to, in (0, 1).
        shift: what is added to the window.
        normalized: whether the taps at a lag, behind the window, are divided by the sum of their sizes; zeros stay.
        filter_dropout: probability that a tap is dropped in training.
        filter_lr: learning rate of the filters' parameters; None takes the optimiser's.
    """

    emb_dim: int
    width: int
    num_inner_mlps: int
    w: float
    modulate: bool
    fast_decay_pct: float
    slow_decay_pct: float
    target: float
    shift: float
    normalized: bool
    filter_dropout: float
    filter_lr: float | None


class ImplicitFilter(Filter):
    r"""One network for all taps: positional features -> layers of sines -> H numbers, times an exponential window.

    With t_n = n / (l_max - 1), the J = (emb_dim - 1) / 2 bands f_j, evenly spaced from 1e-4 to J - 1, and one trainable
    vector of frequencies ``freq`` that all layers share,

        z_n = [t_n, cos(2 pi f_j n / l_max) for j < J, -sin(2 pi f_j n / l_max) for j < J]
        x_n = sin(freq * (W_0 z_n + b_0)),    then num_inner_mlps times    x_n <- sin(freq * (W_i x_n + b_i))
        k[h, n] = (W x_n)_h (exp(-t_n |delta_h|) + shift)

    with delta_h evenly spaced from log(target) / slow_decay_pct to log(target) / fast_decay_pct: without the shift, the
    window of the last feature falls to ``target`` at t = fast_decay_pct, that of the first at t = slow_decay_pct. From
    l_max on the time goes on with the same step.

    Args:
        d_model: H, number of filters.
        l_max: number of taps in a unit of time; filters of any length are computed.
        emb_dim, width, num_inner_mlps, w, modulate, fast_decay_pct, slow_decay_pct, target, shift, normalized,
        filter_dropout, filter_lr: see :class:`ImplicitOptions`.

    Attributes:
        freq: (width,), the frequencies.
        decay_range: delta_h of the first and of the last feature.

    References:
        Hyena Hierarchy: Towards Larger Convolutional Language Models (Poli et al., arXiv 2302.10866)

    >>> taps = ImplicitFilter(4, l_max=64)
    >>> taps(100).shape
    torch.Size([4, 100])
    >>> torch.allclose(taps(10), taps(100)[:, :10], atol=1e-6)
    True
    """

    filter_parameters = ("layers", "output", "freq")

    def __init__(
        self,
        d_model: int,
        emb_dim: int = 3,
        width: int = 64,
        num_inner_mlps: int = 2,
        l_max: int = 1024,
        *,
        w: float = 1.0,
        modulate: bool = True,
        fast_decay_pct: float = 0.3,
        slow_decay_pct: float = 1.5,
        target: float = 0.01,
        shift: float = 0.0,
        normalized: bool = False,
        filter_dropout: float = 0.0,
        filter_lr: float | None = None,
    ) -> None:
        super().__init__(filter_lr)
        self.d_model, width = check_int("d_model", d_model), check_int("width", width)
        self.bands = (check_int("emb_dim", emb_dim, least=3) - 1) // 2
        if emb_dim % 2 == 0:
            raise ValueError(f"emb_dim is {emb_dim}, expected an odd number: the time, and a cosine and a sine a band")
        self.l_max = check_int("l_max", l_max)
        self.modulate, self.normalized = check_bool("modulate", modulate), check_bool("normalized", normalized)
        self.shift = check_real("shift", shift)
        self.dropout = nn.Dropout(check_real("filter_dropout", filter_dropout, least=0, most=1))
        level = math.log(check_real("target", target, least=0, most=1, open_least=True))
        slow = level / check_real("slow_decay_pct", slow_decay_pct, least=0, open_least=True)
        fast = level / check_real("fast_decay_pct", fast_decay_pct, least=0, open_least=True)
        dtype = parameter_dtype()
        sizes = [emb_dim, *[width] * (1 + check_int("num_inner_mlps", num_inner_mlps, least=0))]
        self.layers = nn.ModuleList(nn.Linear(m, n, dtype=dtype) for m, n in pairwise(sizes))
        self.output = nn.Linear(width, d_model, bias=False, dtype=dtype)
        self.freq = nn.Parameter(torch.full((width,), check_real("w", w), dtype=dtype))
        self.decay_range = slow, fast

    def times(self, length: int, start: int = 0) -> Tensor:
        """t_n of the first ``length`` taps from ``start`` on, (length - start,), in double precision."""
        n = torch.arange(start, length, dtype=torch.float64, device=self.freq.device)
        return n / max(self.l_max - 1, 1)

    def features(self, length: int, start: int = 0) -> Tensor:
        """z_n of the first ``length`` taps from ``start`` on, (length - start, emb_dim), in double precision."""
        t = self.times(length, start)
        f = torch.linspace(1e-4, self.bands - 1, self.bands, dtype=t.dtype, device=t.device)
        n = torch.arange(start, length, dtype=t.dtype, device=t.device)
        phase = (2 * math.pi / self.l_max) * n[:, None] * f
        return torch.cat([t[:, None], phase.cos(), -phase.sin()], dim=1)

    def window(self, length: int, start: int = 0) -> Tensor:
        """The window of the first ``length`` taps from ``start`` on, (H, length - start), in double precision."""
        slow, fast = self.decay_range
        deltas = torch.linspace(slow, fast, self.d_model, dtype=torch.float64, device=self.freq.device)
        decays = deltas.abs()
        if self.normalized and self.shift == 0:
            decays = decays - decays.amin()  # what all features share the norm would take away, had it not underflowed
        return torch.exp(-decays[:, None] * self.times(length, start)) + self.shift

    def forward(self, length: int, start: int = 0) -> Tensor:
        """The first ``length`` taps from ``start`` on, (H, length - start)."""
        check_int("length", length, least=check_int("start", start, least=0))
        x = self.features(length, start).to(self.freq.dtype)
        for layer in self.layers:
            x = torch.sin(self.freq * layer(x))
        k = transpose(self.output(x))
        if self.modulate:
            k = k * self.window(length, start).to(k.dtype)
        if self.normalized:
            norm = torch.linalg.vector_norm(k, 1, dim=0)
            k = k / norm.masked_fill(norm == 0, 1)
        dropped = _sequence.drop_alike(self.dropout, k)
        self.require_finite(dropped)
        return dropped

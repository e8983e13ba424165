"""Orchid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from longconv import _autocast
from longconv._checks import check_bool, check_int, check_lengths, check_options, describe
from longconv.filters import AdaptiveFilter, ImplicitFilter
from longconv.filters.adaptive import mask_beyond
from longconv.filters.transforms import Transform
from longconv.mixers.base import Mixer, zero_beyond
from longconv.mixers.projection import from_channels, to_channels
from longconv.ops import fft_conv, short_conv, transpose

FILTER_OPTIONS = ("modulate", "fast_decay_pct", "slow_decay_pct", "target", "shift", "normalized")
SUM = Transform("dft", "none")


class Orchid(Mixer):
    r"""Gated long convolution with a filter that depends on the data, and a second one on the input itself.

    With short causal convolutions s(.) of ``short_filter`` taps, static filters k and r
    (:class:`~longconv.filters.ImplicitFilter`), and the output h of the conditioning network
    (:class:`~longconv.filters.AdaptiveFilter`),

        [p_0, p_1, p_2] = W_in u + b_in
        x = s(p_1) s(p_2)
        y = W_out (s(p_0) (conv(x, k + h(p_2)) + skip x) + conv(u, r) + skip_r u) + b_out.

    The causal form (the default, as that of every mixer here and of the published module's own flag ``causal``, which
    leaves its convolutions circular): all convolutions are linear and causal, k and r are divided by sqrt(l_max), and
    tap j of h depends on the inputs 0, ..., j alone, so that an output depends on no later input.

    The circular form, ``causal=False``, is the paper's, for encoders: y = T^-1(T(x) (T(k) + h)) with the transform T of
    the whole sequence. For the DFT this is the circular convolution with k / sqrt(L) ("fft_ortho") or k / L ("fft")
    plus the inverse DFT of h. The whole mixer is equivariant to circular shifts if h is, see
    :class:`~longconv.filters.AdaptiveFilter`, and ``short_filter=1``. With ``lengths`` each sample has a period of its
    own. It can't stream.

    Args:
        d_model: D.
        causal: see above.
        l_max: sizes the time step of the static filters, and the scale of the causal form. Inputs of any length are
            taken.
        conditioning: "magnitude" (type I), "correlation" (type II) or "spectrum".
        stages: which convolutions the conditioning network has: "both", "first" or "second".
        transform: "fft_ortho", "fft", "dct", "dct_ortho" or "dct1" of the circular form; None: "fft_ortho". (The
            published code names none; its "fft" makes h constant on long sequences.)
        kernel_width, layers, padding, norm, bias, activation, query_activation, query_magnitude: of the conditioning
            network, see :class:`~longconv.filters.AdaptiveFilter`.
        short_filter: taps of the short convolutions.
        residual: whether there is the second long convolution, conv(u, r) + skip_r u.
        emb_dim, width, num_inner_mlps, w: of the static filters, see :class:`~longconv.filters.ImplicitFilter`.
        filter_options: further options of the static filters, by name, such as {"shift": 0.05}.
        filter_lr: learning rate of the static filters' parameters; None takes the optimiser's.

    Raises:
        TypeError: an option of a wrong kind or an unknown one of the static filters.
        ValueError: an unknown choice, or options that contradict each other, such as a transform of the causal form.

    References:
        Orchid: Flexible and Data-Dependent Convolution for Sequence Modeling (Karami, Ghodsi, arXiv 2402.18508)

    >>> Orchid(4, l_max=64)(torch.randn(2, 100, 4)).shape
    torch.Size([2, 100, 4])
    """

    def __init__(
        self,
        d_model: int,
        *,
        causal: bool = True,
        l_max: int = 1024,
        conditioning: str = "magnitude",
        stages: str = "both",
        transform: str | None = None,
        kernel_width: int = 3,
        layers: int = 1,
        padding: str | None = None,
        norm: bool = True,
        bias: bool = True,
        activation: str = "gelu",
        query_activation: str | None = None,
        query_magnitude: bool = False,
        short_filter: int = 3,
        residual: bool = True,
        emb_dim: int = 3,
        width: int = 64,
        num_inner_mlps: int = 2,
        w: float = 1.0,
        filter_options: Mapping[str, Any] | None = None,
        filter_lr: float | None = None,
    ) -> None:
        super().__init__(d_model)
        self.causal, self.l_max = check_bool("causal", causal), check_int("l_max", l_max)
        self.conditioning = AdaptiveFilter(
            d_model,
            causal=causal,
            conditioning=conditioning,
            stages=stages,
            transform=transform,
            kernel_width=kernel_width,
            layers=layers,
            padding=padding,
            norm=norm,
            bias=bias,
            activation=activation,
            query_activation=query_activation,
            query_magnitude=query_magnitude,
            l_max=l_max,
        )
        options = _filter_options(filter_options)

        def static() -> ImplicitFilter:
            return ImplicitFilter(d_model, emb_dim, width, num_inner_mlps, l_max, w=w, filter_lr=filter_lr, **options)

        self.taps, self.skip = static(), nn.Parameter(torch.randn(d_model))
        residual = check_bool("residual", residual)
        self.residual_taps = static() if residual else None
        self.residual_skip = nn.Parameter(torch.randn(d_model)) if residual else None
        self.input, self.output = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)
        K = check_int("short_filter", short_filter)
        self.short_weight = nn.Parameter((2 * torch.rand(3 * d_model, K) - 1) * K**-0.5)
        self.short_bias = nn.Parameter((2 * torch.rand(3 * d_model) - 1) * K**-0.5)

    def forward(self, u: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mix a whole sequence; see :meth:`Mixer.forward`."""
        self._check_input(u, lengths)
        check_lengths(lengths, u.shape[1])
        if u.numel() == 0:
            return self.output(u)
        u = zero_beyond(u, lengths)
        p = self._projection(2, u)
        h = self.conditioning(p if lengths is None else mask_beyond(p, lengths), lengths)
        x, gate_in, gate_out = (
            self._short(2, p),
            self._short(1, self._projection(1, u)),
            self._short(0, self._projection(0, u)),
        )
        y = self._convolve(x, self.taps, self.skip, lengths, h, (gate_in, gate_out))
        if self.residual_taps is not None and self.residual_skip is not None:
            y = y + self._convolve(transpose(u), self.residual_taps, self.residual_skip, lengths).to(y.dtype)
        return zero_beyond(from_channels(y, self.output.weight, self.output.bias), lengths)

    def streaming_refusal(self) -> str | None:
        """The circular form can't stream."""
        if not self.causal:
            return "its circular form joins the end of a sequence to its beginning, which takes inputs still to come"
        return "its filter depends on the data, and exact online convolution with such filters is not there yet"

    # --- the parts ----------------------------------------------------------------------------------------------------

    def _projection(self, i: int, u: Tensor) -> Tensor:
        """p_i of u (B, L, D), (B, D, L): of the three no more is in memory than gradients need."""
        rows = self._rows(i)
        return to_channels(u, self.input.weight[rows], self.input.bias[rows])

    def _short(self, i: int, p: Tensor) -> Tensor:
        """p_i after its short convolution."""
        rows = self._rows(i)
        return short_conv(p, self.short_weight[rows], self.short_bias[rows])

    def _rows(self, i: int) -> slice:
        return slice(i * self.d_model, (i + 1) * self.d_model)

    def _convolve(
        self,
        x: Tensor,
        static: ImplicitFilter,
        skip: Tensor,
        lengths: Tensor | None,
        h: Tensor | None = None,
        gates: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """The convolution of x (B, D, L) with a static filter and h where there is one, with the skip and the gates."""
        length, transform = x.shape[-1], self.conditioning.transform
        pre_gate, post_gate = gates or (None, None)
        with _autocast.off(x.device):
            k = static(length)
        if transform is None:
            taps = k * self.l_max**-0.5
            taps = taps if h is None else taps + h
            mode = "causal"
        elif transform.is_real:
            return _cosine_product(x, k, skip, h, gates, transform, lengths)
        else:
            scale = transform.scale(length if lengths is None else lengths.clamp(min=1), length, k)
            taps = k * (scale[0] if lengths is None else scale)
            taps = taps if h is None else taps + SUM.inverse(h, length, lengths)
            mode = "circular"
        return fft_conv(x, taps, skip=skip, pre_gate=pre_gate, post_gate=post_gate, mode=mode, lengths=lengths)


def _cosine_product(
    x: Tensor,
    k: Tensor,
    skip: Tensor,
    h: Tensor | None,
    gates: tuple[Tensor, Tensor] | None,
    transform: Transform,
    lengths: Tensor | None,
) -> Tensor:
    """The same as a product of cosine transforms, in single precision at least: x (B, D, L), k (D, L)."""
    s = x.to(k.dtype) if gates is None else x.to(k.dtype) * gates[0]
    k = k[None]
    if lengths is not None:
        s, k = mask_beyond(s, lengths), mask_beyond(k.expand_as(s), lengths)
    spectrum = transform.forward(k, lengths)
    spectrum = spectrum if h is None else spectrum + h
    y = transform.inverse(transform.forward(s, lengths) * spectrum, x.shape[-1], lengths) + skip[:, None] * s
    return (y if gates is None else y * gates[1]).to(x.dtype)


def _filter_options(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The further options of the static filters, as keyword arguments."""
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(f"filter_options is {describe(given)}, expected options of the static filters by name")
    options = dict(given or {})
    check_options("the static filter", options, FILTER_OPTIONS)
    return options

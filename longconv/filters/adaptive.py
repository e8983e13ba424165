"""Filters of Orchid: conditioning networks that make the filter of a sample from the sample itself.

Shapes: B batch, D channels, L length.

References:
    Orchid: Flexible and Data-Dependent Convolution for Sequence Modeling (Karami, Ghodsi, arXiv 2402.18508)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypedDict

import torch
from torch import Tensor

from longconv import _autocast, _sequence
from longconv._checks import (
    FLOATS,
    check_bool,
    check_choice,
    check_device,
    check_int,
    check_lengths,
    check_shape,
    check_tensor,
    describe,
)
from longconv.filters.base import WideModule
from longconv.filters.local import ACTIVATIONS, PADDINGS, LocalConvolutions, Past, mask_beyond
from longconv.filters.transforms import TRANSFORMS, Transform
from longconv.ops.fft_conv import fft_conv_alike

CONDITIONINGS = ("magnitude", "spectrum", "correlation")
STAGES = ("both", "first", "second")


class AdaptiveOptions(TypedDict, total=False):
    """Options of an :class:`AdaptiveFilter`, taken by the same names by mixers with such filters.

    Args:
        conditioning: "magnitude", "spectrum" or "correlation".
        stages: "both" convolutions, the "first" ones alone or the "second" ones alone (not for the correlation, which
            would be the magnitude).
        transform: "fft" (the DFT divided by L), "fft_ortho" (unitary), "dct" (DCT-II), "dct_ortho" or "dct1"; None:
            "fft_ortho". The causal form has none.
        kernel_width: taps of a local convolution; odd in the circular form.
        layers: local convolutions in a stage.
        padding: "zeros", "reflect" or "circular"; None: "zeros". The causal form has zeros before the sequence.
        norm: whether there are layer norms.
        bias: whether the local convolutions have a bias.
        activation: one of :data:`ACTIVATIONS`, between the layers of a stage.
        query_activation: act: one of :data:`ACTIVATIONS`, "softmax" (over time, before the transform; in the circular
            form alone), or None for the identity.
        query_magnitude: whether act applies to the magnitude, which keeps the phase or sign; else to the real and the
            imaginary part, each on its own. Only for a function, "softmax" is none.
    """

    conditioning: str
    stages: str
    transform: str | None
    kernel_width: int
    layers: int
    padding: str | None
    norm: bool
    bias: bool
    activation: str
    query_activation: str | None
    query_magnitude: bool


class AdaptiveFilter(WideModule):
    r"""The conditioning network of Orchid: the data-dependent part of a sample's filter.

    The circular form works on the spectrum of each sample. With the transform T (along time), local convolutions
    c(.), short depthwise convolutions and a layer norm over the channels, first in time and second in frequency:

        magnitude   (type I)     h = c_2(|T c_1(u)|^2);    of a cosine transform |T c_1(u)|
        spectrum                 h = c_2([Re T c_1(u), Im T c_1(u)])
        correlation (type II)    h = c_2([Re, Im] of conj(T c_k(u)) act(T c_q(u)))

    For the DFT the second convolutions have two outputs a channel, the real and the imaginary part of h.

    The magnitude and the correlation do not change when the input is shifted (circularly); so the convolution with the
    filter is equivariant to shifts, exactly if the transform is the DFT and either padding is "circular" or
    ``stages="second"``. Zeros at the ends, the published padding, make it approximate, and cosine transforms are not
    shift equivariant at all.

    The causal form is one of our own: the published code has none. Convolutions are causal and the second ones are in
    time too, the self-product of the spectrum A is A^2 in place of |A|^2, and the product of spectra lacks the
    conjugate, both with zero padding; that is, the linear convolutions a * a and k * q in place of correlations:

        magnitude    h = c_2(a * a / sqrt(l_max)) / sqrt(l_max),    a = c_1(u)
        spectrum     h = c_2(c_1(u)) / sqrt(l_max)
        correlation  h = c_2(c_k(u) * act(c_q(u)) / sqrt(l_max)) / sqrt(l_max)

    and h[j] depends on u[0], ..., u[j] alone. At L = l_max these are the sizes of the circular form with "fft_ortho".

    Args:
        d_model: D.
        causal: the causal form instead of the circular one.
        l_max: sets the size of the taps of the causal form; inputs of any length are taken.
        conditioning, stages, transform, kernel_width, layers, padding, norm, bias, activation, query_activation,
        query_magnitude: see :class:`AdaptiveOptions`.

    Raises:
        TypeError: an option of a wrong kind.
        ValueError: an unknown choice, or options that contradict each other.

    References:
        Orchid: Flexible and Data-Dependent Convolution for Sequence Modeling (Karami, Ghodsi, arXiv 2402.18508)

    >>> u = torch.randn(2, 4, 100)
    >>> AdaptiveFilter(4)(u).shape, AdaptiveFilter(4, causal=True)(u).shape
    (torch.Size([2, 4, 51]), torch.Size([2, 4, 100]))
    """

    def __init__(
        self,
        d_model: int,
        *,
        causal: bool = False,
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
        l_max: int = 1024,
    ) -> None:
        super().__init__()
        self.d_model, self.causal = check_int("d_model", d_model), check_bool("causal", causal)
        self.conditioning = check_choice("conditioning", conditioning, CONDITIONINGS)
        self.l_max = check_int("l_max", l_max)
        check_choice("stages", stages, STAGES)
        self.transform = self._check_transform(transform)
        self.query_activation = self._check_query(query_activation)
        self.query_magnitude = check_bool("query_magnitude", query_magnitude)
        if query_magnitude and self.query_activation not in ACTIVATIONS:
            raise ValueError(
                f"query_magnitude is True with query_activation={query_activation!r}, expected False: there is no "
                "function of the magnitude"
            )
        check_choice("activation", activation, tuple(ACTIVATIONS))
        if conditioning == "correlation" and stages == "second":
            raise ValueError(
                "stages is 'second' with conditioning='correlation', expected 'both' or 'first': without convolutions "
                "of their own, keys and queries are one, and their correlation is the magnitude"
            )

        def local(inputs: int, outputs: int) -> LocalConvolutions:
            return LocalConvolutions(
                d_model,
                inputs,
                outputs,
                width=self._check_width(kernel_width),
                layers=check_int("layers", layers),
                padding=self._check_padding(padding),
                norm=check_bool("norm", norm),
                bias=check_bool("bias", bias),
                activation=activation,
            )

        parts = 1 if self.transform is None or self.transform.is_real else 2
        self.first = local(1, 1) if stages != "second" else None
        self.queries = local(1, 1) if conditioning == "correlation" else None
        self.second = local(1 if conditioning == "magnitude" else parts, parts) if stages != "first" else None

    def forward(self, u: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The filters of the samples.

        Args:
            u: (B, D, L), real, L >= 1.
            lengths: (B,) integers in [0, L], or None for L. What stands behind them changes nothing.

        Returns:
            In single precision at least, in the causal form the taps h, (B, D, L); in the circular form the spectra h,
            (B, D, bins) in the transform's order: for the DFT L // 2 + 1 bins, complex (real for the magnitude without
            its second convolutions), for a cosine transform L, real. Of a sample with a length of its own, its own bins
            alone mean anything. Within :func:`~longconv.distributed.sequence_parallel` a rank has its part of them: of
            the taps as u is cut, of bins one as large as those of the others.
        """
        check_tensor("u", u, "(B, D, L)", ndim=3, dtypes=FLOATS)
        check_shape("u", u, (None, self.d_model, None), "(B, D, L)")
        if _sequence.total(u.shape[2]) < 1:
            raise ValueError(f"u is {describe(u)}, expected at least one sample, L >= 1")
        if lengths is not None:
            check_tensor("lengths", lengths, "(B,)", ndim=1, dtypes=(torch.int64, torch.int32))
            check_shape("lengths", lengths, (u.shape[0],), "(B,)")
            check_device("lengths", lengths, "u", u)
            check_lengths(lengths, _sequence.total(u.shape[2]))
        with _autocast.off(u.device):
            u = u.to(torch.promote_types(u.dtype, torch.float32))
            if self.transform is None:
                h = self._causal(u, lambda stage, x, factor: stage(x, factor=factor), fft_conv_alike)
            else:
                h = self._circular(u, self.transform, lengths)
        self.require_finite(h)
        return h

    def stages(self) -> tuple[LocalConvolutions | None, LocalConvolutions | None, LocalConvolutions | None]:
        """The local convolutions in the order of their use, None for those that aren't there."""
        return self.first, self.queries, self.second

    def advance(
        self, u: Tensor, past: tuple[Past, ...], product: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, tuple[Past, ...]]:
        """A chunk of a stream through the causal form.

        Args:
            u: (B, D, T).
            past: what :meth:`LocalConvolutions.before` or the last chunk gave, one for each of :meth:`stages`, () for
                those that aren't there.
            product: the causal convolution of two streams (B, D, T), which keeps what it needs of them.

        Returns:
            The taps that come with the samples, (B, D, T), and ``past`` of the next chunk.
        """
        after = list(past)

        def advance(stage: LocalConvolutions, x: Tensor, factor: float) -> Tensor:
            i = next(i for i, other in enumerate(self.stages()) if other is stage)
            x, after[i] = stage.advance(x, past[i], factor)
            return x

        with _autocast.off(u.device):
            h = self._causal(u.to(torch.promote_types(u.dtype, torch.float32)), advance, product)
        return h, tuple(after)

    def _causal(
        self,
        u: Tensor,
        apply: Callable[[LocalConvolutions, Tensor, float], Tensor],
        product: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """The causal form; its scales 1 / sqrt(l_max) go into parameters where there are any."""
        outer = self.l_max**-0.5
        inner = 1.0 if self.conditioning == "spectrum" else outer
        if self.second is None:
            inner, outer = inner * outer, 1.0
        if self.conditioning == "magnitude":
            inner = math.sqrt(inner)  # on either factor of a * a
        a = inner * u if self.first is None else apply(self.first, u, inner)
        if self.conditioning == "magnitude":
            a = product(a, a)
        elif self.queries is not None:
            a = product(self._act(apply(self.queries, u, 1.0)), a)
        return a if self.second is None else apply(self.second, a, outer)

    def _circular(self, u: Tensor, transform: Transform, lengths: Tensor | None) -> Tensor:
        """The circular form: local convolutions of all channels, and between them transforms of single ones."""
        a = u if self.first is None else self.first(u, lengths)
        parts = (a,) if self.queries is None else (a, self.queries(u, lengths))
        bins = transform.bins(_sequence.total(u.shape[-1]))

        def spectrum(channels: slice, a: Tensor, q: Tensor | None = None) -> Tensor:
            return self._spectrum(a, a if q is None else q, transform, lengths)

        h = _sequence.channelwise(spectrum, *parts, size=_sequence.share(bins))
        if self.second is None:
            return h
        if h.is_complex():
            h = torch.cat([h.real, h.imag], 1)
        h = _sequence.evenly(bins, self.second, h, None if lengths is None else transform.bins(lengths))
        if transform.is_real:
            return h
        return torch.complex(*(h.chunk(2, 1) if self.conditioning == "correlation" else (h[:, 0::2], h[:, 1::2])))

    def _spectrum(self, a: Tensor, q: Tensor, transform: Transform, lengths: Tensor | None) -> Tensor:
        """What the second convolutions get, of the first ones' results."""
        if self.query_activation == "softmax":
            q = torch.softmax(q if lengths is None else mask_beyond(q, lengths.clamp(min=1), -math.inf), -1)
        if lengths is not None:
            a, q = mask_beyond(a, lengths), mask_beyond(q, lengths)
        h = transform.forward(a, lengths)
        if self.conditioning == "magnitude":
            h = h.abs() if transform.is_real else h.real.square() + h.imag.square()
        elif self.conditioning == "correlation":
            h = h.conj() * self._act(transform.forward(q, lengths))
        return h

    def _act(self, q: Tensor) -> Tensor:
        if self.query_activation in (None, "softmax"):
            return q
        function = ACTIVATIONS[self.query_activation]
        if self.query_magnitude:
            size = q.abs()
            return function(size) * q / size.clamp(min=1e-6)
        return torch.complex(function(q.real), function(q.imag)) if q.is_complex() else function(q)

    # --- checks -------------------------------------------------------------------------------------------------------

    def _check_transform(self, transform: str | None) -> Transform | None:
        if not self.causal:
            return TRANSFORMS[check_choice("transform", transform or "fft_ortho", tuple(TRANSFORMS))]
        if transform is not None:
            raise ValueError(
                f"transform is {transform!r} with causal=True, expected None: a product of such spectra is circular; "
                "causal=False has it"
            )
        return None

    def _check_padding(self, padding: str | None) -> str:
        if not self.causal:
            return check_choice("padding", padding or "zeros", PADDINGS)
        if padding is not None:
            raise ValueError(
                f"padding is {padding!r} with causal=True, expected None: causal convolutions see zeros before the "
                "sequence; causal=False has it"
            )
        return "causal"

    def _check_width(self, width: int) -> int:
        if check_int("kernel_width", width) % 2 == 0 and not self.causal:
            raise ValueError(f"kernel_width is {width}, expected an odd number: the window is centred on its place")
        return width

    def _check_query(self, name: str | None) -> str | None:
        if name is None:
            return None
        check_choice("query_activation", name, (*ACTIVATIONS, "softmax"))
        if self.conditioning != "correlation":
            raise ValueError(
                f"query_activation is {name!r} with conditioning={self.conditioning!r}, expected None: only the "
                "correlation has queries"
            )
        if name == "softmax" and self.causal:
            raise ValueError(
                "query_activation is 'softmax' with causal=True, expected another one: it is taken over all of time"
            )
        return name

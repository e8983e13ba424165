"""Orchid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Unpack

import torch
from torch import Tensor, nn

from longconv import _autocast, _sequence
from longconv._checks import (
    check_bool,
    check_device,
    check_int,
    check_lengths,
    check_real,
    check_shape,
    check_tensor,
    describe,
)
from longconv._sequence import zero_beyond
from longconv.filters import AdaptiveFilter, AdaptiveOptions, ImplicitFilter, ImplicitOptions
from longconv.filters.local import Past, mask_beyond
from longconv.filters.transforms import Transform
from longconv.mixers.base import with_skip
from longconv.mixers.gated import Short, gated, gated_conv
from longconv.mixers.projection import ProjectionMixer, short_parameters
from longconv.ops import transpose
from longconv.streaming import OnlineConv, OnlineState

SUM = Transform("dft", "none")
STREAMED = OnlineConv()
"""The convolution of a stream with a filter that is a stream itself."""

Run = Callable[[OnlineConv, Tensor, Any, Tensor | None], tuple[Tensor, OnlineState]]


class OrchidState(NamedTuple):
    """State of an :class:`Orchid`."""

    past: Tensor
    """(B, 3 D, K - 1), the projections before the next sample."""
    local: tuple[Past, ...]
    """The same for the conditioning network, by stage and layer; () for a stage that isn't there."""
    product: OnlineState | tuple[()]
    """Of the product in the conditioning network; () where it has none."""
    adaptive: OnlineState
    """Of the convolution with the filter that depends on the data."""
    static: OnlineState
    """Of the convolutions with the static filters, that of the input below."""


class OrchidOptions(AdaptiveOptions, ImplicitOptions, total=False):
    """Options of the filters of an :class:`Orchid`."""


class Orchid(ProjectionMixer):
    r"""Gated long convolution with a filter that depends on the data, and a second one on the input itself.

    With short causal convolutions s(.) of ``short_filter`` taps, static filters k and r
    (:class:`~longconv.filters.ImplicitFilter`), and the output h of the conditioning network
    (:class:`~longconv.filters.AdaptiveFilter`),

        [p_0, p_1, p_2] = W_in u + b_in
        x = s(p_1) s(p_2)
        y = W_out (s(p_0) (conv(x, k + h(p_2)) + skip x) + conv(u, r) + skip_r u) + b_out.

    The causal form (the default, as that of every mixer here and of the published module's own flag ``causal``, which
    leaves its convolutions circular): all convolutions are linear and causal, k and r are divided by sqrt(l_max), and
    tap j of h depends on the inputs 0, ..., j alone, so that an output depends on no later input. It streams
    exactly, by :class:`~longconv.streaming.OnlineConv` with taps that come with the samples; a state keeps the static
    taps as they were when it needed them, so after a step of an optimiser begin with a new one.

    The circular form, ``causal=False``, is the paper's, for encoders: y = T^-1(T(x) (T(k) + h)) with the transform T of
    the whole sequence. For the DFT this is the circular convolution with k / sqrt(L) ("fft_ortho") or k / L ("fft")
    plus the inverse DFT of h. The whole mixer is equivariant to circular shifts if h is, see
    :class:`~longconv.filters.AdaptiveFilter`, and ``short_filter=1``. With ``lengths`` each sample has a period of its
    own. It can't stream.

    Gradients keep the projections but not the results of their short convolutions, which are there for some channels
    at a time, forward and backward. torch.compile keeps what it finds best; torch.func, shards of a sequence and
    gradients of gradients have all of them, before and after; with dropout x is kept, as it was dropped.

    Args:
        d_model: D.
        causal: see above.
        l_max: sizes the time step of the static filters, and the scale of the causal form. Inputs of any length are
            taken.
        short_filter: taps of the short convolutions.
        residual: whether there is the second long convolution, conv(u, r) + skip_r u.
        dropout: probability that a number of x is dropped in training.
        **options: of the conditioning network, see :class:`~longconv.filters.AdaptiveOptions` (the default transform of
            the circular form is "fft_ortho"; the published code names none, and its "fft" makes h constant on long
            sequences), and of the static filters, see :class:`~longconv.filters.ImplicitOptions`.

    Raises:
        TypeError: an option of a wrong kind.
        ValueError: an unknown choice, or options that contradict each other, such as a transform of the causal form.

    References:
        Orchid: Flexible and Data-Dependent Convolution for Sequence Modeling (Karami, Ghodsi, arXiv 2402.18508)

    >>> Orchid(4, l_max=64)(torch.randn(2, 100, 4)).shape
    torch.Size([2, 100, 4])
    """

    handed_on = (AdaptiveFilter, ImplicitFilter)

    def __init__(
        self,
        d_model: int,
        *,
        causal: bool = True,
        l_max: int = 1024,
        short_filter: int = 3,
        residual: bool = True,
        dropout: float = 0.0,
        **options: Unpack[OrchidOptions],
    ) -> None:
        super().__init__(d_model)
        self.causal, self.l_max = check_bool("causal", causal), check_int("l_max", l_max)
        of_taps: dict[str, Any] = {
            key: value for key, value in options.items() if key in ImplicitOptions.__annotations__
        }
        of_network: dict[str, Any] = {key: value for key, value in options.items() if key not in of_taps}
        self.conditioning = AdaptiveFilter(d_model, causal=causal, l_max=l_max, **of_network)

        def static() -> ImplicitFilter:
            return ImplicitFilter(d_model, l_max=l_max, **of_taps)

        self.taps, self.skip = static(), nn.Parameter(torch.randn(d_model))
        residual = check_bool("residual", residual)
        self.residual_taps = static() if residual else None
        self.residual_skip = nn.Parameter(torch.randn(d_model)) if residual else None
        self.input, self.output = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)
        self.short_weight, self.short_bias = short_parameters(3 * d_model, short_filter)
        self.dropout = nn.Dropout(check_real("dropout", dropout, least=0, most=1))

    def forward(self, u: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mix a whole sequence; see :meth:`Mixer.forward`."""
        self._check_input(u, lengths)
        total = _sequence.total(u.shape[1])
        check_lengths(lengths, total)
        if not u.shape[0] * total:
            return self.output(u)
        u = zero_beyond(u, lengths)
        project = self._projections(u)
        p = project(2)
        h = self.conditioning(p if lengths is None else mask_beyond(p, lengths), lengths)
        gates = self._short(1, project(1)), self._short(0, project(0))
        y = self._convolve(self._dropped(self._short(2, p)), self.taps, self.skip, lengths, h, gates)
        if self.residual_taps is not None and self.residual_skip is not None:
            y = y + self._convolve(transpose(u), self.residual_taps, self.residual_skip, lengths).to(y.dtype)
        return zero_beyond(self._output(y), lengths)

    # --- the parts ----------------------------------------------------------------------------------------------------

    def _convolve(
        self,
        x: Short | Tensor,
        static: ImplicitFilter,
        skip: Tensor,
        lengths: Tensor | None,
        h: Tensor | None = None,
        gates: tuple[Short, Short] | None = None,
    ) -> Tensor:
        """The convolution of x (B, D, L) with a static filter and h where there is one, with the skip and the gates."""
        given, transform = x.p if isinstance(x, Short) else x, self.conditioning.transform
        size, (pre_gate, post_gate) = given.shape[-1], gates or (None, None)
        with _autocast.off(given.device):
            start, stop = _sequence.span(size)
            k = _sequence.alone(static, stop, start)
        if transform is None:
            taps = k * self.l_max**-0.5
            taps = taps if h is None else taps + h
            mode = "causal"
        elif transform.is_real:
            return _cosine_product(x, k, skip, h, gates, transform, lengths)
        else:
            length = _sequence.total(size)
            scale = transform.scale(length if lengths is None else lengths.clamp(min=1), length, k)
            taps = k * (scale[0] if lengths is None else scale)
            if h is not None:
                taps = taps + _sequence.channelwise(lambda _, h: SUM.inverse(h, length, lengths), h, size=size)
            mode = "circular"
        return gated_conv(x, taps, skip=skip, pre_gate=pre_gate, post_gate=post_gate, mode=mode, lengths=lengths)

    # --- streaming ----------------------------------------------------------------------------------------------------

    def streaming_refusal(self) -> str | None:
        """The circular form can't stream."""
        if self.causal:
            return None
        return "its circular form joins the end of a sequence to its beginning, which takes inputs still to come"

    def _init_state(self, batch_size: int, device: torch.device | str | None, dtype: torch.dtype | None) -> OrchidState:
        dtype = torch.promote_types(dtype or self.taps.freq.dtype, torch.float32)
        device = self.skip.device if device is None else device
        D = self.d_model

        def online(conv: OnlineConv, channels: int) -> OnlineState:
            return conv.init_state(batch_size, channels, device=device, dtype=dtype)

        return OrchidState(
            self._before(batch_size, device, dtype),
            tuple(
                () if stage is None else stage.before(batch_size, dtype, device) for stage in self.conditioning.stages()
            ),
            online(STREAMED, D) if self.conditioning.conditioning != "spectrum" else (),
            online(STREAMED, D),
            online(self._static_stream(), D if self.residual_taps is None else 2 * D),
        )

    def _step(self, u_t: Tensor, state: OrchidState) -> tuple[Tensor, OrchidState]:
        y, state = self._advance(u_t[:, None], state, _one)
        return y[:, 0], state

    def _prefill(self, u: Tensor, state: OrchidState) -> tuple[Tensor, OrchidState]:
        if u.shape[1] == 0:
            self._check_state(u, state)
            return self.output(u), state
        return self._advance(u, state, _many)

    def _advance(self, u: Tensor, state: OrchidState, run: Run) -> tuple[Tensor, OrchidState]:
        """A chunk u (B, T, D), by ``run`` through the online convolutions."""
        self._check_state(u, state)
        p, c, past = self._advance_projections(u, state.past)
        product = state.product

        def multiply(q: Tensor, a: Tensor) -> Tensor:
            nonlocal product
            y, product = run(STREAMED, q, product, a)
            return y

        h, local = self.conditioning.advance(p, state.local, multiply)
        gate_out, x = c[0], self.dropout(c[1] * c[2]).to(h.dtype)
        y, adaptive = run(STREAMED, x, state.adaptive, h)
        given = x if self.residual_taps is None else torch.cat((x, u.mT.to(x.dtype)), 1)
        z, static = run(self._static_stream(), given, state.static, None)
        y = gate_out * (y + z[:, : self.d_model])
        y = y if self.residual_taps is None else y + z[:, self.d_model :]
        state = OrchidState(past, local, product, adaptive, static)
        y = y.to(gate_out.dtype)
        return self.output(y.mT) if y.shape[-1] == 1 else self._output(y), state

    def _static_stream(self) -> OnlineConv:
        """The static filters with their skips: of x, and below it of the input where there is a residual."""

        def filters(start: int, stop: int) -> Tensor:
            with _autocast.off(self.skip.device):
                scale = self.l_max**-0.5
                k = with_skip(scale * self.taps(stop, start), self.skip, start)
                if self.residual_taps is None or self.residual_skip is None:
                    return k
                return torch.cat((k, with_skip(scale * self.residual_taps(stop, start), self.residual_skip, start)))

        return OnlineConv(filters, ranges=True)

    def _check_state(self, u: Tensor, state: OrchidState) -> None:
        if not isinstance(state, OrchidState):
            raise TypeError(f"state is {describe(state)}, expected the OrchidState that init_state returns")
        self._check_past(state.past, u)
        online = {"adaptive": state.adaptive, "static": state.static}
        if self.conditioning.conditioning != "spectrum":
            online["product"] = state.product  # type: ignore[assignment]
        elif state.product != ():
            raise ValueError("state.product is there, expected (): the state is another mixer's")
        for name, part in online.items():
            if part == ():
                raise ValueError(f"state.{name} is (), expected an OnlineState: the state is another mixer's")
            if not isinstance(part, OnlineState):
                raise TypeError(f"state.{name} is {describe(part)}, expected an OnlineState")
            kinds = (torch.float64, torch.float32)
            check_tensor(f"state.{name}.pending", part.pending, "(S - r, B, H)", ndim=3, dtypes=kinds)
            check_device(f"state.{name}", part.pending, "the input", u)
        self._check_local(state.local, u.shape[0])

    def _check_local(self, local: object, batch: int) -> None:
        """What the conditioning network needs of the samples before."""
        stages = self.conditioning.stages()
        if not isinstance(local, tuple) or not all(isinstance(stage, tuple) for stage in local):
            raise TypeError(f"state.local is {describe(local)}, expected a tuple of {len(stages)} tuples of tensors")
        sizes = [() if stage is None else tuple(w.shape[-1] - 1 for w in stage.weights) for stage in stages]
        if [len(stage) for stage in local] != [len(widths) for widths in sizes]:
            raise ValueError(
                f"state.local has {[len(stage) for stage in local]} layers by stage, expected "
                f"{[len(widths) for widths in sizes]}: the state is another mixer's"
            )
        for i, (stage, widths) in enumerate(zip(local, sizes, strict=True)):
            for j, (layer, width) in enumerate(zip(stage, widths, strict=True)):
                name, symbols = f"state.local[{i}][{j}]", "(B, D, K - 1)"
                check_tensor(name, layer, symbols, ndim=3, dtypes=(torch.float64, torch.float32))
                check_shape(name, layer, (batch, self.d_model, width), symbols)


def _one(conv: OnlineConv, x: Tensor, state: OnlineState, k: Tensor | None) -> tuple[Tensor, OnlineState]:
    """One sample (B, H, 1)."""
    y, state = conv.step(x[..., 0], state, None if k is None else k[..., 0])
    return y[..., None], state


def _many(conv: OnlineConv, x: Tensor, state: OnlineState, k: Tensor | None) -> tuple[Tensor, OnlineState]:
    """A chunk (B, H, T)."""
    return conv.prefill(x, state, k)


def _cosine_product(
    x: Short | Tensor,
    k: Tensor,
    skip: Tensor,
    h: Tensor | None,
    gates: tuple[Short, Short] | None,
    transform: Transform,
    lengths: Tensor | None,
) -> Tensor:
    """The same as a product of cosine transforms, in single precision at least: x (B, D, L), k (D, L)."""
    given = x.p if isinstance(x, Short) else x
    s = given.to(k.dtype) if gates is None else gated(x, gates[0], k.dtype)

    def product(channels: slice, s: Tensor, taps: Tensor, h: Tensor | None = None) -> Tensor:
        if lengths is not None:
            taps = mask_beyond(taps.expand_as(s), lengths)
        spectrum = transform.forward(taps, lengths)
        spectrum = spectrum if h is None else spectrum + h
        return transform.inverse(transform.forward(s, lengths) * spectrum, s.shape[-1], lengths)

    s = s if lengths is None else mask_beyond(s, lengths)
    parts = (s, k[None]) if h is None else (s, k[None], h)
    y = _sequence.channelwise(product, *parts, size=s.shape[-1]) + skip[:, None] * s
    return (y if gates is None else gated(y, gates[1], y.dtype)).to(given.dtype)

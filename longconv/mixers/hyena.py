"""Hyena.

Symbols: B batch, L length, D features, n order, K taps of the short convolution, M heads, N = D / M features of a head.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, Unpack

import torch
from torch import Tensor, nn

from longconv import _autocast, _sequence
from longconv._checks import check_bool, check_choice, check_int, check_real, describe
from longconv._sequence import zero_beyond
from longconv.filters import DistilledFilter, ImplicitFilter, ImplicitOptions
from longconv.mixers.base import ACTIVATIONS, filter_count, with_skip
from longconv.mixers.gated import Short, again, gated_conv
from longconv.mixers.projection import ProjectionMixer, short_parameters
from longconv.ops import short_conv
from longconv.streaming import ModalConv, ModalState, OnlineConv, OnlineState, StreamConv
from longconv.streaming.products import TapRange


class HyenaState(NamedTuple):
    """What a stream carries."""

    past: Tensor
    """(B, (n + 1) D, K - 1), the last projections before their short convolutions."""
    convolutions: tuple[OnlineState | ModalState, ...]
    """Of the n - 1 long convolutions, in the order of their use."""


class Hyena(ProjectionMixer):
    """Long convolutions with implicit filters between gates that depend on the input.

    With projections (x_0, ..., x_{n-1}, v) = short_conv(W_in u + b_in), n the order, for i = n - 1 down to 1

        v <- k_i * (x_i v) + D_i (x_i v),    then    y = W_out activation(x_0 v) + b_out

    where k_i * is the convolution with the filters of that order, causal or with filters for the future too. A mixer of
    order n has n gates and n - 1 long convolutions.

    With ``outer_product`` the features of a head meet, as in MultiHyena (order 2). With its queries q = x_0 and keys
    x = x_1, each of N features, and its one filter k,

        S_t = sum_s k[t - s] x_s v_s^T + D x_t v_t^T,    then    y = W_out activation(S^T q) + b_out

    so that a query finds the values whose keys are like it, and each head has N^2 long convolutions: N times the work
    and the memory of Hyena's, which is that of N = 1.

    The causal mixer streams by an :class:`~longconv.streaming.OnlineConv` for each of them, by a
    :class:`~longconv.streaming.ModalConv` where its filters are distilled. The taps in a state are
    those of the parameters when they were needed: after a step of an optimiser streams begin anew, with a new state.

    Gradients keep the projections but not the results of their short convolutions, which are there for some channels
    at a time, forward and backward. torch.compile keeps what it finds best; torch.func, shards of a sequence and
    gradients of gradients have all of them, before and after; with dropout v is kept, as it was dropped.

    Args:
        d_model: D.
        order: n, at least 2.
        bidirectional: whether an output depends on the future too, by as many filters more.
        l_max: number of taps in which the filters' time passes one unit. Inputs of any length are taken: beyond it the
            time goes on with the same step.
        heads: M, a divisor of D: N neighbouring features share the filter of each order; None: every feature has its
            own, as in Hyena. Projections, gates and, without an outer product, skips stay a feature's own.
        outer_product: whether what is convolved is the outer product of a head's keys and values.
        short_filter: taps of the short convolution.
        activation: before the output layer: "gelu", "relu", "silu", "tanh" or None.
        dropout: probability that a number is dropped before each long convolution in training.
        **options: of the filters, see :class:`~longconv.filters.ImplicitOptions`.

    Attributes:
        D: (n - 1, D), with an outer product (1, M), the skips; row 0 is that of the first convolution, i = n - 1.
        taps: the filter module.

    References:
        Hyena Hierarchy: Towards Larger Convolutional Language Models (Poli, Massaroli, Nguyen, Fu, Dao, Baccus,
        Bengio, Ermon, Ré, arXiv 2302.10866). Heads: Laughing Hyena Distillery: Extracting Compact Recurrences From
        Convolutions (Massaroli, Poli, Fu, Kumbong, Parnichkun, Timalsina, Romero, McIntyre, Chen, Rudra, Zhang, Ré,
        Ermon, Bengio, arXiv 2310.18780), section 4

    >>> Hyena(4, l_max=64)(torch.randn(2, 100, 4)).shape
    torch.Size([2, 100, 4])
    """

    handed_on = (ImplicitFilter,)
    taps: ImplicitFilter | DistilledFilter

    def __init__(
        self,
        d_model: int,
        *,
        order: int = 2,
        bidirectional: bool = False,
        l_max: int = 1024,
        heads: int | None = None,
        outer_product: bool = False,
        short_filter: int = 3,
        activation: str | None = None,
        dropout: float = 0.0,
        **options: Unpack[ImplicitOptions],
    ) -> None:
        super().__init__(d_model)
        self.order = check_int("order", order, least=2)
        self.heads = d_model if heads is None else check_int("heads", heads)
        if d_model % self.heads:
            raise ValueError(f"heads is {heads}, expected a divisor of d_model = {d_model}")
        self.outer_product = check_bool("outer_product", outer_product)
        if self.outer_product and self.order > 2:
            raise ValueError(f"order is {order} with an outer product, expected 2: queries, keys and values")
        self.bidirectional = check_bool("bidirectional", bidirectional)
        self.taps = ImplicitFilter(self.heads * filter_count(order - 1, bidirectional), l_max=l_max, **options)
        self.input = nn.Linear(d_model, (order + 1) * d_model)
        self.short_weight, self.short_bias = short_parameters((order + 1) * d_model, short_filter)
        self.D = nn.Parameter(torch.randn(order - 1, self.heads if outer_product else d_model))
        self.activation = (
            nn.Identity()
            if activation is None
            else ACTIVATIONS[check_choice("activation", activation, tuple(ACTIVATIONS))]()
        )
        self.dropout = nn.Dropout(check_real("dropout", dropout, least=0, most=1))
        self.output = nn.Linear(d_model, d_model)

    def filter(self, length: int) -> Tensor:
        """The first ``length`` taps in the order of use: (n - 1, D, length); if bidirectional (2n - 2, D, length).

        With an outer product those of the heads, M in place of D.
        """
        check_int("length", length, least=0)
        with _autocast.off(self.D.device):
            return self._in_order(self.taps(length))

    def _in_order(self, k: Tensor) -> Tensor:
        """The filters of all heads, (M, L), in the order of use, (n - 1, D or M, L)."""
        k, rows = k.unflatten(0, (self.heads, -1)).transpose(0, 1), self.D.shape[1]
        return k if self.heads == rows else k.repeat_interleave(rows // self.heads, dim=1)

    def _keyed(self, key: Tensor, v: Tensor) -> Tensor:
        """What is convolved: keys times values, (B, D, ...), or the outer products of heads, (B N N, M, ...)."""
        if not self.outer_product:
            return key * v
        key, v = self._by_head(key), self._by_head(v)
        return (key[:, :, None] * v[:, None]).flatten(0, 2)

    def _queried(self, query: Tensor, y: Tensor) -> Tensor:
        """What the queries (B, D, ...) find in what has been convolved, (B, D, ...)."""
        if not self.outer_product:
            return query * y
        query = self._by_head(query)
        y = y.unflatten(0, (*query.shape[:2], query.shape[1]))
        return (query[:, :, None] * y).sum(1).transpose(1, 2).flatten(1, 2)

    def _states(self) -> int:
        """The sequences that a head convolves: N^2 with an outer product."""
        return (self.d_model // self.heads) ** 2 if self.outer_product else 1

    def _by_head(self, x: Tensor) -> Tensor:
        """(B, D, ...) -> (B, N, M, ...)."""
        return x.unflatten(1, (self.heads, -1)).transpose(1, 2)

    def forward(self, u: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mix a whole sequence; see :meth:`Mixer.forward`."""
        self._check_input(u, lengths)
        u = zero_beyond(u, lengths)
        start, stop = _sequence.span(u.shape[1]) if _sequence.total(u.shape[1]) else (0, 1)
        filters = self._filters_between(start, stop).unbind()
        project = self._projections(u)
        x_0, *gates, v = (self._short(i, project(i)) for i in range(self.order + 1))
        y: Any
        if self.outer_product:
            y = self._of_heads(x_0, gates[0], v, filters, lengths)
        else:
            y = v
            for i, gate in enumerate(reversed(gates)):
                y = self._convolve(self._dropped(y), i, filters, lengths, gate, x_0 if i == self.order - 2 else None)
        return zero_beyond(self._output(self.activation(y)), lengths)

    def _convolve(
        self,
        x: Short | Tensor,
        i: int,
        filters: Sequence[Tensor],
        lengths: Tensor | None,
        pre_gate: Short | None = None,
        post_gate: Short | None = None,
    ) -> Tensor:
        """Long convolution i, with its skip."""
        reverse = filters[i + self.order - 1] if self.bidirectional else None
        return gated_conv(
            x,
            filters[i],
            k_reverse=reverse,
            skip=self.D[i],
            pre_gate=pre_gate,
            post_gate=post_gate,
            lengths=lengths,
        )

    def _of_heads(
        self, query: Short, key: Short, v: Short, filters: Sequence[Tensor], lengths: Tensor | None
    ) -> Tensor:
        """The outer products, their long convolutions, and what the queries find in them."""
        z = again(lambda *given: self._keyed(short_conv(*given[:3]), short_conv(*given[3:])), *key, *v)
        lengths = None if lengths is None else lengths.repeat_interleave(self._states())
        y = self._convolve(self.dropout(z), 0, filters, lengths)
        return again(lambda y, *given: self._queried(short_conv(*given), y), y, *query)

    # --- streaming ----------------------------------------------------------------------------------------------------

    def streaming_refusal(self) -> str | None:
        """Bidirectional mixers can't stream."""
        return "it is bidirectional, so that an output depends on inputs still to come" if self.bidirectional else None

    def _online(self) -> list[StreamConv[Any]]:
        if isinstance(self.taps, DistilledFilter):
            return [ModalConv(functools.partial(self._system, self.taps, i)) for i in range(self.order - 1)]
        taken: dict[tuple[int, int], Tensor] = {}

        def filters(start: int, stop: int) -> Tensor:
            """One evaluation for all orders."""
            if (start, stop) not in taken:
                taken[start, stop] = self._filters_between(start, stop)
            return taken[start, stop]

        parts = [functools.partial(self._taps_with_skip, filters, i) for i in range(self.order - 1)]
        return [OnlineConv(part, ranges=True) for part in parts]

    def _system(self, taps: DistilledFilter, i: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The system of long convolution i, with the skip."""
        head = torch.arange(self.heads).repeat_interleave(self.D.shape[1] // self.heads)
        return taps.system(head * (self.order - 1) + i, self.D[i])

    def _filters_between(self, start: int, stop: int) -> Tensor:
        """The taps from ``start`` to ``stop`` in the order of use, (n - 1, D or M, stop - start)."""
        with _autocast.off(self.D.device):
            return self._in_order(_sequence.alone(self.taps, stop, start))

    def _taps_with_skip(self, filters: TapRange, i: int, start: int, stop: int) -> Tensor:
        """The taps of long convolution i from ``start`` to ``stop``, (D or M, stop - start), with the skip in tap 0."""
        return with_skip(filters(start, stop)[i], self.D[i], start)

    def _init_state(self, batch_size: int, device: torch.device | str | None, dtype: torch.dtype | None) -> HyenaState:
        rows = batch_size * self._states()
        states = tuple(conv.init_state(rows, device=device, dtype=dtype) for conv in self._online())
        wide = torch.promote_types(dtype or next(self.taps.parameters()).dtype, torch.float32)
        return HyenaState(self._before(batch_size, device, wide), states)

    def _step(self, u_t: Tensor, state: HyenaState) -> tuple[Tensor, HyenaState]:
        self._check_state(u_t, state)
        _, parts, past = self._advance_projections(u_t[:, None], state.past)
        x_0, *gates, v = (part[..., 0] for part in parts)
        states = []
        for conv, gate, before in zip(self._online(), reversed(gates), state.convolutions, strict=True):
            v, after = conv.step(self.dropout(self._keyed(gate, v)), before)
            states.append(after)
        return self.output(self.activation(self._queried(x_0, v))), HyenaState(past, tuple(states))

    def _prefill(self, u: Tensor, state: HyenaState) -> tuple[Tensor, HyenaState]:
        self._check_state(u, state)
        _, (x_0, *gates, v), past = self._advance_projections(u, state.past)
        states = []
        for conv, gate, before in zip(self._online(), reversed(gates), state.convolutions, strict=True):
            v, after = conv.prefill(self.dropout(self._keyed(gate, v)), before)
            states.append(after)
        return self._output(self.activation(self._queried(x_0, v))), HyenaState(past, tuple(states))

    def _check_state(self, u: Tensor, state: HyenaState) -> None:
        if not isinstance(state, HyenaState):
            raise TypeError(f"state is {describe(state)}, expected the HyenaState that init_state returns")
        self._check_past(state.past, u)
        if len(state.convolutions) != self.order - 1:
            raise ValueError(f"state.convolutions has {len(state.convolutions)} states, expected {self.order - 1}")

"""What every mixer is, and what the mixers that convolve with one filter a channel share.

Shapes: B batch, L length, D = H features, C channels a feature, N state size. Sequences are (B, L, D).
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn

from longconv import _autocast, _sequence
from longconv._checks import (
    FLOATS,
    check_bool,
    check_choice,
    check_device,
    check_int,
    check_real,
    check_shape,
    check_stream,
    check_tensor,
    describe,
)
from longconv._sequence import zero_beyond
from longconv.filters import DistilledFilter, Filter
from longconv.filters.base import SampledFilter, WideModule
from longconv.mixers.norms import NORMS
from longconv.ops import fft_conv, transpose
from longconv.streaming import ModalConv, OnlineConv, StreamConv

State = Any
"""A pytree of tensors; what it holds is the mixer's own business."""

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU("tanh"),
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}
OUTPUTS = ("glu", "linear")


class Mixer(nn.Module, ABC):
    """A module that mixes along the sequence, (B, L, D) -> (B, L, D).

    The streaming law: for a causal mixer without dropout these agree, for every way of cutting u into chunks,

    - ``forward(u)``;
    - ``prefill`` of one chunk after the other, the state of each handed to the next;
    - ``step`` of u[:, 0], u[:, 1], ..., the state of each handed to the next.

    State goes in and comes out: no method changes the module or the state that it is given. A mixer that can't stream
    gives its reason through :meth:`streaming_refusal`, and the streaming methods raise it.

    With ``lengths``, outputs at t >= lengths are zero and inputs there change nothing, whatever they hold.

    Implementers write ``forward``, and for streaming ``streaming_refusal``, ``_init_state``, ``_step`` and, where there
    is something better than a loop of steps, ``_prefill``; arguments come checked.

    Args:
        d_model: D.

    Attributes:
        handed_on: parts whose options the class takes by the same names, with their defaults.
        shards: whether it acts on a shard of a sequence as on a part of the whole: all that ``forward`` does along time
            is done by operators of this library, which know of :func:`longconv.distributed.sequence_parallel`.
    """

    handed_on: ClassVar[tuple[type[nn.Module], ...]] = ()
    shards: ClassVar[bool] = False

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.d_model = check_int("d_model", d_model)

    @abstractmethod
    def forward(self, u: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mix a whole sequence.

        Args:
            u: (B, L, D).
            lengths: (B,) integers in [0, L], the valid length of each sample; None: all of them L.

        Returns:
            (B, L, D).
        """

    def filter(self, length: int) -> Tensor:
        """The first ``length`` taps of a time-invariant mixer, (C, H, length); bidirectional (2C, H, length)."""
        raise NotImplementedError(f"{type(self).__name__} has no filter of its own: its taps depend on the input")

    def shard_refusal(self) -> str | None:
        """None if the mixer acts on a shard of a sequence as on a part of the whole, else the reason why not."""
        return None if self.shards else "it has no form for shards; all mixers of longconv.mixers have"

    # --- streaming ----------------------------------------------------------------------------------------------------

    def streaming_refusal(self) -> str | None:
        """None if the mixer can stream, else the reason why not."""
        return "it has no online form yet"

    def init_state(
        self, batch_size: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """The state before the first sample.

        Args:
            batch_size: B.
            device: where the state lives; None: where the parameters are.
            dtype: real dtype that sets the state's precision, float32 at least; None: that of the parameters.

        Raises:
            NotImplementedError: the mixer can't stream, with the reason.
            TypeError: a batch size that is no integer, or a dtype that is not a real floating one.
            ValueError: a negative batch size, or a filter with parameters that are NaN or infinite.
        """
        self._check_state_options(batch_size, dtype)
        return self._init_state(batch_size, device, dtype)

    def step(self, u_t: Tensor, state: State) -> tuple[Tensor, State]:
        """One sample: u_t (B, D) and the state before it -> y_t (B, D) and the state after it.

        Raises:
            NotImplementedError: the mixer can't stream, with the reason.
        """
        self._require_streaming()
        _sequence.require_whole("a step is one sample, of which there are no shards")
        check_tensor("u_t", u_t, "(B, D)", ndim=2, dtypes=FLOATS)
        check_shape("u_t", u_t, (None, self.d_model), "(B, D)")
        self._check_dtype("u_t", u_t)
        return self._step(u_t, state)

    def prefill(self, u: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """A chunk of any length: u (B, T, D) and the state before it (None: the first) -> y (B, T, D), the state after.

        Raises:
            NotImplementedError: the mixer can't stream, with the reason.
        """
        self._require_streaming()
        self._check_input(u, None)
        if state is None:
            state = self.init_state(u.shape[0], device=u.device)
        return _sequence.prefill(self, u, state)

    def _init_state(self, batch_size: int, device: torch.device | str | None, dtype: torch.dtype | None) -> State:
        raise NotImplementedError

    def _step(self, u_t: Tensor, state: State) -> tuple[Tensor, State]:
        raise NotImplementedError

    def _prefill(self, u: Tensor, state: State) -> tuple[Tensor, State]:
        outputs = []
        for u_t in u.unbind(1):
            y_t, state = self._step(u_t, state)
            outputs.append(y_t)
        return (torch.stack(outputs, 1) if outputs else torch.empty_like(u)), state

    def _require_streaming(self) -> None:
        if reason := self.streaming_refusal():
            raise NotImplementedError(f"{type(self).__name__} can't stream: {reason}")

    # --- checks -------------------------------------------------------------------------------------------------------

    def _check_state_options(self, batch_size: int, dtype: torch.dtype | None) -> None:
        self._require_streaming()
        check_stream(batch_size, dtype)
        for part in self.modules():
            if isinstance(part, WideModule):
                part.require_finite()

    def _check_input(self, u: Tensor, lengths: Tensor | None) -> None:
        _sequence.check_mixer(self)
        check_tensor("u", u, f"(B, L, D) with D = {self.d_model}", ndim=3, dtypes=FLOATS)
        if u.shape[2] != self.d_model:
            self._refuse_size(u)
        self._check_dtype("u", u)
        if lengths is not None:
            check_tensor("lengths", lengths, "(B,)", ndim=1, dtypes=(torch.int64, torch.int32))
            check_shape("lengths", lengths, (u.shape[0],), "(B,)")
            check_device("lengths", lengths, "u", u)

    def _refuse_size(self, u: Tensor) -> NoReturn:
        swapped = " (it looks like (B, D, L): transpose its last two axes)" if u.shape[1] == self.d_model else ""
        raise ValueError(f"u is {describe(u)}, expected shape (B, L, D) = (any, any, {self.d_model}){swapped}")

    def _plain_parameters(self) -> Iterator[nn.Parameter]:
        """Those whose dtype the inputs have, as no filter's are."""
        return self.parameters(recurse=False)

    def _check_dtype(self, name: str, u: Tensor) -> None:
        """The input's dtype is that of the parameters (filters, which stay in float32, aside).

        Autocast makes up for other differences, but it leaves float64 alone.
        """
        dtype = next((p.dtype for p in self._plain_parameters()), u.dtype)
        if u.dtype != dtype and (torch.float64 in (u.dtype, dtype) or not _autocast.is_on(u.device)):
            raise TypeError(
                f"{name} is {describe(u)}, but the mixer's parameters are {str(dtype).removeprefix('torch.')}"
            )


class FilterMixer(Mixer):
    """y = output(norm(dropout(activation(x + D u)))), where x comes from a filter with parameters of its own.

    Args:
        d_model: D.
        taps: the filter module.
        channels: C, filters a feature.
        bidirectional: whether an output depends on the future too.
        activation: one of :data:`ACTIVATIONS` ("gelu" is the exact one, "gelu_tanh" its approximation), or None.
        output: "glu" (Linear C D -> 2D, then GLU), "linear" (Linear C D -> D) or None (channels = 1 alone).
        dropout: probability that an activation is dropped in training.
        norm: of the C D activations at a time: "layer", "scalar_layer" (one scale and one shift for all of them, no
            epsilon: :class:`~longconv.mixers.norms.ScalarLayerNorm`) or None.

    Attributes:
        D: (C, H), the skip.
        taps: the filter module.
    """

    shards = True

    def __init__(
        self,
        d_model: int,
        taps: Filter,
        *,
        channels: int = 1,
        bidirectional: bool = False,
        activation: str | None = "gelu",
        output: str | None = "glu",
        dropout: float = 0.0,
        norm: str | None = None,
    ) -> None:
        super().__init__(d_model)
        self.channels, self.bidirectional = check_int("channels", channels), check_bool("bidirectional", bidirectional)
        self.taps = taps
        self.D = nn.Parameter(torch.randn(channels, d_model))
        self.activation = (
            nn.Identity()
            if activation is None
            else ACTIVATIONS[check_choice("activation", activation, tuple(ACTIVATIONS))]()
        )
        self.dropout = nn.Dropout(check_real("dropout", dropout, least=0, most=1))
        self.norm = (
            nn.Identity() if norm is None else NORMS[check_choice("norm", norm, tuple(NORMS))](channels * d_model)
        )
        self.output = self._output_layer(output)

    def _output_layer(self, output: str | None) -> nn.Module:
        width = self.channels * self.d_model
        if output is None:
            if self.channels > 1:
                raise ValueError(
                    f"output is None with channels = {self.channels}, expected 'glu' or 'linear' to join them"
                )
            return nn.Identity()
        if check_choice("output", output, OUTPUTS) == "linear":
            return nn.Linear(width, self.d_model)
        return nn.Sequential(nn.Linear(width, 2 * self.d_model), nn.GLU(dim=-1))

    def filter(self, length: int, *, rate: float = 1.0) -> Tensor:
        """The first ``length`` taps: (C, H, length); if bidirectional (2C, H, length), forward filters first.

        ``rate`` multiplies every dt of a filter that has one.
        """
        check_int("length", length, least=0)
        options = self._sampling(rate)
        with _autocast.off(self.D.device):
            k: Tensor = self.taps(length, **options)
        return k

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        rate: float = 1.0,
    ) -> State:
        """The state before the first sample, see :meth:`Mixer.init_state`, with every dt multiplied by ``rate``."""
        self._check_state_options(batch_size, dtype)
        return self._init_state(batch_size, device, dtype, **self._sampling(rate))

    def _sampling(self, rate: float) -> dict[str, float]:
        """``rate`` as an argument of the filter module; nothing where that has no steps, and an error but for 1."""
        rate = check_real("rate", rate, least=0, open_least=True)
        if isinstance(self.taps, SampledFilter):
            return {"rate": rate}
        if rate != 1:
            raise ValueError(
                f"rate is {rate:g}, expected 1: the taps of {type(self).__name__} are free parameters, without a step "
                "dt that a rate could multiply"
            )
        return {}

    def streaming_refusal(self) -> str | None:
        """Bidirectional filters can't stream."""
        return "it is bidirectional, so that an output depends on inputs still to come" if self.bidirectional else None

    def _zero_state(self, batch_size: int, like: Tensor, dtype: torch.dtype | None, *, wide: bool = False) -> Tensor:
        """The state 0 before the first sample: B times the shape of ``like``, a double precision part of the system.

        It is in double precision if ``wide`` or ``dtype`` (None: that of the filter's parameters) asks for it, else in
        single.
        """
        double = wide or (dtype or next(self.taps.parameters()).dtype) == torch.float64
        single = torch.complex64 if like.is_complex() else torch.float32
        return like.new_zeros(batch_size, *like.shape, dtype=like.dtype if double else single)

    def _mix_features(self, y: Tensor) -> Tensor:
        """(..., C H) -> (..., D): what comes after the convolution, sample by sample."""
        mixed: Tensor = self.output(self.norm(self.dropout(self.activation(y))))
        return mixed


class ConvolutionMixer(FilterMixer):
    """y = output(dropout(activation(k * u + D u))) with one filter k a feature and channel.

    k * u is causal; a bidirectional mixer has twice the filters, the second half of them for the future:
    sum_{s<=t} k[t-s] u[s] + sum_{s>t} k_reverse[s-t-1] u[s]. The C channels of a feature are convolved each with its
    own filter and joined by the output layer.

    Its filter module gives (C, H, L) taps, or (2C, H, L) if bidirectional; see :class:`FilterMixer` for the rest. It
    streams by :class:`~longconv.streaming.OnlineConv`, for any filter, or by :class:`~longconv.streaming.ModalConv` for
    a :class:`~longconv.filters.DistilledFilter`; subclasses whose filter has a recurrence know better. The taps in a
    state are those of the parameters at its creation, where the filter goes on for ever those at the steps that needed
    more of it: after a step of an optimiser streams begin anew, with a new state.
    """

    def forward(self, u: Tensor, lengths: Tensor | None = None, *, rate: float = 1.0) -> Tensor:
        """Mix a whole sequence; see :meth:`Mixer.forward`.

        ``rate`` multiplies every dt of the filter: a model trained on one sampling rate serves data with half as many
        samples a unit of time by ``rate=2``. A filter of free taps has no dt, and refuses any rate but 1.
        """
        self._check_input(u, lengths)
        return self._convolve(u, self.filter(self._taps_for(_sequence.total(u.shape[1])), rate=rate), lengths)

    def _taps_for(self, length: int) -> int:
        """How many taps a sequence of a length takes."""
        return max(length, 1)

    def _convolve(self, u: Tensor, k: Tensor, lengths: Tensor | None) -> Tensor:
        """(B, L, D) and the taps of :meth:`filter` -> the mixer's output (B, L, D)."""
        k = k.flatten(0, 1)
        k, k_reverse = k.chunk(2) if self.bidirectional else (k, None)
        y = self._product(self._features(u), k, k_reverse, lengths)
        return zero_beyond(self._mix_features(transpose(y)), lengths)

    def _product(self, x: Tensor, k: Tensor, k_reverse: Tensor | None, lengths: Tensor | None) -> Tensor:
        """Convolution and skip of (B, C H, L)."""
        return fft_conv(x, k, k_reverse=k_reverse, skip=self.D.flatten(), lengths=lengths)

    def _features(self, u: Tensor) -> Tensor:
        """(B, L, H) -> (B, C H, L), the input of every filter."""
        x = transpose(u)
        return x if self.channels == 1 else x.repeat(1, self.channels, 1)

    # --- streaming ----------------------------------------------------------------------------------------------------

    def _online(self) -> StreamConv[Any]:
        if isinstance(self.taps, DistilledFilter):
            return ModalConv(functools.partial(self.taps.system, skip=self.D.flatten()))
        return OnlineConv(self._taps_with_skip, length=self.taps.support)

    def _taps_with_skip(self, length: int) -> Tensor:
        """The filters of all channels, (C H, length), with the skip in tap 0."""
        return with_skip(self.filter(length).flatten(0, 1), self.D.flatten())

    def _init_state(self, batch_size: int, device: torch.device | str | None, dtype: torch.dtype | None) -> State:
        return self._online().init_state(batch_size, device=device, dtype=dtype)

    def _step(self, u_t: Tensor, state: State) -> tuple[Tensor, State]:
        y, state = self._online().step(u_t.repeat(1, self.channels), state)
        return self._mix_features(y), state

    def _prefill(self, u: Tensor, state: State) -> tuple[Tensor, State]:
        y, state = self._online().prefill(self._features(u), state)
        return self._mix_features(transpose(y)), state


def filter_count(channels: int, bidirectional: bool) -> int:
    """The filters of a feature: one a channel, or two if bidirectional."""
    return check_int("channels", channels) * (1 + check_bool("bidirectional", bidirectional))


def with_skip(k: Tensor, skip: Tensor, start: int = 0) -> Tensor:
    """The taps k (H, T) from ``start`` on, with the skip (H,) in tap 0."""
    if start:
        return k
    return torch.cat([k[:, :1] + skip[:, None].to(k.dtype), k[:, 1:]], -1)

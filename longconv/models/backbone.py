"""The backbone: a stack of residual blocks over one width.

Symbols: B batch, L length, D features.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, cast

import torch
from torch import Tensor, nn

from longconv._checks import FLOATS, check_bool, check_int, check_shape, check_states, check_tensor
from longconv.models.blocks import Block, Residual
from longconv.models.drop import active_drop, drop_path_rates
from longconv.models.feed_forward import FeedForward
from longconv.models.norms import BatchNorm, apply_norm, create_norm
from longconv.models.padding import check_lengths, valid_positions, zero_padding
from longconv.models.sequence_baselines import create_layer

MixerOptions = Mapping[str, Any]


class BackboneOptions(TypedDict, total=False):
    """The options of :class:`Backbone` that a head passes on to it."""

    mixer: str | Sequence[str]
    mixer_options: MixerOptions | Sequence[MixerOptions] | None
    norm: str
    norm_eps: float | None
    prenorm: bool
    dropout: float
    tie_dropout: bool
    drop_path: float
    drop_path_schedule: str
    feed_forward: str | None
    expansion: float


class Backbone(nn.Module):
    r"""Residual blocks of mixers, (B, L, D) -> (B, L, D).

    Layer l = 1..n is

    .. math::
        x \leftarrow x + \mathrm{drop}(\mathrm{mixer}_l(\mathrm{norm}(x))), \qquad
        x \leftarrow x + \mathrm{drop}(\mathrm{ff}_l(\mathrm{norm}(x)))

    (pre-norm; post-norm is x <- norm(x + drop(f(x)))), the second only with ``feed_forward``; a pre-norm stack ends in
    one more norm. For causal mixers, looped ``step`` = ``prefill`` in chunks of any sizes = ``forward``. Outputs at
    t >= lengths are zero, and inputs there, NaN included, change nothing.

    Args:
        d_model: the number of features D.
        n_layers: the number of layers n.
        mixer: the name of a mixer (see ``longconv.list_mixers()``), or one name a layer; to compare with there are
            ``"transformer"``, ``"gru"`` and ``"cnn"``.
        mixer_options: the options of all mixers, or one mapping a layer.
        norm: ``"layer"``, ``"batch"`` (statistics over the valid positions alone) or ``"rms"``.
        norm_eps: what norms add to the variance (published S5 layers: 1e-6); None: 1e-5, for ``"rms"`` 1e-6.
        prenorm: whether a norm comes before its mixer or after the sum.
        dropout: the probability of the dropout on each branch; a mixer's own is one of its options.
        tie_dropout: whether a dropout mask is shared by all positions of a sequence, so that whole features of a sample
            are dropped. The published S4 code has the same option, off by default as here.
        drop_path: the probability that a branch is left out for a whole sample.
        drop_path_schedule: ``"linear"`` (layer l has ``drop_path * l / n``) or ``"constant"``.
        feed_forward: ``"glu"``, ``"mlp"`` or None.
        expansion: the feed-forward network's hidden features as a multiple of D.

    Raises:
        TypeError: an option of the wrong type, or one that the mixer hasn't (named, with the nearest).
        ValueError: a size, probability or name out of range, or lists of other than n entries.

    References:
        Efficiently Modeling Long Sequences with Structured State Spaces, A. Gu, K. Goel and C. Ré, arXiv:2111.00396.

    >>> backbone = Backbone(8, 2, mixer_options={"d_state": 4})
    >>> backbone(torch.randn(3, 20, 8), lengths=torch.tensor([20, 7, 0])).shape
    torch.Size([3, 20, 8])
    """

    def __init__(
        self,
        d_model: int,
        n_layers: int,
        mixer: str | Sequence[str] = "s4d",
        mixer_options: MixerOptions | Sequence[MixerOptions] | None = None,
        *,
        norm: str = "layer",
        norm_eps: float | None = None,
        prenorm: bool = True,
        dropout: float = 0.0,
        tie_dropout: bool = False,
        drop_path: float = 0.0,
        drop_path_schedule: str = "linear",
        feed_forward: str | None = None,
        expansion: float = 2.0,
    ) -> None:
        super().__init__()
        self.d_model = check_int("d_model", d_model)
        check_bool("prenorm", prenorm)
        check_bool("tie_dropout", tie_dropout)
        rates = drop_path_rates(drop_path, n_layers, drop_path_schedule)
        mixers = _per_layer("mixer", mixer, str, n_layers)
        options = _per_layer("mixer_options", {} if mixer_options is None else mixer_options, Mapping, n_layers)

        def residual(rate: float) -> Residual:
            return Residual(
                d_model,
                norm=norm,
                prenorm=prenorm,
                dropout=dropout,
                tie_dropout=tie_dropout,
                drop_path=rate,
                norm_eps=norm_eps,
            )

        self.layers = nn.ModuleList(
            Block(
                create_layer(name, d_model, **layer_options),
                residual(rate),
                None if feed_forward is None else FeedForward(d_model, feed_forward, expansion),
                None if feed_forward is None else residual(rate),
            )
            for name, layer_options, rate in zip(mixers, options, rates, strict=True)
        )
        self.norm = create_norm(norm, d_model, norm_eps) if prenorm else nn.Identity()

    def forward(self, x: Tensor, lengths: Tensor | None = None, *, rate: float = 1.0) -> Tensor:
        """A whole batch.

        Args:
            x: (B, L, D).
            lengths: (B,) valid lengths in [0, L]; None: all L.
            rate: what multiplies every dt of the mixers: 2 for data with half as many samples a unit of time.

        Returns:
            (B, L, D), zero at t >= lengths.

        Raises:
            ValueError: a wrong shape, a length out of range, or a rate other than 1 for a mixer without a dt.
            TypeError: a dtype that isn't floating, or lengths that aren't integers.
        """
        check_tensor("x", x, "(B, L, D)", ndim=3, dtypes=FLOATS)
        check_shape("x", x, (None, None, self.d_model), "(B, L, D)")
        valid = None
        if lengths is not None:
            valid = valid_positions(check_lengths(lengths, x), x.shape[1])
        x = zero_padding(x, valid)
        for block in self.blocks():
            x = block(x, lengths, valid, rate=rate)
        return zero_padding(apply_norm(self.norm, x, valid), valid)

    def blocks(self) -> list[Block]:
        """The layers, in order."""
        return cast(list[Block], list(self.layers))

    def streaming_refusal(self) -> str | None:
        """None if the backbone can stream now, else the reason why not."""
        for block in self.blocks():
            if reason := block.mixer.streaming_refusal():
                return reason
        for module in self.modules():
            if isinstance(module, BatchNorm) and module.norm.training:
                return "BatchNorm in training mode takes its statistics over whole sequences; call .eval() first"
            if active_drop(module):
                return "dropout in training mode draws other masks for each chunk; call .eval() first"
        return None

    def init_state(
        self, batch_size: int, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> tuple[Any, ...]:
        """The state before the first position: one mixer's state a layer.

        Raises:
            NotImplementedError: the backbone can't stream (see :meth:`streaming_refusal`).
        """
        self._check_streaming()
        return tuple(block.mixer.init_state(batch_size, device=device, dtype=dtype) for block in self.blocks())

    def step(self, x_t: Tensor, state: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        """One position.

        Args:
            x_t: (B, D).
            state: from :meth:`init_state`, :meth:`step` or :meth:`prefill`; it isn't changed.

        Returns:
            The output (B, D) and the new state.
        """
        if self.training:
            self._check_streaming()
        check_tensor("x_t", x_t, "(B, D)", ndim=2, dtypes=FLOATS)
        check_shape("x_t", x_t, (None, self.d_model), "(B, D)")
        states = []
        for block, block_state in zip(self.blocks(), check_states(state, len(self.layers)), strict=True):
            x_t, block_state = block.step(x_t, block_state)
            states.append(block_state)
        return self.norm(x_t), tuple(states)

    def prefill(self, x: Tensor, state: tuple[Any, ...] | None = None) -> tuple[Tensor, tuple[Any, ...]]:
        """A chunk.

        Args:
            x: (B, L, D).
            state: the state before the chunk; None: the start.

        Returns:
            The outputs (B, L, D) and the state after the chunk.
        """
        self._check_streaming()
        check_tensor("x", x, "(B, L, D)", ndim=3, dtypes=FLOATS)
        check_shape("x", x, (None, None, self.d_model), "(B, L, D)")
        states = []
        given = [None] * len(self.layers) if state is None else check_states(state, len(self.layers))
        for block, block_state in zip(self.blocks(), given, strict=True):
            x, block_state = block.prefill(x, block_state)
            states.append(block_state)
        return self.norm(x), tuple(states)

    def _check_streaming(self) -> None:
        if reason := self.streaming_refusal():
            raise NotImplementedError(f"this backbone can't stream: {reason}")


def backbone_defaults() -> BackboneOptions:
    """The default of every option in :class:`BackboneOptions`."""
    parameters = inspect.signature(Backbone).parameters
    return cast(BackboneOptions, {name: parameters[name].default for name in BackboneOptions.__annotations__})


def _per_layer(name: str, value: Any, kind: type, n_layers: int) -> list[Any]:
    """One entry a layer from one value of type ``kind`` for all, or from a sequence of n of them."""
    if isinstance(value, kind):
        return [value] * n_layers
    if isinstance(value, Sequence) and all(isinstance(entry, kind) for entry in value):
        if len(value) != n_layers:
            raise ValueError(f"{name} has {len(value)} entries, expected one for each of {n_layers} layers")
        return list(value)
    raise TypeError(f"{name} is {value!r}, expected a {kind.__name__} or a sequence of {n_layers} of them")

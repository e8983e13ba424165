"""What a stream carries from step to step, and how its channels are cut into pieces.

Symbols: B batch, H channels, K taps, S samples of a block, n whole blocks before the one under way. Z is B, or 2 B
where the filter is a stream itself: samples above, taps below.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from longconv import _sequence
from longconv._checks import check_int, check_stream

StateT = TypeVar("StateT")


class Level(NamedTuple):
    """Level p of a stream, p >= 1: for every piece of channels, what it was left with when it was last due, at e."""

    windows: tuple[Tensor, ...]
    """(Z, rows, 2 S_p), the samples before e; fewer where there were no more."""
    outputs: tuple[Tensor, ...]
    """(B, rows, S_p), what the lags from S_p on add to the outputs before e + S_p; fewer where the first are zero."""
    heads: tuple[Tensor, ...]
    """Where the filter is a stream: (2 B, rows, S_p), its taps and below them samples in [S_p, 2 S_p), once there."""


class Origin(NamedTuple):
    """The end of a chunk that was taken as a whole, and how long its tail goes on; times are in blocks."""

    time: int
    """o: samples before it are old."""
    until: int
    """The tail has all that old samples (with old taps) add to the outputs before this time."""


NOWHERE = Origin(0, 0)


class Folded(NamedTuple):
    """What a stream of few channels has instead of levels: a stream of 3 S H channels, see the module folded."""

    online: OnlineState
    """Its state, one block behind."""
    before: Tensor
    """(B, 3 S H), V of the last block but one."""
    first: Tensor
    """(1 or B, 3 S H), the factors of the first S taps. Where the filter is a stream: (2 B, 3 S H), those of its first
    block of taps and below them of samples, once there."""
    maps: tuple[Tensor, ...]
    """(S, 3 S) twice, (3 S, S) twice, from blocks to factors and from products to blocks."""


class OnlineState(NamedTuple):
    """State of an :class:`OnlineConv`, with r samples of a block taken, 0 <= r <= S."""

    pending: Tensor
    """(S - r, B, H), what the samples so far add to the outputs still to come in this block."""
    samples: tuple[Tensor, ...]
    """r tensors (Z, H), the samples of this block."""
    blocks: tuple[Tensor, ...]
    """(Z, H, S), the last two blocks before this one."""
    levels: tuple[Level, ...]
    """From level 1 on."""
    k: tuple[Tensor, ...]
    """The first S taps (S, 1 or B, H), and all taps (H, K) or (B, H, K), in parts where the filter goes on for ever.
    Where the filter is a stream: its taps and below them the samples, of the first block (S, 2 B, H) and of the first
    two (2 B, H, 2 S), once there."""
    clock: Tensor
    """(n, o, 0): its shape counts the blocks before this one, and those until the end of a chunk taken as a whole."""
    tail: Tensor
    """(B, H, ...), what the samples before time o add to the outputs from o on; empty where there's no such chunk."""
    old: Tensor
    """(Z, H, ...), the last samples before time o, for pieces of channels that have not been due since."""

    folded: Folded | tuple[()] = ()
    """Where the stream has few channels and a long filter: what it has instead of levels."""

    def origin(self, n: int) -> Origin:
        """The end of the chunk that was taken as a whole, while its tail goes beyond time n."""
        block, time = self.pending.shape[0] + len(self.samples), self.clock.shape[1]
        until = time + self.tail.shape[-1] // block
        return Origin(time, until) if n < until else NOWHERE


class StreamConv(ABC, Generic[StateT]):
    """What the convolutions of a stream have in common, whatever the filter."""

    def init_state(
        self,
        batch_size: int,
        channels: int | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> StateT:
        """The state before the first sample.

        Args:
            batch_size: B.
            channels: H; needed where the filter is a stream, which doesn't show it before it starts.
            device: where the state lives; None: where the filter is.
            dtype: real dtype that sets the state's precision, float32 at least; None: that of the filter.

        Raises:
            TypeError: a size that is no integer, or a dtype that is not a real floating one.
            ValueError: a negative size; channels or batch size that are not the filter's; no channels for a stream.
        """
        check_stream(batch_size, dtype)
        if channels is not None:
            check_int("channels", channels, least=0)
        return self._first_state(batch_size, channels, device, dtype)

    @abstractmethod
    def _first_state(
        self, batch_size: int, channels: int | None, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> StateT: ...

    @abstractmethod
    def step(self, x_t: Tensor, state: StateT) -> tuple[Tensor, StateT]:
        """One sample (B, H) and the state before it -> the output (B, H), and the state after it."""

    @abstractmethod
    def prefill(self, x: Tensor, state: StateT | None = None) -> tuple[Tensor, StateT]:
        """A chunk (B, H, T) and the state before it (None: the first) -> the outputs, and the state after it."""

    def _require_whole(self) -> None:
        _sequence.require_whole(f"{type(self).__name__} is a stream within one process, of which there are no shards")


@dataclass(frozen=True)
class Pieces:
    """How the channels of a level are cut: pieces of level p + 1 nest in those of level p, and so do their times.

    Piece j of level p is due at the times phase + m 2^p in blocks, where phase is j with its bits reversed.

    >>> pieces = Pieces(8)
    >>> [(pieces.rows(2, j), pieces.since(2, j, 4)) for j in range(4)]
    [((0, 2), 0), ((2, 4), 2), ((4, 6), 3), ((6, 8), 1)]
    """

    channels: int

    def bits(self, p: int) -> int:
        """The logarithm of the number of pieces: level p has 2^p while there are channels enough."""
        return min(p, max(self.channels, 1).bit_length() - 1)

    def all(self, p: int) -> range:
        """The pieces of level p."""
        return range(1 << self.bits(p))

    def rows(self, p: int, j: int) -> tuple[int, int]:
        """The channels of piece j: first, and last + 1."""
        bits = self.bits(p)
        return self.channels * j >> bits, self.channels * (j + 1) >> bits

    def children(self, p: int, j: int) -> tuple[int, ...]:
        """The pieces of level p + 1 that hold the channels of piece j."""
        return (2 * j, 2 * j + 1) if self.bits(p + 1) > self.bits(p) else (j,)

    def since(self, p: int, j: int, n: int) -> int:
        """How many blocks before time n piece j was due last, 0 if it is now."""
        phase = 0
        for _ in range(self.bits(p)):
            phase, j = 2 * phase + j % 2, j // 2
        return (n - phase) % 2**p

"""The online convolution."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from longconv import _autocast
from longconv._checks import FLOATS, check_bool, check_device, check_int, check_shape, check_tensor, describe
from longconv.streaming import folded
from longconv.streaming.levels import Levels
from longconv.streaming.products import Known, Streamed, TapRange, Taps
from longconv.streaming.state import Folded, OnlineState, Pieces, StreamConv

WHOLE = 8
"""Blocks of a chunk from which on it is taken as a whole, if it is no shorter than what came before."""


class OnlineConv(StreamConv[OnlineState]):
    r"""The causal convolution of a stream, sample by sample or in chunks, exactly.

    .. math:: y_t = \sum_{j \le t} k_j\, x_{t-j}

    for every sample of a batch and every channel. L steps take O(L log^2 L) operations and O(L) memory (O(K) where the
    filter ends), however the stream is cut. A chunk of T samples costs FFT convolutions of O(T) samples: where it is
    long, and no shorter than all before it, two of T, one for its outputs and one for what it adds to those after it.
    The long FFTs of different channels come at different times; where there are few (H < 16, and 16 S H < K if the
    filter is known to end, for S from 2 to 128), the stream goes on as one of blocks, with 3 S H channels. For each
    sample of a batch no step hands more numbers to FFTs, or twice as many where the filter is a stream, than

        3 S H (2 log2(L / S) + 3) + 8 L / S    of few channels: L / S is the length of the stream of blocks
        S H (2 log2(L / S) + 3) + 8 L          of others: a block on every level, but from level log2 H on one channel

    The exception is a function of the length alone for a filter that goes on for ever: it is called for all taps again
    whenever the time reaches a power of two, where one with ``ranges`` gives 4 S new ones a block. Chunks of few
    channels cost some three times more. State goes in and comes out: nothing of a state that was given is changed, and
    what a step doesn't touch is handed on by reference.

    Args:
        k: the filter: taps (H, K), or (B, H, K) with one filter a sample; or a function length -> so many taps, of
            which fewer are a prefix of more; or None for a filter that is a stream itself, whose tap k[t] comes with
            sample x[t].
        length: K, where ``k`` is a function: taps from there on are zero. None: the filter goes on for ever; by time t
            it is asked for at most 4 (t + S) taps.
        ranges: whether the function takes a start and a stop, k(start, stop), and gives the stop - start taps in
            between.
        block: S, a power of two. It changes no result.

    Gradients reach the samples, and by way of the state the taps. A function is called in ``init_state``, and where the
    filter goes on for ever in those steps that need more of it.

    References:
        Flash Inference: Near Linear Time Inference for Long Convolution Sequence Models and Beyond (Oncescu, Purandare,
        Idreos, Kakade, arXiv 2410.12982)
        Relax, but Don't be Too Lazy (van der Hoeven, 2002), for filters that are streams

    >>> conv = OnlineConv(torch.tensor([[1.0, 0.5, 0.25]]))
    >>> y, state = conv.prefill(torch.tensor([[[1.0, 0.0]]]))
    >>> y_t, state = conv.step(torch.tensor([[2.0]]), state)
    >>> y.round(decimals=4), y_t.round(decimals=4)
    (tensor([[[1.0000, 0.5000]]]), tensor([[2.2500]]))
    >>> square, t = OnlineConv(), torch.tensor([[1.0]])  # (1 + z + z^2 + ...)^2
    >>> state = square.init_state(1, 1)
    >>> for _ in range(3):
    ...     y_t, state = square.step(t, state, t)
    >>> y_t
    tensor([[3.]])
    """

    def __init__(
        self,
        k: Tensor | Taps | TapRange | None = None,
        *,
        length: int | None = None,
        ranges: bool = False,
        block: int = 64,
    ) -> None:
        if check_int("block", block) & (block - 1):
            raise ValueError(f"block is {block}, expected a power of two")
        if length is not None:
            check_int("length", length)
            if not callable(k):
                raise ValueError(f"length is {length}, expected None: it is for a k that is a function")
        if check_bool("ranges", ranges) and not callable(k):
            raise ValueError("ranges is True, expected False: it is for a k that is a function")
        if isinstance(k, Tensor):
            check_tensor("k", k, "(H, K) or (B, H, K)", ndim=(2, 3), dtypes=FLOATS)
            if k.shape[-1] < 1:
                raise ValueError(f"k is {describe(k)}, expected at least one tap, K >= 1")
            self.products: Known | Streamed = Known(block, lambda _: k, k.shape[-1], False)
        elif callable(k):
            self.products = Known(block, k, length, ranges)
        elif k is None:
            self.products = Streamed(block)
        else:
            raise TypeError(f"k is {describe(k)}, expected a tensor, a function of the length, or None")
        self.block = block

    # --- what everybody calls -----------------------------------------------------------------------------------------

    def _first_state(
        self, batch_size: int, channels: int | None, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> OnlineState:
        if isinstance(self.products, Streamed):
            if channels is None:
                raise ValueError("channels is None, expected H: the filter is a stream, and doesn't show it yet")
            wide = torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)
            pending = torch.zeros(self.block, batch_size, channels, device=device, dtype=wide)
            state = self._empty(pending, ())
        else:
            k = self.products.first(batch_size, channels, device, dtype)
            state = self._empty(k[1].new_zeros(self.block, batch_size, k[1].shape[-2]), k)
        return self._folded(state) if folded.folds(self.products, state.pending.shape[2]) else state

    def step(self, x_t: Tensor, state: OnlineState, k_t: Tensor | None = None) -> tuple[Tensor, OnlineState]:
        """One sample.

        Args:
            x_t: (B, H).
            state: the state before it.
            k_t: (B, H), the tap k[t], where the filter is a stream; else None.

        Returns:
            y_t (B, H) in x_t's dtype, and the state after it.

        Raises:
            TypeError: x_t, k_t or state of a wrong kind or dtype.
            ValueError: a wrong shape or device, or a state of another batch size or filter.
        """
        self._require_whole()
        z = self._checked("x_t", x_t, "k_t", k_t, "(B, H)", state)
        with _autocast.off(x_t.device):
            if not state.pending.shape[0]:
                state = self._turned(state)
            pending = self.products.pushed(z, state)
        return pending[0].to(x_t.dtype), state._replace(pending=pending[1:], samples=(*state.samples, z))

    def prefill(
        self, x: Tensor, state: OnlineState | None = None, k: Tensor | None = None
    ) -> tuple[Tensor, OnlineState]:
        """A chunk of any length.

        Args:
            x: (B, H, T).
            state: the state before it; None: the first.
            k: (B, H, T), the taps that come with it, where the filter is a stream; else None.

        Returns:
            y (B, H, T) in x's dtype, and the state after it.

        Raises:
            TypeError: x, k or state of a wrong kind or dtype.
            ValueError: a wrong shape or device, or a state of another batch size or filter.
        """
        self._require_whole()
        if state is None:
            check_tensor("x", x, "(B, H, T)", ndim=3, dtypes=FLOATS)
            state = self.init_state(x.shape[0], x.shape[1], device=x.device, dtype=x.dtype)
        z = self._checked("x", x, "k", k, "(B, H, T)", state)
        outputs, start, length = [x.new_empty(*x.shape[:2], 0)], 0, x.shape[2]
        with _autocast.off(x.device):
            if length >= WHOLE * self.block and not (state.samples or state.clock.shape[0]):
                start = length // self.block * self.block
                y, state = self._taken_whole(z[..., :start], state, 0)
                outputs.append(y.to(x.dtype))
                if start == length:
                    return outputs[1], state
            while start < length:
                room, left = state.pending.shape[0], length - start
                size = min(room, left) if room else left // self.block * self.block
                part = z[..., start : start + size]
                start += size
                if room:
                    y, state = self._within(part, state)
                elif size:
                    y, state = self._whole_blocks(part, state)
                else:
                    state = self._turned(state)
                    continue
                outputs.append(y.to(x.dtype))
        return torch.cat(outputs, -1), state

    # --- blocks -------------------------------------------------------------------------------------------------------

    def _empty(self, pending: Tensor, k: tuple[Tensor, ...]) -> OnlineState:
        """The first state."""
        _, batch, channels = pending.shape
        tail = pending.new_empty(batch, channels, 0)
        old = tail.repeat(2, 1, 1) if isinstance(self.products, Streamed) else tail
        return OnlineState(pending, (), (), (), k, pending.new_empty(0, 0, 0), tail, old)

    def _within(self, z: Tensor, state: OnlineState) -> tuple[Tensor, OnlineState]:
        """A chunk z (Z, H, T) that fits into the block under way."""
        size = z.shape[-1]
        pending = self.products.within(z, state)
        state = state._replace(pending=pending[size:], samples=(*state.samples, *_by_time(z)))
        return pending[:size].permute(1, 2, 0), state

    def _turned(self, state: OnlineState) -> OnlineState:
        """The next block begins: what all samples so far add to it."""
        if state.folded:
            return self._folded_turned(state, state.folded)
        n = state.clock.shape[0] + 1
        blocks = (*state.blocks, torch.stack(state.samples, -1))[-2:]
        window, origin = torch.cat(blocks, -1), state.origin(n)
        k = self.products.grown(state.k, n, n, window)
        levels = Levels(self.products, state, k, n, origin)
        levels.fire(n, 0, 0, window)
        window = self.products.newer(window, n, origin.time)
        own = (
            self.products.base(window, n, k)
            if window.shape[-1]
            else state.pending.new_zeros(*state.tail.shape[:2], self.block)
        )
        pending = levels.plus_above(own, n, 0, 0)
        if origin.time:
            pending = pending + self._tail(state, n, n + 1)
        pending = pending.permute(2, 0, 1).contiguous()
        tail, old, o = state.tail, state.old, state.clock.shape[1]
        if not origin.time:
            tail = tail.new_empty(*tail.shape[:2], 0)
            if n >= o + (1 << self.products.levels(o)):
                old, o = old.new_empty(*old.shape[:2], 0), 0
        return OnlineState(pending, (), blocks, levels.frozen(), k, state.clock.new_empty(n, o, 0), tail, old)

    def _whole_blocks(self, z: Tensor, state: OnlineState) -> tuple[Tensor, OnlineState]:
        """A chunk z (Z, H, M S) of M blocks that follows a full block; after it the last of them is full."""
        if state.folded:
            return self._folded_blocks(z, state, state.folded)
        n, count = state.clock.shape[0] + 1, z.shape[-1] // self.block
        origin, reach = state.origin(n), self.products.reach
        c = min(count.bit_length() - 1, self.products.levels(n + count - 1))
        if count >= WHOLE and (count >= reach(n) or reach(2 << c) > origin.until - origin.time > 0):
            return self._taken_whole(z, state, n)
        return self._gone_on(z, state, c)

    def _taken_whole(self, z: Tensor, state: OnlineState, n: int) -> tuple[Tensor, OnlineState]:
        """A long chunk, at time n: one convolution for its outputs, one for what all samples add to those after it."""
        if state.folded:
            return self._folded_blocks(z, state, state.folded)
        S, last = self.block, n - 1 + z.shape[-1] // self.block
        history = min(n, 2 << self.products.levels(n))
        whole = torch.cat([*self._past(state, n, history), z], -1) if n else z
        k = self.products.grown(state.k, n, last, whole)
        y, tail = self.products.whole(whole, z.shape[-1], last + 1, k)
        kept = S * (2 << self.products.levels(last))
        old = whole if kept >= whole.shape[-1] else whole[..., -kept:].clone()
        state = state._replace(levels=(), k=k, clock=state.clock.new_empty(last, last + 1, 0), tail=tail, old=old)
        levels = Levels(self.products, state, k, last, state.origin(last))
        levels.begin(last)
        return y, self._at_end(z, whole, state, levels)

    def _gone_on(self, z: Tensor, state: OnlineState, c: int) -> tuple[Tensor, OnlineState]:
        """A chunk of 2^c blocks and more, up to twice as many.

        The levels up to c are due for all channels: their outputs are one convolution, and what they leave is made from
        the samples anew. The levels above go on piece by piece.
        """
        n = state.clock.shape[0] + 1
        last, origin, history = n - 1 + z.shape[-1] // self.block, state.origin(n), self.products.history(c, n)
        whole = torch.cat([*self._past(state, n, history), z], -1)
        k = self.products.grown(state.k, n, last, whole)
        levels = Levels(self.products, state, k, last, origin)
        head = self.products.first_taps(c, state) if history < n or origin.time else None
        y = self.products.chunk(c, self.products.newer(whole, last + 1, origin.time), z.shape[-1], head, k)
        if origin.time:
            tail = self._tail(state, n, last + 1)
            y = y + F.pad(tail, (0, y.shape[-1] - tail.shape[-1]))
        if c < len(levels.levels):
            y = y + levels.go_on(n, last, c, whole)
        levels.renew(last, c, whole)
        state = state._replace(k=k, clock=state.clock.new_empty(last, state.clock.shape[1], 0))
        return y, self._at_end(z, whole, state, levels)

    def _at_end(self, z: Tensor, whole: Tensor, state: OnlineState, levels: Levels) -> OnlineState:
        """The state when the last block of a chunk z is full; ``whole`` ends with it."""
        S, last = self.block, state.clock.shape[0]
        blocks = whole[..., -S * min(last + 1, 3) : -S].clone().split(S, -1)
        pending = state.pending.new_empty(0, *state.pending.shape[1:])
        samples = _by_time(z[..., -S:])
        return state._replace(pending=pending, samples=samples, blocks=blocks, levels=levels.frozen())

    def _tail(self, state: OnlineState, first: int, last: int) -> Tensor:
        """Of the tail, what it adds to the blocks from ``first`` up to ``last``; fewer where it ends before."""
        o = state.clock.shape[1]
        return state.tail[..., (first - o) * self.block : (last - o) * self.block]

    def _past(self, state: OnlineState, n: int, count: int) -> list[Tensor]:
        """The samples (Z, H, ...) of the last ``count`` of n whole blocks, in parts; ``state`` holds the last one."""
        S, pieces = self.block, Pieces(state.pending.shape[2])
        parts = [torch.stack(state.samples, -1), *state.blocks[-1:]][:count]
        for p, level in enumerate(state.levels, 1):
            first, beyond = max(n - (2 << p), n - count), n - (1 << p)
            if first >= beyond:
                break
            rows = []
            for j, window in enumerate(level.windows):
                start = n - 1 - pieces.since(p, j, n - 1) - window.shape[-1] // S
                if not window.shape[-1]:
                    low, high = pieces.rows(p, j)
                    window, start = state.old[:, low:high], state.clock.shape[1] - state.old.shape[-1] // S
                rows.append(window[..., (first - start) * S : (beyond - start) * S])
            parts.append(torch.cat(rows, 1))
        return parts[::-1]

    # --- few channels -------------------------------------------------------------------------------------------------

    def _folded(self, state: OnlineState) -> OnlineState:
        """The first state of a stream of few channels."""
        S, (batch, channels), k = self.block, state.pending.shape[1:], state.k
        online = self._of_blocks(k).init_state(
            batch, None if k else 3 * S * channels, device=state.pending.device, dtype=state.pending.dtype
        )
        k = (k[0], k[1][..., : 2 * S].clone()) if k else k
        return state._replace(k=k, folded=folded.begin(k[1][..., :S] if k else None, online, state.pending))

    def _of_blocks(self, k: tuple[Tensor, ...]) -> OnlineConv:
        """The online convolution of a folded stream."""
        if isinstance(self.products, Streamed):
            return OnlineConv(block=1)
        length = None if self.products.length is None else (self.products.length - 1) // self.block
        return OnlineConv(folded.block_taps(self.products, k[1]), length=length, ranges=True, block=1)

    def _first_taps(self, z: Tensor, state: OnlineState) -> tuple[Tensor, ...]:
        """The state's ``k`` after blocks z of a folded stream."""
        return (
            self.products.grown(state.k, state.clock.shape[0] + 1, 1, z)
            if isinstance(self.products, Streamed)
            else state.k
        )

    def _folded_turned(self, state: OnlineState, few: Folded) -> OnlineState:
        """:meth:`_turned` of a folded stream."""
        z, n = torch.stack(state.samples, -1), state.clock.shape[0] + 1
        y, few = folded.ahead(z[:, :, None], few, self._of_blocks(state.k))
        pending, clock = y[:, :, 0].permute(2, 0, 1).contiguous(), state.clock.new_empty(n, 0, 0)
        return state._replace(pending=pending, samples=(), k=self._first_taps(z, state), clock=clock, folded=few)

    def _folded_blocks(self, z: Tensor, state: OnlineState, few: Folded) -> tuple[Tensor, OnlineState]:
        """:meth:`_whole_blocks` of a folded stream, its first ones too."""
        S, past = self.block, [torch.stack(state.samples, -1)] if state.samples else []
        whole = torch.cat([*past, z], -1)
        blocks, k = whole.unflatten(-1, (whole.shape[-1] // S, S)), self._first_taps(whole, state)
        y = folded.within(blocks[:, :, len(past) :], k, isinstance(self.products, Streamed), not past)
        if blocks.shape[2] > 1:
            before, few = folded.ahead(blocks[:, :, :-1], few, self._of_blocks(state.k))
            y = y + F.pad(before, (0, 0, y.shape[2] - before.shape[2], 0))
        clock = state.clock.new_empty(state.clock.shape[0] + blocks.shape[2] - 1, 0, 0)
        pending = state.pending[:0]
        state = state._replace(pending=pending, samples=_by_time(z[..., -S:]), k=k, clock=clock, folded=few)
        return y.flatten(2), state

    # --- checks -------------------------------------------------------------------------------------------------------

    def _checked(
        self, x_name: str, x: Tensor, k_name: str, k: Tensor | None, symbols: str, state: OnlineState
    ) -> Tensor:
        """The samples, above the taps that come with them, in the state's precision: (Z, H) or (Z, H, T)."""
        if not isinstance(state, OnlineState):
            raise TypeError(f"state is {describe(state)}, expected the OnlineState that init_state returns")
        pending, ndim = state.pending, symbols.count(",") + 1
        check_tensor(x_name, x, symbols, ndim=ndim, dtypes=FLOATS)
        if pending.shape[1:] != x.shape[:2]:
            raise ValueError(
                f"state.pending is {describe(pending)}, a state of batch size {pending.shape[1]} and "
                f"{pending.shape[2]} channels, but {x_name} is {describe(x)}: init_state makes one that fits"
            )
        if pending.shape[0] + len(state.samples) != self.block or not self.products.fits(state):
            raise ValueError(f"state is of a filter of another kind or block than this one's, S = {self.block}")
        check_device("state.pending", pending, x_name, x)
        self._check_precision(x_name, x, pending)
        if isinstance(self.products, Known):
            if k is not None:
                raise ValueError(f"{k_name} is {describe(k)}, expected None: the filter is known ahead")
            check_device("state.k", state.k[1], x_name, x)
            return x.to(pending.dtype, copy=True, memory_format=torch.contiguous_format)
        check_tensor(k_name, k, symbols, ndim=ndim, dtypes=FLOATS)
        assert k is not None
        check_shape(k_name, k, x.shape, symbols)
        check_device(k_name, k, x_name, x)
        self._check_precision(k_name, k, pending)
        return torch.cat((x.to(pending.dtype), k.to(pending.dtype)))

    @staticmethod
    def _check_precision(name: str, value: Tensor, pending: Tensor) -> None:
        """That a state in single precision takes no numbers in double precision."""
        if value.dtype == torch.float64 != pending.dtype:
            raise TypeError(
                f"state.pending is {describe(pending)}, but {name} is {describe(value)}: init_state with "
                "dtype=torch.float64 makes a state of its precision"
            )


def _by_time(z: Tensor) -> tuple[Tensor, ...]:
    """(Z, H, T) -> T tensors (Z, H) of their own memory."""
    return z.permute(2, 0, 1).clone(memory_format=torch.contiguous_format).unbind()

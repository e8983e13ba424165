"""The products of samples and taps that each level of a stream has: a filter known ahead, or one that is a stream.

Every product x[i] k[j], which belongs to the output i + j, is on one level: of a filter known ahead, level p has those
with j in [S_p, 2 S_p); of a filter that is a stream, whose tap k[j] is known at time j, those with min(i, j) there: the
samples with the first taps, and the taps with the first samples. With S_0 = 0 that holds for level 0 too.

After a chunk that was taken as a whole the levels leave out what its tail has: all products of samples (and taps)
before its end o that belong to outputs before the tail's end.

Symbols as in :mod:`longconv.streaming.state`. Convolutions are written for windows that end where the known ends: the
last outputs that they reach are the last that fft_conv gives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from longconv._checks import FLOATS, check_shape, check_tensor, describe
from longconv.ops.fft_conv import fft_conv
from longconv.streaming.state import OnlineState, Origin

Taps = Callable[[int], Tensor]
"""Length -> the first taps, (H, length) or (B, H, length)."""
TapRange = Callable[[int, int], Tensor]
"""Start and stop -> the taps from the one up to the other, (H, stop - start) or (B, H, stop - start)."""


class Products(ABC):
    """The products of one kind of filter.

    Args:
        block: S.
    """

    def __init__(self, block: int) -> None:
        self.block = block

    @abstractmethod
    def fits(self, state: OnlineState) -> bool:
        """Whether a state is one of such a filter."""

    @abstractmethod
    def levels(self, n: int) -> int:
        """The number of levels from 1 on that have something to do at time n."""

    @abstractmethod
    def grown(self, k: tuple[Tensor, ...], first: int, last: int, whole: Tensor) -> tuple[Tensor, ...]:
        """The state's ``k`` at time ``last``, from that at time ``first`` - 1.

        ``whole`` (Z, H, ...) are samples from the start of the stream on where ``first`` is 1 or 2.
        """

    @abstractmethod
    def pushed(self, z: Tensor, state: OnlineState) -> Tensor:
        """The pending outputs (S - r, B, H) with the products of one more sample z (Z, H)."""

    @abstractmethod
    def within(self, z: Tensor, state: OnlineState) -> Tensor:
        """The same with a chunk z (Z, H, T) of T <= S - r samples."""

    @abstractmethod
    def reach(self, n: int) -> int:
        """To how many of n blocks after its own a sample adds."""

    @abstractmethod
    def base(self, window: Tensor, n: int, k: tuple[Tensor, ...]) -> Tensor:
        """Of level 0, what the samples before block n add to its outputs: (B, H, S).

        ``window`` are those of the last two blocks, or of the last one where the others are old.
        """

    @abstractmethod
    def outputs(
        self,
        p: int,
        rows: tuple[int, int],
        end: int,
        window: Tensor,
        head: Tensor | None,
        k: tuple[Tensor, ...],
        origin: Origin,
    ) -> Tensor:
        """Of level p, what the samples before ``end`` add to the outputs before end + 2^p, of a piece's rows.

        (B, rows, S_p), or fewer where the first of these are zero; ``window`` and ``head`` are those of a
        :class:`~longconv.streaming.state.Level`.
        """

    @abstractmethod
    def whole(self, whole: Tensor, length: int, n: int, k: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """The last ``length`` outputs (B, H, length) of samples that end at time n, and their tail (B, H, ...).

        ``whole`` (Z, H, ...) are all samples, or as many as the filter reaches before the last ``length``.
        """

    @abstractmethod
    def chunk(self, c: int, whole: Tensor, length: int, head: Tensor | None, k: tuple[Tensor, ...]) -> Tensor:
        """Of the levels 0 to c, the last ``length`` outputs (B, H, length) of samples ``whole`` (Z, H, ...).

        Before them, ``whole`` has :meth:`history` blocks; ``head`` is the first 2 S_c taps and samples, or None where
        ``whole`` begins with them.
        """

    @abstractmethod
    def history(self, c: int, n: int) -> int:
        """How many of n blocks a chunk needs for the levels 0 to c."""

    def newer(self, window: Tensor, end: int, time: int) -> Tensor:
        """Of samples ``window`` that end at time ``end``, those from ``time`` on."""
        return window[..., max(window.shape[-1] - max(end - time, 0) * self.block, 0) :]

    def head(self, p: int, end: int, window: Tensor) -> Tensor:
        """The head of a piece of level p from its samples ``window`` that end at time ``end``."""
        raise NotImplementedError

    def first_taps(self, c: int, state: OnlineState) -> Tensor | None:
        """The first 2 S_c taps and samples (2 B, H, 2 S_c) of a filter that is a stream, from all levels; else None."""
        return None


class Known(Products):
    """A filter that is known ahead.

    Args:
        block: S.
        taps: length -> the first taps; or start, stop -> the taps in between.
        length: K, or None for a filter that goes on for ever.
        ranges: whether ``taps`` takes start and stop.
    """

    def __init__(self, block: int, taps: Taps | TapRange, length: int | None, ranges: bool) -> None:
        super().__init__(block)
        self.taps: Callable[..., Tensor] = taps
        self.length, self.ranges = length, ranges

    def taken(self, start: int, stop: int, like: Tensor | None = None) -> Tensor:
        """The taps in a range from the function, which has to give so many, for the channels of ``like``."""
        name, k = (f"k({start}, {stop})", self.taps(start, stop)) if self.ranges else (f"k({stop})", self.taps(stop))
        check_tensor(name, k, "(H, K) or (B, H, K)", ndim=(2, 3), dtypes=FLOATS)
        channels = k.shape[:-1] if like is None else like.shape[:-1]
        check_shape(name, k, (*channels, stop - start if self.ranges else stop), "(H, K) or (B, H, K)")
        return k if self.ranges else k[..., start:]

    def first(
        self, batch_size: int, channels: int | None, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> tuple[Tensor, ...]:
        """The state's ``k`` at the start: the first taps by time, and all that there are, two at least."""
        k = self.taken(0, self.length or self._need(0))
        if k.ndim == 3 and len(k) != batch_size:
            raise ValueError(f"batch_size is {batch_size}, but k is {describe(k)}, the filters of {len(k)} samples")
        if channels not in (None, k.shape[-2]):
            raise ValueError(f"channels is {channels}, but k is {describe(k)}, the filters of {k.shape[-2]}")
        k = k.to(device, torch.promote_types(dtype or k.dtype, torch.float32))
        near = F.pad(k, (0, max(0, self.block - k.shape[-1])))[..., : self.block]
        near = near[None] if k.ndim == 2 else near
        return near.permute(2, 0, 1).contiguous(), F.pad(k, (0, max(0, 2 - k.shape[-1])))

    def fits(self, state: OnlineState) -> bool:
        return len(state.k) >= 2 and state.k[0].shape[1] in (1, state.pending.shape[1])

    def reach(self, n: int) -> int:
        return n if self.length is None else min(n, -((1 - self.length) // self.block))

    def levels(self, n: int) -> int:
        most = int(n).bit_length()
        if self.length is None:
            return most
        return min(most, max(0, ((self.length - 1) // self.block).bit_length() - 1))

    def grown(self, k: tuple[Tensor, ...], first: int, last: int, whole: Tensor) -> tuple[Tensor, ...]:
        if self.length is not None:
            return k
        have = need = len(k) - 2
        while self._cut(need) < self._need(last):
            need += 1
        if have == need:
            return k
        cuts = [self._cut(i) for i in range(have, need + 1)]
        new = self.taken(cuts[0], cuts[-1], k[1]).to(k[1])
        return (*k, *new.split([stop - start for start, stop in pairwise(cuts)], -1))

    def _need(self, n: int) -> int:
        """How many taps the levels use by time n, or more, where the filter goes on for ever.

        A piece due at n uses those up to n + 2^p; with ranges the new ones are the same number for every block.
        """
        return self.block * (3 * n + 2 if self.ranges else n + 1 + (1 << self.levels(n)))

    def _cut(self, i: int) -> int:
        """Where part i of the taps ends: parts of ranges are of one size, else they double what there is."""
        return self.block * (2 + 4 * i) if self.ranges else 2 * self.block << i

    def _between(self, k: tuple[Tensor, ...], start: int, stop: int, rows: tuple[int, int]) -> Tensor:
        """The taps in a range of some channels, from the parts in which they came."""
        skipped = max(0, (start // self.block + 2) // 4) if self.ranges and self.length is None else 0
        at, parts = self._cut(skipped - 1) if skipped else 0, []
        for part in k[1 + skipped :]:
            if at >= stop:
                break
            parts.append(part[..., slice(*rows), max(start - at, 0) : stop - at])
            at += part.shape[-1]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def pushed(self, z: Tensor, state: OnlineState) -> Tensor:
        return torch.addcmul(state.pending, z, state.k[0][: state.pending.shape[0]])

    def within(self, z: Tensor, state: OnlineState) -> Tensor:
        room = state.pending.shape[0]
        ahead = fft_conv(F.pad(z, (0, room - z.shape[-1])), state.k[1][..., :room])
        return state.pending + ahead.permute(2, 0, 1)

    def base(self, window: Tensor, n: int, k: tuple[Tensor, ...]) -> Tensor:
        S = self.block
        return fft_conv(F.pad(window, (0, S)), k[1][..., 1 : 2 * S])[..., -S - 1 : -1]

    def outputs(
        self,
        p: int,
        rows: tuple[int, int],
        end: int,
        window: Tensor,
        head: Tensor | None,
        k: tuple[Tensor, ...],
        origin: Origin,
    ) -> Tensor:
        o, until = origin
        if end >= until:
            return self._outputs(p, rows, window, k)
        beyond = (end + (1 << p) - until) * self.block if o + self.reach(2 << p) > until else 0
        if beyond <= 0:
            return self._outputs(p, rows, self.newer(window, end, o), k)
        y = self._outputs(p, rows, window, k)[..., -beyond:]
        if o + (1 << p) >= until:
            return y
        return torch.cat((self._outputs(p, rows, self.newer(window, end, o), k)[..., :-beyond], y), -1)

    def _outputs(self, p: int, rows: tuple[int, int], window: Tensor, k: tuple[Tensor, ...]) -> Tensor:
        """The same of all samples of the window."""
        S, size = self.block << p, window.shape[-1]
        return fft_conv(window, self._between(k, S, S + min(S, size), rows))[..., -S:] if size else window

    def whole(self, whole: Tensor, length: int, n: int, k: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        size = self.reach(n) * self.block
        taps = self._between(k, 0, max(2 * size, 1), (0, whole.shape[1]))
        y = fft_conv(whole, taps)[..., -length:]
        if size == 0:
            return y, y[..., :0]
        behind, ahead = taps[..., 1:size].flip(-1), taps[..., size:]
        if taps.shape[-1] < size:
            behind = F.pad(behind, (size - taps.shape[-1], 0))
        if taps.shape[-1] <= size:
            ahead = torch.zeros_like(taps[..., :1])
        return y, fft_conv(whole[..., -size:], ahead, k_reverse=behind if size > 1 else None)

    def chunk(self, c: int, whole: Tensor, length: int, head: Tensor | None, k: tuple[Tensor, ...]) -> Tensor:
        return fft_conv(whole, self._between(k, 0, 2 * self.block << c, (0, whole.shape[1])))[..., -length:]

    def history(self, c: int, n: int) -> int:
        return min(n, 2 << c)


class Streamed(Products):
    """A filter that is a stream: tap k[t] comes with sample x[t], below it in z."""

    def fits(self, state: OnlineState) -> bool:
        return not state.k or state.k[0].shape[1] == 2 * state.pending.shape[1]

    def reach(self, n: int) -> int:
        return n

    def levels(self, n: int) -> int:
        return int(n).bit_length()

    def grown(self, k: tuple[Tensor, ...], first: int, last: int, whole: Tensor) -> tuple[Tensor, ...]:
        if first <= 1:
            k = (_swapped(whole[..., : self.block]).permute(2, 0, 1).contiguous(),)
        if first <= 2 <= last:
            k = (*k, _swapped(whole[..., : 2 * self.block]))
        return k

    def pushed(self, z: Tensor, state: OnlineState) -> Tensor:
        pending = state.pending
        room, batch = pending.shape[:2]
        x, tap = halves(z)
        if state.k:
            near = state.k[0][:room]
            return pending + x * near[:, :batch] + tap * near[:, batch:]
        known = torch.stack((*state.samples, z))[:room]  # in the first block, t taps and samples and those of now
        ahead = x * known[:, batch:]
        ahead[: len(state.samples)] += tap * known[: len(state.samples), :batch]
        return pending + F.pad(ahead, (0, 0, 0, 0, 0, room - len(known)))

    def within(self, z: Tensor, state: OnlineState) -> Tensor:
        room = state.pending.shape[0]
        if state.k:
            head = state.k[0][:room].permute(1, 2, 0)
            ahead = folded_sum(fft_conv(F.pad(z, (0, room - z.shape[-1])), head))
            return state.pending + ahead.permute(2, 0, 1)
        z = torch.cat([*(past[..., None] for past in state.samples), z], -1)
        x, taps = halves(F.pad(z, (0, self.block - z.shape[-1])))
        return fft_conv(x, taps).permute(2, 0, 1)[-room:]

    def base(self, window: Tensor, n: int, k: tuple[Tensor, ...]) -> Tensor:
        S = self.block
        if n <= 2:
            x, taps = halves(window)
            return fft_conv(F.pad(x, (0, S)), taps)[..., -S:]
        return folded_sum(fft_conv(F.pad(self._from(window, n, 0, 2), (0, S)), k[1])[..., -S:])

    def outputs(
        self,
        p: int,
        rows: tuple[int, int],
        end: int,
        window: Tensor,
        head: Tensor | None,
        k: tuple[Tensor, ...],
        origin: Origin,
    ) -> Tensor:
        S, first = self.block << p, 1 << p
        old = origin.time if end < origin.until else 0
        if end <= max(first, old):
            return window[: len(window) // 2, :, :0]
        if 2 * first <= old:
            window = self.newer(window, end, old)
        if end < 2 * first:
            x, taps = halves(self.newer(window, end, first))
            y = fft_conv(x, taps)
        else:
            assert head is not None
            window = self._from(window, end, first, 2 * first)
            y = folded_sum(fft_conv(window, head)[..., -S:])
            x, taps = self.newer(halves(window)[0], end, first), halves(head)[0]
        count = x.shape[-1] - (end - old) * self.block
        if count <= 0 or not first < old < 2 * first:
            return y
        x = F.pad(x[..., :count], (0, x.shape[-1] - count))  # of the samples and taps of the level some are old
        return y - fft_conv(x, taps[..., : (old - first) * self.block])[..., -S:]

    def whole(self, whole: Tensor, length: int, n: int, k: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        x, taps = halves(whole)
        tail = fft_conv(x, torch.zeros_like(taps[..., :1]), k_reverse=taps[..., 1:].flip(-1))
        return fft_conv(x, taps)[..., -length:], tail

    def chunk(self, c: int, whole: Tensor, length: int, head: Tensor | None, k: tuple[Tensor, ...]) -> Tensor:
        if head is None:
            head = _swapped(whole[..., : 2 * self.block << c])
            whole = self._from(whole, whole.shape[-1] // self.block, 0, 2 << c)
        return folded_sum(fft_conv(whole, head)[..., -length:])

    def history(self, c: int, n: int) -> int:
        return n if n <= 4 << c else 2 << c

    def first_taps(self, c: int, state: OnlineState) -> Tensor | None:
        if state.old.shape[-1]:
            return _swapped(state.old[..., : 2 * self.block << c])
        return torch.cat([state.k[1], *(torch.cat(level.heads, 1) for level in state.levels[:c])], -1)

    def head(self, p: int, end: int, window: Tensor) -> Tensor:
        first, start = 1 << p, end - window.shape[-1] // self.block
        if end < 2 * first:
            return window[..., :0]
        return _swapped(window[..., (first - start) * self.block : (2 * first - start) * self.block])

    def _from(self, window: Tensor, end: int, x: int, k: int) -> Tensor:
        """A window that ends at time ``end`` with zeros for the samples before time x and the taps before time k."""
        start = end - window.shape[-1] // self.block
        if start >= max(x, k):
            return window
        t = torch.arange(window.shape[-1], device=window.device) + start * self.block
        since = torch.tensor([x, k], device=window.device).repeat_interleave(len(window) // 2) * self.block
        return torch.where(t >= since[:, None, None], window, 0)


def halves(z: Tensor) -> tuple[Tensor, Tensor]:
    """Samples and taps."""
    return z[: len(z) // 2], z[len(z) // 2 :]


def _swapped(z: Tensor) -> Tensor:
    """Samples above and taps below -> taps above and samples below: what z is convolved with."""
    return z.roll(len(z) // 2, 0)


def folded_sum(y: Tensor) -> Tensor:
    """The sum of both halves of the batch."""
    above, below = halves(y)
    return above + below

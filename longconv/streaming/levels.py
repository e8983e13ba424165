"""How samples go up from level to level, and sums of outputs come down."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from longconv.streaming.products import Products, Streamed
from longconv.streaming.state import NOWHERE, Level, OnlineState, Origin, Pieces


class Levels:
    """The levels of a stream on their way from one state to the next.

    Args:
        products: what each level computes.
        state: where they come from; it isn't changed.
        k: the filter, as in :class:`~longconv.streaming.state.OnlineState`.
        n: the time until which they will go; levels that begin by then are there.
        origin: the end of a chunk that was taken as a whole: its tail is added elsewhere.
    """

    def __init__(
        self, products: Products, state: OnlineState, k: tuple[Tensor, ...], n: int, origin: Origin = NOWHERE
    ) -> None:
        _, batch, channels = state.pending.shape
        self.products, self.k, self.pieces, self.block = products, k, Pieces(channels), products.block
        self.origin, self.old, self.old_end = origin, state.old, state.clock.shape[1]
        self.levels = [[list(part) for part in level] for level in state.levels]
        for p in range(len(self.levels) + 1, products.levels(n) + 1):
            rows = [self.pieces.rows(p, j) for j in self.pieces.all(p)]
            empty = {high - low: state.old.new_empty(len(state.old), high - low, 0) for low, high in rows}
            windows = [empty[high - low] for low, high in rows]
            outputs = [window[:batch] for window in windows] if batch < len(state.old) else list(windows)
            self.levels.append([windows, outputs, list(windows) if isinstance(products, Streamed) else []])

    def frozen(self) -> tuple[Level, ...]:
        """The levels as a state has them."""
        return tuple(Level(*map(tuple, level)) for level in self.levels)

    def fire(self, end: int, p: int, j: int, window: Tensor) -> None:
        """Bring all pieces up to date that are due when piece j of level p is: at ``end``, with ``window`` before it.

        Level p + 1 begins at time 2^p, and its first outputs are at 2^(p + 1). The pieces whose time came before it
        began are made up for together with their siblings.
        """
        if p >= len(self.levels) or end < 1 << p:
            return
        first, size = self.pieces.rows(p, j)[0], self.block << (p + 1)
        for child in self.pieces.children(p, j):
            low, high = self.pieces.rows(p + 1, child)
            part, since = window[:, low - first : high - first], self.pieces.since(p + 1, child, end)
            if since == 0:
                before = self.levels[p][0][child][..., -size:]
                if not before.shape[-1]:
                    before = self.old_samples((low, high), end - (4 << p), end - (2 << p))
                part = torch.cat((before, part), -1)
                self.fire(end, p + 1, child, part)
                self.store(end, p + 1, child, part)
            elif end < 2 << p:
                self.store(end - since, p + 1, child, part[..., : (end - since) * self.block])

    def store(self, end: int, p: int, j: int, window: Tensor, before: Tensor | None = None) -> None:
        """Set piece j of level p to what it is when due at ``end``, with ``window`` before it.

        Args:
            end: e.
            p: level.
            j: piece.
            window: (Z, rows, 2 S_p), or all samples before ``end`` where they are fewer.
            before: (Z, rows, ...) samples before ``end`` that reach back further, where the window is too short for a
                level's head.
        """
        windows, outputs, heads = self.levels[p - 1]
        rows = self.pieces.rows(p, j)
        if heads and not heads[j].shape[-1]:
            old = self.old_samples(rows, 1 << p, 2 << p) if 2 << p <= self.old_end else window[..., :0]
            if old.shape[-1]:
                heads[j] = self.products.head(p, 2 << p, old)
            else:
                heads[j] = self.products.head(p, end, window if before is None else before)
        head = heads[j] if heads else None
        windows[j] = window
        own = self.products.outputs(p, rows, end, window, head, self.k, self.origin)
        outputs[j] = self.plus_above(own, end, p, j) if own.shape[-1] else own

    def plus_above(self, own: Tensor, end: int, p: int, j: int) -> Tensor:
        """The outputs of piece j of level p, with those of the levels above it, up to time end + 2^p."""
        above = self.above(end, p, j)
        if above is None or not above.shape[-1]:
            return own
        own, above = _of_one_length((own, above))
        return own + above

    def above(self, end: int, p: int, j: int) -> Tensor | None:
        """What the levels above p add to the outputs in [end, end + 2^p), fewer where the first are zero; None: all."""
        if p >= len(self.levels):
            return None
        size, parts = self.block << p, []
        for child in self.pieces.children(p, j):
            outputs = self.levels[p][1][child]
            due = self.pieces.since(p + 1, child, end) == 0  # then these reach 2^p further than the parent's
            parts.append(outputs[..., -2 * size : -size] if due else outputs[..., -size:])
        return torch.cat(_of_one_length(parts), 1)

    def go_on(self, n: int, last: int, c: int, whole: Tensor) -> Tensor:
        """Bring the levels above c from time n - 1 to ``last``; return what they add to the outputs from block n on.

        Args:
            n: the first block of a chunk.
            last: its last block.
            c: the level up to which all is computed otherwise.
            whole: (Z, H, ...), the samples until the end of the chunk from 2^(c + 1) blocks before it on, or all.
        """
        S, rows = self.block, []
        start = last + 1 - whole.shape[-1] // S
        for j in self.pieces.all(c):
            low, high = self.pieces.rows(c, j)
            first, parts = n - self.pieces.since(c, j, n), []
            for end in range(first, last + 1, 1 << c):
                if end >= n:
                    since = max(start, end - (2 << c)) - start
                    self.fire(end, c, j, whole[:, low:high, since * S : (end - start) * S])
                above = self.above(end, c, j)
                assert above is not None
                parts.append(F.pad(above, ((S << c) - above.shape[-1], 0)))
            since = (n - first) * S
            rows.append(torch.cat(parts, -1)[..., since : since + (last + 1 - n) * S])
        return torch.cat(rows, 1)

    def old_samples(self, rows: tuple[int, int], first: int, beyond: int) -> Tensor:
        """Of the samples before a chunk's end that was taken as a whole, those from time ``first`` to ``beyond``."""
        start = self.old_end - self.old.shape[-1] // self.block
        return self.old[:, slice(*rows), max(first - start, 0) * self.block : max(beyond - start, 0) * self.block]

    def begin(self, last: int) -> None:
        """After a chunk taken as a whole, until the end of block ``last``: what its tail doesn't reach."""
        for p in range(len(self.levels), 0, -1):
            if last + (1 << p) <= self.origin.until:
                break
            for j in self.pieces.all(p):
                end = last - self.pieces.since(p, j, last)
                if end + (1 << p) > self.origin.until:
                    self.store(end, p, j, self.old_samples(self.pieces.rows(p, j), end - (2 << p), end))

    def renew(self, last: int, c: int, whole: Tensor) -> None:
        """Set the levels up to c to what they are at time ``last`` from the samples ``whole`` of :meth:`go_on`."""
        S = self.block
        start = last + 1 - whole.shape[-1] // S
        for p in range(c, 0, -1):
            for j in self.pieces.all(p):
                low, high = self.pieces.rows(p, j)
                end = last - self.pieces.since(p, j, last)
                before = whole[:, low:high, : (end - start) * S]
                self.store(end, p, j, before[..., -(S << (p + 1)) :].clone(), before)


def _of_one_length(parts: Sequence[Tensor]) -> list[Tensor]:
    """Outputs that end at one time, with the zeros that those have left out that begin later."""
    size = max(part.shape[-1] for part in parts)
    return [part if part.shape[-1] == size else F.pad(part, (size - part.shape[-1], 0)) for part in parts]

"""What ranks send each other as operations with gradients.

An exchange is a permutation of numbers among the ranks, so its gradient is the exchange the other way. It comes in two
halves with time for other work in between. The gradient of the second half begins the way back, and that of the first
half ends it: what overlaps in the forward pass does so in the backward pass too. Gradients of gradients are refused,
as the ranks would not all come to their exchanges in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from longconv.distributed.ranks import Ranks

Range = tuple[int, int]
"""Positions of the sequence from the first number up to, and without, the second."""


class _Way:
    """Numbers on their way: how many go to which rank, how many come from which, and how to wait for them."""

    def __init__(self, ranks: Ranks, counts: Sequence[int], arriving: Sequence[int]) -> None:
        self.ranks, self.counts, self.arriving = ranks, counts, arriving
        self.pending: Any = None
        self.back: _Way | None = None

    def start(self, sent: Tensor) -> Tensor:
        """Begin; a number that stands in the graph for those that are under way."""
        self.pending = self.ranks.start(sent.contiguous(), self.counts, self.arriving)
        return sent.new_zeros(())

    def finish(self) -> Tensor:
        """What has arrived."""
        received, pending = self.pending
        self.ranks.wait(pending)
        self.pending = None
        arrived: Tensor = received
        return arrived

    def turn(self) -> _Way:
        """The way back, anew for every backward pass."""
        self.back = _Way(self.ranks, self.arriving, self.counts)
        return self.back


class _Start(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sent: Tensor, way: _Way) -> Tensor:
        ctx.way = way
        return way.start(sent)

    @staticmethod
    def backward(ctx: Any, token: Tensor) -> tuple[Tensor, None]:
        return ctx.way.back.finish(), None


class _Finish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, way: _Way) -> Tensor:
        ctx.way = way
        return way.finish()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled():  # refused on all ranks at the same place, before one of them waits
            raise NotImplementedError("gradients of gradients of a sharded sequence: use create_graph=False")
        return ctx.way.turn().start(grad), None


def exchange(
    ranks: Ranks, pieces: Sequence[Tensor], shapes: Sequence[Sequence[int]]
) -> Callable[[], tuple[Tensor, ...]]:
    """Begin to send ``pieces[j]`` to each rank j; of the other ranks come tensors of ``shapes[i]`` and the same dtype.

    Every rank calls it at the same place with pieces and shapes that fit. Without gradients on one rank alone the ranks
    would wait for each other in the backward pass: all of them have them, or none.

    Returns:
        A function that waits for the tensors and returns them.
    """
    way = _Way(ranks, [piece.numel() for piece in pieces], [math.prod(shape) for shape in shapes])
    token = _Start.apply(torch.cat([piece.reshape(-1) for piece in pieces]), way)

    def finish() -> tuple[Tensor, ...]:
        arrived: Tensor = _Finish.apply(token, way)
        parts = zip(arrived.split(list(way.arriving)), shapes, strict=True)
        return tuple(part.view(tuple(shape)) for part, shape in parts)

    return finish


def gather(ranks: Ranks, x: Tensor) -> tuple[Tensor, ...]:
    """The tensors of one shape that the ranks have, on all of them."""
    return exchange(ranks, [x] * ranks.size, [x.shape] * ranks.size)()


def redistribute(
    ranks: Ranks, x: Tensor, have: Sequence[Sequence[Range]], want: Sequence[Sequence[Range]]
) -> list[Tensor]:
    """Positions of a sequence from the ranks that have them to the ranks that want them.

    Args:
        ranks: the ranks.
        x: (..., n), the positions that this rank has, range after range.
        have: the ranges of every rank. No position is in two of them.
        want: the ranges that every rank wants; several may want a position. What nobody has is left out.

    Returns:
        A tensor (..., n) for each of the ranges that this rank wants.
    """

    def common(source: int, target: int) -> list[tuple[int, int, int]]:
        """The positions that one has and the other wants, in the order of ``have``: first, last, and of which range."""
        ranges = ((start, stop, n) for start, stop in have[source] for n in range(len(want[target])))
        found = ((max(start, want[target][n][0]), min(stop, want[target][n][1]), n) for start, stop, n in ranges)
        return [(low, high, n) for low, high, n in found if low < high]

    def cut(low: int, high: int) -> Tensor:
        before = 0
        for start, stop in have[ranks.rank]:
            if start <= low < stop:
                return x.narrow(-1, before + low - start, high - low)
            before += stop - start
        raise AssertionError("this rank doesn't have it")

    me = ranks.rank
    cuts = [[cut(low, high) for low, high, _ in common(me, j)] for j in range(ranks.size)]
    pieces = [torch.cat(found or [x[..., :0]], -1) for found in cuts]
    arriving = [common(i, me) for i in range(ranks.size)]
    shapes = [(*x.shape[:-1], sum(high - low for low, high, _ in found)) for found in arriving]
    parts: list[dict[int, Tensor]] = [{} for _ in want[me]]
    arrived = exchange(ranks, pieces, shapes)()
    for found, tensor in zip(arriving, arrived, strict=True):
        split = tensor.split([high - low for low, high, _ in found], -1) if found else ()
        for (low, _, n), part in zip(found, split, strict=True):
            parts[n][low] = part
    nothing = arrived[0][..., :0]  # a part of the graph, so that the backward pass comes by on this rank too
    return [torch.cat([found[low] for low in sorted(found)] or [nothing], -1) for found in parts]

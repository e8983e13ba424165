"""Tensors as kernels read them: as they lie in memory, with leading axes that broadcast folded into two.

The two are sets of what is shared, and rows that share a set.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from torch import Tensor

from longconv._checks import broadcast_shapes


def plain(tensor: Tensor) -> Tensor:
    """The numbers as they lie in memory: no conjugate or negative that is still to be taken."""
    return tensor.resolve_conj().resolve_neg()


@dataclass(frozen=True)
class Layout:
    """How leading axes are folded: into X sets of nodes, poles or points, and M rows of coefficients that share a set.

    Attributes:
        lead: the leading axes of the result.
        order: these axes, those of X first, then those of M.
        sets, rows: the sizes of the axes of X and of M.
    """

    lead: tuple[int, ...]
    order: tuple[int, ...]
    sets: tuple[int, ...]
    rows: tuple[int, ...]

    @classmethod
    def of(cls, v: Tensor, *shared: Tensor) -> Layout:
        """The layout of coefficients (..., S) and what they share, (..., S'), whose leading axes broadcast."""
        return _layout(v.shape[:-1], *(tensor.shape[:-1] for tensor in shared))

    def fold(self, tensor: Tensor) -> Tensor:
        """(..., S) with the leading axes of the result -> (X, M, S), a view where strides allow it."""
        size = tensor.shape[-1]
        if not self.rows and tensor.shape[:-1] == self.lead:
            return tensor.reshape(-1, 1, size) if tensor.numel() else tensor.reshape(math.prod(self.sets), 1, size)
        tensor = tensor.expand(*self.lead, size).permute(*self.order, len(self.lead))
        return tensor.reshape(math.prod(self.sets), math.prod(self.rows), size)

    def fold_shared(self, tensor: Tensor) -> Tensor:
        """What a set shares, (..., S) -> (X, S), or (1, S) if all sets do."""
        if tensor.shape[:-1].numel() == 1:
            return tensor.reshape(1, -1)
        tensor = tensor.reshape(*(1,) * (len(self.lead) + 1 - tensor.ndim), *tensor.shape)
        tensor = tensor.permute(*self.order, len(self.lead)).expand(*self.sets, *(1,) * len(self.rows), -1)
        return tensor.reshape(math.prod(self.sets), -1)

    def unfold(self, tensor: Tensor) -> Tensor:
        """(X or 1, M or 1, S) -> (..., S), with size 1 along the axes that were folded to 1."""
        sets, rows = (
            sizes if size == math.prod(sizes) else (1,) * len(sizes)
            for size, sizes in zip(tensor.shape, (self.sets, self.rows), strict=False)
        )
        places = [self.order.index(axis) for axis in range(len(self.order))]
        return tensor.reshape(*sets, *rows, tensor.shape[-1]).permute(*places, len(places))


@functools.lru_cache(maxsize=256)
def _layout(v: tuple[int, ...], *shared: tuple[int, ...]) -> Layout:
    lead, nodes = broadcast_shapes(v, *shared), broadcast_shapes(*shared)
    nodes = (1,) * (len(lead) - len(nodes)) + nodes
    sets = [axis for axis, size in enumerate(nodes) if size != 1]
    rows = [axis for axis, size in enumerate(nodes) if size == 1]
    return Layout(lead, (*sets, *rows), tuple(lead[i] for i in sets), tuple(lead[i] for i in rows))

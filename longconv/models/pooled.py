"""What every model that pools has in common: trunk, pooling, a head on what was pooled.

Symbols: B batch, L length, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from longconv._checks import check_choice, check_int
from longconv.models.backbone import backbone_defaults
from longconv.models.hub import HubModel
from longconv.models.pooling import POOLINGS, pool
from longconv.models.trunk import Trunk


class PooledModel(HubModel):
    """Trunk, pooling over the valid positions, head: ``n_outputs`` numbers a sample.

    Args:
        size: what the model calls ``n_outputs``.
        n_outputs: the numbers a sample.
        pooling: one of :data:`~longconv.models.pooling.POOLINGS`.
        head: the network on the pooled features, from D and ``n_outputs``.
        trunk: the arguments of the trunk.
    """

    def __init__(
        self,
        size: str,
        n_outputs: int,
        *,
        pooling: str,
        head: Callable[[int, int], nn.Module] = nn.Linear,
        **trunk: Any,
    ) -> None:
        super().__init__()
        self.trunk = Trunk(**trunk)
        self.pooling = check_choice("pooling", pooling, POOLINGS)
        self.head = head(self.trunk.backbone.d_model, check_int(size, n_outputs))
        self.config = {size: n_outputs, "pooling": pooling, **backbone_defaults(), **trunk}

    def pooled(self, x: Tensor, lengths: Tensor | None, *, rate: float = 1.0) -> Tensor:
        """The pooled features (B, D) of sequences of at least one position; ``rate`` multiplies every dt."""
        return pool(self.trunk(x, lengths, least_length=1, rate=rate), self.pooling, lengths)

"""From a sequence to one vector a sample.

Symbols: B batch, L length, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from longconv import _sequence
from longconv._checks import FLOATS, check_choice, check_tensor
from longconv.models.padding import check_lengths, valid_positions

POOLINGS = ("mean", "max", "sum", "last", "first")
"""The names that ``pooling=`` accepts."""


def pool(x: Tensor, pooling: str = "mean", lengths: Tensor | None = None) -> Tensor:
    """Pool over the valid positions: their mean, maximum or sum, the last or the first of them.

    Args:
        x: (B, L, D) with L >= 1; zero at padded positions, as a backbone returns it.
        pooling: one of :data:`POOLINGS`.
        lengths: (B,) valid lengths, all >= 1; None: all L positions are valid.

    Returns:
        (B, D).

    Raises:
        ValueError: unknown pooling (with the nearest), an empty sequence, or a wrong shape or length.
        TypeError: ``x`` or ``lengths`` is no tensor of the right dtype.

    >>> x = torch.tensor([[[1.0], [5.0], [0.0]]])
    >>> [pool(x, name, torch.tensor([2])).item() for name in POOLINGS]
    [3.0, 5.0, 6.0, 5.0, 1.0]
    """
    check_choice("pooling", pooling, POOLINGS)
    check_tensor("x", x, "(B, L, D)", ndim=3, dtypes=FLOATS)
    total = _sequence.total(x.shape[1])
    if total == 0:
        raise ValueError(f"pooling over an empty sequence: x is {tuple(x.shape)}, expected L >= 1")
    if lengths is not None:
        check_lengths(lengths, x, least=1)
    if pooling == "first":
        return _sequence.take(x, 0)
    if pooling == "last":
        return _sequence.take(x, (total if lengths is None else lengths) - 1)
    if pooling == "max":
        return _sequence.greatest(
            x if lengths is None else x.masked_fill(~valid_positions(lengths, x.shape[1]), -torch.inf)
        )
    summed = _sequence.add(x.sum(dim=1, dtype=torch.promote_types(x.dtype, torch.float32)))
    if pooling == "mean":
        summed = summed / (total if lengths is None else lengths[:, None])
    return summed.to(x.dtype)

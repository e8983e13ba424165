"""From a sequence to one vector a sample.

Symbols: B batch, L length, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

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
    if x.shape[1] == 0:
        raise ValueError(f"pooling over an empty sequence: x is {tuple(x.shape)}, expected L >= 1")
    if lengths is not None:
        check_lengths(lengths, x, least=1)
    if pooling == "first":
        return x[:, 0]
    if pooling == "last":
        if lengths is None:
            return x[:, -1]
        return x.take_along_dim((lengths.long() - 1)[:, None, None], dim=1)[:, 0]
    if pooling == "max":
        return (x if lengths is None else x.masked_fill(~valid_positions(lengths, x.shape[1]), -torch.inf)).amax(dim=1)
    if pooling == "sum":
        return x.sum(dim=1)
    if lengths is None:
        return x.mean(dim=1)
    wide = torch.promote_types(x.dtype, torch.float32)
    return (x.sum(dim=1, dtype=wide) / lengths[:, None]).to(x.dtype)

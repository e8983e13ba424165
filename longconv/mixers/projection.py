"""Linear maps between (B, L, D) and (B, E, L), without a transposed copy on the way."""

from __future__ import annotations

import torch
from torch import Tensor


def to_channels(u: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """W u_t + b at every time: u (B, L, D), weight (E, D), bias (E,) -> (B, E, L)."""
    return torch.baddbmm(bias[:, None], weight.expand(u.shape[0], -1, -1), u.mT)


def from_channels(y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """W y_t + b at every time: y (B, E, L), weight (D, E), bias (D,) -> (B, L, D)."""
    return torch.baddbmm(bias, y.mT, weight.mT.expand(y.shape[0], -1, -1))

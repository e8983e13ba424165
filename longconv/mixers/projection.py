"""Linear maps between (B, L, D) and (B, E, L), without a transposed copy on the way of long sequences."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from longconv.ops.transpose import transpose


def to_channels(u: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """W u_t + b at every time: u (B, L, D), weight (E, D), bias (E,) -> (B, E, L)."""
    if _is_short(u.shape[1], weight):
        return transpose(F.linear(u, weight, bias))
    return torch.baddbmm(bias[:, None], weight.expand(u.shape[0], -1, -1), u.mT)


def from_channels(y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """W y_t + b at every time: y (B, E, L), weight (D, E), bias (D,) -> (B, L, D)."""
    if _is_short(y.shape[2], weight):
        return F.linear(transpose(y), weight, bias)
    return torch.baddbmm(bias, y.mT, weight.mT.expand(y.shape[0], -1, -1))


def _is_short(length: int, weight: Tensor) -> bool:
    """Whether a gradient of the weight for each sample, summed afterwards, would cost more than the copy."""
    return 4 * length <= min(weight.shape)

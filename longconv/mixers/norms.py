"""Norms over the features of a single time, between a filter and the output layer of its mixer."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


class FollowingLayerNorm(nn.LayerNorm):
    """Layer normalisation in the precision of its parameters, which on the CPU autocast does not see to."""

    def forward(self, y: Tensor) -> Tensor:
        """(..., D) -> (..., D), in y's dtype."""
        return super().forward(y.to(self.weight.dtype)).to(y.dtype)


class ScalarLayerNorm(nn.Module):
    """s (y - mean(y) + m) / std(y) with two numbers s and m for all features, and no epsilon.

    This is the norm that the published SGConv and S4 layers have for sequences (B, D, L). Without an epsilon it brings
    any input to the same size, be it as small as rounding errors. Where all features are equal, and the published code
    divides by zero, the output is 0.

    Attributes:
        s: (1,), the scale.
        m: (1,), the shift, in units of the features.

    >>> ScalarLayerNorm()(torch.tensor([[1.0, 3.0], [5.0, 5.0]]))
    tensor([[-1.,  1.],
            [ 0.,  0.]], grad_fn=<MulBackward0>)
    """

    def __init__(self) -> None:
        super().__init__()
        self.s, self.m = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))

    def forward(self, y: Tensor) -> Tensor:
        """(..., D) -> (..., D), in y's dtype."""
        wide = y.to(torch.promote_types(self.s.dtype, torch.float32))
        std, mean = torch.std_mean(wide, -1, unbiased=False, keepdim=True)
        normed: Tensor = (wide - mean + self.m) / std.masked_fill(std == 0, math.inf) * self.s
        return normed.to(y.dtype)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "layer": FollowingLayerNorm,
    "scalar_layer": lambda features: ScalarLayerNorm(),
}
"""By the name that ``norm=`` of a mixer accepts; a new one is one row."""

"""Dropout tied over the sequence, and drop path.

Symbols: B batch, L length, D features, p the probability of a drop.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longconv import _sequence
from longconv._checks import check_choice, check_int, check_real

SCHEDULES = ("linear", "constant")
"""The names that ``drop_path_schedule=`` accepts."""


class TiedDropout(nn.Dropout1d):
    """Dropout of whole features of (B, L, D): one mask a sample and feature, shared by all positions.

    >>> (TiedDropout(0.5)(torch.ones(1, 3, 8)).std(dim=1) == 0).all()
    tensor(True)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Drop features; the identity in evaluation."""
        if not self.training or self.p == 0:
            return x
        return x * _sequence.alike(F.dropout1d(x.new_ones(x.shape[0], x.shape[2], 1), self.p)).mT


class DropPath(nn.Module):
    r"""Stochastic depth: the branch of a residual block is left out for a whole sample.

    .. math:: y_b = x_b m_b / (1 - p), \quad m_b \sim \mathrm{Bernoulli}(1 - p)

    while training, so that the mean is x; the identity in evaluation.

    Args:
        p: the probability in [0, 1] that a sample's branch is dropped.

    References:
        Deep Networks with Stochastic Depth, G. Huang, Y. Sun, Z. Liu, D. Sedra and K. Weinberger, arXiv:1603.09382.

    >>> DropPath(1.0)(torch.ones(1, 2, 3)).sum()
    tensor(0.)
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = check_real("p", p, least=0.0, most=1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Drop samples of (B, ...)."""
        if not self.training or self.p == 0.0:
            return x
        if self.p == 1.0:
            return torch.zeros_like(x)
        keep = 1.0 - self.p
        mask = _sequence.alike(torch.rand((x.shape[0], *[1] * (x.ndim - 1)), device=x.device) < keep)
        return x * (mask.to(x.dtype) / keep)

    def extra_repr(self) -> str:
        """The drop probability, for ``repr``."""
        return f"p={self.p}"


def create_dropout(p: float, *, tied: bool) -> nn.Module:
    """``nn.Dropout``, or :class:`TiedDropout` where ``tied``, of a probability in [0, 1]."""
    check_real("dropout", p, least=0.0, most=1.0)
    return TiedDropout(p) if tied else nn.Dropout(p)


def drop_path_rates(p: float, n_layers: int, schedule: str = "linear") -> list[float]:
    """The drop probability of every layer.

    ``"linear"`` gives layer l = 1..n the probability p l / n, so that the last layer has p (the paper's rule, see
    :class:`DropPath`); ``"constant"`` gives p to all.

    >>> drop_path_rates(0.5, 4)
    [0.125, 0.25, 0.375, 0.5]
    """
    check_real("drop_path", p, least=0.0, most=1.0)
    check_int("n_layers", n_layers)
    check_choice("drop_path_schedule", schedule, SCHEDULES)
    return [p * (layer / n_layers if schedule == "linear" else 1.0) for layer in range(1, n_layers + 1)]


def active_drop(module: nn.Module) -> bool:
    """Whether ``module`` itself is a dropout or drop path that acts now: in training mode with p > 0."""
    kinds = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, DropPath)
    return isinstance(module, kinds) and module.training and module.p > 0

"""The definition of ``short_conv``: every window of K samples times the taps, in double precision."""

from __future__ import annotations

import torch
from torch import Tensor

from longconv.ops.short_conv.activations import ACTIVATIONS


def extended(u: Tensor, initial: Tensor | None, taps: int) -> Tensor:
    """The input with the K - 1 samples before it, (B, H, K - 1 + L)."""
    return torch.nn.functional.pad(u, (taps - 1, 0)) if initial is None else torch.cat((initial, u), -1)


def forward(u: Tensor, w: Tensor, bias: Tensor | None, initial: Tensor | None, activation: str) -> Tensor:
    """The sum over the taps as it stands."""
    windows = extended(u, initial, w.shape[1]).double().unfold(-1, w.shape[1], 1)  # (B, H, L, K)
    z = (windows * w.double()[:, None]).sum(-1)
    z = z if bias is None else z + bias.double()[:, None]
    return (z if activation == "none" else ACTIVATIONS[activation].function(z)).to(u.dtype)

"""The definition of ``dense_taps``, one tap after the other, in the precision of its arguments."""

from __future__ import annotations

import torch
from torch import Tensor


def forward(A: Tensor, B: Tensor, C: Tensor, length: int) -> Tensor:
    """The recurrence x[l + 1] = A x[l] from x[0] = B, as it stands."""
    taps = [torch.linalg.vecdot(C, x[:, None]) for x in _states(A, B, length)]
    return torch.stack(taps, -1)


def backward(g: Tensor, A: Tensor, B: Tensor, C: Tensor) -> list[Tensor]:
    """The gradients, by the adjoint recurrence p[l] = sum_m g[m, l] C[m] + A^T p[l + 1]."""
    states = _states(A, B, g.shape[-1])
    dA, dC, p = torch.zeros_like(A), torch.zeros_like(C), torch.zeros_like(B)
    for l in range(len(states) - 1, -1, -1):
        if l < len(states) - 1:
            dA = dA + p[:, :, None] * states[l][:, None]
            p = torch.linalg.vecdot(A.mT, p[:, None])
        p = p + (g[..., l, None] * C).sum(1)
        dC = dC + g[..., l, None] * states[l][:, None]
    return [dA, p, dC]


def _states(A: Tensor, B: Tensor, length: int) -> list[Tensor]:
    """x[l] (H, N) for l < length."""
    states = [B]
    for _ in range(length - 1):
        states.append(torch.linalg.vecdot(A, states[-1][:, None]))
    return states

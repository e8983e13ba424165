"""The definition of ``state_space_taps``, one tap after the other, and what its backends share."""

from __future__ import annotations

import torch
from torch import Tensor


def real(x: Tensor) -> Tensor:
    """Modes (..., N) as a real vector (..., 2N): Re and Im of each mode in turn."""
    return torch.view_as_real(x).flatten(-2)


def modes(x: Tensor) -> Tensor:
    """The inverse of :func:`real`."""
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))


def forward(A: Tensor, B: Tensor, C: Tensor, left: Tensor, right: Tensor, length: int) -> Tensor:
    """The recurrence as it stands."""
    x, taps = B, []
    for _ in range(length):
        taps.append((C * x).real.sum(-1))
        x = A * x + (left * (right * x).real.sum(-1, keepdim=True)).sum(0)
    return torch.stack(taps, -1)


def backward(g: Tensor, A: Tensor, B: Tensor, C: Tensor, left: Tensor, right: Tensor) -> list[Tensor]:
    """The gradients, by the adjoint recurrence p[l] = sum_c g[c, l] conj(C[c]) + A* p[l+1]."""
    states = [B]
    for _ in range(g.shape[-1] - 1):
        x = states[-1]
        states.append(A * x + (left * (right * x).real.sum(-1, keepdim=True)).sum(0))
    conj_A, conj_C, conj_left, conj_right = (part.conj_physical() for part in (A, C, left, right))
    dC = sum(g[..., l, None] * x.conj_physical() for l, x in enumerate(states))
    dA, dleft, dright, p = torch.zeros_like(A), torch.zeros_like(left), torch.zeros_like(right), torch.zeros_like(B)
    for l in range(g.shape[-1] - 1, -1, -1):
        if l < g.shape[-1] - 1:
            x = states[l]
            dA = dA + p * x.conj_physical()
            dleft = dleft + p * (right * x).real.sum(-1, keepdim=True)
            fed = (conj_left * p).real.sum(-1, keepdim=True)
            dright = dright + fed * x.conj_physical()
            p = conj_A * p + (conj_right * fed).sum(0)
        p = p + (g[..., l, None] * conj_C).sum(0)
    return [dA, p, dC if isinstance(dC, Tensor) else torch.zeros_like(C), dleft, dright]

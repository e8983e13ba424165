r"""``dense_taps`` by repeated squaring: rows C A^(q T) times columns A^r B, both doubled with a square at a time.

A doubling X' = [X, S X] by a square S passes dX' = [d1, d2] on as dX = d1 + S^T d2, dS = d2 X^T; one of rows likewise,
and a square S' = S S passes dS = dS' S^T + S^T dS'.
"""

from __future__ import annotations

import torch
from torch import Tensor


def squares(A: Tensor, count: int) -> list[Tensor]:
    """A^1, A^2, A^4, ...: ``count`` of them, each (H, N, N)."""
    powers = [A]
    for _ in range(count - 1):
        powers.append(powers[-1] @ powers[-1])
    return powers[:count]


def columns(B: Tensor, powers: list[Tensor]) -> Tensor:
    """A^r B for r < 2^len(powers), (H, N, 2^len), from A^1, A^2, A^4, ...."""
    x = B[..., None]
    for power in powers:
        x = torch.cat([x, power @ x], -1)
    return x


def rows(C: Tensor, powers: list[Tensor]) -> Tensor:
    """C A^q for q < 2^len(powers), (H, 2^len M, N) with q slowest, from A^1, A^2, A^4, ...."""
    for power in powers:
        C = torch.cat([C, C @ power], -2)
    return C


def halves(length: int) -> tuple[int, int]:
    """The least a >= b >= a - 1 with 2^(a + b) >= length."""
    doublings = 0
    while 1 << doublings < length:
        doublings += 1
    return doublings - doublings // 2, doublings // 2


def forward(A: Tensor, B: Tensor, C: Tensor, length: int) -> Tensor:
    """Rows times columns."""
    dtype, (A, B, C) = A.dtype, (part.double() for part in (A, B, C))
    fine, coarse = halves(length)
    powers = squares(A, fine + coarse)
    y = rows(C, powers[fine:]) @ columns(B, powers[:fine])  # (H, Q M, T)
    return y.unflatten(1, (1 << coarse, -1)).transpose(1, 2).flatten(2)[..., :length].to(dtype)


def backward(g: Tensor, A: Tensor, B: Tensor, C: Tensor) -> list[Tensor]:
    """The gradients of the module's docstring."""
    dtype, (g, A, B, C) = A.dtype, (part.double() for part in (g, A, B, C))
    fine, coarse = halves(g.shape[-1])
    powers = squares(A, fine + coarse)
    X, Y = columns(B, powers[:fine]), rows(C, powers[fine:])
    g = torch.nn.functional.pad(g, (0, (1 << fine + coarse) - g.shape[-1]))
    g = g.unflatten(-1, (1 << coarse, 1 << fine)).transpose(1, 2).flatten(1, 2)  # (H, Q M, T)
    dX, dY = Y.mT @ g, g @ X.mT
    of_powers: list[Tensor] = []  # of the highest first
    for power in reversed(powers[fine:]):
        dY, d2 = dY.chunk(2, 1)
        of_powers.append(Y[:, : dY.shape[1]].mT @ d2)
        dY = dY + d2 @ power.mT
    for power in reversed(powers[:fine]):
        dX, d2 = dX.chunk(2, 2)
        of_powers.append(d2 @ X[..., : dX.shape[2]].mT)
        dX = dX + power.mT @ d2
    dA = torch.zeros_like(A)
    for place, (power, gradient) in enumerate(zip(reversed(powers), of_powers, strict=True)):
        dA = gradient if place == 0 else gradient + dA @ power.mT + power.mT @ dA
    return [part.to(dtype) for part in (dA, dX[..., 0], dY)]

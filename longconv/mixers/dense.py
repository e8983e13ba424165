"""Streaming of a dense state space system a feature."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from longconv.ops.dense_taps.torch_blocks import columns, halves, rows, squares
from longconv.ops.fft_conv import fft_conv


class DenseState(NamedTuple):
    """State of a dense system; the system is set up once, in ``init_state``, and travels with it.

    x[t] = A_bar x[t-1] + B_bar u[t]; y[t] = C x[t]. The system is kept in float64, so that its rounding does not add up
    over long streams; x is kept in the state's own precision.
    """

    x: Tensor
    """(B, H, N), after the last sample."""
    A_bar: Tensor
    """(H, N, N)."""
    B_bar: Tensor
    """(H, N)."""
    C: Tensor
    """(H, M, N)."""


def advance(u: Tensor, state: DenseState) -> tuple[Tensor, Tensor]:
    """A chunk block by block: its outputs (B, T, M, H) without the skip, and the state after it (B, H, N).

    In blocks of S samples, S about the square root of T, with x the state before a block,

        y[r] = C A_bar^(r+1) x + sum_{s<=r} C A_bar^(r-s) B_bar u[s]
        x' = A_bar^S x + sum_s A_bar^(S-1-s) B_bar u[s]

    Args:
        u: (B, T, H) float64, T >= 1.
        state: the state before the chunk.
    """
    batch, length, H = u.shape
    M = state.C.shape[1]
    x, A_bar, B_bar, C = state
    doublings = halves(length)[0]
    size = 1 << doublings
    powers = squares(A_bar, doublings + 1)
    x_columns = columns(B_bar, powers[:-1])  # (H, N, S)
    y_rows = rows(C, powers[:-1])  # (H, S M, N)
    k = (y_rows[:, :, None] @ B_bar[:, None, :, None]).flatten(1).unflatten(1, (size, -1))  # (H, S, M)
    count = -(-length // size)
    last = length - (count - 1) * size
    u = F.pad(u, (0, 0, 0, size - last)).unflatten(1, (count, size)).permute(3, 1, 0, 2)  # (H, Q, B, S)
    inputs = (u.flatten(1, 2) @ x_columns.flip(-1).mT).unflatten(1, (count, batch))  # (H, Q, B, N)
    x, starts = x.double().transpose(0, 1), []
    for block in inputs[:, :-1].unbind(1):
        starts.append(x)
        x = x @ powers[-1].mT + block
    starts.append(x)
    past = torch.stack(starts, 1).flatten(1, 2) @ A_bar.mT @ y_rows.mT  # (H, Q B, S M)
    past = past.unflatten(1, (count, batch)).unflatten(-1, (size, M))
    blocks = u.permute(1, 2, 0, 3).flatten(0, 1)  # (Q B, H, S)
    present = fft_conv(blocks.repeat(1, M, 1), k.permute(2, 0, 1).flatten(0, 1))  # (Q B, M H, S)
    present = present.unflatten(0, (count, batch)).unflatten(2, (M, H))
    y = (present + past.permute(1, 2, 4, 0, 3)).permute(1, 0, 4, 2, 3).flatten(1, 2)[:, :length]
    for bit, power in enumerate(powers):
        if last >> bit & 1:
            x = x @ power.mT
    x = x + u[:, -1, :, :last] @ x_columns[..., :last].flip(-1).mT
    return y, x.transpose(0, 1)

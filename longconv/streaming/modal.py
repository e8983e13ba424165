"""Convolution of a stream with a filter of few modes: a constant cost a sample.

Symbols: B batch, T samples of a chunk, H features, C filters a feature, P stored modes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from longconv import _autocast
from longconv._checks import COMPLEX, FLOATS, check_state, check_tensor, describe
from longconv.ops import state_space_step, vandermonde_log
from longconv.ops.fft_conv import fft_conv
from longconv.streaming.state import StreamConv

BLOCK = 64
"""S, samples of a block of a chunk: states go on within a block by products of small matrices, from block to block by
powers."""

GROUP = 32
"""Blocks that are worked on together: the states that are held at once are of no more, however long the chunk."""


class DiagonalState(NamedTuple):
    """State of a stream through a diagonal system, which is set up once, in ``init_state``, and travels with it.

    x[t] = A_bar x[t-1] + B_bar u[t]; y[t] = 2 Re(C x[t]). The system is kept in complex128, so that its rounding does
    not add up over long streams; x is kept in the state's own precision. It is that of the parameters at its creation:
    after a step of an optimiser streams begin anew, with a new state.
    """

    x: Tensor
    """(B, H, P), after the last sample."""
    A_bar: Tensor
    """(H, P)."""
    B_bar: Tensor
    """(H, P)."""
    C: Tensor
    """(C, H, P)."""


def step(u_t: Tensor, state: DiagonalState, skip: Tensor) -> tuple[Tensor, DiagonalState]:
    """One sample (B, H), with a skip (C, H) -> outputs (B, C, H) in its dtype, and the state after it."""
    u = u_t.to(state.x.real.dtype)
    x, y = state_space_step(state.x, u, state.A_bar, state.B_bar, state.C)
    return (2 * y + skip * u[:, None]).to(u_t.dtype), state._replace(x=x)


def prefill(u: Tensor, state: DiagonalState, skip: Tensor) -> tuple[Tensor, DiagonalState]:
    """A chunk (B, H, T), T >= 1, with a skip (C, H) -> outputs (B, C H, T) in its dtype, and the state after it."""
    x, A_bar, B_bar, C = state
    length, channels = u.shape[2], len(C)
    log_A_bar = log_of(A_bar)
    block = min(length, BLOCK)
    with _autocast.off(u.device):
        k = vandermonde_log((2 * C * B_bar).to(x.dtype), log_A_bar, length, real=True)
        powers = powers_of(log_A_bar, block)
        past = zero_input_response(x, log_A_bar, 2 * C[:, :, None] * (A_bar[:, None] * powers), length)
        after = advance(x, log_A_bar, B_bar[:, None] * powers.flip(1), u)
    k = k.to(u.dtype if u.dtype == torch.float64 else torch.float32)
    y = fft_conv(u if channels == 1 else u.repeat(1, channels, 1), k.flatten(0, 1), skip=skip.flatten())
    return (y + past.flatten(1, 2)).to(u.dtype), state._replace(x=after.to(x.dtype))


def after(u: Tensor, state: DiagonalState) -> Tensor:
    """The modes after a chunk (B, H, T), T >= 1: (B, H, P) complex128."""
    log_A_bar = log_of(state.A_bar)
    with _autocast.off(u.device):
        powers = powers_of(log_A_bar, min(u.shape[2], BLOCK))
        return advance(state.x, log_A_bar, state.B_bar[:, None] * powers.flip(1), u)


def log_of(A_bar: Tensor) -> Tensor:
    """The logarithms of modes; of a mode 0, whose powers are 0 too, that of the least number."""
    return torch.log(torch.where(A_bar == 0, torch.finfo(torch.float64).tiny, A_bar))


def zero_input_response(x: Tensor, log_A_bar: Tensor, outputs: Tensor, length: int) -> Tensor:
    """What a state adds to the outputs after it, Re sum_n C[n] A_bar[n]^(t+1) x[n], by blocks of S samples.

    Args:
        x: (B, H, P) complex.
        log_A_bar: (H, P) complex128.
        outputs: (C, H, S, P) complex128, C A_bar^(t+1) for a block.
        length: T.

    Returns:
        (B, C, H, T) real, in x's precision.
    """
    block = outputs.shape[2]
    blocks = -(-length // block)
    powers = powers_of(block * log_A_bar, min(blocks, GROUP)).to(x.dtype)
    weights = torch.view_as_real(torch.conj_physical(outputs).to(x.dtype)).flatten(3)
    groups = []
    for first in range(0, blocks, GROUP):
        start = (torch.exp(first * block * log_A_bar) * x).to(x.dtype)
        starts = start[:, :, None] * powers[:, : blocks - first]  # (B, H, blocks of the group, P)
        groups.append(torch.einsum("bhjp,chtp->bchjt", torch.view_as_real(starts).flatten(3), weights).flatten(3))
    return torch.cat(groups, 3)[..., :length]


def advance(x: Tensor, log_A_bar: Tensor, inputs: Tensor, u: Tensor) -> Tensor:
    """The state after a chunk: A_bar^T x + sum_t A_bar^(T-1-t) B_bar u[t], by blocks of S samples.

    The sum over a block is in x's precision, that over blocks in double precision.

    Args:
        x: (B, H, P) complex, before the chunk.
        log_A_bar: (H, P) complex128.
        inputs: (H, S, P) complex128, A_bar^(S-1-t) B_bar for a block.
        u: (B, H, T) real.

    Returns:
        (B, H, P) complex128.
    """
    batch, block, real = u.shape[0], inputs.shape[1], x.real.dtype
    weights = torch.view_as_real(inputs.to(x.dtype).contiguous()).flatten(2)  # (H, S, 2 P)
    powers = powers_of(block * log_A_bar, min(-(-u.shape[2] // block), GROUP))
    for chunk in u.transpose(0, 1).split(GROUP * block, 2):
        rows = F.pad(chunk.to(real), (-chunk.shape[2] % block, 0)).unflatten(2, (-1, block))
        sums = (rows.flatten(1, 2) @ weights).unflatten(2, (-1, 2)).unflatten(1, (batch, -1))  # (H, B, blocks, P, 2)
        later = powers[:, : sums.shape[2]].flip(1)
        after = (torch.view_as_complex(sums) * later[:, None]).sum(2).transpose(0, 1)
        x = torch.exp(chunk.shape[2] * log_A_bar) * x + after
    return x


def powers_of(log_A_bar: Tensor, count: int) -> Tensor:
    """A_bar^0, ..., A_bar^(count-1): (H, P) complex -> (H, count, P), by products; exp costs many times as much."""
    powers = torch.ones_like(log_A_bar)[:, None]
    while powers.shape[1] < count:
        powers = torch.cat((powers, powers * torch.exp(powers.shape[1] * log_A_bar)[:, None]), 1)
    return powers[:, :count]


class ModalState(NamedTuple):
    """State of a :class:`ModalConv`."""

    modes: DiagonalState
    D: Tensor
    """(1, H)."""


class ModalConv(StreamConv[ModalState]):
    """The convolution of a stream with filters of few modes, used as :class:`~longconv.streaming.OnlineConv` is.

        k[l] = D [l = 0] + 2 Re sum_n C[n] B_bar[n] A_bar[n]^l

    A step costs O(P) a channel, and a chunk one FFT convolution; the state is P complex numbers a channel.

    Args:
        system: function of no arguments that gives A_bar, B_bar (H, P) and C (1, H, P) complex128, and D (1, H).

    >>> half, one = torch.full((1, 1), 0.5, dtype=torch.complex128), torch.ones(1, 1, dtype=torch.complex128)
    >>> conv = ModalConv(lambda: (half, one, one[None] / 2, torch.zeros(1, 1)))  # k[l] = 0.5^l
    >>> y, state = conv.prefill(torch.tensor([[[1.0, 1.0]]]))
    >>> y.round(decimals=4), conv.step(torch.tensor([[1.0]]), state)[0]
    (tensor([[[1.0000, 1.5000]]]), tensor([[1.7500]]))
    """

    def __init__(self, system: Callable[[], tuple[Tensor, Tensor, Tensor, Tensor]]) -> None:
        self.system = system

    def _first_state(
        self, batch_size: int, channels: int | None, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> ModalState:
        A_bar, B_bar, C, D = (part.to(device) for part in self.system())
        if channels not in (None, len(A_bar)):
            raise ValueError(f"channels is {channels}, but the system is of {len(A_bar)}")
        single = (dtype or D.dtype) != torch.float64
        x = B_bar.new_zeros(batch_size, *B_bar.shape, dtype=torch.complex64 if single else torch.complex128)
        return ModalState(DiagonalState(x, A_bar, B_bar, C), D)

    def step(self, x_t: Tensor, state: ModalState) -> tuple[Tensor, ModalState]:
        """One sample x_t (B, H) and the state before it -> y_t (B, H) in its dtype, and the state after it."""
        self._require_whole()
        check_tensor("x_t", x_t, "(B, H)", ndim=2, dtypes=FLOATS)
        self._check_state(x_t, state)
        y, modes = step(x_t, state.modes, state.D)
        return y[:, 0], state._replace(modes=modes)

    def prefill(self, x: Tensor, state: ModalState | None = None) -> tuple[Tensor, ModalState]:
        """A chunk x (B, H, T) and the state before it (None: the first) -> y (B, H, T), and the state after it."""
        self._require_whole()
        check_tensor("x", x, "(B, H, T)", ndim=3, dtypes=FLOATS)
        if state is None:
            state = self.init_state(x.shape[0], x.shape[1], device=x.device, dtype=x.dtype)
        self._check_state(x, state)
        if x.shape[2] == 0:
            return torch.empty_like(x), state
        y, modes = prefill(x, state.modes, state.D)
        return y, state._replace(modes=modes)

    def _check_state(self, x: Tensor, state: ModalState) -> None:
        if not isinstance(state, ModalState):
            raise TypeError(f"state is {describe(state)}, expected the ModalState that init_state returns")
        modes = state.modes.A_bar.shape
        check_state(state.modes, DiagonalState, x, (*x.shape[:2], modes[1]), "(B, H, P)", COMPLEX, (1, *modes))

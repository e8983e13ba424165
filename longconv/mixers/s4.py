"""S4."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from longconv import _autocast
from longconv._checks import COMPLEX, check_state
from longconv._sequence import StatePassing
from longconv.filters import DPLRFilter
from longconv.filters.dplr import DPLR
from longconv.mixers.base import ConvolutionMixer, filter_count
from longconv.ops import fft_conv, state_space_step, transpose
from longconv.ops._library import square_blocks
from longconv.ops.state_space_taps.reference import modes, real
from longconv.ops.state_space_taps.torch_blocks import blocks_of, features_at_once


class S4State(NamedTuple):
    """State of an :class:`S4`; the system is set up once, in ``init_state``, and travels with it.

    x[t] = A_bar x[t-1] + B_bar u[t] and y[t] = 2 Re(C x[t]), with A_bar diagonal plus rank R: a step costs O(N R). The
    system is kept in double precision, so that its rounding does not add up over long streams; x is kept in the
    state's own precision.
    """

    x: Tensor
    """(B, H, N/2) complex, after the last sample."""
    system: DPLR
    C: Tensor
    """(C, H, N/2) complex128."""


class S4(StatePassing, ConvolutionMixer):
    """Structured state space mixer: k[l] = C A_bar^l B_bar with A diagonal plus low rank, then GELU, Linear and GLU.

    Any length at any time; streams exactly with a state of N/2 complex numbers a feature, and a step in O(N R).

    Args:
        d_model: D.
        d_state: N, size of the real state of a feature; even.
        channels: C, filters a feature.
        bidirectional: whether an output depends on the future too; then it can't stream.
        init: measure of the system; any that :func:`longconv.filters.hippo.nplr` knows.
        init_options: the measure's own parameters, by name, such as {"beta": 0.5} of "tlagt".
        rank: R of the low rank part, at least the measure's ("legt" needs 2).
        dt_min, dt_max: the step of a feature starts log-uniform in [dt_min, dt_max].
        dt_tied: one step a feature; else one a mode.
        b_clip: bound on |Im B| at the start; None keeps the measure's B.
        activation, output, dropout: see :class:`~longconv.mixers.base.ConvolutionMixer`.
        filter_lr: learning rate of the filter's parameters; None takes the optimiser's.

    References:
        Efficiently Modeling Long Sequences with Structured State Spaces (Gu, Goel, Ré, arXiv 2111.00396)

    >>> mixer = S4(4, d_state=8)
    >>> y, state = mixer.prefill(torch.randn(2, 10, 4))
    >>> y_t, state = mixer.step(torch.randn(2, 4), state)
    >>> y.shape, y_t.shape
    (torch.Size([2, 10, 4]), torch.Size([2, 4]))
    """

    taps: DPLRFilter

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        channels: int = 1,
        bidirectional: bool = False,
        init: str = "legs",
        rank: int = 1,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        dt_tied: bool = True,
        b_clip: float | None = 2.0,
        init_options: Mapping[str, float] | None = None,
        activation: str | None = "gelu",
        output: str | None = "glu",
        dropout: float = 0.0,
        filter_lr: float | None = None,
    ) -> None:
        taps = DPLRFilter(
            d_model,
            filter_count(channels, bidirectional),
            d_state,
            init=init,
            rank=rank,
            dt_min=dt_min,
            dt_max=dt_max,
            dt_tied=dt_tied,
            b_clip=b_clip,
            init_options=init_options,
            filter_lr=filter_lr,
        )
        super().__init__(
            d_model,
            taps,
            channels=channels,
            bidirectional=bidirectional,
            activation=activation,
            output=output,
            dropout=dropout,
        )

    # --- streaming ----------------------------------------------------------------------------------------------------

    def _init_state(
        self, batch_size: int, device: torch.device | str | None, dtype: torch.dtype | None, rate: float = 1.0
    ) -> S4State:
        system, C = self.taps.discretised(rate)
        system, C = DPLR(*(part.to(device) for part in system)), C.to(device)
        return S4State(self._zero_state(batch_size, system.B, dtype), system, C)

    def _step(self, u_t: Tensor, state: S4State) -> tuple[Tensor, S4State]:
        self._check_state(u_t, state)
        y, x = self._sample(u_t, state.x, state)
        return self._mix_features(y.flatten(1)), state._replace(x=x)

    def _sample(self, u_t: Tensor, x: Tensor, state: S4State) -> tuple[Tensor, Tensor]:
        """The outputs (B, C, H) of a sample and the modes after it, from the modes x before it."""
        u = u_t.to(x.real.dtype)
        A, B, left, right = state.system
        x, y = state_space_step(x, u, A, B, state.C, left, right)
        return (2 * y + self.D * u[:, None]).to(u_t.dtype), x

    def _prefill(self, u: Tensor, state: S4State) -> tuple[Tensor, S4State]:
        self._check_state(u, state)
        length, x, outputs = u.shape[1], state.x, []
        if length == 0:
            return self._mix_features(u.repeat(1, 1, self.channels)), state
        if by_samples(length, state):
            for u_t in u.unbind(1):
                y, x = self._sample(u_t, x, state)
                outputs.append(y)
            return self._mix_features(torch.stack(outputs, 1).flatten(2)), state._replace(x=x)
        with _autocast.off(u.device):
            k, past, x = advance(u.to(x.real.dtype), state)
        k = k.to(u.dtype if u.dtype == torch.float64 else torch.float32)
        y = fft_conv(self._features(u), k.flatten(0, 1), skip=self.D.flatten())
        y = (y + past.flatten(1, 2)).to(u.dtype)
        return self._mix_features(transpose(y)), state._replace(x=x)

    def _after(self, u: Tensor, state: S4State) -> Tensor:
        self._check_state(u, state)
        with _autocast.off(u.device):
            return advance(u.to(state.x.real.dtype), state)[2]

    def _decay(self, state: S4State, length: int) -> Callable[[Tensor], Tensor]:
        A, B, left, right = state.system
        basis = torch.eye(2 * A.shape[1], dtype=torch.float64, device=A.device)
        still = basis.new_zeros(len(basis), A.shape[0])
        vectors = modes(basis)[:, None].expand(-1, *A.shape).contiguous()
        rows, _ = state_space_step(vectors, still, A, B, state.C, left, right)  # (2P, H, P), the transposed matrix
        power = torch.linalg.matrix_power(real(rows).transpose(0, 1), length)
        return lambda x: modes((real(x).double().transpose(0, 1) @ power).transpose(0, 1).contiguous())

    def _check_state(self, u: Tensor, state: S4State) -> None:
        shape = (u.shape[0], *self.taps.frequency.shape)
        check_state(state, S4State, u, shape, "(B, H, N/2)", COMPLEX, self.taps.C.shape[:-1])


def by_samples(length: int, state: S4State) -> bool:
    """Whether sample by sample is the faster way through a chunk of T samples; both ways are exact.

    Measured on a CPU core, in the time of a small step's call: T (1 + B H N / 2^17) for the samples against
    20 + 1.5 sqrt(T) + (7 + sqrt(T)) H N^2 / 2^17.5 for the blocks, whose matrices A_bar^S are N by N. On other devices
    the calls count alone. A compiled graph would have T steps one by one, so that it always takes the blocks.
    """
    if torch.compiler.is_compiling():
        return False
    batch, H, P = state.x.shape
    root, numbers = math.sqrt(length), 2 * H * P / 2**17 if state.x.device.type == "cpu" else 0.0
    return length * (1 + batch * numbers) <= 20 + 1.5 * root + (7 + root) * numbers * P * math.sqrt(2)


def advance(u: Tensor, state: S4State) -> tuple[Tensor, Tensor, Tensor]:
    """The filter of a chunk, what the state before it adds to its outputs, and the state after it.

    In Q blocks of S samples, S about the square root of T, with x the state before the chunk,

        k[q S + r] = (C A_bar^(q S)) (A_bar^r B_bar),    past[q S + r] = (C A_bar^(q S)) (A_bar^(r+1) x)
        x' = A_bar^T x + sum_q A_bar^((Q-1-q) S) w[q],    w[q] = sum_s A_bar^(S-1-s) B_bar u[q, s]

    where the blocks u[q] end with the chunk, the first of them filled up with zeros in front. A_bar^S, and what stands
    in brackets, are those of :mod:`longconv.ops.state_space_taps.torch_blocks`. Sums over samples are in the state's
    precision; powers, and the recurrence over blocks, in double precision.

    Args:
        u: (B, T, H) in the state's precision, T >= 1.
        state: the state before the chunk.

    Returns:
        k (C, H, T) float64, past (B, C, H, T), and x' (B, H, N/2).
    """
    x, system, C = state
    batch, length, H = u.shape
    size, count = square_blocks(length)
    ahead, still = [x], u.new_zeros(batch, H)
    for _ in range(size):
        ahead.append(state_space_step(ahead[-1], still, *system[:2], C, *system[2:])[0])
    first = length - (count - 1) * size
    tensors = [
        F.pad(u, (0, 0, count * size - length, 0)).permute(2, 0, 1).unflatten(2, (count, size)),  # (H, B, Q, S)
        real(torch.stack(ahead[1:], 1)).permute(2, 0, 1, 3),  # (H, B, S, N)
        real(ahead[first]).transpose(0, 1),  # (H, B, N)
    ]
    width = features_at_once(system.A)
    systems = zip(*(part.split(width, -2) for part in (system.A, system.B, 2 * C, *system[2:])), strict=True)
    chunks = zip(*(part.split(width) for part in tensors), strict=True)
    results = [_advance(length, *chunk, *part) for chunk, part in zip(chunks, systems, strict=True)]
    k, past, after = (torch.cat(parts) for parts in zip(*results, strict=True))
    after = after.transpose(0, 1).to(u.dtype)  # no view of the modes as reals: compiled graphs can't return those
    return k.transpose(0, 1), past.permute(2, 1, 0, 3), torch.complex(after[..., 0::2], after[..., 1::2])


def _advance(
    length: int, u: Tensor, ahead: Tensor, after: Tensor, A: Tensor, B: Tensor, C: Tensor, left: Tensor, right: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """For some features k (H, C, T), past (H, C, B, T) and x' (H, B, N), of :func:`advance`'s ``tensors``."""
    channels, batch = len(C), u.shape[1]
    blocks = blocks_of(A, B, C, left, right, length)
    rows, columns = blocks.all_rows(), blocks.columns()  # (H, C Q, N), (H, S, N)
    k = (rows @ columns.mT).unflatten(1, (channels, -1)).flatten(2)[..., :length]
    past = rows.to(u.dtype) @ ahead.flatten(1, 2).mT  # (H, C Q, B S)
    past = past.unflatten(2, (batch, -1)).unflatten(1, (channels, -1)).transpose(2, 3).flatten(3)[..., :length]
    inputs = (u.flatten(1, 2) @ columns.flip(1).to(u.dtype)).unflatten(1, u.shape[1:3]).to(B.real.dtype)  # (H, B, Q, N)
    after = after.to(B.real.dtype) + inputs[:, :, 0]
    for block in inputs[:, :, 1:].unbind(2):
        after = after @ blocks.block.mT + block
    return k, past, after

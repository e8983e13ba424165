"""S4."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from longconv._checks import COMPLEX, check_int, check_state
from longconv.filters import DPLRFilter
from longconv.filters.dplr import DPLR, dense, real_columns, real_rows
from longconv.mixers.base import ConvolutionMixer
from longconv.mixers.lssl import DenseState, advance


class StepSystem(NamedTuple):
    """The system of a step, in the precision of x; the real state of a feature is Re and Im of each mode in turn.

    Only the difference to the identity is rounded, so that slow modes keep their decay and frequency to full precision.
    """

    delta: Tensor
    """(H, 1, N/2) complex."""
    rows: Tensor
    """(H, R + C, N): x -> the feedback s, and y without the input's share."""
    columns: Tensor
    """(H, R + 1, N): s and the input -> x."""
    direct: Tensor
    """(H, C, 1): the input -> y, the skip with it."""


class S4State(NamedTuple):
    """State of an :class:`S4`; the system is set up once, in ``init_state``, and travels with it.

    x[t] = A_bar x[t-1] + B_bar u[t] and y[t] = 2 Re(C x[t]), with A_bar diagonal plus rank R: a step costs O(N R).
    """

    x: Tensor
    """(B, H, N/2) complex, after the last sample; in memory H comes first."""
    step: StepSystem
    system: DPLR
    """The same system in double precision, for chunks."""
    C: Tensor
    """(C, H, N/2) complex128."""


class S4(ConvolutionMixer):
    """Structured state space mixer: k[l] = C A_bar^l B_bar with A diagonal plus low rank, then GELU, Linear and GLU.

    Any length at any time; streams exactly with a state of N/2 complex numbers a feature, and a step in O(N R).

    Args:
        d_model: D.
        d_state: N, size of the real state of a feature; even.
        channels: C, filters a feature.
        bidirectional: whether an output depends on the future too; then it can't stream.
        init: measure of the system; any that :func:`longconv.filters.hippo.nplr` knows.
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
        activation: str | None = "gelu",
        output: str | None = "glu",
        dropout: float = 0.0,
        filter_lr: float | None = None,
    ) -> None:
        taps = DPLRFilter(
            d_model,
            check_int("channels", channels) * (1 + bidirectional),
            d_state,
            init=init,
            rank=rank,
            dt_min=dt_min,
            dt_max=dt_max,
            dt_tied=dt_tied,
            b_clip=b_clip,
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

    # --- sampling rates -----------------------------------------------------------------------------------------------

    def filter(self, length: int, *, rate: float = 1.0) -> Tensor:
        """The taps as in :meth:`ConvolutionMixer.filter`, with every dt multiplied by ``rate``."""
        check_int("length", length, least=0)
        with torch.autocast(self.D.device.type, enabled=False):
            return self.taps(length, rate=rate)

    def forward(self, u: Tensor, lengths: Tensor | None = None, *, rate: float = 1.0) -> Tensor:
        """Mix a whole sequence; see :meth:`Mixer.forward`.

        ``rate`` multiplies every dt: a model trained on one sampling rate serves data with half as many samples a unit
        of time by ``rate=2``, exactly.
        """
        self._check_input(u, lengths)
        return self._convolve(u, self.filter(max(u.shape[1], 1), rate=rate), lengths)

    def init_state(
        self,
        batch_size: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        rate: float = 1.0,
    ) -> S4State:
        """The state before the first sample, see :meth:`Mixer.init_state`, with every dt multiplied by ``rate``."""
        self._check_state_options(batch_size, dtype)
        return self._init_state(batch_size, device, dtype, rate)

    # --- streaming ----------------------------------------------------------------------------------------------------

    def streaming_refusal(self) -> str | None:
        """Only bidirectional filters can't stream."""
        return super().streaming_refusal() if self.bidirectional else None

    def _init_state(
        self, batch_size: int, device: torch.device | str | None, dtype: torch.dtype | None, rate: float = 1.0
    ) -> S4State:
        system, C = self.taps.discretised(rate)
        system, C = DPLR(*(part.to(device) for part in system)), C.to(device)
        double = (dtype or self.taps.C.dtype) == torch.float64
        precision = torch.complex128 if double else torch.complex64
        H, modes = system.delta.shape
        x = C.new_zeros(H, batch_size, modes, dtype=precision).transpose(0, 1)
        return S4State(x, step_system(system, C, self.D.to(device), precision), system, C)

    def _step(self, u_t: Tensor, state: S4State) -> tuple[Tensor, S4State]:
        self._check_state(u_t, state)
        if torch.is_autocast_enabled(u_t.device.type):
            with torch.autocast(u_t.device.type, enabled=False):
                y, x = advance_one(u_t, state)
        else:
            y, x = advance_one(u_t, state)
        return self._mix_features(y.permute(2, 1, 0).flatten(1).to(u_t.dtype)), state._replace(x=x)

    def _prefill(self, u: Tensor, state: S4State) -> tuple[Tensor, S4State]:
        self._check_state(u, state)
        if u.shape[1] == 0:
            return self._mix_features(u.repeat(1, 1, self.channels)), state
        x = real_columns(state.x.to(torch.complex128))
        with torch.autocast(u.device.type, enabled=False):
            y, x = advance(u.double(), DenseState(x, *dense(state.system), real_rows(state.C).transpose(0, 1)))
        y = y + self.D * u[:, :, None]
        x = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()).to(state.x.dtype)
        return self._mix_features(y.to(u.dtype).flatten(2)), state._replace(x=x)

    def _check_state(self, u: Tensor, state: S4State) -> None:
        shape = (u.shape[0], *self.taps.frequency.shape)
        check_state(state, S4State, u, shape, "(B, H, N/2)", COMPLEX)


def step_system(system: DPLR, C: Tensor, D: Tensor, precision: torch.dtype) -> StepSystem:
    """The matrices of a step: with s = Q x, y = C (x + delta x - W s + B u) + D u is a row on x plus a share of u."""
    real = torch.float64 if precision == torch.complex128 else torch.float32
    a = 1 + system.delta
    Q, W, c, B = real_rows(system.Q), real_columns(system.W), real_rows(C), real_columns(system.B)
    feedback = torch.einsum("chn,rhn->chr", c, W)
    readout = real_rows(C * a) - torch.einsum("chr,rhn->chn", feedback, Q)
    direct = torch.einsum("chn,hn->hc", c, B) + D.T
    return StepSystem(
        system.delta[:, None].to(precision),
        torch.cat([Q, readout]).transpose(0, 1).to(real).contiguous(),
        torch.cat([-W, B[None]]).transpose(0, 1).to(real).contiguous(),
        direct[..., None].to(real),
    )


def advance_one(u_t: Tensor, state: S4State) -> tuple[Tensor, Tensor]:
    """One sample u_t (B, H): its outputs (H, C, B) with the skip, and the modes after it (B, H, N/2)."""
    delta, rows, columns, direct = state.step
    x = state.x.transpose(0, 1)  # (H, B, N/2)
    rank = columns.shape[1] - 1
    u = u_t.to(rows.dtype).T[:, None]  # (H, 1, B)
    s, y = torch.bmm(rows, real_columns(x).mT).split([rank, rows.shape[1] - rank], 1)
    y = torch.addcmul(y, direct, u)
    x = real_columns(torch.addcmul(x, delta, x))
    x = x.baddbmm_(torch.cat([s, u], 1).mT, columns)
    return y, torch.view_as_complex(x.unflatten(-1, (-1, 2))).transpose(0, 1)

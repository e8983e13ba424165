"""Filters of state space systems with a diagonal plus low rank matrix (S4).

Shapes: C channels, H features, N state size of the real system, P = N/2 stored modes (one of each conjugate pair), R
rank, L taps.

References:
    Efficiently Modeling Long Sequences with Structured State Spaces (Gu, Goel, Ré, arXiv 2111.00396)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from longconv._checks import (
    COMPLEX,
    check_bool,
    check_choice,
    check_int,
    check_real,
    check_shape,
    check_tensor,
    check_values,
    has_values,
)
from longconv.filters import hippo
from longconv.filters.base import SampledFilter, initial_log_dt, parameter_dtype
from longconv.ops._library import conjugate
from longconv.ops.state_space_taps import state_space_taps
from longconv.ops.state_space_taps.reference import real
from longconv.ops.state_space_taps.torch_blocks import diagonal_matrix

REALS = (torch.float64, torch.float32)
B_CLIP = 2.0
"""Bound on |Im B| of the published initialisation."""
LEAST_DECAY = 1e-4
"""Least -Re Lambda of an initialisation, as published: the trained decay is an exponential."""
EXTRA_ROWS = 1e-2
"""Standard deviation of the rows of P beyond a measure's least rank: from zero they would have no gradient."""
GROWTH = 1e-6
"""By how much of 1 + |Lambda| rounding may carry Re Lambda = 0 above 0."""


# --- the filter -------------------------------------------------------------------------------------------------------


def dplr_filter(Lambda: Tensor, P: Tensor, B: Tensor, C: Tensor, dt: Tensor, length: int) -> Tensor:
    r"""Impulse response of x' = A x + B u, y = C x with A diagonal plus low rank, sampled by the bilinear rule.

        A = diag(Lambda) - P^T conj(P),    K[c, h, l] = C A_bar^l B_bar
        A_bar = (I - dt/2 A)^-1 (I + dt/2 A),    B_bar = (I - dt/2 A)^-1 dt B

    Every stored mode stands for a conjugate pair: in these equations Lambda, P, B and C are the stored ones followed by
    their conjugates, and K is real. C is that of the recurrence, whatever the length: the first taps of a longer filter
    are the shorter filter.

    The inverse is that of an R x R matrix a feature (Woodbury). A_bar is a contraction where Re Lambda <= 0, so that
    its powers lose nothing in double precision; see :func:`longconv.ops.state_space_taps`. Evaluating the truncated
    generating function C (I - A_bar^L) (z - dt A)^-1 dt B at the roots of unity instead needs the power A_bar^L and, on
    top of it, (1 + R) (C + R) sums of N L / 2 poles.

    Args:
        Lambda: (H, N/2) complex, Re Lambda <= 0; 1 / time.
        P: (R, H, N/2) complex.
        B: (H, N/2) complex.
        C: (C, H, N/2) complex; its precision is the filter's.
        dt: (H,), or (H, N/2) for a step a mode, diag(dt) A and diag(dt) B; positive; time a sample.
        length: L, number of taps.

    Returns:
        (C, H, L) real, with gradients to every tensor.

    Raises:
        ValueError, TypeError: a wrong shape or dtype; values that are NaN or infinite, an unstable Lambda, or a dt that
            isn't positive (looked at on the CPU outside ``torch.compile`` alone).

    References:
        Efficiently Modeling Long Sequences with Structured State Spaces (Gu, Goel, Ré, arXiv 2111.00396)

    >>> one = torch.ones(1, 1, 1, dtype=torch.complex64)
    >>> dplr_filter(-one[0], 0 * one, one[0], one / 2, torch.ones(1), 4)  # A_bar = 1/3, B_bar = 2/3
    tensor([[[0.6667, 0.2222, 0.0741, 0.0247]]])
    """
    check_int("length", length, least=0)
    check_system(Lambda, P, B, C, dt)
    A, B, left, right = discretise(Lambda, P, B, dt)
    return state_space_taps(A, B, 2 * C.to(torch.complex128), left, right, length).to(C.real.dtype)


def check_system(Lambda: Tensor, P: Tensor, B: Tensor, C: Tensor, dt: Tensor) -> None:
    """Raise an error unless these are the arguments of :func:`dplr_filter`."""
    check_tensor("Lambda", Lambda, "(H, N/2)", ndim=2, dtypes=COMPLEX)
    check_tensor("P", P, "(R, H, N/2)", ndim=3, dtypes=COMPLEX)
    check_tensor("B", B, "(H, N/2)", ndim=2, dtypes=COMPLEX)
    check_tensor("C", C, "(C, H, N/2)", ndim=3, dtypes=COMPLEX)
    check_tensor("dt", dt, "(H,) or (H, N/2)", ndim=(1, 2), dtypes=REALS)
    modes = tuple(C.shape[1:])
    check_shape("Lambda", Lambda, modes, "(H, N/2) of C")
    check_shape("P", P, (None, *modes), "(R, H, N/2) with the H and N/2 of C")
    check_shape("B", B, modes, "(H, N/2) of C")
    check_shape("dt", dt, modes[: dt.ndim], "(H,) of C" if dt.ndim == 1 else "(H, N/2) of C")
    for name, part in (("Lambda", Lambda), ("P", P), ("B", B), ("C", C)):
        check_values(name, part)
    check_values("dt", dt, positive=True)
    _check_stable(Lambda)


def _check_stable(Lambda: Tensor) -> None:
    if not has_values(Lambda):
        return
    growing = Lambda.detach().real > GROWTH * (1 + Lambda.detach().abs())
    if growing.any():
        h, n = growing.nonzero()[0].tolist()
        raise ValueError(
            f"Lambda[{h}, {n}] is {Lambda[h, n].item():g}, expected a real part <= 0: the system is unstable"
        )


# --- discretisation ---------------------------------------------------------------------------------------------------


class DPLR(NamedTuple):
    """A discretised system, complex128, of the stored modes x (P,) of every feature.

    A_bar x = A x + sum_r left[r] s[r] with the real numbers s[r] = Re sum_n right[r, n] x[n]: the conjugate half of the
    system is in that real part. It is what :func:`longconv.ops.state_space_step` and
    :func:`longconv.ops.state_space_taps` take.
    """

    A: Tensor
    """(H, P): the diagonal part of A_bar."""
    B: Tensor
    """(H, P): B_bar."""
    left: Tensor
    """(R, H, P)."""
    right: Tensor
    """(R, H, P)."""


def discretise(Lambda: Tensor, P: Tensor, B: Tensor, dt: Tensor) -> DPLR:
    r"""The bilinear rule for :func:`dplr_filter`'s arguments, by the Woodbury identity.

    With D = (1 - dt/2 Lambda)^-1, Q = 2 conj(P) D, U = D dt P and the real R x R matrix
    M[r, s] = Re sum_n Q[r, n] dt P[s, n], the inverse is

        (I - dt/2 A)^-1 y = D y - 1/2 sum_r W[r] Re(Q[r] y),    W = (I + M/2)^-T U

    and A_bar = 2 (I - dt/2 A)^-1 - I. M + M^T >= 0 where Re Lambda <= 0, so that I + M/2 is never singular.
    """
    wide = torch.complex128
    Lambda, P, B = Lambda.to(wide), P.to(wide), B.to(wide)
    step = (dt[:, None] if dt.ndim == 1 else dt).to(torch.float64)
    D = 1 / (1 - step * Lambda / 2)
    Q, U = 2 * conjugate(P) * D, D * step * P
    M = torch.einsum("rhn,shn->hrs", Q, step * P).real
    identity = torch.eye(P.shape[0], dtype=M.dtype, device=M.device)
    inverse = torch.linalg.inv(identity + M / 2)
    W = torch.einsum("hsr,shn->rhn", inverse.to(wide), U)
    driven = step * B
    s = torch.einsum("rhn,hn->rh", Q, driven).real
    return DPLR(1 + step * Lambda * D, D * driven - (W * s[..., None]).sum(0) / 2, -W, Q)


def real_rows(c: Tensor) -> Tensor:
    """The row (..., N), float64, whose product with the real state is Re sum_n c[..., n] x[n]."""
    return real(conjugate(c.to(torch.complex128)))


def dense(system: DPLR) -> tuple[Tensor, Tensor]:
    """A_bar (H, N, N) and B_bar (H, N) on the real state, float64."""
    low_rank = torch.einsum("rhn,rhm->hnm", real(system.left), real_rows(system.right))
    return diagonal_matrix(system.A) + low_rank, real(system.B)


# --- the module -------------------------------------------------------------------------------------------------------


class DPLRFilter(SampledFilter):
    """Trainable filter of a diagonal plus low rank system.

    Lambda = -exp(log_decay) + i frequency and dt = exp(log_dt), so that the system is stable; P, B and C are free.

    Args:
        d_model: H.
        channels: C.
        d_state: N, the size of the real state; N/2 modes are stored. Even.
        init: a measure with a normal plus low rank form; see :func:`longconv.filters.hippo.nplr`.
        init_options: the measure's own parameters, by name.
        rank: R, at least the measure's; the rows of P beyond that start small (normal, standard deviation 1e-2).
        dt_min, dt_max: dt starts log-uniform in [dt_min, dt_max].
        dt_tied: one dt a feature (H,); else one a mode (H, N/2).
        b_clip: bound on |Im B| at the start, where the first row of V is real; None keeps the measure's B. The
            published default, 2, changes the model: it is not exactly HiPPO.
        filter_lr: see :class:`~longconv.filters.Filter`.

    References:
        Efficiently Modeling Long Sequences with Structured State Spaces (Gu, Goel, Ré, arXiv 2111.00396)

    >>> taps = DPLRFilter(4, d_state=8)
    >>> taps(100).shape, taps(100, rate=0.5).shape
    (torch.Size([1, 4, 100]), torch.Size([1, 4, 100]))
    """

    filter_parameters = ("log_dt", "log_decay", "frequency", "P", "B", "C")

    def __init__(
        self,
        d_model: int,
        channels: int = 1,
        d_state: int = 64,
        *,
        init: str = "legs",
        rank: int = 1,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        dt_tied: bool = True,
        b_clip: float | None = B_CLIP,
        init_options: Mapping[str, float] | None = None,
        filter_lr: float | None = None,
    ) -> None:
        super().__init__(filter_lr)
        check_int("d_model", d_model)
        if check_int("d_state", d_state) % 2:
            raise ValueError(f"d_state is {d_state}, expected an even number: the modes are conjugate pairs")
        Lambda, P, B, _ = hippo.nplr(
            check_choice("init", init, hippo.NAMES), d_state, rank, **hippo.own_parameters(init_options)
        )
        if b_clip is not None:
            bound = check_real("b_clip", b_clip, least=0)
            B = torch.complex(B.real, B.imag.clamp(-bound, bound))
        modes = (d_model, d_state // 2)
        dtype = parameter_dtype()
        P = P[:, None].expand(-1, *modes).to(dtype.to_complex())
        free = (P == 0).all(-1, keepdim=True).all(-2, keepdim=True)
        P = torch.where(free, EXTRA_ROWS * torch.randn_like(P), P)
        steps = modes[:1] if check_bool("dt_tied", dt_tied) else modes
        self.log_dt = nn.Parameter(initial_log_dt(steps, dt_min, dt_max))
        self.log_decay = nn.Parameter(torch.log(-Lambda.real.clamp(max=-LEAST_DECAY)).to(dtype).repeat(d_model, 1))
        self.frequency = nn.Parameter(Lambda.imag.to(dtype).repeat(d_model, 1))
        self.P = nn.Parameter(torch.view_as_real(P).contiguous())
        self.B = nn.Parameter(torch.view_as_real(B.to(dtype.to_complex())).repeat(d_model, 1, 1))
        C = torch.randn(check_int("channels", channels), *modes, dtype=dtype.to_complex())
        self.C = nn.Parameter(torch.view_as_real(C))

    def continuous(self, rate: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Lambda, P, B, C and dt of :func:`dplr_filter`; Lambda and dt, times ``rate``, in double precision."""
        for name in ("log_decay", "frequency", "P", "B", "C"):
            check_values(name, getattr(self, name))
        Lambda = torch.complex(-self.log_decay.double().exp(), self.frequency.double())
        P, B, C = (torch.view_as_complex(part) for part in (self.P, self.B, self.C))
        return Lambda, P, B, C, self.steps(rate)

    def discretised(self, rate: float = 1.0) -> tuple[DPLR, Tensor]:
        """The discretised system, and C (C, H, N/2) in complex128."""
        Lambda, P, B, C, dt = self.continuous(rate)
        check_system(Lambda, P, B, C, dt)
        return discretise(Lambda, P, B, dt), C.to(torch.complex128)

    def forward(self, length: int, *, rate: float = 1.0) -> Tensor:
        """The first ``length`` taps, (C, H, length), with every dt multiplied by ``rate``.

        A model that was trained on one sampling rate serves data of another exactly: ``rate=2`` at half as many samples
        a unit of time.
        """
        return dplr_filter(*self.continuous(rate), length)

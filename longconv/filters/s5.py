"""Filters of diagonal state space systems with many inputs and outputs (S5).

Shapes: H inputs and outputs, N size of the real state, P modes that are stored, L taps.

References:
    Simplified State Space Layers for Sequence Modeling (Smith, Warrington, Linderman, arXiv 2208.04933)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from longconv._checks import check_bool, check_choice, check_int, check_values, has_values
from longconv.filters import hippo
from longconv.filters.base import SampledFilter, initial_log_dt, parameter_dtype
from longconv.filters.diagonal import discretise
from longconv.ops._library import square_blocks

DISCRETIZATIONS = ("zoh", "bilinear")
C_INITS = ("trunc_standard_normal", "lecun_normal", "complex_normal")
CLIP = -1e-4
"""The largest Re Lambda of a clipped system."""
ON_THE_CIRCLE = 1e-6
"""By how much rounding may carry |Lambda_bar| = 1 beyond 1."""


class S5Filter(SampledFilter):
    """Trainable diagonal state space system of H inputs and H outputs.

    k[c, h, l] = f Re sum_n C[c, n] Lambda_bar[n]^l B_bar[n, h], with f = 2 where a mode stands for a conjugate pair and
    1 otherwise. B and C start in the eigenbasis of the normal part of a HiPPO matrix (of ``blocks`` of them), B from
    numbers of variance 1/H, so that the scale of the states is that of the inputs at any width (published: 1/N).

    Args:
        d_model: H.
        d_state: N, the size of the real state.
        blocks: number of HiPPO matrices, each of N / blocks states, an even number; None: 8 where that can be, else 1.
        init: measure of these matrices; one with a form of :func:`longconv.filters.hippo.nplr`.
        C_init: what C starts from: complex numbers of variance 1/P ("trunc_standard_normal"), or 1/(P H)
            ("lecun_normal"), brought into that eigenbasis, or of variance 1 that are not ("complex_normal"); the names
            are the published ones, none is truncated here.
        discretization: "zoh" or "bilinear"; see :func:`longconv.filters.diagonal_filter`.
        conj_sym: store one mode of each conjugate pair, P = N/2; else all of them, P = N, with a C free to be anything.
        bidirectional: a C each for the past and for the future; both see the sample itself.
        clip: keep Re Lambda <= -1e-4, so that the system stays stable whatever it learns.
        dt_min, dt_max: dt of a mode starts log-uniform in [dt_min, dt_max].
        filter_lr: see :class:`~longconv.filters.Filter`.

    References:
        Simplified State Space Layers for Sequence Modeling (Smith, Warrington, Linderman, arXiv 2208.04933)

    >>> S5Filter(4, d_state=8)(100).shape
    torch.Size([4, 4, 100])
    """

    filter_parameters = ("Lambda", "B", "C", "log_dt")

    def __init__(
        self,
        d_model: int,
        d_state: int = 256,
        *,
        blocks: int | None = None,
        init: str = "legs",
        C_init: str = "trunc_standard_normal",
        discretization: str = "zoh",
        conj_sym: bool = True,
        bidirectional: bool = False,
        clip: bool = False,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        filter_lr: float | None = None,
    ) -> None:
        super().__init__(filter_lr)
        self.discretization = check_choice("discretization", discretization, DISCRETIZATIONS)
        self.conj_sym, self.clip = check_bool("conj_sym", conj_sym), check_bool("clip", clip)
        self.bidirectional = check_bool("bidirectional", bidirectional)
        Lambda, V = eigenbasis(init, d_state, blocks)
        if not conj_sym:
            Lambda, V = torch.cat([Lambda, Lambda.conj()]), torch.cat([V, V.conj()], -1)
        H, P = check_int("d_model", d_model), len(Lambda)
        B = V.mH @ torch.randn(d_state, H, dtype=torch.float64).to(V.dtype) / math.sqrt(H)
        if check_choice("C_init", C_init, C_INITS) == "complex_normal":
            C = torch.randn(1 + bidirectional, H, P, dtype=V.dtype)
        else:
            fan_in = P if C_init == "trunc_standard_normal" else P * H
            C = torch.randn(1 + bidirectional, H, d_state, dtype=V.dtype) @ V / math.sqrt(fan_in)
        self.Lambda = stored(Lambda)
        self.B = stored(B)
        self.C = stored(C.transpose(0, 1).flatten(1))
        self.log_dt = nn.Parameter(initial_log_dt([P], dt_min, dt_max))

    @property
    def factor(self) -> int:
        """How many modes of the real system a stored mode stands for."""
        return 2 if self.conj_sym else 1

    def discretised(self, rate: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """Lambda_bar (P,), B_bar (P, H), C (H, P) or, bidirectional, (H, 2P), past first; complex128."""
        log_Lambda_bar, B_bar, C = self._logarithmic(rate)
        return log_Lambda_bar.exp(), B_bar, C

    def require_stable(self, Lambda_bar: Tensor) -> None:
        """Raise a ValueError that names the first Lambda whose mode Lambda_bar grows: such a stream overflows."""
        require_stable(self.Lambda, Lambda_bar)

    def _logarithmic(self, rate: float) -> tuple[Tensor, Tensor, Tensor]:
        Lambda, B, C = (torch.view_as_complex(part.double()) for part in (self.Lambda, self.B, self.C))
        for name, part in (("Lambda", Lambda), ("B", B), ("C", C)):
            check_values(name, part)
        if self.clip:
            Lambda = torch.complex(Lambda.real.clamp(max=CLIP), Lambda.imag)
        dt = self.steps(rate)[None]
        log_Lambda_bar, scale = discretise(Lambda, torch.ones_like(Lambda), dt, self.discretization, 1)
        return log_Lambda_bar[0], scale[0, :, None] * B, C

    def forward(self, length: int, *, rate: float = 1.0) -> Tensor:
        """The first ``length`` taps from every input to every output: (H, H, length), outputs first.

        Bidirectional (2H, H, length): the filters of the past, the sample itself with both its weights among it, then
        those of the future, from lag 1 on.
        """
        log_Lambda_bar, B_bar, C = self._logarithmic(rate)
        if not self.bidirectional:
            return self._taps(log_Lambda_bar, B_bar, C, length)
        past, future = (self._taps(log_Lambda_bar, B_bar, part, length + 1) for part in C.chunk(2, dim=1))
        here = past[..., :1] + future[..., :1]
        return torch.cat([torch.cat([here, past[..., 1:length]], -1)[..., :length], future[..., 1:]])

    def _taps(self, log_Lambda_bar: Tensor, B_bar: Tensor, C: Tensor, length: int) -> Tensor:
        """F Re sum_n C[c, n] Lambda_bar[n]^l B_bar[n, h] as one real product, (H, H, length).

        With l = q T + r it is that of the rows C Lambda_bar^(qT) (H Q, 2P) with the columns Lambda_bar^r B_bar
        (2P, T H), T about the square root of the length: no more than the taps themselves are held.
        """
        size = square_blocks(length)[0]
        count, dtype = -(-length // size), self.log_dt.dtype

        def powers(step: int, count: int) -> Tensor:
            l = step * torch.arange(count, dtype=torch.float64, device=C.device)
            return torch.exp(l[:, None] * log_Lambda_bar)

        rows = C[:, None] * powers(size, count)  # (c, q, n)
        columns = powers(1, size)[:, None] * B_bar.mT  # (r, h, n)
        left = torch.cat([rows.real, -rows.imag], -1).to(dtype).flatten(0, 1)
        right = torch.cat([columns.real, columns.imag], -1).to(dtype).flatten(0, 1)
        k = (left @ (self.factor * right).mT).reshape(C.shape[0], count, size, B_bar.shape[1])
        k = k.permute(0, 3, 1, 2).flatten(2)[..., :length]
        check_values("the filter", k, because="Lambda has a real part > 0, the system is unstable: clip=True bounds it")
        return k


def require_stable(Lambda: Tensor, Lambda_bar: Tensor) -> None:
    """Raise a ValueError that names the first of Lambda (P, 2) whose mode Lambda_bar (P,) grows."""
    if not has_values(Lambda_bar):
        return
    growing = Lambda_bar.detach().abs() > 1 + ON_THE_CIRCLE
    if growing.any():
        n = int(growing.nonzero()[0])
        raise ValueError(
            f"Lambda[{n}] is {torch.view_as_complex(Lambda)[n].item():g}, expected a real part <= 0: the "
            f"system is unstable, |Lambda_bar[{n}]| = {Lambda_bar[n].abs().item():.6g} > 1; clip=True bounds it"
        )


def stored(value: Tensor) -> nn.Parameter:
    """A complex tensor as a parameter with a last axis of real and imaginary part."""
    return nn.Parameter(torch.view_as_real(value.to(parameter_dtype().to_complex()).resolve_conj()).contiguous())


def eigenbasis(init: str, d_state: int, blocks: int | None) -> tuple[Tensor, Tensor]:
    """Lambda (N/2,) and V (N, N/2) of HiPPO matrices along the diagonal, a mode of each conjugate pair."""
    N = check_int("d_state", d_state)
    if blocks is None:
        blocks = 8 if N % 16 == 0 else 1
    if N % (2 * check_int("blocks", blocks)):
        raise ValueError(f"d_state is {N}, expected a multiple of 2 blocks = {2 * blocks}: a block has pairs of modes")
    Lambda, _, _, V = hippo.nplr(check_choice("init", init, hippo.NAMES), N // blocks, rank=2)
    return Lambda.repeat(blocks), torch.block_diag(*[V] * blocks)

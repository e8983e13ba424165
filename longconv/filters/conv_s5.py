"""The state space system of ConvS5, whose inputs and outputs are convolutions over a frame.

Shapes: U features of a frame, N size of the real state of a pixel, P = N/2 modes that are stored, k kernel size.

References:
    Convolutional State Space Models for Long-Range Spatiotemporal Modeling (Smith, De Mello, Kautz, Linderman, Byeon),
    arXiv:2310.19694.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from longconv._checks import check_bool, check_choice, check_int, check_real, check_values
from longconv.filters.base import WideModule, initial_log_dt
from longconv.filters.diagonal import discretise
from longconv.filters.s5 import CLIP, DISCRETIZATIONS, eigenbasis, require_stable, stored


class ConvS5System(WideModule):
    r"""Trainable diagonal state space system between frames.

    A pixel has a state of N real numbers, in P = N/2 modes that each stand for a conjugate pair. The continuous system
    x' = Lambda x + B * u, y = 2 Re(C * x), with * a convolution over the frame, is discretised mode by mode: zoh has

        Lambda_bar = exp(Lambda dt),    B_bar = (Lambda_bar - 1) / Lambda B

    with dt = exp(log_dt). Lambda starts as the eigenvalues of the normal part of a HiPPO matrix (``blocks`` of them), B
    and C, in its eigenbasis, as real numbers of variance 2 / (U k^2) and 2 / (N k^2).

    Args:
        d_model: U.
        d_state: N, even.
        blocks: number of HiPPO matrices, each of N / blocks states, an even number.
        b_kernel: k of B, odd.
        c_kernel: k of C, odd.
        init: measure of the HiPPO matrices.
        discretization: "zoh" or "bilinear".
        clip: keep Re Lambda <= -1e-4, so that the system stays stable whatever it learns.
        dt_min, dt_max: dt of a mode starts log-uniform in [dt_min, dt_max].
        filter_lr: learning rate of the system's parameters; None takes the optimiser's.

    Attributes:
        filter_parameters: names of the parameters that take ``filter_lr`` and no weight decay.

    >>> [tuple(part.shape) for part in ConvS5System(4, d_state=16).discretised()]
    [(8,), (8, 4, 3, 3), (4, 8, 3, 3)]
    """

    filter_parameters = ("Lambda", "B", "C", "log_dt")

    def __init__(
        self,
        d_model: int,
        d_state: int = 256,
        *,
        blocks: int = 1,
        b_kernel: int = 3,
        c_kernel: int = 3,
        init: str = "legs",
        discretization: str = "zoh",
        clip: bool = True,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        filter_lr: float | None = None,
    ) -> None:
        super().__init__()
        self.filter_lr = None if filter_lr is None else check_real("filter_lr", filter_lr, least=0)
        self.discretization = check_choice("discretization", discretization, DISCRETIZATIONS)
        self.clip = check_bool("clip", clip)
        U = check_int("d_model", d_model)
        b, c = check_kernel("b_kernel", b_kernel), check_kernel("c_kernel", c_kernel)
        Lambda, V = eigenbasis(init, d_state, check_int("blocks", blocks))
        P = len(Lambda)
        B = torch.einsum("np,nuij->puij", V.conj(), _normal(d_state, U, b, b, like=V)) * math.sqrt(2 / (U * b * b))
        C = torch.einsum("unij,np->upij", _normal(U, d_state, c, c, like=V), V) * math.sqrt(2 / (d_state * c * c))
        self.Lambda, self.B, self.C = stored(Lambda), stored(B), stored(C)
        self.log_dt = nn.Parameter(initial_log_dt([P], dt_min, dt_max))

    def discretised(self, rate: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """Lambda_bar (P,), B_bar (P, U, k, k), C (U, P, k, k); complex128, with every dt multiplied by ``rate``."""
        rate = check_real("rate", rate, least=0, open_least=True)
        Lambda, B, C = (torch.view_as_complex(part.double()) for part in (self.Lambda, self.B, self.C))
        for name, part in (("Lambda", Lambda), ("B", B), ("C", C), ("log_dt", self.log_dt)):
            check_values(name, part)
        if self.clip:
            Lambda = torch.complex(Lambda.real.clamp(max=CLIP), Lambda.imag)
        dt = rate * self.log_dt.double().exp()
        check_values("dt", dt, positive=True, because="it is rate exp(log_dt)")
        log_Lambda_bar, scale = discretise(Lambda, torch.ones_like(Lambda), dt[None], self.discretization, 1)
        return log_Lambda_bar[0].exp(), scale[0, :, None, None, None] * B, C

    def require_stable(self, Lambda_bar: Tensor) -> None:
        """Raise a ValueError that names the first Lambda whose mode Lambda_bar grows: such a stream overflows."""
        require_stable(self.Lambda, Lambda_bar)


def check_kernel(name: str, size: object) -> int:
    """Return a kernel size if it is an odd integer, so that a kernel has a centre."""
    number = check_int(name, size)
    if number % 2 == 0:
        raise ValueError(f"{name} is {number}, expected an odd number: a kernel is centred on its pixel")
    return number


def _normal(*shape: int, like: Tensor) -> Tensor:
    """Real normal numbers in a complex dtype."""
    return torch.randn(*shape, dtype=like.real.dtype).to(like.dtype)

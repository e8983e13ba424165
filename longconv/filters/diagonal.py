"""Filters of diagonal state space systems (S4D, DSS).

References:
    On the Parameterization and Initialization of Diagonal State Space Models (Gu, Gupta, Goel, Ré, arXiv 2206.11893)
    Diagonal State Spaces are as Effective as Structured State Spaces (Gupta, Gu, Berant, arXiv 2203.14343)
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from longconv._checks import (
    COMPLEX,
    check_bool,
    check_choice,
    check_device,
    check_int,
    check_tensor,
    check_values,
    describe,
)
from longconv.filters import hippo
from longconv.filters.base import SampledFilter, initial_log_dt, parameter_dtype
from longconv.ops import vandermonde_log
from longconv.ops._library import conjugate

DISCRETIZATIONS = ("zoh", "bilinear", "dss")
REALS = (torch.float64, torch.float32)
B_CLIP = 2.0
"""Bound on |Im B| of the published legs initialisation."""


# --- the filter -------------------------------------------------------------------------------------------------------


def diagonal_filter(
    Lambda: Tensor,
    B: Tensor,
    C: Tensor,
    dt: Tensor,
    length: int,
    discretization: str = "zoh",
    *,
    l_max: int | None = None,
) -> Tensor:
    r"""Impulse response of x' = Lambda x + B u, y = 2 Re(C x), sampled with step dt.

    K[c, h, l] = 2 Re sum_n C[c, h, n] B_bar[h, n] A_bar[h, n]^l, with z = dt Lambda and

    ========  ==========================  ==========================================================
    name      A_bar                       B_bar
    ========  ==========================  ==========================================================
    zoh       exp(z)                      B (exp(z) - 1) / Lambda
    bilinear  (1 + z/2) / (1 - z/2)       B dt / (1 - z/2)
    dss       exp(z)                      B (exp(z) - 1) r(Lambda (exp(z l_max) - 1)) / 2
    ========  ==========================  ==========================================================

    where r(x) = conj(x) / (|x|^2 + 1e-7). Each stored mode stands for a conjugate pair (the factor 2), save in dss,
    whose filter is the real part alone (the 1/2 cancels the factor). The powers are formed in double precision.

    Args:
        Lambda: (H, N/2) complex, or anything that broadcasts to it; 1 / time.
        B: (H, N/2) complex, or anything that broadcasts to it.
        C: (C, H, N/2) complex; its precision is the filter's.
        dt: (H,), or (H, N/2) for a step a mode; time a sample.
        length: L, number of taps.
        discretization: "zoh", "bilinear" or "dss".
        l_max: length of the softmax normaliser of "dss"; None takes ``length``.

    Returns:
        (C, H, L) real.

    Raises:
        TypeError: an argument is not a tensor or has a wrong dtype, or an integer is none.
        ValueError: a wrong shape, device or discretization; values that are not finite, a dt that is not positive, or a
            filter that overflows because Re Lambda > 0 (looked at on the CPU outside ``torch.compile`` alone).

    References:
        On the Parameterization and Initialization of Diagonal State Space Models (Gu, Gupta, Goel, Ré,
        arXiv 2206.11893)

    >>> Lambda = torch.tensor([[-1.0 + 0j]])
    >>> one = torch.ones(1, 1, 1, dtype=torch.complex64)
    >>> diagonal_filter(Lambda, one[0], one, torch.tensor([0.5]), 3).squeeze()  # 2 (1 - e^-.5) e^(-.5 l)
    tensor([0.7869, 0.4773, 0.2895])
    """
    check_choice("discretization", discretization, DISCRETIZATIONS)
    check_int("length", length, least=0)
    _check_system(Lambda, B, C, dt)
    normalised = max(length, 1) if l_max is None else check_int("l_max", l_max)
    log_A_bar, B_bar = discretise(Lambda, B, dt, discretization, normalised)
    k = vandermonde_log((2 * C * B_bar).to(C.dtype), log_A_bar, length, real=True)
    check_values("the filter", k, because="Lambda has a real part > 0, the system is unstable")
    return k


def _check_system(Lambda: Tensor, B: Tensor, C: Tensor, dt: Tensor) -> None:
    check_tensor("Lambda", Lambda, "(H, N/2)", ndim=(1, 2), dtypes=COMPLEX)
    check_tensor("B", B, "(H, N/2)", ndim=(1, 2), dtypes=COMPLEX)
    check_tensor("C", C, "(C, H, N/2)", ndim=3, dtypes=COMPLEX)
    check_tensor("dt", dt, "(H,) or (H, N/2)", ndim=(1, 2), dtypes=REALS)
    modes = C.shape[1:]
    for name, part, shape in [
        ("Lambda", Lambda, Lambda.shape),
        ("B", B, B.shape),
        ("dt", dt, dt.shape if dt.ndim == 2 else (*dt.shape, 1)),
    ]:
        sizes = (1,) * (2 - len(shape)) + tuple(shape)
        if any(size not in (1, mode) for size, mode in zip(sizes, modes, strict=True)):
            raise ValueError(f"{name} is {describe(part)}, expected to broadcast to (H, N/2) = {tuple(modes)} of C")
        check_device(name, part, "C", C)
        check_values(name, part, positive=name == "dt")
    check_values("C", C)


def discretise(Lambda: Tensor, B: Tensor, dt: Tensor, discretization: str, l_max: int) -> tuple[Tensor, Tensor]:
    """The logarithm of A_bar, and B_bar, of :func:`diagonal_filter`'s table, (H, N/2) complex128."""
    step = (dt[:, None] if dt.ndim == 1 else dt).to(torch.float64)
    Lambda, B = Lambda.to(torch.complex128), B.to(torch.complex128)
    z = step * Lambda
    if discretization == "zoh":
        return z, B * step * phi(z)
    if discretization == "bilinear":
        half = torch.where(z == -2, -1 + 2**-52, z / 2)  # A_bar = 0 has no logarithm
        return 2 * torch.atanh(half), B * step / (1 - half)
    return z, B * softmax_scale(Lambda, z, l_max) / 2


def softmax_scale(Lambda: Tensor, z: Tensor, l_max: int) -> Tensor:
    """(exp(z) - 1) r(Lambda (exp(z l_max) - 1)) with r(x) = conj(x) / (|x|^2 + 1e-7), the normaliser of DSS."""
    normaliser = Lambda * expm1(z * l_max)
    return expm1(z) * conjugate(normaliser) / (normaliser.abs().square() + 1e-7)


def expm1(z: Tensor) -> Tensor:
    """exp(z) - 1 for complex z without cancellation."""
    real = torch.expm1(z.real) * torch.cos(z.imag) - 2 * torch.sin(z.imag / 2).square()
    return torch.complex(real, torch.exp(z.real) * torch.sin(z.imag))


def phi(z: Tensor) -> Tensor:
    """(exp(z) - 1) / z, 1 at z = 0."""
    small = z.abs() < 1e-3
    divisor = torch.where(small, 1, z)
    series = 1 + z / 2 * (1 + z / 3 * (1 + z / 4 * (1 + z / 5 * (1 + z / 6))))
    return torch.where(small, series, expm1(divisor) / divisor)


# --- initialisation ---------------------------------------------------------------------------------------------------


def _legs(n: Tensor, N: int) -> tuple[Tensor, Tensor]:
    Lambda, _, B, _ = hippo.nplr("legs", N)
    B = torch.complex(B.real, B.imag.clamp(-B_CLIP, B_CLIP))
    return Lambda.expand(n.shape), B.expand(n.shape)


def _with_frequency(frequency: Callable[[Tensor, int], Tensor]) -> Callable[[Tensor, int], tuple[Tensor, Tensor]]:
    def init(n: Tensor, N: int) -> tuple[Tensor, Tensor]:
        Lambda = torch.complex(torch.full_like(n, -0.5), -frequency(n, N))
        return Lambda, torch.ones_like(Lambda)

    return init


def _real(n: Tensor, N: int) -> tuple[Tensor, Tensor]:
    Lambda = torch.complex(-(n + 1), torch.zeros_like(n))
    return Lambda, torch.ones_like(Lambda)


INITS: dict[str, Callable[[Tensor, int], tuple[Tensor, Tensor]]] = {
    "legs": _legs,
    "lin": _with_frequency(lambda n, N: math.pi * n),
    "inv": _with_frequency(lambda n, N: N / math.pi * (N / (2 * n + 1) - 1)),
    "inv2": _with_frequency(lambda n, N: N / math.pi * (N / (n + 1) - 1)),
    "quad": _with_frequency(lambda n, N: (2 * n + 1) ** 2 / math.pi),
    "rand": _with_frequency(lambda n, N: torch.exp(torch.randn_like(n))),
    "real": _real,
}
"""Mode numbers n (H, N/2) and N -> Lambda, B (H, N/2); a new initialisation is one row."""


def diagonal_init(init: str, d_model: int, d_state: int) -> tuple[Tensor, Tensor]:
    """Lambda and B of a named initialisation.

    For n = 0 .. N/2 - 1, with Re Lambda = -1/2 and B = 1 where nothing else is said:

    ======  ==========================================================================================================
    lin     Im Lambda = -pi n
    inv     Im Lambda = -N/pi (N / (2n + 1) - 1)
    inv2    Im Lambda = -N/pi (N / (n + 1) - 1)
    quad    Im Lambda = -(2n + 1)^2 / pi
    rand    Im Lambda = -exp(a standard normal number)
    legs    Lambda and B of :func:`longconv.filters.hippo.nplr`, Im B clipped to [-2, 2]
    real    Lambda = -(n + 1)
    ======  ==========================================================================================================

    Args:
        init: one of :data:`INITS`.
        d_model: H.
        d_state: N, even.

    Returns:
        Lambda, B: (H, N/2) complex128.

    >>> diagonal_init("lin", 1, 4)[0].imag.tolist()
    [[-0.0, -3.141592653589793]]
    """
    check_choice("init", init, tuple(INITS))
    check_int("d_model", d_model)
    if check_int("d_state", d_state) % 2:
        raise ValueError(f"d_state is {d_state}, expected an even number: the modes are conjugate pairs")
    n = torch.arange(d_state // 2, dtype=torch.float64).expand(d_model, -1)
    return INITS[init](n, d_state)


# --- the module -------------------------------------------------------------------------------------------------------


class ModalFilter(SampledFilter):
    """A filter of N/2 modes a feature: k[c, h, l] = 2 Re sum_n C[c, h, n] B_bar[h, n] A_bar[h, n]^l.

    Attributes:
        modes: (H, N/2).
        wide: whether the numbers of the system may leave the range of single precision.
    """

    modes: tuple[int, int]
    wide = False

    @abstractmethod
    def discretised(self, rate: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """A_bar, B_bar (H, N/2) and C (C, H, N/2), complex128: x[t] = A_bar x[t-1] + B_bar u[t], y = 2 Re(C x)."""


class DiagonalFilter(ModalFilter):
    """Trainable diagonal state space filter.

    Lambda = -exp(log_decay) + i frequency and dt = exp(log_dt), so that every mode decays.

    Args:
        d_model: H.
        channels: C.
        d_state: N, the size of the real state; N/2 modes are stored. Even.
        init: one of :data:`INITS`.
        discretization: "zoh", "bilinear" or "dss".
        dt_min, dt_max: dt starts log-uniform in [dt_min, dt_max].
        dt_tied: one dt a feature (H,); else one a mode (H, N/2).
        l_max: length of the normaliser of "dss"; the others ignore it.
        filter_lr: see :class:`Filter`.

    References:
        On the Parameterization and Initialization of Diagonal State Space Models (Gu, Gupta, Goel, Ré,
        arXiv 2206.11893)

    >>> DiagonalFilter(4, d_state=8)(100).shape
    torch.Size([1, 4, 100])
    """

    filter_parameters = ("log_dt", "log_decay", "frequency", "B", "C")

    def __init__(
        self,
        d_model: int,
        channels: int = 1,
        d_state: int = 64,
        *,
        init: str = "lin",
        discretization: str = "zoh",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        dt_tied: bool = True,
        l_max: int = 1024,
        filter_lr: float | None = None,
    ) -> None:
        super().__init__(filter_lr)
        Lambda, B = diagonal_init(init, d_model, d_state)
        self.discretization = check_choice("discretization", discretization, DISCRETIZATIONS)
        self.l_max = check_int("l_max", l_max)
        self.modes = (d_model, d_state // 2)
        steps = self.modes[:1] if check_bool("dt_tied", dt_tied) else self.modes
        self.log_dt = nn.Parameter(initial_log_dt(steps, dt_min, dt_max))
        dtype = parameter_dtype()
        self.log_decay = nn.Parameter(torch.log(-Lambda.real).to(dtype))
        self.frequency = nn.Parameter(Lambda.imag.to(dtype))
        self.B = nn.Parameter(torch.view_as_real(B.to(dtype.to_complex())).contiguous())
        C = torch.randn(check_int("channels", channels), *self.modes, dtype=dtype.to_complex())
        self.C = nn.Parameter(torch.view_as_real(C))

    def continuous(self, rate: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Lambda (H, N/2) and dt (H,) or (H, N/2) in double precision; B (H, N/2), C (C, H, N/2) in the parameters'."""
        Lambda = torch.complex(-self.log_decay.double().exp(), self.frequency.double())
        return Lambda, torch.view_as_complex(self.B), torch.view_as_complex(self.C), self.steps(rate)

    def discretised(self, rate: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """A_bar, B_bar (H, N/2) and C (C, H, N/2), complex128: x[t] = A_bar x[t-1] + B_bar u[t], y = 2 Re(C x)."""
        Lambda, B, C, dt = self.continuous(rate)
        _check_system(Lambda, B, C, dt)
        log_A_bar, B_bar = discretise(Lambda, B, dt, self.discretization, self.l_max)
        return log_A_bar.exp(), B_bar, C.to(torch.complex128)

    def forward(self, length: int, *, rate: float = 1.0) -> Tensor:
        """The first ``length`` taps, (C, H, length), with every dt multiplied by ``rate``."""
        Lambda, B, C, dt = self.continuous(rate)
        return diagonal_filter(Lambda, B, C, dt, length, self.discretization, l_max=self.l_max)

"""Filters of dense state space systems (LSSL).

Shapes: H features, M channels a feature, N state size, L taps.

References:
    Combining Recurrent, Convolutional, and Continuous-time Models with Linear State-Space Layers (Gu, Johnson, Goel,
    Saab, Dao, Rudra, Ré, arXiv 2110.13985)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

import torch
from torch import Tensor, nn

from longconv._checks import (
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
from longconv.ops.dense_taps import dense_taps

REALS = (torch.float64, torch.float32)
ON_THE_CIRCLE = 1e-6
"""By how much rounding may carry |A_bar| = 1 beyond 1."""


# --- the filter -------------------------------------------------------------------------------------------------------


def dense_filter(A: Tensor, B: Tensor, C: Tensor, dt: Tensor, length: int, alpha: float = 0.5) -> Tensor:
    r"""Impulse response of x' = A x + B u, y = C x, sampled with step dt by the generalised bilinear rule.

        K[h, m, l] = C[h, m] A_bar[h]^l B_bar[h]
        A_bar[h] = (I - alpha dt[h] A)^-1 (I + (1 - alpha) dt[h] A),    B_bar[h] = (I - alpha dt[h] A)^-1 dt[h] B

    alpha = 0 is the forward Euler rule, 1/2 the bilinear one, 1 the backward Euler rule. The powers come from repeated
    squaring of A_bar, see :func:`longconv.ops.dense_taps`; all of it is done in double precision.

    Args:
        A: (N, N) real; 1 / time.
        B: (N,) real.
        C: (H, M, N) real; its precision is the filter's.
        dt: (H,) real, positive; time a sample.
        length: L, number of taps.
        alpha: weight of the new sample's derivative, in [0, 1].

    Returns:
        (H, M, L) real, with gradients to A, B, C and dt.

    Raises:
        ValueError, TypeError: a wrong shape, dtype or alpha; values that are NaN or infinite, a dt that isn't positive
            (looked at on the CPU outside ``torch.compile`` alone), or a filter that overflows because |A_bar| > 1.

    References:
        Combining Recurrent, Convolutional, and Continuous-time Models with Linear State-Space Layers (Gu, Johnson,
        Goel, Saab, Dao, Rudra, Ré, arXiv 2110.13985)

    >>> one = torch.ones(1)
    >>> dense_filter(-one[:, None], one, one[:, None, None], one / 2, 4)  # A_bar = 3/5, B_bar = 2/5
    tensor([[[0.4000, 0.2400, 0.1440, 0.0864]]])
    """
    check_int("length", length, least=0)
    _check_system(A, B, C, dt)
    A_bar, B_bar = discretise(A, B, dt, alpha)
    k = dense_taps(A_bar, B_bar, C.double(), length)
    check_values("the filter", k, because="A_bar is unstable: lower dt, or raise alpha to 0.5 or more")
    return k.to(C.dtype)


def _check_system(A: Tensor, B: Tensor, C: Tensor, dt: Tensor) -> None:
    check_tensor("A", A, "(N, N)", ndim=2, dtypes=REALS)
    check_tensor("B", B, "(N,)", ndim=1, dtypes=REALS)
    check_tensor("C", C, "(H, M, N)", ndim=3, dtypes=REALS)
    check_tensor("dt", dt, "(H,)", ndim=1, dtypes=REALS)
    H, _, N = C.shape
    check_shape("A", A, (N, N), "(N, N) with the N of C")
    check_shape("B", B, (N,), "(N,) with the N of C")
    check_shape("dt", dt, (H,), "(H,) with the H of C")
    for name, part in (("A", A), ("B", B), ("C", C)):
        check_values(name, part)
    check_values("dt", dt, positive=True)


def discretise(A: Tensor, B: Tensor, dt: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """A_bar (H, N, N) and B_bar (H, N) of :func:`dense_filter`, in double precision."""
    alpha = check_real("alpha", alpha, least=0, most=1)
    A, B, step = A.double(), B.double(), dt.double()[:, None, None]
    identity = torch.eye(A.shape[0], dtype=A.dtype, device=A.device)
    known = torch.cat([identity + (1 - alpha) * step * A, step * B[:, None]], -1)
    solution, info = torch.linalg.solve_ex(identity - alpha * step * A, known)
    if has_values(info):
        cause = f"I - alpha dt A is singular with alpha = {alpha:g}: A has the eigenvalue 1 / (alpha dt)"
        check_values("A_bar", torch.where(info == 0, 0.0, torch.inf), because=cause)
    A_bar, B_bar = solution.split([A.shape[0], 1], -1)
    return A_bar, B_bar[..., 0]


# --- the module -------------------------------------------------------------------------------------------------------


class DenseFilter(SampledFilter):
    """Filter of a dense state space system that all features share up to their steps dt = exp(log_dt).

    Args:
        d_model: H.
        channels: M.
        d_state: N.
        init: measure of A and B; see :func:`longconv.filters.hippo.transition`.
        init_options: the measure's own parameters, by name.
        alpha: see :func:`dense_filter`.
        dt_min, dt_max: dt is log-uniform in [dt_min, dt_max].
        trainable_A: whether A and B are trained; else they stay those of the measure, and in double precision whatever
            dtype the module is cast to.
        trainable_dt: whether dt is trained.
        filter_lr: see :class:`~longconv.filters.Filter`.

    Raises:
        ValueError: a bad option, or a system that is unstable with these dt and alpha.

    References:
        Combining Recurrent, Convolutional, and Continuous-time Models with Linear State-Space Layers (Gu, Johnson,
        Goel, Saab, Dao, Rudra, Ré, arXiv 2110.13985)

    >>> DenseFilter(4, channels=2, d_state=8)(100).shape
    torch.Size([2, 4, 100])
    """

    filter_parameters = ("A", "B", "C", "log_dt")
    A: Tensor
    B: Tensor

    def __init__(
        self,
        d_model: int,
        channels: int = 1,
        d_state: int = 64,
        *,
        init: str = "legs",
        alpha: float = 0.5,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        init_options: Mapping[str, float] | None = None,
        trainable_A: bool = False,
        trainable_dt: bool = True,
        filter_lr: float | None = None,
    ) -> None:
        super().__init__(filter_lr)
        A, B = hippo.transition(
            check_choice("init", init, hippo.NAMES), check_int("d_state", d_state), **hippo.own_parameters(init_options)
        )
        self.alpha = check_real("alpha", alpha, least=0, most=1)
        log_dt = initial_log_dt([check_int("d_model", d_model)], dt_min, dt_max)
        require_stable(A, torch.tensor([dt_min, dt_max], dtype=A.dtype), self.alpha)
        self._keep("A", A, check_bool("trainable_A", trainable_A))
        self._keep("B", B, trainable_A)
        self._keep("log_dt", log_dt, check_bool("trainable_dt", trainable_dt))
        sizes = d_model, check_int("channels", channels), d_state
        self.C = nn.Parameter(torch.randn(sizes, dtype=parameter_dtype()))

    def _keep(self, name: str, value: Tensor, trainable: bool) -> None:
        if trainable:
            setattr(self, name, nn.Parameter(value.to(parameter_dtype())))
        else:
            self.register_buffer(name, value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        fixed = [id(buffer) for name, buffer in self.named_buffers(recurse=False) if name in ("A", "B")]

        def keep_double(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return tensor.to(moved.device) if id(tensor) in fixed and moved.dtype != tensor.dtype else moved

        return super()._apply(keep_double, recurse)

    def discretised(self, rate: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """A_bar (H, N, N), B_bar (H, N), C (H, M, N), float64: x[t] = A_bar x[t-1] + B_bar u[t], y[t] = C x[t]."""
        dt = self.steps(rate)
        _check_system(self.A, self.B, self.C, dt)
        return *discretise(self.A, self.B, dt, self.alpha), self.C.double()

    def forward(self, length: int, *, rate: float = 1.0) -> Tensor:
        """The first ``length`` taps, (C, H, length), with every dt multiplied by ``rate``."""
        k = dense_filter(self.A, self.B, self.C, self.steps(rate), length, self.alpha)
        return k.transpose(0, 1)


def require_stable(A: Tensor, dt: Tensor, alpha: float) -> None:
    """Raise a ValueError if an eigenvalue of A_bar lies outside the unit circle for a dt (H,); on the CPU alone."""
    if not has_values(A):
        return
    eigenvalues = torch.linalg.eigvals(A.detach().double())
    z = dt.detach().double()[:, None] * eigenvalues
    radius, h = ((1 + (1 - alpha) * z) / (1 - alpha * z)).abs().amax(1).max(0)
    if radius > 1 + ON_THE_CIRCLE:
        growth = eigenvalues.real.max().item()
        cause = f"A has an eigenvalue of real part {growth:.6g}"
        cure = cause if growth > ON_THE_CIRCLE else "lower dt_max, or raise alpha to 0.5 or more"
        raise ValueError(
            f"the system is unstable with alpha = {alpha:g} and dt = {dt[h].item():g}: A_bar has an eigenvalue of "
            f"modulus {radius.item():.6g} > 1; {cure}"
        )

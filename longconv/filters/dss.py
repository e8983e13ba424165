"""Filters of diagonal state spaces (DSS), whose input vector is folded into normalised output weights.

Shapes: H features, C channels a feature, P modes, L taps.

References:
    Diagonal State Spaces are as Effective as Structured State Spaces (Gupta, Gu, Berant, arXiv 2203.14343)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from longconv._checks import (
    COMPLEX,
    check_bool,
    check_choice,
    check_int,
    check_shape,
    check_tensor,
    check_values,
    describe,
)
from longconv.filters.base import initial_log_dt, parameter_dtype
from longconv.filters.diagonal import ModalFilter, diagonal_init, expm1, softmax_scale
from longconv.ops import vandermonde_log
from longconv.ops._library import conjugate

REALS = (torch.float64, torch.float32)
VARIANTS = ("softmax", "exp", "exp-no-scale", "exp-re-im", "exp-re-im-no-scale", "clip", "clip-no-scale")
CLIP = 1e-4
"""The largest Re Lambda of the clip variants."""


# --- the filter -------------------------------------------------------------------------------------------------------


def dss_filter(
    Lambda: Tensor, W: Tensor, log_dt: Tensor, length: int, variant: str = "softmax", l_max: int | None = None
) -> Tensor:
    r"""Sum of powers with normalised weights.

    K[c, h, l] = Re sum_n W[c, h, n] s[h, n] exp(a[h, n] l), with a = exp(log_dt) Lambda and

    ===========================  ======================================================
    variant                      s
    ===========================  ======================================================
    softmax                      (exp(a) - 1) r(Lambda (exp(a l_max) - 1))
    exp, exp-re-im, clip         (exp(a) - 1) conj(Lambda) / max(|Lambda|^2, 1e-7)
    ... -no-scale                1
    ===========================  ======================================================

    where r(x) = conj(x) / (|x|^2 + 1e-7). Each mode stands for itself: there is no factor 2. The clip variants take
    min(Re Lambda, 1e-4); the exp variants, with and without re-im, differ in the parameters that make Lambda alone
    (:class:`DSSFilter`).

    softmax serves modes that grow too: where Re Lambda > 0 the weights are those of the reversed powers,
    (exp(-a) - 1) r(Lambda (exp(-a l_max) - 1)) exp(a (l - l_max + 1)), which are bounded for l < l_max and grow beyond;
    numbers larger than those of the result are never formed. The powers are formed in double precision.

    Args:
        Lambda: (P,) or (H, P) complex; 1 / time.
        W: (C, H, P) complex; its precision is the filter's.
        log_dt: (H,) or (H, 1); or (H, 2), steps of the real and of the imaginary part of Lambda.
        length: L, number of taps.
        variant: one of :data:`VARIANTS`; "_" serves for "-".
        l_max: length of the normaliser of softmax; None takes ``length``.

    Returns:
        (C, H, L) real, with gradients to Lambda, W and log_dt.

    Raises:
        ValueError, TypeError: a wrong shape, dtype or variant; values that are NaN or infinite (looked at on the CPU
            outside ``torch.compile`` alone), or a filter that overflows because Re Lambda > 0.

    References:
        Diagonal State Spaces are as Effective as Structured State Spaces (Gupta, Gu, Berant, arXiv 2203.14343)

    >>> one = torch.ones(1, 1, 1, dtype=torch.complex64)
    >>> dss_filter(-one[0], -one, torch.zeros(1), 3)  # e^-l / (1 + 1/e + 1/e^2)
    tensor([[[0.6652, 0.2447, 0.0900]]])
    """
    variant = variant.replace("_", "-") if isinstance(variant, str) else variant
    check_choice("variant", variant, VARIANTS)
    check_int("length", length, least=0)
    normalised = max(length, 1) if l_max is None else check_int("l_max", l_max)
    _check_system(Lambda, W, log_dt)
    a, scale = modes(Lambda, log_dt, variant, normalised)
    wide = W.to(torch.complex128) * scale
    if variant == "softmax":
        k = _with_growing_modes(wide, a, W.dtype, length, normalised)
    else:
        k = vandermonde_log(wide.to(W.dtype), a, length, real=True)
    check_values("the filter", k, because="Lambda has a real part > 0, the system is unstable")
    return k


def _check_system(Lambda: Tensor, W: Tensor, log_dt: Tensor) -> None:
    check_tensor("Lambda", Lambda, "(P,) or (H, P)", ndim=(1, 2), dtypes=COMPLEX)
    check_tensor("W", W, "(C, H, P)", ndim=3, dtypes=COMPLEX)
    check_tensor("log_dt", log_dt, "(H,), (H, 1) or (H, 2)", ndim=(1, 2), dtypes=REALS)
    _, H, P = W.shape
    check_shape("Lambda", Lambda, (H, P)[2 - Lambda.ndim :], "(P,) or (H, P) with those of W")
    if log_dt.shape[0] != H or log_dt.shape[1:] not in ((), (1,), (2,)):
        raise ValueError(f"log_dt is {describe(log_dt)}, expected shape (H,), (H, 1) or (H, 2) with the H = {H} of W")
    for name, part in (("Lambda", Lambda), ("W", W), ("log_dt", log_dt)):
        check_values(name, part)
    check_values("dt", log_dt.double().exp(), positive=True, because="it is exp(log_dt)")


def modes(Lambda: Tensor, log_dt: Tensor, variant: str, l_max: int) -> tuple[Tensor, Tensor]:
    """A and s of :func:`dss_filter`, (H, P) complex128; for growing modes of softmax s lacks exp(-a (l_max - 1))."""
    Lambda, dt = Lambda.to(torch.complex128), log_dt.double().reshape(log_dt.shape[0], -1).exp()
    if variant.startswith("clip"):
        Lambda = torch.complex(Lambda.real.clamp(max=CLIP), Lambda.imag)
    a = torch.complex(dt[:, :1] * Lambda.real, dt[:, -1:] * Lambda.imag)
    if variant == "softmax":
        return a, softmax_scale(Lambda, torch.where(a.real > 0, -a, a), l_max)
    if variant.endswith("no-scale"):
        return a, torch.ones_like(a)
    return a, expm1(a) * conjugate(Lambda) / Lambda.abs().square().clamp(min=1e-7)


def _with_growing_modes(v: Tensor, a: Tensor, dtype: torch.dtype, length: int, l_max: int) -> Tensor:
    """Re sum_n v exp(a l), with exp(a (l - l_max + 1)) where Re a > 0: their powers below l_max are taken backwards."""
    growing = a.real > 0
    up, down = torch.where(growing, a, 0), torch.where(growing, 0, a)
    known = min(length, l_max)
    k = vandermonde_log(torch.where(growing, 0, v).to(dtype), down, length, real=True)
    v = torch.where(growing, v, 0)
    last = (v * torch.exp(-up * (l_max - known))).to(dtype)  # the taps known - 1, known - 2, ..., 0
    rising = vandermonde_log(last, -up, known, real=True).flip(-1)
    if length > l_max:
        beyond = vandermonde_log((v * torch.exp(up)).to(dtype), up, length - l_max, real=True)
        rising = torch.cat([rising, beyond], -1)
    return k + rising


# --- the module -------------------------------------------------------------------------------------------------------


class DSSFilter(ModalFilter):
    """Trainable filter of a diagonal state space whose Lambda all features share, up to their steps.

    The parameter ``Lambda`` (P, 2) holds, by variant,

    ===================  =======================  ==============
    variant              Re Lambda                Im Lambda
    ===================  =======================  ==============
    softmax              first column             second column
    exp, -no-scale       -exp(first column)       second column
    exp-re-im, ...       -exp(first column)       exp(second column)
    clip, -no-scale      min(first column, 1e-4)  second column
    ===================  =======================  ==============

    Args:
        d_model: H.
        channels: C.
        d_state: N, the size of the real state; P = N/2 modes are stored. Even.
        init: of Lambda: the eigenvalues with Im >= 0 of an initialisation of
            :func:`~longconv.filters.diagonal.diagonal_init`. "legs" is the published one.
        variant: see :func:`dss_filter`.
        dt_min, dt_max: dt starts log-uniform in [dt_min, dt_max].
        separate_dt: a step each for the real and the imaginary part of Lambda, equal at first; else one a feature.
        l_max: length of the normaliser of softmax; the others ignore it.
        filter_lr: see :class:`Filter`.

    References:
        Diagonal State Spaces are as Effective as Structured State Spaces (Gupta, Gu, Berant, arXiv 2203.14343)

    >>> DSSFilter(4, d_state=8)(100).shape
    torch.Size([1, 4, 100])
    """

    filter_parameters = ("Lambda", "W", "log_dt")

    def __init__(
        self,
        d_model: int,
        channels: int = 1,
        d_state: int = 128,
        *,
        init: str = "legs",
        variant: str = "softmax",
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
        separate_dt: bool = True,
        l_max: int = 1024,
        filter_lr: float | None = None,
    ) -> None:
        super().__init__(filter_lr)
        Lambda = diagonal_init(init, d_model, d_state)[0][0].conj_physical()
        self.variant = check_choice("variant", variant, VARIANTS)
        self.l_max, self.modes = check_int("l_max", l_max), (d_model, d_state // 2)
        self.wide = variant == "softmax"  # the powers of growing modes span many orders of magnitude
        log_dt = initial_log_dt((d_model, 1), dt_min, dt_max)
        self.log_dt = nn.Parameter(log_dt.repeat(1, 1 + check_bool("separate_dt", separate_dt)))
        self.Lambda = nn.Parameter(self._stored(Lambda).to(parameter_dtype()))
        channels = check_int("channels", channels)
        self.W = nn.Parameter(torch.randn(channels, *self.modes, 2, dtype=parameter_dtype()))

    def _stored(self, Lambda: Tensor) -> Tensor:
        """What the parameter holds for Lambda (P,)."""
        real, imag = Lambda.real, Lambda.imag
        if self.variant.startswith("exp"):
            real = torch.log(-real)
        if "re-im" in self.variant:
            if not imag.is_meta and not (imag > 0).all():
                raise ValueError(f"variant {self.variant!r} stores log Im Lambda, but the init has modes with Im = 0")
            imag = imag.log()
        return torch.stack([real, imag], -1)

    def continuous(self) -> Tensor:
        """Lambda (P,), complex128."""
        real, imag = self.Lambda.double().unbind(-1)
        if self.variant.startswith("exp"):
            real = -real.exp()
        return torch.complex(real, imag.exp() if "re-im" in self.variant else imag)

    def discretised(self, rate: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """A_bar, B_bar (H, P) and C (C, H, P), complex128: x[t] = A_bar x[t-1] + B_bar u[t], y = 2 Re(C x)."""
        Lambda, W, log_dt = self.continuous(), torch.view_as_complex(self.W), self.steps(rate).log()
        _check_system(Lambda, W, log_dt)
        a, scale = modes(Lambda, log_dt, self.variant, self.l_max)
        if self.variant == "softmax":
            growth = torch.where(a.real > 0, a, 0) * (self.l_max - 1)
            check_values(
                "exp(Re a l_max)", growth.real.exp(), because="a mode of Re Lambda > 0 grows too fast to be streamed"
            )
            scale = scale * torch.exp(-growth)
        return a.exp(), scale / 2, W.to(torch.complex128)

    def forward(self, length: int, *, rate: float = 1.0) -> Tensor:
        """The first ``length`` taps, (C, H, length), with every dt multiplied by ``rate``; l_max stays in samples."""
        W = torch.view_as_complex(self.W)
        return dss_filter(self.continuous(), W, self.steps(rate).log(), length, self.variant, self.l_max)

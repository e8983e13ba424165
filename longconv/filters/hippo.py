"""HiPPO: state space systems x' = A x + B u whose state holds the coefficients of the past on a polynomial basis.

References:
    HiPPO: Recurrent Memory with Optimal Polynomial Projections (Gu, Dao, Ermon, Rudra, Ré, arXiv 2008.07669)
    How to Train Your HiPPO (Gu, Johnson, Timalsina, Rudra, Ré, arXiv 2206.12037)
    Efficiently Modeling Long Sequences with Structured State Spaces (Gu, Goel, Ré, arXiv 2111.00396)
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from longconv._checks import check_choice, check_int, check_options, check_real, describe

NULL = 1e-8
"""Eigenvalues below this part of the largest one count as zero."""


Correction = Callable[..., "Tensor | None"]
"""N and a measure's own parameters -> P (R, N) of the least rank R for which A + P^T P is normal, or None."""


@dataclass(frozen=True)
class Measure:
    """One family of systems.

    Attributes:
        transition: N and the measure's own parameters -> A (N, N), B (N,).
        correction: the same arguments -> P; its None means that no such P is known.
        even: whether N has to be even.
        ranges: bounds of the parameters, exclusive.
    """

    transition: Callable[..., tuple[Tensor, Tensor]]
    correction: Correction
    even: bool = False
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def parameters(self) -> list[str]:
        """The names of the measure's own parameters."""
        return list(inspect.signature(self.transition).parameters)[1:]


def _none_needed(N: int, **parameters: float) -> Tensor:
    return torch.zeros(0, N, dtype=torch.float64)


def _none_known(N: int, **parameters: float) -> None:
    return None


def _eye(N: int) -> Tensor:
    return torch.eye(N, dtype=torch.float64)


# --- Legendre polynomials ---------------------------------------------------------------------------------------------


def _legendre_scale(N: int) -> Tensor:
    return torch.sqrt(2 * torch.arange(N, dtype=torch.float64) + 1)


def _legs(N: int) -> tuple[Tensor, Tensor]:
    scale = _legendre_scale(N)
    A = (-torch.outer(scale, scale)).tril(-1) - torch.diag(torch.arange(1, N + 1, dtype=torch.float64))
    return A, scale


def _legs_correction(N: int) -> Tensor:
    return (_legendre_scale(N) / math.sqrt(2))[None]


def _legsd(N: int) -> tuple[Tensor, Tensor]:
    scale = _legendre_scale(N)
    lower = torch.outer(scale, scale).tril(-1) / 2
    return lower.T - lower - _eye(N) / 2, scale / 2


def _alternating(N: int) -> Tensor:
    """(-1)^(i-j) above the diagonal, 1 on and below it."""
    n = torch.arange(N)
    return torch.where(n[:, None] < n, 1 - 2 * ((n[:, None] - n) % 2), 1)


def _legt(N: int) -> tuple[Tensor, Tensor]:
    scale = _legendre_scale(N)
    return -torch.outer(scale, scale) * _alternating(N) / 2, scale / 2


def _legt_correction(N: int) -> Tensor:
    scale, odd = _legendre_scale(N) / math.sqrt(2), torch.arange(N) % 2
    return torch.stack([scale * odd, scale * (1 - odd)])


def _lmu(N: int) -> tuple[Tensor, Tensor]:
    weight, sign = 2 * torch.arange(N, dtype=torch.float64) + 1, 1 - 2 * (torch.arange(N) % 2)
    return -weight[:, None] * _alternating(N) * torch.outer(sign, sign), weight * sign


# --- Laguerre polynomials ---------------------------------------------------------------------------------------------


def _ones_below(N: int) -> Tensor:
    return torch.ones(N, N, dtype=torch.float64).tril(-1)


def _lagt(N: int, beta: float = 1.0) -> tuple[Tensor, Tensor]:
    return -_eye(N) / 2 - _ones_below(N), torch.full((N,), float(beta), dtype=torch.float64)


def _tlagt(N: int, beta: float = 1.0) -> tuple[Tensor, Tensor]:
    return -_eye(N) * (1 + beta) / 2 - _ones_below(N), torch.full((N,), float(beta), dtype=torch.float64)


def _glagt(N: int, alpha: float = 0.0, beta: float = 0.01) -> tuple[Tensor, Tensor]:
    n = torch.arange(N, dtype=torch.float64)
    log_norm = (torch.lgamma(n + alpha + 1) - torch.lgamma(n + 1)) / 2
    A = -_eye(N) * (1 + beta) / 2 - _ones_below(N) * torch.exp(log_norm - log_norm[:, None])
    log_scale = (1 - alpha) / 2 * math.log(beta) - math.lgamma(1 - alpha) / 2 - math.lgamma(1 + alpha)
    return A, torch.exp(log_norm + log_scale)


def _lagt_correction(N: int, **parameters: float) -> Tensor:
    return torch.full((1, N), math.sqrt(0.5), dtype=torch.float64)


def _glagt_correction(N: int, alpha: float = 0.0, beta: float = 0.01) -> Tensor | None:
    return _lagt_correction(N) if alpha == 0 else None


# --- Fourier series ---------------------------------------------------------------------------------------------------


def _rotation(N: int, omega: float) -> Tensor:
    """The rotation of the pairs (2k, 2k+1) at ``omega`` k."""
    frequency = omega * torch.arange(N // 2, dtype=torch.float64)
    return torch.block_diag(*(f * torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64) for f in frequency))


def _at_the_present(N: int) -> Tensor:
    """e: the values 1, 0, sqrt 2, 0, sqrt 2, 0, ... of the cosines and sines at the present."""
    e = torch.zeros(N, dtype=torch.float64)
    e[0], e[2::2] = 1, math.sqrt(2)
    return e


def _foud(N: int) -> tuple[Tensor, Tensor]:
    return _rotation(N, 2 * math.pi) - _eye(N) / 2, _at_the_present(N)


def _fourier_measure(omega: float, strength: float) -> Measure:
    """A = rotation at ``omega`` minus ``strength`` e e^T, B = ``strength`` e."""

    def build(N: int) -> tuple[Tensor, Tensor]:
        e = _at_the_present(N)
        return _rotation(N, omega) - strength * torch.outer(e, e), strength * e

    return Measure(build, lambda N: math.sqrt(strength) * _at_the_present(N)[None], even=True)


MEASURES = {
    "legs": Measure(_legs, _legs_correction),
    "legsd": Measure(_legsd, _none_needed),
    "legt": Measure(_legt, _legt_correction),
    "lmu": Measure(_lmu, _none_known),
    "lagt": Measure(_lagt, _lagt_correction),
    "tlagt": Measure(_tlagt, _lagt_correction),
    "glagt": Measure(_glagt, _glagt_correction, ranges={"alpha": (-1.0, 1.0), "beta": (0.0, math.inf)}),
    "fout": _fourier_measure(math.pi, 1.0),
    "foud": Measure(_foud, _none_needed, even=True),
    "fourier_decay": _fourier_measure(math.pi, 0.5),
    "fourier2": _fourier_measure(2 * math.pi, 2.0),
}
"""Every measure by name; a new one is one row."""

ALIASES = {"fourier": "fout", "fourier_diag": "foud"}

NAMES = (*MEASURES, *ALIASES)
"""The names that :func:`transition` takes."""

NPLR = tuple(name for name, row in MEASURES.items() if row.correction(2) is not None)
"""The measures that :func:`nplr` knows."""


def _measure(name: str) -> Measure:
    known = check_choice("measure", name, NAMES)
    return MEASURES[ALIASES.get(known, known)]


def _check_parameters(measure: str, row: Measure, parameters: Mapping[str, float]) -> None:
    check_options(f"measure {measure!r}", parameters, row.parameters())
    for name, value in parameters.items():
        least, most = row.ranges.get(name, (-math.inf, math.inf))
        if not least < check_real(name, value) < most:
            raise ValueError(f"{name} is {value:g}, expected a number in ({least:g}, {most:g}) for measure {measure!r}")


def own_parameters(init_options: Mapping[str, float] | None) -> dict[str, float]:
    """A mapping of a measure's own parameters as keyword arguments; None has none."""
    if init_options is not None and not isinstance(init_options, Mapping):
        raise TypeError(f"init_options is {describe(init_options)}, expected the measure's parameters by name, or None")
    return dict(init_options or {})


Tables = TypeVar("Tables", bound=Callable[..., "tuple[Tensor, ...]"])


def _on_the_cpu(function: Tables) -> Tables:
    """The function computed on the CPU, with its results on torch's default device, which may hold no numbers."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        device = torch.get_default_device()
        with torch.device("cpu"):
            results = function(*args, **kwargs)
        return tuple(result.to(device) for result in results)

    return cast("Tables", run)


@_on_the_cpu
def transition(measure: str, N: int, **parameters: float) -> tuple[Tensor, Tensor]:
    """The system x' = A x + B u of a measure.

    With r_n = sqrt(2n + 1), s_ij = 1 where i >= j and (-1)^(i-j) elsewhere, l_n = sqrt(Gamma(n + alpha + 1) / n!),
    e = (1, 0, sqrt 2, 0, sqrt 2, 0, ...), and rotation(w) the one that turns the pair (2k, 2k + 1) at w k:

    =============  =================================================  ================================================
    measure        A                                                  B
    =============  =================================================  ================================================
    legs           -r_i r_j (i > j), -(i + 1) (i = j), 0 (i < j)      r_n
    legsd          -r_i r_j / 2 (i > j), -1/2, r_i r_j / 2 (i < j)    r_n / 2
    legt           -r_i r_j s_ij / 2                                  r_n / 2
    lmu            -(2i + 1) (-1)^(i-j) s_ij                          (2n + 1) (-1)^n
    lagt           -1 (i > j), -1/2 (i = j), 0 (i < j)                beta
    tlagt          -1 (i > j), -(1 + beta)/2 (i = j), 0 (i < j)       beta
    glagt          -l_j/l_i (i > j), -(1 + beta)/2 (i = j), 0         l_n beta^((1 - alpha)/2) / (Gamma(1 + alpha)
                                                                      sqrt(Gamma(1 - alpha)))
    fout           rotation(pi) - e e^T                               e
    fourier_decay  rotation(pi) - e e^T / 2                           e / 2
    fourier2       rotation(2 pi) - 2 e e^T                           2 e
    foud           rotation(2 pi) - 1/2                               e
    =============  =================================================  ================================================

    Args:
        measure: one of :data:`MEASURES`, or ``fourier`` (fout), ``fourier_diag`` (foud).
        N: state size; even for the Fourier measures.
        **parameters: lagt and tlagt take ``beta`` (1); glagt takes ``alpha`` in (-1, 1) (0) and ``beta`` > 0 (0.01).

    Returns:
        A (N, N) and B (N,) in float64.

    Raises:
        ValueError: unknown measure, an odd N where it has to be even, or a parameter out of range.
        TypeError: a parameter that the measure does not have.

    >>> A, B = transition("legs", 2)
    >>> A.float()
    tensor([[-1.0000,  0.0000],
            [-1.7321, -2.0000]])
    """
    row = _measure(measure)
    _check_parameters(measure, row, parameters)
    _check_state_size(N, even=row.even)
    return row.transition(N, **parameters)


@_on_the_cpu
def nplr(measure: str, N: int, rank: int = 1, **parameters: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normal plus low rank form of a measure's system.

    A = 2 Re(V diag(Lambda) V^*) - P0^T P0, where P = P0 conj(V), so that in the basis of the columns of V and their
    conjugates A is diag(Lambda) - P^T conj(P). One mode of each conjugate pair is kept, that with Im Lambda <= 0.
    The phase of a column of V is free; here its first nonzero entry is real and positive.

    The least rank is 2 for legt, 1 for legs, lagt, tlagt, glagt (alpha = 0), fout, fourier_decay and fourier2, and 0
    for legsd and foud, which are normal. The basis of lmu, and that of glagt with another alpha, has no such form.

    Args:
        measure: see :func:`transition`.
        N: state size, even.
        rank: R, rows of P; those beyond the measure's least rank are zero.
        **parameters: see :func:`transition`.

    Returns:
        Lambda (N/2,), P (R, N/2), B (N/2,), V (N, N/2) in complex128; B = V^* B0 is not clipped.

    Raises:
        ValueError: odd N, an unknown measure, one without such a form, or a rank below its least.
        TypeError: a parameter that the measure does not have.

    >>> Lambda, P, B, V = nplr("legs", 4)
    >>> [f"{z.real:.3f}{z.imag:+.3f}j" for z in Lambda.tolist()]
    ['-0.500-4.603j', '-0.500-0.557j']
    """
    row = _measure(measure)
    _check_parameters(measure, row, parameters)
    _check_state_size(N, even=True)
    P = row.correction(N, **parameters)
    if P is None:
        raise ValueError(
            f"measure {measure!r} has no known normal plus low rank form (those that have: {', '.join(NPLR)})"
        )
    if check_int("rank", rank, least=0) < P.shape[0]:
        raise ValueError(f"rank is {rank}, expected at least {P.shape[0]} for measure {measure!r}")
    A, B = row.transition(N, **parameters)
    P = torch.cat([P, P.new_zeros(rank - P.shape[0], N)])
    Lambda, V = _half_spectrum(A + P.T @ P)
    return Lambda, P.to(V.dtype) @ V.conj(), V.conj().T @ B.to(V.dtype), V


def _check_state_size(N: int, *, even: bool) -> None:
    check_int("N", N)
    if even and N % 2:
        raise ValueError(f"N is {N}, expected an even number: the states are conjugate pairs")


def _half_spectrum(normal: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues with Im <= 0 and their eigenvectors, for a matrix that is a multiple of 1 plus a skew matrix."""
    half = normal.shape[0] // 2
    skew = (normal - normal.T) / 2
    imag, V = torch.linalg.eigh(-1j * skew)
    imag, null = imag[:half].clone(), imag.abs() < NULL * imag.abs().max().clamp(min=1)
    if null.any():
        # A zero pair: from an orthonormal real basis a, b of the null space, a + i b is orthogonal to its conjugate.
        projector = (V[:, null] @ V[:, null].mH).real
        basis = torch.linalg.eigh(projector).eigenvectors[:, -int(null.sum()) :]
        V[:, :half][:, null[:half]] = torch.complex(basis[:, 0::2], basis[:, 1::2]) / math.sqrt(2)
        imag[null[:half]] = 0
    V = V[:, :half]
    first = V.gather(0, (V.abs() > 1e-6).int().argmax(0, keepdim=True))
    real = normal.diagonal().mean().clamp(max=0).expand(half)
    return torch.complex(real, imag), V * (first.conj() / first.abs())

"""HiPPO: state space systems x' = A x + B u whose state holds the coefficients of the past on a polynomial basis.

References:
    HiPPO: Recurrent Memory with Optimal Polynomial Projections (Gu, Dao, Ermon, Rudra, Ré, arXiv 2008.07669)
    How to Train Your HiPPO (Gu, Johnson, Timalsina, Rudra, Ré, arXiv 2206.12037)
    Efficiently Modeling Long Sequences with Structured State Spaces (Gu, Goel, Ré, arXiv 2111.00396)
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from longconv._checks import check_choice, check_int, check_options

NULL = 1e-8
"""Eigenvalues below this part of the largest one count as zero."""


def _no_correction(N: int) -> Tensor:
    return torch.zeros(0, N, dtype=torch.float64)


@dataclass(frozen=True)
class Measure:
    """One family of systems.

    Attributes:
        transition: N and the measure's own parameters -> A (N, N), B (N,).
        correction: N -> P (R, N) of the least rank R for which A + P^T P is normal; None where none is known.
        even: whether N has to be even.
    """

    transition: Callable[..., tuple[Tensor, Tensor]]
    correction: Callable[[int], Tensor] | None = None
    even: bool = False


def _legendre_scale(N: int) -> Tensor:
    return torch.sqrt(2 * torch.arange(N, dtype=torch.float64) + 1)


def _legs(N: int) -> tuple[Tensor, Tensor]:
    scale = _legendre_scale(N)
    A = (-torch.outer(scale, scale)).tril(-1) - torch.diag(torch.arange(1, N + 1, dtype=torch.float64))
    return A, scale


def _legs_correction(N: int) -> Tensor:
    return (_legendre_scale(N) / math.sqrt(2))[None]


def _legt(N: int) -> tuple[Tensor, Tensor]:
    scale, n = _legendre_scale(N), torch.arange(N)
    sign = torch.where(n[:, None] < n, 1 - 2 * ((n[:, None] - n) % 2), 1)
    return -torch.outer(scale, scale) * sign / 2, scale / 2


def _legt_correction(N: int) -> Tensor:
    scale, odd = _legendre_scale(N) / math.sqrt(2), torch.arange(N) % 2
    return torch.stack([scale * odd, scale * (1 - odd)])


def _fourier_basis(N: int, omega: float) -> tuple[Tensor, Tensor]:
    """The rotation of the pairs (2k, 2k+1) at ``omega`` k, and the basis functions' values at the present."""
    frequency = omega * torch.arange(N // 2, dtype=torch.float64)
    rotation = torch.block_diag(*(f * torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64) for f in frequency))
    B = torch.zeros(N, dtype=torch.float64)
    B[0], B[2::2] = 1, math.sqrt(2)
    return rotation, B


def _fout(N: int) -> tuple[Tensor, Tensor]:
    rotation, B = _fourier_basis(N, math.pi)
    return rotation - torch.outer(B, B), B


def _fout_correction(N: int) -> Tensor:
    return _fourier_basis(N, math.pi)[1][None]


def _foud(N: int) -> tuple[Tensor, Tensor]:
    rotation, B = _fourier_basis(N, 2 * math.pi)
    return rotation - torch.eye(N, dtype=torch.float64) / 2, B


MEASURES = {
    "legs": Measure(_legs, _legs_correction),
    "legt": Measure(_legt, _legt_correction),
    "fout": Measure(_fout, _fout_correction, even=True),
    "foud": Measure(_foud, _no_correction, even=True),
}
"""Every measure by name; a new one is one row."""

ALIASES = {"fourier": "fout", "fourier_diag": "foud"}


def _measure(name: str) -> Measure:
    known = check_choice("measure", name, (*MEASURES, *ALIASES))
    return MEASURES[ALIASES.get(known, known)]


def transition(measure: str, N: int, **parameters: float) -> tuple[Tensor, Tensor]:
    """The system x' = A x + B u of a measure.

    ========  ===================================================  ====================================
    measure   A[i, j], with r_n = sqrt(2n + 1)                     B[n]
    ========  ===================================================  ====================================
    legs      -r_i r_j (i > j), -(i + 1) (i = j), 0 (i < j)        r_n
    legt      -r_i r_j / 2 (i >= j), -(-1)^(i-j) r_i r_j / 2       r_n / 2
    fout      rotation of pair k at pi k, minus B B^T              1, 0, sqrt 2, 0, sqrt 2, 0, ...
    foud      rotation of pair k at 2 pi k, minus 1/2              1, 0, sqrt 2, 0, sqrt 2, 0, ...
    ========  ===================================================  ====================================

    Args:
        measure: one of :data:`MEASURES`, or ``fourier`` (fout), ``fourier_diag`` (foud).
        N: state size; even for the Fourier measures.
        **parameters: the measure's own parameters (none of those above has any).

    Returns:
        A (N, N) and B (N,) in float64.

    Raises:
        ValueError: unknown measure, or an odd N where it has to be even.
        TypeError: a parameter that the measure does not have.

    >>> A, B = transition("legs", 2)
    >>> A.float()
    tensor([[-1.0000,  0.0000],
            [-1.7321, -2.0000]])
    """
    row = _measure(measure)
    check_options(f"measure {measure!r}", parameters, list(inspect.signature(row.transition).parameters)[1:])
    _check_state_size(N, even=row.even)
    return row.transition(N, **parameters)


def nplr(measure: str, N: int, rank: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normal plus low rank form of a measure's system.

    A = 2 Re(V diag(Lambda) V^*) - P0^T P0, where P = P0 conj(V), so that in the basis of the columns of V and their
    conjugates A is diag(Lambda) - P^* P. One mode of each conjugate pair is kept, that with Im Lambda <= 0.
    The phase of a column of V is free; here its first nonzero entry is real and positive.

    Args:
        measure: see :func:`transition`.
        N: state size, even.
        rank: R, rows of P; those beyond the measure's least rank are zero.

    Returns:
        Lambda (N/2,), P (R, N/2), B (N/2,), V (N, N/2) in complex128; B = V^* B0 is not clipped.

    Raises:
        ValueError: odd N, an unknown measure, one without a known correction, or a rank below its least.

    >>> Lambda, P, B, V = nplr("legs", 4)
    >>> [f"{z.real:.3f}{z.imag:+.3f}j" for z in Lambda.tolist()]
    ['-0.500-4.603j', '-0.500-0.557j']
    """
    row = _measure(measure)
    _check_state_size(N, even=True)
    if row.correction is None:
        raise ValueError(f"measure {measure!r} has no known normal plus low rank form")
    A, B = row.transition(N)
    P = row.correction(N)
    if check_int("rank", rank) < P.shape[0]:
        raise ValueError(f"rank is {rank}, expected at least {P.shape[0]} for measure {measure!r}")
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
    real = normal.diagonal().mean().expand(half)
    return torch.complex(real, imag), V * (first.conj() / first.abs())

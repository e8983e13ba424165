"""HiPPO matrices: identities, what the measures approximate, and errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from longconv.filters import hippo
from tests.tolerances import assert_close

MEASURES = list(hippo.MEASURES)


@pytest.mark.parametrize("N", [2, 4, 30, 64])
@pytest.mark.parametrize("measure", MEASURES)
def test_nplr_rebuilds_the_system(measure: str, N: int) -> None:
    """A = 2 Re(V diag(Lambda) V^*) - P0^T P0 and B = 2 Re(V B), with orthonormal V apart from its conjugate."""
    A, B = hippo.transition(measure, N)
    Lambda, P, half_B, V = hippo.nplr(measure, N, rank=3)
    assert (Lambda.shape, P.shape, half_B.shape, V.shape) == ((N // 2,), (3, N // 2), (N // 2,), (N, N // 2))
    P0 = 2 * (P @ V.mT).real
    assert_close(2 * ((V * Lambda) @ V.mH).real - P0.T @ P0, A)
    assert_close(2 * (V @ half_B).real, B)
    assert_close(V.mH @ V, torch.eye(N // 2, dtype=V.dtype))
    assert (V.mT @ V).abs().max() < 1e-12
    assert (Lambda.imag <= 0).all()
    assert (Lambda.real <= 1e-12).all()


def test_legs_real_parts() -> None:
    assert_close(hippo.nplr("legs", 64)[0].real, torch.full((32,), -0.5, dtype=torch.float64))


def test_legs_impulse_response_is_the_basis() -> None:
    """exp(t A) B = sqrt(2n + 1) P_n(2 e^-t - 1) e^-t: scaled Legendre polynomials of the warped past."""
    A, B = hippo.transition("legs", 8)
    n = torch.arange(8)
    for t in torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64):
        basis = torch.special.legendre_polynomial_p(2 * torch.exp(-t) - 1, n)
        assert_close(torch.linalg.matrix_exp(A * t) @ B, B * basis * torch.exp(-t), 1e-11)


def test_legt_frequency_response_is_that_of_a_window() -> None:
    """(i w - A)^-1 B = int_0^2 sqrt(2n + 1)/2 P_n(1 - s) exp(-i w s) ds: Legendre polynomials on the last 2 units."""
    A, B = hippo.transition("legt", 32)
    x, weight = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(64))
    basis = torch.special.legendre_polynomial_p(x, torch.arange(8)[:, None])
    for w in (0.0, 1.0, 5.0):
        response = torch.linalg.solve(1j * w * torch.eye(32, dtype=torch.complex128) - A, B.to(torch.complex128))
        want = B[:8] * (basis * weight * torch.exp(-1j * w * (1 - x))).sum(-1)
        assert (response[:8] - want).abs().max() < 1e-11


def test_least_rank() -> None:
    with pytest.raises(ValueError, match="rank is 1, expected at least 2 for measure 'legt'"):
        hippo.nplr("legt", 8)
    assert hippo.nplr("foud", 8)[1].abs().max() == 0


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"measure is 'legz'.*did you mean.*'legs'"):
        hippo.transition("legz", 4)
    with pytest.raises(ValueError, match="N is 0"):
        hippo.transition("legs", 0)
    with pytest.raises(ValueError, match="N is 5, expected an even number"):
        hippo.nplr("legs", 5)
    with pytest.raises(ValueError, match="N is 5, expected an even number"):
        hippo.transition("fout", 5)
    with pytest.raises(TypeError, match="measure 'legs' has no option 'beta'"):
        hippo.transition("legs", 4, beta=1.0)
    with pytest.raises(ValueError, match="rank is 0"):
        hippo.nplr("legs", 4, rank=0)

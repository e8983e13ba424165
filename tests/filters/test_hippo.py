"""HiPPO matrices: identities, what the measures approximate, and errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import special

from longconv.filters import hippo
from tests.tolerances import assert_close

MEASURES = list(hippo.NPLR)


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


@pytest.mark.parametrize("measure", MEASURES)
def test_nplr_of_1024_states(measure: str) -> None:
    A, B = hippo.transition(measure, 1024)
    Lambda, P, half_B, V = hippo.nplr(measure, 1024, rank=2)
    P0 = 2 * (P @ V.mT).real
    assert_close(2 * ((V * Lambda) @ V.mH).real - P0.T @ P0, A)
    assert_close(2 * (V @ half_B).real, B)
    assert (Lambda.real <= 0).all() and (Lambda.imag <= 0).all()


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


def test_lmu_is_legt_at_twice_the_rate_in_another_basis() -> None:
    A, B = hippo.transition("lmu", 9)
    legt_A, legt_B = hippo.transition("legt", 9)
    n = torch.arange(9)
    scale = torch.sqrt(2 * n.double() + 1) * (1 - 2 * (n % 2))
    assert_close(A, 2 * scale[:, None] * legt_A / scale)
    assert_close(B, 2 * scale * legt_B)


def test_legsd_is_the_normal_part_of_legs() -> None:
    A, B = hippo.transition("legs", 9)
    normal, half_B = hippo.transition("legsd", 9)
    assert_close(normal, A + torch.outer(B, B) / 2)
    assert_close(half_B, B / 2)


@pytest.mark.parametrize("alpha", [-0.5, 0.0, 0.25])
@pytest.mark.parametrize("beta", [0.01, 0.1, 2.0])
def test_laguerre_impulse_responses(alpha: float, beta: float) -> None:
    """glagt: exp(t A) B is the Laguerre polynomial L_n^alpha(t) exp(-t (1 + beta) / 2), normalised; lagt, tlagt."""
    n, t = np.arange(6), 0.7
    polynomial = torch.from_numpy(special.eval_genlaguerre(n, alpha, t))
    plain = torch.from_numpy(special.eval_laguerre(n, t))
    norm = torch.from_numpy(np.sqrt(special.gamma(n + alpha + 1) / special.factorial(n)))
    constant = special.gamma(1 - alpha) ** -0.5 * beta ** ((1 - alpha) / 2)
    for measure, parameters, want in [
        ("glagt", {"alpha": alpha, "beta": beta}, polynomial / norm * constant * np.exp(-t * (1 + beta) / 2)),
        ("tlagt", {"beta": beta}, beta * plain * np.exp(-t * (1 + beta) / 2)),
        ("lagt", {"beta": beta}, beta * plain * np.exp(-t / 2)),
    ]:
        A, B = hippo.transition(measure, 6, **parameters)
        assert_close(torch.linalg.matrix_exp(A * t) @ B, want, 1e-11)


@pytest.mark.parametrize(("measure", "base"), [("fout", 1.0), ("fourier_decay", 1.0), ("fourier2", 2.0)])
def test_fourier_impulse_responses(measure: str, base: float) -> None:
    """Without the rank-one feedback, exp(t A) B is the Fourier basis of [0, 2 / base], run through forever."""
    A, B = hippo.transition(measure, 8)
    strength, t = B[0].item(), 0.3
    k = torch.arange(4).double() * torch.pi * base * t
    basis = (
        torch.stack([k.cos(), k.sin()], 1).flatten()
        * strength
        * torch.tensor([1.0, 1.0] + [2**0.5] * 6, dtype=torch.float64)
    )
    free = A + torch.outer(B, B) / strength
    assert_close(torch.linalg.matrix_exp(free * t) @ B, basis)


def test_nplr_with_parameters() -> None:
    A, B = hippo.transition("glagt", 8, beta=0.3)
    Lambda, P, half_B, V = hippo.nplr("glagt", 8, beta=0.3)
    P0 = 2 * (P @ V.mT).real
    assert_close(2 * ((V * Lambda) @ V.mH).real - P0.T @ P0, A)
    assert_close(2 * (V @ half_B).real, B)


def test_least_rank() -> None:
    with pytest.raises(ValueError, match="rank is 1, expected at least 2 for measure 'legt'"):
        hippo.nplr("legt", 8)
    for normal in ("foud", "legsd"):
        assert hippo.nplr(normal, 8)[1].abs().max() == 0
        A, _ = hippo.transition(normal, 8)
        Lambda, P, _, V = hippo.nplr(normal, 8, rank=0)
        assert P.shape == (0, 4)
        assert_close(2 * ((V * Lambda) @ V.mH).real, A)


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
    with pytest.raises(ValueError, match="rank is 0, expected at least 1 for measure 'legs'"):
        hippo.nplr("legs", 4, rank=0)
    with pytest.raises(ValueError, match="rank is -1"):
        hippo.nplr("foud", 4, rank=-1)
    with pytest.raises(ValueError, match="measure 'lmu' has no known normal plus low rank form.*legs"):
        hippo.nplr("lmu", 4)
    with pytest.raises(ValueError, match="measure 'glagt' has no known normal plus low rank form"):
        hippo.nplr("glagt", 4, alpha=0.5)
    with pytest.raises(ValueError, match=r"alpha is 1.*expected a number in \(-1, 1\) for measure 'glagt'"):
        hippo.transition("glagt", 4, alpha=1.0)
    with pytest.raises(ValueError, match="beta is 0"):
        hippo.nplr("glagt", 4, beta=0.0)
    with pytest.raises(TypeError, match=r"measure 'glagt' has no option 'bata'; did you mean 'beta'"):
        hippo.transition("glagt", 4, bata=1.0)
    with pytest.raises(TypeError, match="beta is 'a'"):
        hippo.transition("lagt", 4, beta="a")  # type: ignore[arg-type]

"""Diagonal filters against the recurrence and the formulas in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from longconv.filters import DiagonalFilter, diagonal_filter, diagonal_init
from longconv.filters.diagonal import INITS, discretise
from tests.tolerances import assert_close

DISCRETIZATIONS = ["zoh", "bilinear", "dss"]


def system(C: int = 2, H: int = 3, P: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A random stable system; dt is one a feature."""
    Lambda = torch.complex(-0.1 - torch.rand(H, P).double(), 5 * torch.randn(H, P).double())
    B, readout = (torch.randn(shape, dtype=torch.complex128) for shape in ((H, P), (C, H, P)))
    return Lambda, B, readout, 0.01 + 0.1 * torch.rand(H).double()


def recurrence(A_bar: Tensor, B_bar: Tensor, C: Tensor, length: int) -> Tensor:
    x, taps = B_bar, []
    for _ in range(length):
        taps.append(2 * (C * x).sum(-1).real)
        x = A_bar * x
    return torch.stack(taps, -1)


def test_zoh_is_the_exact_solution_for_a_held_input() -> None:
    """A_bar and B_bar from the matrix exponential of [[A, B], [0, 0]] dt."""
    Lambda, B, C, dt = system()
    A_bar, B_bar = torch.empty_like(Lambda), torch.empty_like(Lambda)
    for h, p in torch.cartesian_prod(torch.arange(3), torch.arange(4)).tolist():
        block = torch.zeros(2, 2, dtype=torch.complex128)
        block[0, 0], block[0, 1] = Lambda[h, p], B[h, p]
        A_bar[h, p], B_bar[h, p] = torch.linalg.matrix_exp(block * dt[h])[0]
    assert_close(diagonal_filter(Lambda, B, C, dt, 33), recurrence(A_bar, B_bar, C, 33), 1e-11)


def test_bilinear_is_the_trapezoidal_rule() -> None:
    """x1 - x0 = dt/2 Lambda (x1 + x0) + dt B u, with u on the new side."""
    Lambda, B, C, dt = system()
    step = dt[:, None]
    A_bar = (1 + step * Lambda / 2) / (1 - step * Lambda / 2)
    B_bar = step * B / (1 - step * Lambda / 2)
    k = diagonal_filter(Lambda, B, C, dt, 33, "bilinear")
    assert_close(k, recurrence(A_bar, B_bar, C, 33), 1e-11)


@pytest.mark.parametrize("l_max", [None, 50])
def test_dss_formula(l_max: int | None) -> None:
    Lambda, B, C, dt = system()
    z = dt[:, None] * Lambda
    x = Lambda * (torch.exp(z * (l_max or 20)) - 1)
    W = C * B * (torch.exp(z) - 1) * x.conj() / (x.abs() ** 2 + 1e-7)
    want = (W[..., None] * torch.exp(z[..., None] * torch.arange(20))).sum(-2).real
    assert_close(diagonal_filter(Lambda, B, C, dt, 20, "dss", l_max=l_max), want)


@pytest.mark.parametrize("discretization", DISCRETIZATIONS)
def test_broadcasting(discretization: str) -> None:
    """One Lambda and B for every feature, and one step a mode, are shorthands."""
    Lambda, B, C, dt = system()
    shared = diagonal_filter(Lambda[0], B[:1], C, dt, 20, discretization)
    assert_close(shared, diagonal_filter(Lambda[:1].expand(3, -1), B[:1].expand(3, -1), C, dt, 20, discretization))
    untied = diagonal_filter(Lambda, B, C, dt[:, None].expand(3, 4), 20, discretization)
    assert_close(untied, diagonal_filter(Lambda, B, C, dt, 20, discretization))


@pytest.mark.parametrize("discretization", DISCRETIZATIONS)
def test_gradcheck(discretization: str) -> None:
    Lambda, B, C, dt = (tensor.requires_grad_() for tensor in system(1, 2, 2))
    assert torch.autograd.gradcheck(
        lambda Lambda, B, C, dt: diagonal_filter(Lambda, B, C, dt, 9, discretization, l_max=9), (Lambda, B, C, dt)
    )


@pytest.mark.parametrize("discretization", DISCRETIZATIONS)
@pytest.mark.parametrize("special", [0.0, -20.0, 1e-9])
def test_special_eigenvalues(special: float, discretization: str) -> None:
    """Lambda = 0 (an integrator), z = -2 (A_bar = 0 in bilinear) and tiny z: finite, with the limit's value."""
    Lambda = torch.full((1, 1), special, dtype=torch.complex128, requires_grad=True)
    one, dt = torch.ones(1, 1, 1, dtype=torch.complex128), torch.tensor([0.1], dtype=torch.float64)
    k = diagonal_filter(Lambda, one[0], one, dt, 4, discretization)
    k.sum().backward()
    assert Lambda.grad is not None
    assert k.isfinite().all() and Lambda.grad.isfinite().all()
    if discretization != "dss" and abs(special) < 1e-8:
        assert_close(k, torch.full((1, 1, 4), 0.2, dtype=torch.float64), 1e-8)
        assert_close(Lambda.grad.real[0], torch.tensor([2 * 0.01 * sum(l + 0.5 for l in range(4))]).double(), 1e-7)
    if discretization == "bilinear" and special == -20.0:
        assert_close(k, torch.tensor([[[0.1, 0.0, 0.0, 0.0]]], dtype=torch.float64))


@pytest.mark.parametrize("init", sorted(INITS))
@pytest.mark.parametrize("discretization", DISCRETIZATIONS)
def test_float32_filter_and_gradients_at_length_16384(discretization: str, init: str) -> None:
    """Within 1e-6 of the float64 filter of the same parameters, and the gradients with it."""
    narrow = DiagonalFilter(2, d_state=32, init=init, discretization=discretization)
    wide = copy.deepcopy(narrow).double()
    k, want = narrow(16384), wide(16384)
    assert k.dtype == torch.float32
    assert_close(k, want, 1e-6)
    weight = torch.randn(k.shape)
    (k * weight).sum().backward()
    (want * weight.double()).sum().backward()
    for got, expected in zip(narrow.parameters(), wide.parameters(), strict=True):
        assert got.grad is not None and expected.grad is not None
        assert_close(got.grad, expected.grad, 5e-6)


def test_discretised_system_steps_to_the_filter() -> None:
    taps = DiagonalFilter(3, 2, d_state=8, init="legs").double()
    assert_close(recurrence(*taps.discretised(), 50), taps(50), 1e-11)


def test_initial_values() -> None:
    taps = DiagonalFilter(1000, d_state=4, dt_min=0.01, dt_max=0.1)
    dt = taps.log_dt.exp()
    assert 0.01 <= dt.min() < 0.011 and 0.09 < dt.max() <= 0.1 + 1e-6
    assert abs(taps.log_dt.mean().item() - torch.tensor([0.01, 0.1]).log().mean().item()) < 0.1
    assert_close((taps.C**2).mean(), torch.tensor(0.5), 0.1)
    for init in INITS:
        Lambda, B = diagonal_init(init, 3, 16)
        assert Lambda.shape == B.shape == (3, 8)
        assert (Lambda.real < 0).all() and (Lambda.imag <= 0).all()


def test_bad_arguments() -> None:
    Lambda, B, C, dt = system()
    with pytest.raises(ValueError, match=r"discretization is 'zho'.*did you mean 'zoh'"):
        diagonal_filter(Lambda, B, C, dt, 5, "zho")
    with pytest.raises(ValueError, match=r"Lambda is a \(2, 4\).*\(H, N/2\) = \(3, 4\)"):
        diagonal_filter(Lambda[:2], B, C, dt, 5)
    with pytest.raises(ValueError, match=r"C is a \(3, 4\)"):
        diagonal_filter(Lambda, B, C[0], dt, 5)
    with pytest.raises(TypeError, match="Lambda is"):
        diagonal_filter(Lambda.real, B, C, dt, 5)
    with pytest.raises(TypeError, match="dt is"):
        diagonal_filter(Lambda, B, C, dt.to(torch.complex128), 5)
    with pytest.raises(ValueError, match="length is -1"):
        diagonal_filter(Lambda, B, C, dt, -1)
    for options, message in [
        ({"d_state": 7}, "d_state is 7, expected an even number"),
        ({"d_state": 0}, "d_state is 0"),
        ({"dt_min": 0.0}, "dt_min is 0"),
        ({"dt_min": 0.2}, "dt_max is 0.1"),
        ({"init": "lini"}, "init is 'lini'.*did you mean"),
        ({"l_max": 0}, "l_max is 0"),
        ({"channels": 0}, "channels is 0"),
        ({"filter_lr": -1.0}, "filter_lr is -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            DiagonalFilter(4, **options)  # type: ignore[arg-type]


def test_discretise_is_in_double_precision() -> None:
    Lambda, B, _, dt = system()
    for part in discretise(Lambda.to(torch.complex64), B.to(torch.complex64), dt.float(), "zoh", 5):
        assert part.dtype == torch.complex128

"""Diagonal plus low rank filters against the recurrence, the generating function and dense systems in float64."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from longconv.filters import DPLRFilter, dense_filter, diagonal_filter, dplr_filter, hippo
from longconv.filters.dplr import dense, discretise, real_rows
from longconv.ops import cauchy
from tests.tolerances import assert_close, relative_l2

System = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def system(R: int = 1, C: int = 2, H: int = 3, P: int = 4, *, untied: bool = False) -> System:
    """A random stable system: Lambda, P, B, C, dt."""
    Lambda = torch.complex(-0.1 - torch.rand(H, P).double(), 5 * torch.randn(H, P).double())
    low_rank, B, readout = (torch.randn(shape, dtype=torch.complex128) for shape in ((R, H, P), (H, P), (C, H, P)))
    return Lambda, low_rank, B, readout, 0.01 + 0.1 * torch.rand((H, P) if untied else (H,)).double()


def with_conjugates(x: Tensor) -> Tensor:
    return torch.cat([x, x.conj()], -1)


def discretised_by_definition(Lambda: Tensor, P: Tensor, B: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """A_bar (H, N, N) and B_bar (H, N) by dense solves in the basis of the modes and their conjugates."""
    step = with_conjugates((dt[:, None] if dt.ndim == 1 else dt).expand(Lambda.shape).to(Lambda.dtype))
    P, B = with_conjugates(P), with_conjugates(B)
    A = torch.diag_embed(with_conjugates(Lambda)) - torch.einsum("rhn,rhm->hnm", P, P.conj())
    A = step[..., None] * A
    identity = torch.eye(A.shape[-1], dtype=A.dtype)
    return torch.linalg.solve(identity - A / 2, identity + A / 2), torch.linalg.solve(identity - A / 2, step * B)


def filter_by_definition(Lambda: Tensor, P: Tensor, B: Tensor, C: Tensor, dt: Tensor, length: int) -> Tensor:
    """C A_bar^l B_bar tap by tap."""
    A_bar, x = discretised_by_definition(Lambda, P, B, dt)
    taps = []
    for _ in range(length):
        tap = torch.einsum("chn,hn->ch", with_conjugates(C), x)
        assert tap.imag.abs().max() < 1e-12 * (1 + tap.real.abs().max())
        taps.append(tap.real)
        x = torch.einsum("hnm,hm->hn", A_bar, x)
    return torch.stack(taps, -1)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 31, 64, 101])
@pytest.mark.parametrize("R", [1, 2, 5])
@pytest.mark.parametrize("untied", [False, True])
def test_filter_is_the_recurrence(R: int, length: int, untied: bool) -> None:
    arguments = system(R, untied=untied)
    k = dplr_filter(*arguments, length)
    assert k.shape == (2, 3, length)
    assert_close(k, filter_by_definition(*arguments, length))


@pytest.mark.parametrize("length", [8, 9, 64, 101])
@pytest.mark.parametrize("measure", ["legs", "fout"])
def test_spectrum_is_the_truncated_generating_function(measure: str, length: int) -> None:
    """sum_l K[l] w^l = 2/(1 + w) C (I - A_bar^L) (z - dt A)^-1 dt B, z = 2 (1 - w)/(1 + w), at w^L = 1, w != -1.

    The inverse by the Woodbury identity over sums of poles, conjugates included. A zero eigenvalue is no pole of the
    whole: its node w = 1 is left to the neighbours.
    """
    Lambda, P, B, _ = hippo.nplr(measure, 16)
    dt = torch.tensor([0.05, 0.3], dtype=torch.float64)
    C = torch.randn(1, 2, 8, dtype=torch.complex128)
    k = dplr_filter(Lambda.expand(2, -1), P[:, None].expand(-1, 2, -1), B.expand(2, -1), C, dt, length)
    A_bar, _ = discretised_by_definition(Lambda.expand(2, -1), P[:, None].expand(-1, 2, -1), B.expand(2, -1), dt)
    power = torch.linalg.matrix_power(A_bar, length)
    full = with_conjugates(C[0])
    truncated = full - torch.einsum("hn,hnm->hm", full, power)
    w = torch.exp(-2j * math.pi * torch.arange(length, dtype=torch.float64) / length)
    keep = (w + 1).abs() > 1e-9
    if (Lambda == 0).any():
        keep[0] = False
    z = 2 * (1 - w[keep]) / (1 + w[keep])
    poles = dt[:, None] * with_conjugates(Lambda)
    b, p = (with_conjugates(part).expand(2, -1) for part in (B, P[0]))
    weights = torch.stack([truncated * b, truncated * p, p.conj() * b, p.conj() * p])  # (4, H, N)
    cb, cp, qb, qp = cauchy(dt[:, None] * weights, z, poles)
    want = 2 / (1 + w[keep]) * (cb - cp * qb / (1 + qp))
    assert_close(torch.fft.fft(k[0])[:, keep], want, 1e-11)


@pytest.mark.parametrize("measure", hippo.NPLR)
def test_agrees_with_the_dense_system_of_a_measure(measure: str) -> None:
    A, B = hippo.transition(measure, 64)
    Lambda, P, half_B, V = hippo.nplr(measure, 64, rank=2)
    C, dt = torch.randn(2, 1, 64, dtype=torch.float64), torch.tensor([0.001, 0.05], dtype=torch.float64)
    want = dense_filter(A, B, C, dt, 1024)
    k = dplr_filter(
        Lambda.expand(2, -1),
        P[:, None].expand(-1, 2, -1),
        half_B.expand(2, -1),
        C.transpose(0, 1).to(V.dtype) @ V,
        dt,
        1024,
    )
    assert_close(k.transpose(0, 1), want, 1e-10)


def test_fewer_taps_are_a_prefix() -> None:
    arguments = system(2)
    k = dplr_filter(*arguments, 100)
    for length in (0, 1, 63, 64, 65):
        got = dplr_filter(*arguments, length)
        assert got.shape == (2, 3, length)
        if length:
            assert_close(got, k[..., :length])


@pytest.mark.parametrize("untied", [False, True])
def test_gradcheck(untied: bool) -> None:
    inputs = tuple(part.requires_grad_() for part in system(2, 2, 2, 2, untied=untied))
    assert torch.autograd.gradcheck(lambda Lambda, P, B, C, dt: dplr_filter(Lambda, P, B, C, dt, 9), inputs)
    assert torch.autograd.gradgradcheck(lambda Lambda, P, B, C, dt: dplr_filter(Lambda, P, B, C, dt, 5), inputs)


def test_a_bar_is_a_contraction() -> None:
    for measure in hippo.NPLR:
        Lambda, P, B, _ = hippo.nplr(measure, 64, rank=2)
        dt = torch.tensor([1e-3, 0.1, 10.0], dtype=torch.float64)
        A_bar, _ = dense(discretise(Lambda.expand(3, -1), P[:, None].expand(-1, 3, -1), B.expand(3, -1), dt))
        assert torch.linalg.matrix_norm(A_bar, 2).max() < 1 + 1e-12


def test_zero_eigenvalue() -> None:
    """An integrator, without and with feedback: finite, with the limit's value, and finite gradients."""
    Lambda = torch.zeros(1, 1, dtype=torch.complex128, requires_grad=True)
    one, dt = torch.ones(1, 1, 1, dtype=torch.complex128), torch.tensor([0.1], dtype=torch.float64)
    k = dplr_filter(Lambda, 0 * one, one[0], one, dt, 5)
    assert_close(k, torch.full((1, 1, 5), 0.2, dtype=torch.float64))
    damped = dplr_filter(Lambda, one, one[0], one, dt, 5)
    (damped.sum() + k.sum()).backward()
    assert Lambda.grad is not None and Lambda.grad.isfinite().all() and Lambda.grad.abs() > 0
    assert_close(damped, filter_by_definition(Lambda.detach(), one, one[0], one, dt, 5))


@pytest.mark.parametrize(("init", "rank"), [("legs", 1), ("legt", 2), ("fout", 1)])
def test_float32_filter_and_gradients_at_length_16384(init: str, rank: int) -> None:
    narrow = DPLRFilter(2, d_state=64, init=init, rank=rank)
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


@pytest.mark.parametrize("dt_tied", [True, False])
def test_rate_multiplies_the_step(dt_tied: bool) -> None:
    taps = DPLRFilter(3, d_state=8, dt_tied=dt_tied).double()
    faster = copy.deepcopy(taps)
    with torch.no_grad():
        faster.log_dt.add_(math.log(2.5))
    assert_close(taps(50, rate=2.5), faster(50))
    slow = DPLRFilter(64, d_state=16, dt_min=1e-4, dt_max=1e-3, dt_tied=dt_tied).double()
    fine, coarse = slow(2000), slow(1000, rate=2.0)
    assert_close(coarse, fine.unflatten(-1, (-1, 2)).sum(-1), 0.01)  # the same system, its input held over two samples


def test_discretised_system_steps_to_the_filter() -> None:
    taps = DPLRFilter(3, 2, d_state=8, init="legt", rank=2).double()
    system, C = taps.discretised()
    x, k = system.B, []
    for _ in range(40):
        k.append(2 * (C * x).sum(-1).real)
        s = (system.right * x).sum(-1).real
        x = system.A * x + (system.left * s[..., None]).sum(0)
    assert_close(torch.stack(k, -1), taps(40), 1e-11)
    A_bar, B_bar = dense(system)
    assert_close(torch.einsum("chn,hnm,hm->ch", real_rows(2 * C), A_bar, B_bar), k[1])


def test_initial_values() -> None:
    taps = DPLRFilter(500, d_state=8, init="legt", rank=3, dt_min=0.01, dt_max=0.1)
    dt = taps.log_dt.exp()
    assert 0.01 <= dt.min() < 0.011 and 0.09 < dt.max() <= 0.1 + 1e-6
    assert_close((taps.C**2).mean(), torch.tensor(0.5), 0.1)
    Lambda, P, B, _ = hippo.nplr("legt", 8, 2)
    parts = taps.continuous()
    assert_close(parts[0].imag, Lambda.imag.expand(500, -1), 1e-6)
    assert_close(parts[0].real, torch.full((500, 4), -1e-4).double(), 1e-6)
    assert_close(parts[1][:2], P[:, None].expand(-1, 500, -1), 1e-6)
    assert 0 < parts[1][2].abs().max() < 0.1
    assert_close(parts[2], torch.complex(B.real, B.imag.clamp(-2, 2)).expand(500, -1), 1e-6)
    _, _, legs_B, _ = hippo.nplr("legs", 64)
    for b_clip, bound in ((2.0, 2.0), (None, legs_B.imag.abs().max().item())):
        imag = DPLRFilter(1, d_state=64, b_clip=b_clip).B[..., 1]
        assert abs(imag.abs().max().item() - bound) < 1e-5
    assert DPLRFilter(3, d_state=8, dt_tied=False).log_dt.shape == (3, 4)


def test_bad_arguments() -> None:
    Lambda, P, B, C, dt = system(2)
    for bad, error, words in [
        ((Lambda[:2], P, B, C, dt), ValueError, r"Lambda is a \(2, 4\).*\(H, N/2\) of C = \(3, 4\)"),
        ((Lambda, P[0], B, C, dt), ValueError, r"P is a \(3, 4\).*\(R, H, N/2\)"),
        ((Lambda, P[..., :3], B, C, dt), ValueError, r"P is a \(2, 3, 3\).*\(any, 3, 4\)"),
        ((Lambda, P, B[:, :1], C, dt), ValueError, r"B is a \(3, 1\)"),
        ((Lambda, P, B, C[0], dt), ValueError, r"C is a \(3, 4\)"),
        ((Lambda, P, B, C, dt[:2]), ValueError, r"dt is a \(2,\).*\(H,\) of C = \(3\)"),
        ((Lambda, P, B, C, dt[:, None]), ValueError, r"dt is a \(3, 1\).*\(H, N/2\) of C = \(3, 4\)"),
        ((Lambda.real, P, B, C, dt), TypeError, "Lambda is"),
        ((Lambda, P, B, C, dt.to(torch.complex128)), TypeError, "dt is"),
        ((-Lambda, P, B, C, dt), ValueError, r"Lambda\[0, 0\] is .*expected a real part <= 0: the system is unstable"),
        ((Lambda, P * torch.nan, B, C, dt), ValueError, r"P\[0, 0, 0\] is nan"),
        ((Lambda, P, B / 0, C, dt), ValueError, r"B\[0, 0\] is"),
        ((Lambda, P, B, C, 0 * dt), ValueError, r"dt\[0\] is 0, expected finite, positive values"),
        ((Lambda, P, B, C, -dt), ValueError, r"dt\[0\] is -"),
    ]:
        with pytest.raises(error, match=words):
            dplr_filter(*bad, 5)
    with pytest.raises(ValueError, match="length is -1"):
        dplr_filter(Lambda, P, B, C, dt, -1)
    for options, message in [
        ({"d_state": 7}, "d_state is 7, expected an even number"),
        ({"d_state": 0}, "d_state is 0"),
        ({"dt_min": 0.0}, "dt_min is 0"),
        ({"dt_min": -0.1}, "dt_min is -0.1"),
        ({"dt_min": 0.2}, "dt_max is 0.1"),
        ({"dt_max": math.inf}, "dt_max is inf"),
        ({"init": "leg"}, "init is 'leg'.*did you mean 'legt' or 'legs'"),
        ({"init": "lmu"}, "measure 'lmu' has no known normal plus low rank form"),
        ({"init": "legt"}, "rank is 1, expected at least 2 for measure 'legt'"),
        ({"rank": 0}, "rank is 0"),
        ({"b_clip": -1.0}, "b_clip is -1"),
        ({"channels": 0}, "channels is 0"),
        ({"filter_lr": -1.0}, "filter_lr is -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            DPLRFilter(4, **options)  # type: ignore[arg-type]
    taps = DPLRFilter(4, d_state=8)
    for rate in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="rate is"):
            taps(5, rate=rate)
    with torch.no_grad():
        taps.log_decay[2, 1] = torch.nan
    with pytest.raises(ValueError, match=r"log_decay\[2, 1\] is nan"):
        taps(5)


def test_options_of_the_measure() -> None:
    """beta of tlagt shifts every decay by (beta - 1) / 2, and scales B."""
    taps, other = (DPLRFilter(2, d_state=8, init="tlagt", init_options=o).double() for o in ({"beta": 0.25}, None))
    Lambda, _, B, _ = hippo.nplr("tlagt", 8, beta=0.25)
    assert_close(taps.continuous()[0], Lambda.expand(2, -1), 1e-6)
    assert_close(torch.view_as_complex(taps.B)[0], B, 1e-6)
    assert relative_l2(taps.continuous()[0].real, other.continuous()[0].real) > 0.1
    with pytest.raises(TypeError, match="measure 'legs' has no option 'beta'"):
        DPLRFilter(2, d_state=8, init_options={"beta": 0.5})


def test_rank_zero_of_a_normal_measure() -> None:
    """A filter without a low rank part is the diagonal one."""
    taps = DPLRFilter(2, d_state=8, init="foud", rank=0).double()
    Lambda, P, B, C, dt = taps.continuous()
    assert P.shape == (0, 2, 4)
    assert_close(taps(40), diagonal_filter(Lambda, B, C, dt, 40, "bilinear"))
    taps(40).square().sum().backward()
    assert taps.C.grad is not None and taps.C.grad.norm() > 0

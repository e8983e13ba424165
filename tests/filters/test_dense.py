"""The dense filter against its definition, its gradients and its errors."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from longconv.filters import DenseFilter, dense_filter, diagonal_filter, hippo
from longconv.filters.dense import discretise
from tests.tolerances import assert_close, relative_l2

N, H, M = 6, 3, 2


def system() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    A, B = hippo.transition("legs", N)
    generator = torch.Generator().manual_seed(0)
    C = torch.randn(H, M, N, generator=generator, dtype=torch.float64)
    return A, B, C, torch.tensor([0.01, 0.05, 0.2], dtype=torch.float64)


def by_recurrence(A: Tensor, B: Tensor, C: Tensor, dt: Tensor, length: int, alpha: float) -> Tensor:
    """x' = A x + B u with x[t] - x[t-1] = dt (alpha f[t] + (1 - alpha) f[t-1]) and an impulse, a tap at a time."""
    taps = []
    for h, step in enumerate(dt):
        left = torch.linalg.inv(torch.eye(len(B), dtype=A.dtype) - alpha * step * A)
        x = left @ (step * B)
        for _ in range(length):
            taps.append(C[h] @ x)
            x = left @ (x + (1 - alpha) * step * (A @ x))
    return torch.stack(taps).unflatten(0, (len(dt), length)).transpose(1, 2)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 64, 100])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_definition(length: int, alpha: float) -> None:
    arguments = system()
    assert_close(dense_filter(*arguments, length, alpha), by_recurrence(*arguments, length, alpha), 1e-12)


@pytest.mark.parametrize("length", [1, 5, 33])
def test_gradients(length: int) -> None:
    arguments = [part.requires_grad_() for part in system()]
    assert torch.autograd.gradcheck(lambda A, B, C, dt: dense_filter(A, B, C, dt, length), arguments)


def test_second_gradients() -> None:
    arguments = [part.requires_grad_() for part in system()]
    assert torch.autograd.gradgradcheck(lambda A, B, C, dt: dense_filter(A, B, C, dt, 6, 0.7), arguments)


def test_no_taps() -> None:
    k = dense_filter(*system(), 0)
    assert k.shape == (H, M, 0)


@pytest.mark.parametrize("measure", ["legs", "legt", "foud"])
def test_float32_over_long_filters(measure: str) -> None:
    """Of a HiPPO matrix of 64 states, far from normal, over 16384 taps."""
    A, B = hippo.transition(measure, 64)
    C = torch.randn(2, 1, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    dt = torch.tensor([1e-3, 1e-2], dtype=torch.float64)
    want = dense_filter(A, B, C, dt, 16384)
    got = dense_filter(A, B, C.float(), dt, 16384)
    assert got.dtype == torch.float32
    assert_close(got, want, 1e-6)
    rounded = dense_filter(A.float(), B.float(), C.float(), dt.float(), 16384)
    assert relative_l2(rounded, want) < 1e-4  # the rounding of the system itself


def test_order_of_convergence() -> None:
    """Taps over dt approach C exp(t A) B: with dt^2 for the bilinear rule, with dt for the Euler rules."""
    A, B, C, _ = system()
    want = C[:1] @ torch.linalg.matrix_exp(A) @ B
    for alpha, order in ((0.0, 1), (0.5, 2), (1.0, 1)):
        errors = []
        for steps in (256, 512):
            # The impulse enters between two samples of the rule: the mean of two taps is the value at t = 1.
            k = dense_filter(A, B, C[:1], torch.full((1,), 1 / steps, dtype=torch.float64), steps + 1, alpha)
            errors.append((k[..., -2:].mean(-1) * steps - want).norm())
        assert torch.log2(errors[0] / errors[1]).item() == pytest.approx(order, abs=0.1), alpha


def test_a_diagonal_matrix_is_a_diagonal_system() -> None:
    _, _, C, dt = system()
    Lambda = -torch.arange(1, N + 1, dtype=torch.float64)
    B = torch.ones(N, dtype=torch.float64)
    want = diagonal_filter(Lambda + 0j, B + 0j, C.transpose(0, 1) / 2 + 0j, dt, 50, "bilinear")
    assert_close(dense_filter(Lambda.diag(), B, C, dt, 50).transpose(0, 1), want)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"A": torch.zeros(N, N + 1)}, ValueError, "A is a (6, 7)"),
        ({"B": torch.zeros(N + 1)}, ValueError, "B is a (7,)"),
        ({"B": torch.zeros(N, 1)}, ValueError, "B is a (6, 1)"),
        ({"C": torch.zeros(H, N)}, ValueError, "C is a (3, 6)"),
        ({"C": torch.zeros(H, M, N, dtype=torch.complex64)}, TypeError, "C is a"),
        ({"dt": torch.zeros(H + 1)}, ValueError, "dt is a (4,)"),
        ({"dt": 0.1}, TypeError, "dt is 0.1"),
        ({"dt": torch.tensor([0.1, 0.0, 0.1])}, ValueError, "dt[1] is 0, expected finite, positive"),
        ({"dt": torch.tensor([0.1, 0.1, -1.0])}, ValueError, "dt[2] is -1"),
        ({"A": torch.full((N, N), torch.nan)}, ValueError, "A[0, 0] is nan"),
        ({"C": torch.full((H, M, N), torch.inf)}, ValueError, "C[0, 0, 0] is inf"),
        ({"A": 100 * torch.eye(N)}, ValueError, "unstable"),
        ({"alpha": 1.5}, ValueError, "alpha is 1.5"),
        ({"alpha": "bilinear"}, TypeError, "alpha is 'bilinear'"),
        ({"length": -1}, ValueError, "length is -1"),
        ({"length": 2.0}, TypeError, "length is 2.0"),
    ],
    ids=str,
)
def test_bad_input(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = dict(zip(("A", "B", "C", "dt"), system(), strict=True)) | {"length": 4096} | changes
    with pytest.raises(error, match=re.escape(message)):
        dense_filter(**arguments)


# --- the module -------------------------------------------------------------------------------------------------------


def test_what_is_trained() -> None:
    for trainable_A in (False, True):
        for trainable_dt in (False, True):
            taps = DenseFilter(H, M, N, trainable_A=trainable_A, trainable_dt=trainable_dt)
            names = {name for name, _ in taps.named_parameters()}
            assert names == {"C"} | ({"A", "B"} if trainable_A else set()) | ({"log_dt"} if trainable_dt else set())
            taps(9).sum().backward()
            assert all(parameter.grad is not None for parameter in taps.parameters())


def test_fixed_matrices_are_exact() -> None:
    A, B = hippo.transition("legt", N)
    taps = DenseFilter(H, M, N, init="legt")
    assert torch.equal(taps.A, A) and torch.equal(taps.B, B)


def test_states_are_loaded_by_fixed_and_trained_filters_alike() -> None:
    fixed, trained = DenseFilter(H, M, N), DenseFilter(H, M, N, trainable_A=True, trainable_dt=False)
    assert relative_l2(fixed(9), trained(9)) > 0.1
    trained.load_state_dict(fixed.state_dict())
    assert_close(trained(9), fixed(9))


def test_the_module_discretises_as_the_function() -> None:
    taps = DenseFilter(H, M, N).double()
    A_bar, B_bar, C = taps.discretised()
    want = discretise(taps.A, taps.B, taps.log_dt.exp(), 0.5)
    assert torch.equal(A_bar, want[0]) and torch.equal(B_bar, want[1]) and torch.equal(C, taps.C)
    assert_close((C @ A_bar @ A_bar @ B_bar[..., None]).squeeze(-1).T, taps(3)[..., 2])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"init": "leg"}, ValueError, "did you mean 'legt' or 'legs'"),
        ({"alpha": -0.1}, ValueError, "alpha is -0.1"),
        ({"alpha": 0.0}, ValueError, "unstable with alpha = 0 and dt = 0.1.*modulus 5.4 > 1.*lower dt_max"),
        ({"alpha": 0.0, "init": "fout", "dt_max": 1e-3}, ValueError, "unstable"),
        ({"dt_min": 0.0}, ValueError, "dt_min is 0"),
        ({"dt_min": 0.1, "dt_max": 0.01}, ValueError, "dt_max is 0.01"),
        ({"dt_max": float("nan")}, ValueError, "dt_max is nan"),
        ({"d_state": 0}, ValueError, "N is 0|d_state is 0"),
        ({"d_state": 7, "init": "foud"}, ValueError, "even"),
        ({"filter_lr": -1.0}, ValueError, "filter_lr is -1"),
    ],
    ids=str,
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DenseFilter(**{"d_model": H, "d_state": 64, **options})


def test_nan_parameters_are_named() -> None:
    taps = DenseFilter(H, M, N)
    with torch.no_grad():
        taps.log_dt[1] = torch.nan
    for call in (lambda: taps(9), taps.discretised):
        with pytest.raises(ValueError, match=r"log_dt\[1\] is nan"):
            call()


def test_a_singular_system_is_named() -> None:
    _, B, C, _ = system()
    identity = torch.eye(N, dtype=B.dtype)
    with pytest.raises(ValueError, match=r"A_bar\[1\] is inf.*I - alpha dt A is singular with alpha = 0.5.*alpha dt"):
        dense_filter(identity, B, C, torch.tensor([0.5, 2.0, 0.5], dtype=B.dtype), 9)


def test_fixed_matrices_stay_in_double_precision() -> None:
    """Whatever the module is cast to, on whatever device, there and back."""
    A, B = hippo.transition("legt", N)
    taps = DenseFilter(H, M, N, init="legt")
    for cast in (taps.float(), taps.to(torch.bfloat16), taps.half(), taps.to("cpu", torch.float32), taps.double()):
        assert torch.equal(cast.A, A) and torch.equal(cast.B, B)
    assert taps.float().C.dtype == torch.float32
    moved = taps.to("meta")
    assert moved.A.is_meta and moved.A.dtype == torch.float64
    assert taps.to_empty(device="cpu").A.device.type == "cpu"
    trained = DenseFilter(H, M, N, trainable_A=True).double().float()
    assert trained.A.dtype == trained.B.dtype == torch.float32


def test_options_of_the_measure() -> None:
    taps = DenseFilter(H, M, N, init="tlagt", init_options={"beta": 0.5})
    A, B = hippo.transition("tlagt", N, beta=0.5)
    assert torch.equal(taps.A, A) and torch.equal(taps.B, B)
    with pytest.raises(TypeError, match="measure 'legs' has no option 'beta'"):
        DenseFilter(H, M, N, init_options={"beta": 0.5})

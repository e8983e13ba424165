"""The DSS filter against its definition, its gradients, growing modes and its errors."""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from longconv.filters import DSSFilter, diagonal_filter, dss_filter
from longconv.filters.dss import CLIP, VARIANTS
from tests.tolerances import assert_close

C, H, P = 2, 3, 4


def system(growing: bool = False, features: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    shape = (H, P) if features else (P,)
    real = normal(*shape) if growing else -normal(*shape).exp()
    return (
        torch.complex(real, 5 * normal(*shape)),
        torch.complex(normal(C, H, P), normal(C, H, P)),
        normal(H, 2) - 2,
    )


def definition(Lambda: Tensor, W: Tensor, log_dt: Tensor, length: int, variant: str, l_max: int) -> Tensor:
    """The equation of the docstring, mode by mode."""
    if "clip" in variant:
        Lambda = torch.complex(Lambda.real.clamp(max=CLIP), Lambda.imag)
    dt = log_dt.exp()
    a = torch.complex(dt[:, :1] * Lambda.real, dt[:, 1:] * Lambda.imag)
    l = torch.arange(length, dtype=torch.float64)
    if variant == "softmax":
        sign = torch.where(a.real > 0, -1.0, 1.0)
        x = Lambda * (torch.exp(sign * a * l_max) - 1)
        scale = (torch.exp(sign * a) - 1) * x.conj() / (x.abs() ** 2 + 1e-7)
        shift = torch.where(a.real > 0, l_max - 1.0, 0.0)
    else:
        size = (Lambda.abs() ** 2).clamp(min=1e-7)
        scale = torch.ones_like(a) if variant.endswith("no-scale") else (torch.exp(a) - 1) * Lambda.conj() / size
        shift = torch.zeros(H, P, dtype=torch.float64)
    return ((W * scale)[..., None] * torch.exp(a[..., None] * (l - shift[..., None]))).sum(-2).real


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("growing", [False, True])
def test_definition(variant: str, features: bool, growing: bool) -> None:
    Lambda, W, log_dt = system(growing, features)
    for length, l_max in ((1, None), (40, None), (40, 16), (7, 16)):
        k = dss_filter(Lambda, W, log_dt, length, variant, l_max)
        assert_close(k, definition(Lambda, W, log_dt, length, variant, l_max or length), 1e-11)


@pytest.mark.parametrize("variant", ["softmax", "exp", "clip", "exp-no-scale"])
@pytest.mark.parametrize("growing", [False, True])
def test_gradients(variant: str, growing: bool) -> None:
    arguments = [part.requires_grad_() for part in system(growing)]
    for length in (5, 12):
        function = functools.partial(dss_filter, length=length, variant=variant, l_max=8)
        assert torch.autograd.gradcheck(function, arguments)


def test_without_l_max_the_normaliser_has_the_filter_length() -> None:
    Lambda, W, log_dt = system()
    assert_close(dss_filter(Lambda, W, log_dt, 9), dss_filter(Lambda, W, log_dt, 9, l_max=9))
    assert dss_filter(Lambda, W, log_dt, 0).shape == (C, H, 0)


def test_softmax_is_the_dss_rule_of_a_diagonal_filter() -> None:
    Lambda, W, log_dt = system()
    log_dt = log_dt[:, :1].expand(-1, 2)
    want = diagonal_filter(Lambda, torch.ones_like(Lambda), W, log_dt[:, 0].exp(), 30, "dss", l_max=11)
    assert_close(dss_filter(Lambda, W, log_dt, 30, l_max=11), want)


def test_forms_of_log_dt_and_names() -> None:
    Lambda, W, log_dt = system()
    one = log_dt[:, 0]
    want = dss_filter(Lambda, W, torch.stack([one, one], -1), 9, "exp-no-scale")
    assert_close(dss_filter(Lambda, W, one, 9, "exp_no_scale"), want)
    assert_close(dss_filter(Lambda, W, one[:, None], 9, "exp-re-im-no-scale"), want)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_softmax_of_fast_growing_modes(dtype: torch.dtype) -> None:
    """exp(a l) reaches exp(4000): the taps of l < l_max are a softmax over lags, read backwards."""
    Lambda = torch.tensor([2.0 + 0.3j, 4.0 - 1j], dtype=dtype)
    W = torch.ones(1, 1, 2, dtype=dtype).requires_grad_()
    log_dt = torch.zeros(1, dtype=dtype.to_real())
    k = dss_filter(Lambda, W, log_dt, 1000, l_max=1000)
    l = torch.arange(1000, dtype=torch.float64)
    z = Lambda.to(torch.complex128)[:, None]
    want = ((1 - torch.exp(-z)) / z * torch.exp(z * (l - 999))).sum(0).real
    assert_close(k[0, 0], want, 1e-6)
    assert_close(dss_filter(Lambda, W, log_dt, 997, l_max=1000), k[..., :997], 1e-6)
    (gradient,) = torch.autograd.grad(k.sum(), W)
    assert gradient.isfinite().all() and gradient.norm() > 0


def test_float32_is_near_float64() -> None:
    """Also for small steps, where exp(a) - 1 cancels if it is formed naively."""
    Lambda, W, log_dt = system()
    for variant in ("softmax", "exp"):
        want = dss_filter(Lambda, W, log_dt - 6, 16384, variant, 1024)
        got = dss_filter(Lambda, W.to(torch.complex64), log_dt - 6, 16384, variant, 1024)
        assert got.dtype == torch.float32
        assert_close(got, want, 1e-6)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"variant": "softmx"}, ValueError, "did you mean 'softmax'"),
        ({"variant": "exp-no"}, ValueError, "did you mean 'exp-no-scale'"),
        ({"variant": None}, ValueError, "variant is None"),
        ({"l_max": 0}, ValueError, "l_max is 0"),
        ({"length": -1}, ValueError, "length is -1"),
        ({"Lambda": torch.zeros(P)}, TypeError, "Lambda is a (4,) float32"),
        ({"Lambda": torch.zeros(P + 1) + 0j}, ValueError, "Lambda is a (5,)"),
        ({"W": torch.zeros(H, P) + 0j}, ValueError, "W is a (3, 4)"),
        ({"log_dt": torch.zeros(H, 3)}, ValueError, "log_dt is a (3, 3)"),
        ({"log_dt": torch.zeros(H + 1)}, ValueError, "log_dt is a (4,)"),
        ({"log_dt": torch.tensor([0.0, torch.nan, 0.0])}, ValueError, "log_dt[1] is nan"),
        (
            {"log_dt": torch.tensor([0.0, 800.0, 0.0])},
            ValueError,
            "dt[1] is inf, expected finite, positive values: it is",
        ),
        ({"log_dt": torch.tensor([0.0, 0.0, -800.0])}, ValueError, "dt[2] is 0, expected finite, positive values"),
        ({"Lambda": torch.tensor([1, 2, torch.inf, 0]) + 0j}, ValueError, "Lambda[2] is inf"),
        ({"Lambda": torch.tensor([1, 2, 3, 4]) + 0j, "variant": "exp"}, ValueError, "unstable"),
    ],
    ids=str,
)
def test_bad_input(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = dict(zip(("Lambda", "W", "log_dt"), system(), strict=True)) | {"length": 30000}
    with pytest.raises(error, match=re.escape(message)):
        dss_filter(**arguments | changes)


# --- the module -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_parametrisations_start_at_one_Lambda(variant: str) -> None:
    taps, softmax = DSSFilter(H, C, 2 * P, variant=variant).double(), DSSFilter(H, C, 2 * P)
    Lambda = taps.continuous()
    assert_close(Lambda, softmax.continuous(), 1e-6)  # parameters in float32, some of them logarithms
    assert (Lambda.imag > 0).all() and torch.allclose(Lambda.real, torch.tensor(-0.5, dtype=torch.float64))
    want = dss_filter(Lambda, torch.view_as_complex(taps.W), taps.log_dt, 20, variant, taps.l_max)
    assert_close(taps(20), want)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 7}, "d_state is 7, expected an even"),
        ({"init": "lin", "variant": "exp-re-im"}, "Im = 0"),
        ({"init": "leg"}, "did you mean 'legs'"),
        ({"variant": "softmin"}, "did you mean 'softmax'"),
        ({"dt_min": -1.0}, "dt_min is -1"),
        ({"dt_min": 0.5}, "dt_max is 0.1"),
        ({"l_max": 0}, "l_max is 0"),
        ({"channels": 0}, "channels is 0"),
    ],
    ids=str,
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DSSFilter(**{"d_model": H, **options})

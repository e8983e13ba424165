"""The backend ``cpu`` of ``short_conv`` at every size, layout and instruction set."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from longconv.ops import short_conv
from longconv.ops.short_conv import cpu
from longconv.ops.short_conv.activations import ACTIVATIONS
from tests.tolerances import assert_close

pytestmark = pytest.mark.skipif(cpu.available() is not None, reason=str(cpu.available()))

NAMES = ["none", *ACTIVATIONS]
ERROR = {torch.float32: 5e-7, torch.float64: 2e-15, torch.bfloat16: 5e-7, torch.float16: 5e-7}
"""What sums of this design are off by, relative L2, in 16 bits beyond the one rounding of every number at the end; the
promise to users is tests/tolerances.py."""


def sequences(batch: int, channels: int, length: int, dtype: torch.dtype, *, last: bool) -> Tensor:
    """Random (B, H, L), contiguous or channels-last."""
    if last:
        return torch.randn(batch, length, channels, dtype=torch.float64).to(dtype).mT
    return torch.randn(batch, channels, length, dtype=torch.float64).to(dtype)


def run(backend: str, leaves: list[Tensor], activation: str, dy: Tensor) -> list[Tensor]:
    """The output, and the gradient of every tensor of (u, w, bias, initial)."""
    u, w, *more = leaves = [t.detach().requires_grad_() for t in leaves]
    named: dict[str, Any] = dict(zip(("bias", "initial"), more, strict=False))
    y = short_conv(u, w, activation=None if activation == "none" else activation, backend=backend, **named)
    return [y, *torch.autograd.grad(y, leaves, dy)]


def beyond_rounding(got: Tensor, want: Tensor) -> Tensor:
    """How far each number is off; in 16 bits less the half unit in the last place that its own rounding may cost."""
    error = (got - want).abs()
    if got.dtype.itemsize > 2:
        return error
    half_unit = torch.finfo(got.dtype).eps / 2
    return (error - half_unit * torch.maximum(got.abs(), want.abs())).clamp(min=0)


def against_double(leaves: list[Tensor], activation: str) -> None:
    """Everything against the definition in float64 on the same rounded inputs."""
    dy = torch.randn_like(leaves[0])
    got = run("cpu", leaves, activation, dy)
    want = run("reference", [t.double() for t in leaves], activation, dy.double())
    layouts = [leaves[0], *leaves]
    for a, b, like in zip(got, want, layouts, strict=True):
        assert a.dtype == like.dtype
        # Inputs are of unit scale: what cancels to less is as exact as its terms.
        assert beyond_rounding(a, b).norm() <= ERROR[a.dtype] * max(b.norm().item(), b.numel() ** 0.5)
    for a in got[:2]:
        assert a.mT.is_contiguous() if leaves[0].stride(2) != 1 else a.is_contiguous()


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_number_of_taps(isa: str, dtype: torch.dtype, last: bool) -> None:
    """Around every number of registers and vectors; lengths below and above it, and beyond one tile."""
    around = [n + d for n in (4, 8, 16, 32, 64, 128) for d in (-1, 0, 1)]
    for taps in (1, 2, *around, 200, 256, 300):
        for length in (1, 2, 61, 257, 2311):
            shapes = (17, taps), (17,), (2, 17, taps - 1)
            rest = [torch.randn(shape, dtype=dtype) for shape in shapes]
            against_double([sequences(2, 17, length, dtype, last=last), *rest], "none")


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_calls(isa: str, data: st.DataObject) -> None:
    batch, channels = data.draw(st.integers(1, 3), label="B"), data.draw(st.integers(1, 70), label="H")
    length, taps = data.draw(st.integers(1, 400), label="L"), data.draw(st.integers(1, 70), label="K")
    dtype = data.draw(st.sampled_from(list(ERROR)), label="dtype")
    u = sequences(batch, channels, length, dtype, last=data.draw(st.booleans(), label="channels-last"))
    wide = torch.float32 if dtype.itemsize == 2 and data.draw(st.booleans(), label="wide taps") else dtype
    leaves = [u, torch.randn(channels, taps).to(wide) / taps**0.5]
    if data.draw(st.booleans(), label="bias"):
        leaves.append(torch.randn(channels).to(wide))
        if data.draw(st.booleans(), label="initial"):
            leaves.append(torch.randn(batch, taps - 1, channels).to(dtype).mT)
    against_double(leaves, data.draw(st.sampled_from(NAMES), label="activation"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", NAMES)
def test_activations_far_out(isa: str, activation: str, dtype: torch.dtype) -> None:
    """Number by number over all of the line, where a function is close to 0 too, and at infinities and NaN."""
    z = torch.cat([torch.linspace(-40, 40, 20001, dtype=dtype), torch.logspace(-30, 30, 121, dtype=dtype)])
    z = torch.cat([z, -z])[None, None].contiguous()
    one = torch.ones(1, 1, dtype=dtype)
    got = run("cpu", [z, one], activation, torch.ones_like(z))
    want = run("reference", [z.double(), one.double()], activation, torch.ones_like(z).double())
    absolute = 2e-15 if dtype == torch.float64 else 5e-7
    for a, b in zip(got[:2], want[:2], strict=True):
        torch.testing.assert_close(a.double(), b, rtol=absolute, atol=absolute)
    special = torch.tensor([[[torch.inf, torch.nan, -torch.inf]]], dtype=dtype).repeat(1, 1, 20)
    y = short_conv(special, one, activation=None if activation == "none" else activation, backend="cpu")
    limits = {"none": torch.inf, "tanh": 1.0, "sigmoid": 1.0}
    assert (y[0, 0, ::3] == limits.get(activation, torch.inf)).all()
    assert y[0, 0, 1::3].isnan().all()


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", [(3, 40, 1500, 4), (1, 20, 40000, 33), (5, 9, 700, 100), (2, 300, 90, 5)])
def test_threads_change_nothing(shape: tuple[int, int, int, int], last: bool) -> None:
    batch, channels, length, taps = shape
    u, dy = (sequences(batch, channels, length, torch.float32, last=last) for _ in range(2))
    leaves = [u, torch.randn(channels, taps), torch.randn(channels), torch.randn(batch, channels, taps - 1)]
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 8):
            torch.set_num_threads(threads)
            results.append(run("cpu", leaves, "silu", dy))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_bad_row_stays_alone(bad: float, last: bool) -> None:
    """In sums of tiles that lie beside each other, and in the sums over the batch."""
    u, dy = (sequences(3, 20, 500, torch.float32, last=last) for _ in range(2))
    w, bias = torch.randn(20, 7), torch.randn(20)
    clean = run("cpu", [u, w, bias], "silu", dy)
    spoiled = u.clone()
    spoiled[1, 5, 100] = bad
    got = run("cpu", [spoiled, w, bias], "silu", dy)
    others = torch.ones(3, 20, dtype=torch.bool)
    others[1, 5] = False
    for a, b in zip(got[:2], clean[:2], strict=True):
        assert torch.equal(a[others], b[others])
    rows = torch.arange(20) != 5
    assert torch.equal(got[2][rows], clean[2][rows]) and torch.equal(got[3][rows], clean[3][rows])
    assert not got[0][1, 5].isfinite().all() and got[0][1, 5, :100].isfinite().all()


def test_views_give_what_copies_give() -> None:
    """Rows and columns at any stride, among them repeated ones, negated ones and parts of wider projections."""
    wide = torch.randn(3, 300, 60)
    w, initial = torch.randn(5, 20).T, torch.randn(3, 4, 40)[:, :, ::2].mT
    for u in (
        wide[..., 20:40].mT,
        wide[..., :20].mT[:, :, ::2],
        wide[:1, :, :20].mT.expand(3, -1, -1),
        wide.mT[:, ::3],
    ):
        dy = torch.randn(u.shape).mT.contiguous().mT
        got = run("cpu", [u, w, torch.ones(20), initial], "gelu", dy)
        want = run("cpu", [t.contiguous() for t in (u, w, torch.ones(20), initial)], "gelu", dy.contiguous())
        for a, b in zip(got, want, strict=True):
            assert_close(a, b.double(), ERROR[torch.float32])
    z = torch.randn(2, 9, 50, dtype=torch.complex64).conj().imag
    assert z.is_neg()
    assert torch.equal(short_conv(z, w[:9], backend="cpu"), short_conv(z.resolve_neg(), w[:9], backend="cpu"))


def test_long_sums_are_exact_enough() -> None:
    """The gradient of the taps is a sum over batch and time, whose terms all have one sign here."""
    u, dy = torch.rand(2, 16, 200_000), torch.rand(2, 16, 200_000)
    leaves = [u, torch.randn(16, 4), torch.randn(16)]
    want = run("reference", [t.double() for t in leaves], "none", dy.double())
    for layout in (leaves, [u.mT.contiguous().mT, *leaves[1:]]):
        for a, b in zip(run("cpu", layout, "none", dy)[2:], want[2:], strict=True):
            assert_close(a, b, 3e-7)


@pytest.mark.parametrize("last", [False, True])
def test_gradients_numerically(last: bool) -> None:
    u = sequences(2, 9, 7, torch.float64, last=last)
    inputs = [u, *(torch.randn(shape, dtype=torch.float64) for shape in ((9, 3), (9,), (2, 9, 2)))]
    inputs = [t.requires_grad_() for t in inputs]

    def convolve(u: Tensor, w: Tensor, bias: Tensor, initial: Tensor) -> Tensor:
        return short_conv(u, w, bias, activation="silu", initial=initial, backend="cpu")

    assert torch.autograd.gradcheck(convolve, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(convolve, inputs, fast_mode=True)

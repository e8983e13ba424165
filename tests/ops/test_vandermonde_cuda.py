"""The backends ``cuda`` of ``vandermonde`` and ``vandermonde_log`` by host execution, see csrc/cuda/warp_host.h."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from longconv.ops import _cuda, vandermonde, vandermonde_log
from longconv.ops.vandermonde import cuda
from longconv.ops.vandermonde.operator import LOGARITHMS, NODES
from tests.ops.comparison import compare, each_length
from tests.ops.cuda_host import cuda_on_host, host_library
from tests.tolerances import assert_close

__all__ = ["cuda_on_host", "host_library"]

on_host = pytest.mark.usefixtures("cuda_on_host")
Shapes = tuple[tuple[int, ...], tuple[int, ...]]
SHAPES: list[Shapes] = [
    *(((2, 2, 5), (2, 5)), ((2, 1, 18), (2, 18)), ((7,), (7,)), ((2, 5), (1, 5)), ((5,), (3, 2, 5))),
    *(((40, 1), (40, 1)), ((2, 3, 33), (1, 3, 33))),
]
"""Of coefficients and of nodes, with leading axes that broadcast."""


def numbers(*shape: int, is_complex: bool = True) -> Tensor:
    return torch.randn(shape, dtype=torch.complex128 if is_complex else torch.float64)


def logarithms(*shape: int, is_complex: bool = True, length: int) -> Tensor:
    """Of nodes that decay over about the length, and turn at any rate."""
    real = -torch.rand(shape, dtype=torch.float64) * 8 / length
    return torch.complex(real, math.pi * torch.randn(shape, dtype=torch.float64)) if is_complex else real


def check(shapes: Shapes, kinds: tuple[bool, bool], length: int, real: bool, *, device: str = "cpu") -> None:
    """Both ops, with nodes in double precision, as the phase after a thousand steps asks for."""
    v, log_x = numbers(*shapes[0], is_complex=kinds[0]), logarithms(*shapes[1], is_complex=kinds[1], length=length)
    options = {"length": length, "real": real}
    call = {"v": v, "log_x": log_x}
    compare("vandermonde_log", call, options, torch.float32, wide=("log_x",), device=device, exact="torch")
    x = log_x.exp() if kinds[1] else log_x.exp() * torch.randn(shapes[1]).sign()
    compare("vandermonde", {"v": v, "x": x}, options, torch.float32, wide=("x",), device=device, exact="torch")


def test_is_refused_where_there_is_no_gpu() -> None:
    if cuda.available() is None:
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="'cuda' can't serve this call"):
        vandermonde(torch.ones(4), torch.ones(4), 3, backend="cuda")


@on_host
def test_it_serves_who_asks_for_it_and_refuses_what_it_cannot() -> None:
    for op in (NODES, LOGARITHMS):
        assert op.backends.choose("auto", torch.ones(4), torch.ones(4), 3, True).name != "cuda"
    for dtype in (torch.float64, torch.complex128):
        with pytest.raises(ValueError, match="sums are taken in single precision"):
            vandermonde(torch.ones(4, dtype=dtype), torch.ones(4), 3, backend="cuda")


@on_host
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_option(data: st.DataObject) -> None:
    """Values and gradients over shapes, lengths around runs and tiles, real and complex arguments and results."""
    kinds = data.draw(st.tuples(st.booleans(), st.booleans()), label="complex")
    length = data.draw(st.sampled_from([*range(1, 12), 15, 16, 17, 31, 33, 63, 65, 129, 512, 1025, 2100]), label="L")
    check(data.draw(st.sampled_from(SHAPES), label="shapes"), kinds, length, data.draw(st.booleans(), label="real"))


@on_host
def test_a_sample_of_lengths() -> None:
    def at(draw: random.Random, length: int) -> None:
        check(((2, 3), (2, 3)), (True, True), length, draw.random() < 0.5)

    each_length(at, (1000, 9000), (9000, 70000))


@on_host
def test_nodes_of_zero() -> None:
    """0^0 = 1, and the slope at 0 is that of the second power alone."""
    x = torch.tensor([0.0, 0.5, 1e-30], dtype=torch.complex128)
    compare("vandermonde", {"v": numbers(3), "x": x}, {"length": 20}, torch.float32, wide=("x",))
    log_x = torch.tensor([-torch.inf, -0.5], dtype=torch.float64)
    y = vandermonde_log(torch.ones(2), log_x, 20, backend="cuda")
    assert_close(y, vandermonde(torch.ones(2).double(), log_x.exp(), 20, backend="reference"), 2e-6)


@on_host
def test_modes_that_vanish_and_modes_that_grow() -> None:
    decay = torch.tensor([0, 1e-4, 1e-3, 1e-2, 1, 30, -1e-3, 5e-4, 200], dtype=torch.float64)
    log_x = torch.complex(-decay, torch.rand(3, 9, dtype=torch.float64))
    call = {"v": numbers(3, 9), "log_x": log_x}
    compare("vandermonde_log", call, {"length": 5003, "real": True}, torch.float32, wide=("log_x",))


@on_host
def test_powers_beyond_single_precision_that_no_cotangent_meets() -> None:
    v, x = torch.tensor([1e-30], requires_grad=True), torch.tensor([2.0], requires_grad=True)
    y = vandermonde(v, x, 200, backend="cuda")
    dv, dx = torch.autograd.grad(y[10], (v, x))
    assert_close(dv, torch.tensor([1024.0]))
    assert_close(dx, torch.tensor([1e-30 * 10 * 512]))


@on_host
@pytest.mark.parametrize("node", [1e6, 6e5 + 8e5j])
@pytest.mark.parametrize("length", range(1, 8))
def test_steps_beyond_single_precision(node: complex, length: int) -> None:
    """x^7 is, which no time of these needs."""
    is_complex = isinstance(node, complex)
    x = torch.tensor([node], dtype=torch.complex128 if is_complex else torch.float64)
    for op, call in (("vandermonde", {"x": x}), ("vandermonde_log", {"log_x": x.log()})):
        v = numbers(1, is_complex=is_complex)
        compare(op, {"v": v, **call}, {"length": length}, torch.float32, wide=tuple(call), exact="torch")


@on_host
@pytest.mark.parametrize("real", [False, True])
def test_sums_beyond_single_precision_are_infinite(real: bool) -> None:
    v, x = numbers(2, 1).to(torch.complex64), 1.9 * torch.exp(1j * torch.rand(2, 1).double())
    got, want = (vandermonde(v, x, 230, real=real, backend=name) for name in ("cuda", "reference"))
    got, want = (y if real else torch.view_as_real(y) for y in (got, want))
    assert torch.equal(got.isfinite(), want.isfinite())
    assert torch.equal(got[got.isinf()], want[want.isinf()])
    assert got.isinf().any()
    assert_close(got[got.isfinite()], want[want.isfinite()])


@on_host
def test_no_modes() -> None:
    y = torch.full((2, 3, 70), torch.nan)
    powers = torch.ones(2, 0, cuda._STRIDE + cuda._STRIDES, dtype=torch.complex128)
    _cuda.run("vandermonde", cuda._call(y[..., :0], powers, y, 8), y.device)
    assert not y.any()


@on_host
def test_a_set_that_is_not_finite_spoils_no_other() -> None:
    v, x = numbers(3, 2, 5).to(torch.complex64), (numbers(3, 1, 5) / 9).to(torch.complex64)
    clean = vandermonde(v, x, 40, backend="cuda")
    v[1, 0, 2], x[2, 0, 3] = torch.nan, torch.nan
    y = vandermonde(v, x, 40, backend="cuda")
    assert y[1, 0].isnan().all() and y[2].isnan().any()
    assert torch.equal(y[0], clean[0]) and torch.equal(y[1, 1], clean[1, 1])


@on_host
def test_strides_and_conjugates() -> None:
    v, x = numbers(5, 6).to(torch.complex64).T.conj()[::2], (numbers(5, 3) / 9).T
    want = vandermonde(v.to(torch.complex128), x, 33, backend="reference")
    assert_close(vandermonde(v, x, 33, backend="cuda"), want)


@on_host
def test_opcheck() -> None:
    v, x = numbers(2, 3).to(torch.complex64).requires_grad_(), (numbers(2, 3) / 9).requires_grad_()
    torch.library.opcheck(torch.ops.longconv.vandermonde.default, (v, x, 9, True, "cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("real", [False, True])
def test_on_a_gpu(shapes: Shapes, real: bool) -> None:
    for length in (1, 37, 4099, 100003):
        check(shapes, (True, True), length, real, device="cuda")
        check(shapes, (False, False), length, real, device="cuda")


@pytest.mark.gpu
def test_memory_is_bounded_on_a_gpu() -> None:
    """H = 256, N = 64, L = 65536: the whole tensor would be 8.6 GB; forward and backward stay below 1 GB."""
    v = torch.randn(256, 64, dtype=torch.complex64, device="cuda", requires_grad=True)
    log_x = logarithms(256, 64, length=65536).cuda().requires_grad_()
    torch.cuda.reset_peak_memory_stats()
    vandermonde_log(v, log_x, 65536, real=True, backend="cuda").sum().backward()
    assert torch.cuda.max_memory_allocated() < 1e9

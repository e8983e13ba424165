"""``vandermonde``, ``vandermonde_log``: the definition against numpy, blocks against it, precision and memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from longconv.ops import vandermonde, vandermonde_log
from longconv.ops.vandermonde import cpu
from longconv.ops.vandermonde.operator import LOGARITHMS, NODES
from tests.ops.native_calls import fast
from tests.tolerances import assert_close

OPS: dict[str, Callable[..., Tensor]] = {"vandermonde": vandermonde, "vandermonde_log": vandermonde_log}
FAST = [
    pytest.param(op.backends.op, name, marks=[pytest.mark.slow] if name == "keops" else [])
    for op in (NODES, LOGARITHMS)
    for name in fast(op.backends)
]
WIDE = (torch.float64, torch.complex128)


def nodes(*shape: int, dtype: torch.dtype, op: str = "vandermonde_log", decay: float = 0.1) -> Tensor:
    """Decaying nodes, real (of both signs) or complex; for ``vandermonde_log`` their logarithms (real: positive)."""
    real = -decay * torch.rand(shape, dtype=torch.float64)
    log_x = torch.complex(real, torch.randn_like(real)) if dtype.is_complex else real
    if op == "vandermonde_log":
        return log_x.to(dtype)
    return (log_x.exp() if dtype.is_complex else log_x.exp() * torch.randn_like(real).sign()).to(dtype)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("length", [1, 5, 40])
def test_reference_is_the_equation(op: str, dtype: torch.dtype, length: int) -> None:
    v, x = torch.randn(3, 6, dtype=dtype), nodes(3, 6, dtype=dtype, op=op)
    matrices = [np.vander(row, length, increasing=True) for row in (x.exp() if op == "vandermonde_log" else x).numpy()]
    want = torch.from_numpy(np.stack([row @ matrix for row, matrix in zip(v.numpy(), matrices, strict=True)]))
    assert_close(OPS[op](v, x, length, backend="reference"), want)


@pytest.mark.parametrize(("op", "backend"), FAST)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_agrees_with_reference(op: str, backend: str, data: st.DataObject) -> None:
    """Output and gradients over lengths, real and complex inputs, broadcast shapes."""
    v_dtype, x_dtype = data.draw(st.tuples(*[st.sampled_from(WIDE)] * 2), label="dtypes")
    v_shape, x_shape = data.draw(
        st.sampled_from([((3, 5), (3, 5)), ((2, 3, 5), (3, 5)), ((5,), (4, 5)), ((2, 1, 1), (3, 1)), ((5,), (5,))])
    )
    length, real = data.draw(st.integers(1, 200), label="L"), data.draw(st.booleans(), label="real")
    v, x = torch.randn(v_shape, dtype=v_dtype), nodes(*x_shape, dtype=x_dtype, op=op)
    compare(op, v, x, length, real, backend)


def compare(op: str, v: Tensor, x: Tensor, length: int, real: bool, backend: str) -> None:
    """Value and gradients of a backend against the definition."""
    v, x = v.requires_grad_(), x.requires_grad_()
    y = OPS[op](v, x, length, real=real, backend=backend)
    want = OPS[op](v, x, length, real=real, backend="reference")
    assert y.dtype == want.dtype
    assert y.is_contiguous()
    assert_close(y, want)
    if length > 1:
        g = torch.randn_like(want)
        for got, expected in zip(torch.autograd.grad(y, (v, x), g), torch.autograd.grad(want, (v, x), g), strict=True):
            assert got.dtype == expected.dtype
            assert_close(got, expected)


@pytest.mark.parametrize(("op", "backend"), FAST)
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, *WIDE])
def test_every_dtype(op: str, backend: str, dtype: torch.dtype) -> None:
    for real in (False, True):
        compare(op, torch.randn(2, 3, 16, dtype=dtype), nodes(3, 16, dtype=dtype, op=op), 700, real, backend)


@pytest.mark.parametrize(("op", "backend"), [case for case in FAST if case.values[0] == "vandermonde"])
def test_nodes_of_zero(op: str, backend: str) -> None:
    """0^0 is 1, and the derivative of x^1 at 0 is 1."""
    v = torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64, requires_grad=True)
    for dtype in WIDE:
        x = torch.tensor([0.0, -1.0, 0.5], dtype=dtype, requires_grad=True)
        y = OPS[op](v, x, 40, backend=backend)
        assert_close(y[:3], torch.tensor([10.0, -0.5, 4.25], dtype=dtype))
        g = torch.randn(40, dtype=torch.float64).to(dtype)
        dv, dx = torch.autograd.grad(y, (v, x), g)
        assert_close(torch.stack((dv[0].to(dtype), dx[0])), torch.stack((g[0], 2 * g[1])))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("real", [False, True])
def test_gradients_numerically(op: str, real: bool) -> None:
    inputs = [torch.randn(2, 3, dtype=torch.complex128), nodes(2, 3, dtype=torch.complex128, op=op)]
    inputs = [t.requires_grad_() for t in inputs]
    assert torch.autograd.gradcheck(lambda v, x: OPS[op](v, x, 7, real=real), inputs)
    assert torch.autograd.gradgradcheck(lambda v, x: OPS[op](v, x, 5, real=real), inputs)


@pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
@pytest.mark.parametrize("is_complex", [False, True])
def test_a_logarithm_of_zero(backend: str, is_complex: bool) -> None:
    """A node 0 adds v at l = 0 and nothing beyond, as with vandermonde, to values and derivatives."""
    dtype = torch.complex128 if is_complex else torch.float64
    v, x = torch.randn(3, dtype=dtype, requires_grad=True), torch.tensor([0.0, 0.5, 0.0], dtype=dtype)
    log_x = x.log().requires_grad_()
    y = vandermonde_log(v, log_x, 9, backend=backend)
    assert_close(y, vandermonde(v, x, 9))
    first = torch.autograd.grad(y.abs().square().sum(), (v, log_x), create_graph=True)
    assert_close(first[0], torch.autograd.grad(vandermonde(v, x, 9).abs().square().sum(), v)[0])
    assert first[1].isfinite().all() and first[1][[0, 2]].count_nonzero() == 0
    second = torch.autograd.grad(first[0].abs().square().sum() + first[1].abs().square().sum(), (v, log_x))
    assert all(part.isfinite().all() for part in second)


@pytest.mark.parametrize(("op", "backend"), FAST)
def test_nan_stays_in_its_sample(op: str, backend: str) -> None:
    v, x = torch.randn(3, 2, 4, dtype=torch.complex64), nodes(2, 4, dtype=torch.complex64, op=op)
    clean = OPS[op](v, x, 50, backend=backend)
    v[1, 0, 2] = torch.nan
    y = OPS[op](v, x, 50, backend=backend)
    assert y[1, 0].isnan().all()
    y[1, 0] = clean[1, 0]
    assert torch.equal(y, clean)


def test_non_contiguous_input() -> None:
    v, x = torch.randn(5, 3, dtype=torch.complex128).T.conj(), nodes(3, 10, dtype=torch.complex128)[:, ::2]
    for function in OPS.values():
        assert_close(function(v, x.conj(), 9), function(v, x.conj(), 9, backend="reference"))


def test_nodes_may_be_of_higher_precision() -> None:
    """Double-precision nodes near the unit circle, single-precision coefficients: 16384 powers at float32 rounding."""
    v = torch.randn(4, 32, dtype=torch.complex64, requires_grad=True)
    x = torch.exp(torch.complex(-1e-4 * torch.rand(4, 32).double(), 3 * torch.rand(4, 32).double())).requires_grad_()
    y = vandermonde(v, x, 16384, real=True)
    wide = v.to(torch.complex128)
    want = vandermonde_log(wide, x.log(), 16384, real=True)
    assert y.dtype == torch.float32
    assert_close(y, want, 1e-6)
    g = torch.randn_like(y)
    pairs = zip(torch.autograd.grad(y, (v, x), g), torch.autograd.grad(want, (v, x), g.double()), strict=True)
    for got, expected in pairs:
        assert_close(got, expected, 1e-6)


@pytest.mark.parametrize("wide_nodes", [False, True])
def test_float32_stays_exact_over_many_periods(wide_nodes: bool) -> None:
    """Phases of 16384 x 30 radians: powers in double precision keep the error at float32 rounding."""
    v = torch.randn(4, 32, dtype=torch.complex64, requires_grad=True)
    log_x = torch.complex(-1e-4 * torch.rand(4, 32), 30 * torch.rand(4, 32))
    log_x = (log_x.to(torch.complex128) * (1 + 1e-9) if wide_nodes else log_x).requires_grad_()
    y = vandermonde_log(v, log_x, 16384, real=True)
    want = vandermonde_log(v.to(torch.complex128), log_x.to(torch.complex128), 16384, real=True)
    assert y.dtype == torch.float32
    assert_close(y, want, 1e-6)
    g = torch.randn_like(y)
    for got, expected in zip(
        torch.autograd.grad(y, (v, log_x), g), torch.autograd.grad(want, (v, log_x), g.double()), strict=True
    ):
        assert_close(got, expected, 1e-6)


needs_library = pytest.mark.skipif(cpu.available() is not None, reason=str(cpu.available()))


@needs_library
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, *WIDE], ids=str)
def test_every_instruction_set(isa: str, op: str, dtype: torch.dtype) -> None:
    """Numbers of modes and lengths on both sides of vectors, chunks, tiles, blocks and periods."""
    for count, length in [(1, 1), (2, 65), (5, 1023), (33, 129), (70, 2100), (9, 5000)]:
        for v_shape, x_shape in [((2, count), (2, count)), ((3, 2, count), (2, count)), ((count,), (2, count))]:
            v, x = torch.randn(v_shape, dtype=dtype), nodes(*x_shape, dtype=dtype, op=op, decay=2 / length)
            for real in (False, True):
                compare(op, v.clone(), x.clone(), length, real, "cpu")


@needs_library
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_modes_that_vanish_and_modes_that_grow(op: str, dtype: torch.dtype) -> None:
    """Decays from none to a few samples, growth to 1e9, sizes from 1e-20 to 1e6, zeros, and all below any number."""
    decay = torch.tensor([0, 1e-4, 1e-3, 1e-2, 1, 30, -1e-3, 5e-4, 0], dtype=torch.float64)
    size = torch.tensor([1e-6, 1, 1e6, 1e-3, 1e6, 1, 1e-20, 1e3, 1], dtype=torch.float64)
    log_x = torch.complex(-decay, torch.rand(3, 9, dtype=torch.float64)).to(dtype)
    for some in ([0, 1, 2, 3, 4, 5, 7, 8], [2, 3, 4, 5, 6], [3], [4, 5]):
        v, x = torch.randn(3, len(some), dtype=dtype) * size[some].to(dtype), log_x[:, some]
        v[1] = 0
        compare(op, v, x if op == "vandermonde_log" else x.exp(), 20011, True, "cpu")


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_nodes_whose_further_powers_overflow(backend: str) -> None:
    if reason := NODES.backends.status()[backend]:
        pytest.skip(reason)
    v, x = torch.randn(2, 5), torch.full((2, 5), -40.0)
    compare("vandermonde", v, x, 20, False, backend)


@needs_library
def test_more_than_a_segment() -> None:
    """With logarithms whose multiples are exact, so that the definition is."""
    v, log_x = torch.randn(2, 3, dtype=torch.complex128), nodes(2, 3, dtype=torch.complex128, decay=1e-5)
    log_x = torch.view_as_complex((torch.view_as_real(log_x) * 2**22).round() / 2**22)
    compare("vandermonde_log", v, log_x, 140_001, False, "cpu")


@needs_library
def test_axes_that_alternate_between_shared_and_own() -> None:
    for v_shape, x_shape in [((2, 3, 4, 5), (2, 1, 4, 5)), ((2, 1, 4, 5), (1, 3, 1, 5)), ((3, 5), (2, 1, 1, 5))]:
        v, x = torch.randn(v_shape, dtype=torch.complex128), nodes(*x_shape, dtype=torch.complex128)
        compare("vandermonde_log", v, x, 70, False, "cpu")


@needs_library
def test_results_do_not_depend_on_threads() -> None:
    v, log_x = torch.randn(2, 7, 9, dtype=torch.complex64), nodes(7, 9, dtype=torch.complex64)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            inputs = [t.clone().requires_grad_() for t in (v, log_x)]
            y = vandermonde_log(inputs[0], inputs[1], 70_000, backend="cpu")
            results.append((y, *torch.autograd.grad(y.real.sum(), inputs)))
        finally:
            torch.set_num_threads(1)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


MEMORY = """
import resource, torch
from longconv.ops import {op} as op
torch.set_num_threads(1)
v = torch.randn(256, 64, dtype=torch.complex64, requires_grad=True)
x = torch.complex(-0.01 * torch.rand(256, 64), torch.randn(256, 64))
x = ({nodes}).requires_grad_()
op(v, x, 64).real.sum().backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
op(v, x, 65536).real.sum().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize(("op", "nodes"), [("vandermonde", "x.exp()"), ("vandermonde_log", "x")])
def test_memory_is_bounded(op: str, nodes: str) -> None:
    """H = 256, N = 64, L = 65536, complex: the whole tensor would be 8.6 GB; forward and backward stay below 1 GB."""
    program = MEMORY.format(op=op, nodes=nodes)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 1e6, f"{int(result.stdout) / 1e3:.0f} MB above the start"


@pytest.mark.parametrize(("v", "x", "length"), [((2, 3), (2, 3), 0), ((0, 3), (3,), 5), ((2, 0), (2, 0), 5)])
@pytest.mark.parametrize("op", OPS)
def test_empty(op: str, v: tuple[int, ...], x: tuple[int, ...], length: int) -> None:
    inputs = torch.randn(v, dtype=torch.complex64, requires_grad=True), torch.randn(x, requires_grad=True)
    y = OPS[op](*inputs, length)
    y.real.sum().backward()
    assert y.shape == (v[0], length)
    assert y.count_nonzero() == 0
    assert all(t.grad is not None and t.grad.count_nonzero() == 0 for t in inputs)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"v": 3.0}, TypeError, "v is 3.0"),
        ({"v": torch.ones(3, dtype=torch.int64)}, TypeError, "v is .*int64"),
        ({"log_x": torch.ones(4)}, ValueError, r"log_x is a \(4,\).*N = 3"),
        ({"log_x": torch.ones(5, 3), "v": torch.ones(2, 3)}, ValueError, "broadcast"),
        ({"log_x": torch.ones(3, device="meta")}, ValueError, "log_x is on meta"),
        ({"length": -1}, ValueError, "length is -1"),
        ({"length": 2.0}, TypeError, "length is 2.0"),
        ({"backend": "keop"}, ValueError, "backend"),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Exception], words: str) -> None:
    call: dict[str, Any] = {"v": torch.ones(3), "log_x": torch.ones(3), "length": 4, **change}
    with pytest.raises(error, match=words):
        vandermonde_log(**call)
    call["x"] = call.pop("log_x")
    with pytest.raises(error, match=words.replace("log_x", "x")):
        vandermonde(**call)

"""``vandermonde_log``: the definition against numpy, the blocks against the definition, precision and memory."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from longconv.ops import vandermonde_log
from longconv.ops.vandermonde.operator import BACKENDS
from tests.tolerances import assert_close

FAST = [name for name in BACKENDS.names() if name not in ("auto", "reference") and BACKENDS.status()[name] is None]


def nodes(*shape: int, dtype: torch.dtype, decay: float = 0.1) -> Tensor:
    """Logarithms of decaying nodes, real or complex."""
    real = -decay * torch.rand(shape, dtype=torch.float64)
    return (torch.complex(real, torch.randn_like(real)) if dtype.is_complex else real).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("length", [1, 5, 40])
def test_reference_is_the_equation(dtype: torch.dtype, length: int) -> None:
    v, log_x = torch.randn(3, 6, dtype=dtype), nodes(3, 6, dtype=dtype)
    matrices = [np.vander(row, length, increasing=True) for row in log_x.exp().numpy()]
    want = torch.from_numpy(np.stack([row @ matrix for row, matrix in zip(v.numpy(), matrices, strict=True)]))
    assert_close(vandermonde_log(v, log_x, length, backend="reference"), want)


@pytest.mark.parametrize("backend", FAST)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_agrees_with_reference(backend: str, data: st.DataObject) -> None:
    """Output and gradients over lengths, real and complex inputs, broadcast shapes."""
    v_dtype, x_dtype = data.draw(st.tuples(*[st.sampled_from([torch.float64, torch.complex128])] * 2), label="dtypes")
    v_shape, x_shape = data.draw(
        st.sampled_from([((3, 5), (3, 5)), ((2, 3, 5), (3, 5)), ((5,), (4, 5)), ((2, 1, 1), (3, 1)), ((5,), (5,))])
    )
    length, real = data.draw(st.integers(1, 200), label="L"), data.draw(st.booleans(), label="real")
    v, log_x = torch.randn(v_shape, dtype=v_dtype, requires_grad=True), nodes(*x_shape, dtype=x_dtype).requires_grad_()
    y = vandermonde_log(v, log_x, length, real=real, backend=backend)
    want = vandermonde_log(v, log_x, length, real=real, backend="reference")
    assert y.dtype == want.dtype
    assert_close(y, want)
    if length > 1:
        g = torch.randn_like(want)
        for got, expected in zip(
            torch.autograd.grad(y, (v, log_x), g), torch.autograd.grad(want, (v, log_x), g), strict=True
        ):
            assert_close(got, expected)


@pytest.mark.parametrize("real", [False, True])
def test_gradients_numerically(real: bool) -> None:
    inputs = (
        torch.randn(2, 3, dtype=torch.complex128, requires_grad=True),
        nodes(2, 3, dtype=torch.complex128).requires_grad_(),
    )
    assert torch.autograd.gradcheck(lambda v, x: vandermonde_log(v, x, 7, real=real), inputs)
    assert torch.autograd.gradgradcheck(lambda v, x: vandermonde_log(v, x, 5, real=real), inputs)


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


MEMORY = """
import resource, torch
from longconv.ops import vandermonde_log
torch.set_num_threads(1)
v = torch.randn(256, 64, dtype=torch.complex64, requires_grad=True)
x = torch.complex(-0.01 * torch.rand(256, 64), torch.randn(256, 64)).requires_grad_()
vandermonde_log(v, x, 64).real.sum().backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
vandermonde_log(v, x, 65536).real.sum().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_is_bounded() -> None:
    """H = 256, N = 64, L = 65536, complex: the whole tensor would be 8.6 GB; forward and backward stay below 1 GB."""
    result = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 1e6, f"{int(result.stdout) / 1e3:.0f} MB above the start"


@pytest.mark.parametrize(("v", "x", "length"), [((2, 3), (2, 3), 0), ((0, 3), (3,), 5), ((2, 0), (2, 0), 5)])
def test_empty(v: tuple[int, ...], x: tuple[int, ...], length: int) -> None:
    inputs = torch.randn(v, dtype=torch.complex64, requires_grad=True), torch.randn(x, requires_grad=True)
    y = vandermonde_log(*inputs, length)
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

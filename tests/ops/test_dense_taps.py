"""``dense_taps``: the definition against matrix powers, the backends against it, precision and memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from longconv.ops import dense_taps
from longconv.ops.dense_taps import cpu
from longconv.ops.dense_taps.operator import BACKENDS
from tests.ops.native_calls import fast
from tests.tolerances import assert_close

FAST = fast(BACKENDS)
needs_library = pytest.mark.skipif(cpu.available() is not None, reason=str(cpu.available()))
System = tuple[Tensor, Tensor, Tensor]


def system(M: int = 2, H: int = 3, N: int = 5, dtype: torch.dtype = torch.float64, decay: float = 0.98) -> System:
    """A random rotation with decay, and parts that are not normal."""
    A = decay * torch.linalg.qr(torch.randn(H, N, N, dtype=torch.float64))[0]
    A = A + torch.randn(H, N, N).triu(1) * (0.01 / N)
    B, C = torch.randn(H, N, dtype=dtype), torch.randn(H, M, N, dtype=dtype)
    return A.to(dtype).requires_grad_(), B.requires_grad_(), C.requires_grad_()


def taps(parts: Sequence[Tensor], length: int, backend: str = "auto") -> Tensor:
    A, B, C = parts
    return dense_taps(A, B, C, length, backend=backend)


def compare(backend: str, parts: System, length: int) -> None:
    """Taps and gradients against the definition in double precision."""
    wide = [part.detach().double().requires_grad_() for part in parts]
    y, want = taps(parts, length, backend), taps(wide, length, "reference")
    assert y.dtype == parts[0].dtype
    assert y.is_contiguous()
    assert_close(y, want)
    g = torch.randn_like(y)
    for got, expected in zip(
        torch.autograd.grad(y, parts, g), torch.autograd.grad(want, wide, g.double()), strict=True
    ):
        assert got.dtype == y.dtype
        if expected.count_nonzero():
            assert_close(got, expected)
        else:
            assert got.count_nonzero() == 0


def test_reference_is_the_matrix_power() -> None:
    A, B, C = (part.detach() for part in system())
    want = torch.stack([(C @ torch.linalg.matrix_power(A, l) @ B[..., None])[..., 0] for l in range(30)], -1)
    assert_close(dense_taps(A, B, C, 30, backend="reference"), want)


@pytest.mark.parametrize("backend", FAST)
@settings(max_examples=50, deadline=None, derandomize=True)
@given(M=st.integers(1, 4), H=st.integers(1, 3), N=st.integers(1, 20), length=st.integers(1, 150), wide=st.booleans())
def test_agrees_with_reference(backend: str, M: int, H: int, N: int, length: int, wide: bool) -> None:
    compare(backend, system(M, H, N, torch.float64 if wide else torch.float32), length)


@needs_library
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_every_instruction_set(isa: str, dtype: torch.dtype) -> None:
    """States on both sides of vectors and blocks of them, lengths on both sides of blocks of taps."""
    for M, N, length in [(1, 1, 1), (1, 7, 2), (2, 8, 3), (1, 9, 65), (3, 33, 700), (5, 64, 1025), (1, 70, 4100)]:
        compare("cpu", system(M, 2, N, dtype, 1 - 1 / (2 * length)), length)


@pytest.mark.parametrize("backend", FAST)
def test_float32_is_computed_in_double_precision(backend: str) -> None:
    """Thousands of products lose no more than the rounding of the inputs and of the result."""
    parts = [part.detach() for part in system(1, 2, 32, torch.float32, 1.0)]
    parts[0] = (parts[0].double() / torch.linalg.matrix_norm(parts[0].double(), 2)[:, None, None]).float()
    want = taps([part.double() for part in parts], 5000, "reference")
    assert_close(taps(parts, 5000, backend), want, 1e-7)


def test_gradients_numerically() -> None:
    inputs = system(2, 2, 3)
    assert torch.autograd.gradcheck(lambda A, B, C: dense_taps(A, B, C, 9), inputs)
    assert torch.autograd.gradgradcheck(lambda A, B, C: dense_taps(A, B, C, 6), inputs)


@pytest.mark.parametrize("backend", FAST)
def test_nan_stays_in_its_feature(backend: str) -> None:
    A, B, C = (part.detach() for part in system())
    A[1, 2, 3] = torch.nan
    leaves = [part.requires_grad_() for part in (A, B, C)]
    y = taps(leaves, 40, backend)
    y.sum().backward()
    for part in (y, *(leaf.grad for leaf in leaves)):
        assert part is not None
        assert part[1].isnan().any()
        assert part[[0, 2]].isfinite().all()


@needs_library
def test_results_do_not_depend_on_threads() -> None:
    parts, results = system(2, 7, 20), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            y = taps(parts, 300, "cpu")
            results.append((y, *torch.autograd.grad(y.sum(), parts)))
        finally:
            torch.set_num_threads(1)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_layouts() -> None:
    A, B, C = (part.detach() for part in system())
    want = dense_taps(A, B, C, 40)
    assert torch.equal(dense_taps(A.mT.contiguous().mT, B.T.contiguous().T, C.repeat(1, 2, 1)[:, :2], 40), want)
    assert_close(dense_taps(A[:1].expand(3, -1, -1), B, C, 40)[1], dense_taps(A[:1], B[1:2], C[1:2], 40)[0])


@pytest.mark.parametrize(("H", "M", "N", "length"), [(3, 2, 4, 0), (0, 2, 4, 5), (3, 0, 4, 5), (3, 2, 0, 5)])
def test_empty(H: int, M: int, N: int, length: int) -> None:
    parts = tuple(torch.randn(s, requires_grad=True) for s in ((H, N, N), (H, N), (H, M, N)))
    y = taps(parts, length)
    y.sum().backward()
    assert y.shape == (H, M, length) and y.count_nonzero() == 0
    assert all(part.grad is not None and part.grad.count_nonzero() == 0 for part in parts)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"A": 3.0}, TypeError, "A is 3.0"),
        ({"A": torch.ones(3, 4, 4, dtype=torch.complex64)}, TypeError, "A is .*complex64"),
        ({"A": torch.ones(3, 4, 5, dtype=torch.float64)}, ValueError, r"A is a \(3, 4, 5\).*\(3, 4, 4\)"),
        ({"B": torch.ones(3, 4)}, TypeError, "B is .*float32"),
        ({"B": torch.ones(3, 5, dtype=torch.float64)}, ValueError, r"B is a \(3, 5\).*\(3, 4\)"),
        ({"C": torch.ones(3, 4, dtype=torch.float64)}, ValueError, r"C is a \(3, 4\).*\(H, M, N\)"),
        ({"B": torch.ones(3, 4, dtype=torch.float64, device="meta")}, ValueError, "B is on meta"),
        ({"length": -1}, ValueError, "length is -1"),
        ({"length": 2.0}, TypeError, "length is 2.0"),
        ({"backend": "torhc"}, ValueError, "did you mean 'torch'"),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Exception], words: str) -> None:
    call: dict[str, Any] = {**dict(zip("ABC", system(N=4), strict=True)), "length": 4, **change}
    with pytest.raises(error, match=words):
        dense_taps(**call)

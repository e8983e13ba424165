"""The backend ``cuda`` of ``linear_scan`` by host execution of its kernel, see csrc/cuda/warp_host.h."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from longconv.ops import linear_scan
from longconv.ops.linear_scan import cuda
from longconv.ops.linear_scan.operator import BACKENDS
from tests.ops.comparison import between_nans, compare, each_length
from tests.ops.cuda_host import cuda_on_host, host_library
from tests.ops.test_linear_scan import SHAPES, coefficients
from tests.tolerances import RELATIVE_L2, assert_close

__all__ = ["cuda_on_host", "host_library"]

on_host = pytest.mark.usefixtures("cuda_on_host")
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def kind(is_complex: bool) -> torch.dtype:
    return torch.complex128 if is_complex else torch.float64


@contextlib.contextmanager
def short_chunks() -> Iterator[None]:
    """Chunks of few times even where rows are many."""
    with mock.patch.multiple(cuda, BLOCKS=2**20, LEAST=64):
        yield


def test_is_refused_where_there_is_no_gpu() -> None:
    if cuda.available() is None:
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="'cuda' can't serve this call"):
        linear_scan(torch.ones(4), torch.ones(4), dim=0, backend="cuda")


@on_host
def test_auto_does_not_take_it() -> None:
    assert BACKENDS.choose("auto", torch.ones(4), torch.ones(4), None, -1, False).name != "cuda"


@on_host
@settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_every_option(data: st.DataObject) -> None:
    """Values and gradients over shapes, lengths around tiles and chunks, real and complex, both directions."""
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]), label="dtype")
    kinds = data.draw(st.tuples(st.booleans(), st.booleans()), label="complex")
    shapes, reverse = data.draw(st.sampled_from(SHAPES), label="shapes"), data.draw(st.booleans(), label="reverse")
    length = data.draw(st.sampled_from([1, 2, 3, 7, 8, 9, 31, 64, 127, 256, 257, 700]), label="L")
    a_shape, b_shape = (tuple(length if n == -1 else n for n in shape) for shape in shapes[:2])
    call = {"a": coefficients(*a_shape, dtype=kind(kinds[0])), "b": torch.randn(b_shape, dtype=kind(kinds[1]))}
    if shapes[2] is not None:
        call["initial"] = torch.randn(shapes[2], dtype=kind(data.draw(st.booleans(), label="complex initial")))
    with short_chunks() if data.draw(st.booleans(), label="chunks") else contextlib.nullcontext():
        compare("linear_scan", call, {"dim": shapes[3], "reverse": reverse}, dtype)


@on_host
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("timeless", [False, True])
def test_long_memories(dtype: torch.dtype, timeless: bool) -> None:
    """Of hundreds of steps, with time first, last, and between; a length that is new each run."""

    def check(draw: random.Random, length: int) -> None:
        for shape, dim in (((length, 6), 0), ((6, length), 1), ((6, length, 1), -2)):  # fewer a may cancel to nothing
            size = list(shape)
            size[dim] = 1 if timeless else length
            for is_complex in (False, True) if dtype.itemsize > 2 else (False,):
                a = coefficients(*size, dtype=kind(is_complex), least=0.99)
                b = torch.randn(shape, dtype=kind(is_complex)) / 4096  # float16 ends at 65504
                compare("linear_scan", {"a": a, "b": b}, {"dim": dim}, dtype)

    each_length(check, (2000, 5000))


@on_host
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_sample_of_lengths(dtype: torch.dtype) -> None:
    def check(draw: random.Random, length: int) -> None:
        is_complex = dtype.itemsize > 2 and draw.random() < 0.5
        a, b = coefficients(length, 5, dtype=kind(is_complex)), torch.randn(length, 5, dtype=kind(is_complex))
        compare("linear_scan", {"a": a, "b": b}, {"dim": 0, "reverse": draw.random() < 0.5}, dtype, exact="torch")

    each_length(check, (1, 3000), (3000, 70000))


@on_host
@pytest.mark.parametrize("shape", [(70001, 1), (20011, 3), (1, 30011)])
def test_a_wandering_sum_stays_exact(shape: tuple[int, int]) -> None:
    """a = 1 in single precision, where steps alone would lose an order more."""
    b, dim = torch.randn(shape), shape.index(max(shape))
    got = linear_scan(torch.ones(()), b, dim=dim, backend="cuda")
    assert_close(got, b.double().cumsum(dim), RELATIVE_L2[torch.float32] / 2)


@on_host
@pytest.mark.parametrize("is_complex", [False, True])
def test_zeros_underflow_and_growth(is_complex: bool) -> None:
    """Coefficients of 0, products that underflow, and products that overflow against a state of 0."""
    a, b = coefficients(300, 4, dtype=kind(is_complex)), torch.randn(300, 4, dtype=kind(is_complex))
    a[::7], a[:, 1], a[:, 2] = 0, 1e-30, 0
    compare("linear_scan", {"a": a, "b": b}, {"dim": 0}, torch.float32)
    a, b = torch.full_like(a[:, :1], 1e20), torch.zeros_like(b[:, :1])
    a[200:], b[201:] = 0.5, 1
    assert_close(linear_scan(a, b, dim=0, backend="cuda"), linear_scan(a, b, dim=0, backend="reference"))


@on_host
@pytest.mark.parametrize("chunks", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_products_that_overflow_where_no_state_does(dtype: torch.dtype, reverse: bool, chunks: bool) -> None:
    """From a tiny state, and before a coefficient of 0; times of thousands of steps after that."""
    a, b, initial = torch.full((3, 4000), 0.5, dtype=dtype), torch.zeros(3, 4000, dtype=dtype), torch.ones(3)
    a[:2, :111] = torch.polar(torch.tensor(1e5).double(), torch.tensor(0.3).double()) if dtype.is_complex else -1e5
    a[1, 100], b[1, 105], b[:, 2000::7] = 0, 1, 1
    initial = initial.to(dtype) * 1e-300
    if reverse:
        a, b = a.flip(-1), b.flip(-1)
    with short_chunks() if chunks else contextlib.nullcontext():
        h = linear_scan(a, b, initial=initial, reverse=reverse, backend="cuda")
    want = linear_scan(a, b, initial=initial, reverse=reverse, backend="reference")
    torch.testing.assert_close(h, want, rtol=1e-12, atol=1e-300)


@on_host
@pytest.mark.parametrize("chunks", [False, True])
def test_numbers_that_are_not_finite_stay_where_they_are(chunks: bool) -> None:
    a, b = torch.rand(2, 300, 3), torch.randn(2, 300, 3)
    with short_chunks() if chunks else contextlib.nullcontext():
        clean = linear_scan(a, b, backend="cuda")
        b[1, 130, 1] = torch.nan
        h = linear_scan(a, b, backend="cuda")
    assert h[1, 130:, 1].isnan().all()
    h[1, 130:, 1] = clean[1, 130:, 1]
    assert torch.equal(h, clean)


@on_host
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_strides_and_addresses(dtype: torch.dtype) -> None:
    """Views with gaps, odd addresses, conjugates, and coefficients of another dtype than the inputs."""
    a, b = between_nans(3, 40, 5, dtype=dtype), between_nans(3, 40, 5, dtype=dtype)
    a /= 4
    sliced = torch.randn(3, 77, dtype=torch.float64).to(dtype)[:, 3:43]
    for left, right, dim in ((a, b, 1), (a.mT, b.mT, 2), (sliced / 4, sliced, 1), (sliced.double() / 4, sliced, 1)):
        want = linear_scan(left.double(), right.double(), dim=dim, backend="reference")
        got = linear_scan(left, right, dim=dim, backend="cuda")
        assert_close(got, want, RELATIVE_L2[dtype])
    turned = torch.view_as_complex(torch.randn(2, 30, 4, 2)).conj()
    got = linear_scan(turned / 2, turned.mT.contiguous().mT, backend="cuda")
    assert_close(got, linear_scan(turned.to(torch.complex128) / 2, turned.to(torch.complex128), backend="reference"))


@on_host
def test_opcheck() -> None:
    a, b, initial = torch.rand(2, 30, 3), torch.randn(2, 30, 3), torch.randn(2, 1, 3)
    inputs: list[Tensor] = [t.requires_grad_() for t in (a, b, initial)]
    torch.library.opcheck(torch.ops.longconv.linear_scan.default, (*inputs, -2, True, "cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_on_a_gpu(dtype: torch.dtype, shapes: tuple[tuple[int, ...], ...]) -> None:
    for length in (1, 37, 1000, 10007):
        a_shape, b_shape = (tuple(length if n == -1 else n for n in shape) for shape in shapes[:2])
        for is_complex in (False, True) if dtype.itemsize > 2 else (False,):
            a, b = coefficients(*a_shape, dtype=kind(is_complex)), torch.randn(b_shape, dtype=kind(is_complex))
            compare("linear_scan", {"a": a, "b": b}, {"dim": shapes[3]}, dtype, device="cuda", exact="torch")


@pytest.mark.gpu
def test_long_sums_on_a_gpu() -> None:
    for shape in ((1, 2**20), (2**18, 70), (300, 65537)):
        b, dim = torch.randn(shape, device="cuda"), shape.index(max(shape))
        got = linear_scan(torch.ones((), device="cuda"), b, dim=dim, backend="cuda")
        assert_close(got, b.double().cumsum(dim), RELATIVE_L2[torch.float32] / 2)


@pytest.mark.gpu
def test_offsets_beyond_32_bits_on_a_gpu() -> None:
    b = torch.zeros(2, 2**31 + 65, dtype=torch.bfloat16, device="cuda")
    b[1, -9] = 1
    h = linear_scan(torch.full((), 0.5, dtype=b.dtype, device="cuda"), b, backend="cuda")
    assert h[1, -10:].tolist() == [0.0, *(0.5**i for i in range(9))]
    assert h.count_nonzero() == 9

"""The backend ``cuda`` of ``sparse_fft_conv`` by host execution of its kernels, see csrc/cuda/warp_host.h."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from longconv import _native
from longconv.ops import _cuda, fft_conv, sparse_fft_conv
from longconv.ops.sparse_fft_conv import cuda
from longconv.ops.sparse_fft_conv.blocks import residues
from longconv.ops.sparse_fft_conv.operator import BACKENDS
from tests.ops.comparison import each_length
from tests.ops.cuda_host import cuda_on_host, host_library
from tests.ops.test_fft_conv_cuda import LARGE, impulse, rms
from tests.ops.test_sparse_fft_conv import some
from tests.tolerances import RELATIVE_L2, assert_close

__all__ = ["cuda_on_host", "host_library"]

on_host = pytest.mark.usefixtures("cuda_on_host")
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
B, H = 2, 3
Capture = Callable[[], contextlib.AbstractContextManager[None]]


def inputs(length: int, taps: int, dtype: torch.dtype, *, per_sample: bool = False) -> tuple[Tensor, Tensor]:
    """A sequence and filters in float32, of unit scale."""
    k = torch.randn(B, H, taps) if per_sample else torch.randn(H, taps)
    return torch.randn(B, H, length).to(dtype), k / taps**0.5


def against_double(u: Tensor, k: Tensor, mask: Tensor, tolerance: float | None = None) -> None:
    """The result and the gradients against those of the plain backend in float64.

    A gradient of few taps is as exact as the terms of its sums.
    """
    tolerance = tolerance or RELATIVE_L2[u.dtype]
    leaves = [t.detach().requires_grad_() for t in (u, k)]
    wide = [t.detach().double().requires_grad_() for t in leaves]
    y, want = (sparse_fft_conv(x[0], x[1], mask, backend=name) for x, name in ((leaves, "cuda"), (wide, "torch")))
    dy = torch.randn(u.shape, device=u.device).to(u.dtype)
    (du, dk), (du_want, dk_want) = torch.autograd.grad(y, leaves, dy), torch.autograd.grad(want, wide, dy.double())
    assert (y.dtype, du.dtype, dk.dtype) == (u.dtype, u.dtype, k.dtype)
    unit = mask.double().mean().item() ** 0.5 * rms(u) * rms(dy)
    floor = unit * (dy.numel() * k.shape[-1] / (u.shape[1] if k.ndim == 2 else 1)) ** 0.5
    for got, exact, least in ((y, want, 0.0), (du, du_want, 0.0), (dk, dk_want, floor)):
        error, size = (got.double() - exact).norm().item(), max(exact.norm().item(), least)
        assert size > 0 and error <= tolerance * size, f"relative L2 error {error / size:.3g} > {tolerance:.3g}"


def test_is_refused_where_there_is_no_gpu() -> None:
    if cuda.available() is None:
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="'cuda' can't serve this call"):
        sparse_fft_conv(torch.ones(1, 1, 4), torch.ones(1, 4), torch.ones(1, dtype=torch.bool), backend="cuda")


@on_host
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("length", "shape"),
    [
        (1, (1,)),
        (1, (8,)),
        (2, (3,)),
        (97, (4,)),
        (256, (4, 8)),
        (257, (7,)),
        (600, (600,)),
        (1000, (8,)),
        (1009, (6,)),
    ],
    ids=str,
)
def test_lengths(dtype: torch.dtype, length: int, shape: list[int]) -> None:
    against_double(*inputs(length, length, dtype), some(*shape))


@on_host
@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    length=st.integers(1, 400),
    taps=st.integers(1, 450),
    per_sample=st.booleans(),
    dtype=st.sampled_from(DTYPES),
    narrow=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_call(
    shape: list[int], length: int, taps: int, per_sample: bool, dtype: torch.dtype, narrow: bool, seed: int
) -> None:
    u, k = inputs(length, taps, dtype, per_sample=per_sample)
    against_double(u, k.to(dtype) if narrow else k, some(*shape, seed=seed))


@on_host
@pytest.mark.parametrize("dtype", DTYPES)
def test_samples_that_share_a_row_are_summed(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with many channels."""
    monkeypatch.setattr(_cuda, "_ROWS", 1)
    against_double(*inputs(257, 100, dtype), some(7))


@on_host
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sample_of_lengths(dtype: torch.dtype) -> None:
    """Up to those that a block just holds."""

    def check(draw: random.Random, length: int) -> None:
        mask = some(draw.randint(1, 40), seed=draw.randrange(10**6))
        against_double(*inputs(length, draw.randint(1, length), dtype), mask)

    each_length(check, (1, 1000), (1, 5000))


@on_host
@pytest.mark.parametrize(("dtype", "length"), [(torch.float16, 32768), (torch.float32, 16384)], ids=str)
def test_the_longest_of_a_block(dtype: torch.dtype, length: int) -> None:
    u, k = torch.randn(1, 1, length).to(dtype), torch.randn(1, length) / length**0.5
    y = sparse_fft_conv(u, k, torch.ones(4, dtype=torch.bool), backend="cuda")
    assert_close(y, fft_conv(u.double(), k.double()), RELATIVE_L2[dtype])


@on_host
def test_tf32() -> None:
    torch.set_float32_matmul_precision("high")
    try:
        against_double(*inputs(500, 300, torch.float32), some(8), 1e-3)
    finally:
        torch.set_float32_matmul_precision("highest")


@on_host
@pytest.mark.parametrize("dtype", DTYPES)
def test_all_blocks_and_none(dtype: torch.dtype) -> None:
    u, k = inputs(300, 200, dtype)
    whole = sparse_fft_conv(u, k, torch.ones(2, 5, dtype=torch.bool), backend="cuda")
    assert_close(whole, fft_conv(u.double(), k.double()), RELATIVE_L2[dtype])
    leaves = [t.requires_grad_() for t in (u, k)]
    none = sparse_fft_conv(leaves[0], leaves[1], torch.zeros(2, 5, dtype=torch.bool), backend="cuda")
    assert not none.any() and not any(grad.any() for grad in torch.autograd.grad(none.sum(), leaves))


def run_instructions(library: _native.Library, mask: Tensor, length: int) -> int:
    """Matrix instructions of a forward call on one sequence, the filter's spectrum included."""
    assert library.handle is not None
    count = library.handle.longconv_cuda_products
    count.restype = cuda._I64
    u, k = torch.randn(1, 1, length).half(), torch.randn(1, length)
    sparse_fft_conv(u, k, mask, backend="cuda")  # makes tables
    before = count()
    sparse_fft_conv(u, k, mask, backend="cuda")
    return int(count() - before)


@on_host
def test_blocks_that_are_left_out_cost_nothing(host_library: _native.Library) -> None:
    """Matrix instructions, spectra and shared memory fall with the rows and the columns that a mask keeps."""
    length = 4096
    masks = {
        name: torch.zeros(8, 8, dtype=torch.bool) for name in ("all", "half", "eighth", "scattered", "corner", "one")
    }
    masks["all"][:] = masks["half"][:4] = masks["eighth"][:1] = True
    masks["scattered"][[1, 4, 6, 7]] = True
    masks["corner"][:2, :4] = masks["one"][5, 3] = True
    work = {name: run_instructions(host_library, mask, length) for name, mask in masks.items()}
    chosen = {
        name: cuda.choose(*cuda._key(torch.ones(1, 1, length).half(), cuda._read(mask))) for name, mask in masks.items()
    }
    numbers = {name: choice[1] for name, choice in chosen.items() if isinstance(choice, tuple)}
    assert work["half"] <= 0.51 * work["all"] and work["scattered"] <= 0.51 * work["all"]
    assert work["eighth"] <= 0.15 * work["all"] and work["corner"] <= 0.15 * work["all"]
    assert work["one"] <= 0.1 * work["all"]
    for name, mask in masks.items():
        assert numbers[name] <= max(1.01 * mask.double().mean().item() * length, 256)


@on_host
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_any_scale(dtype: torch.dtype, scale: float) -> None:
    """Half precision has a small range; sequences and filters needn't know."""
    u, k = inputs(300, 300, torch.float32)
    against_double((u * scale).to(dtype), k / scale, some(5))


@on_host
@pytest.mark.parametrize("scale", [(LARGE, 1 / LARGE), (LARGE, 1), (1 / LARGE, 1), (1 / LARGE, LARGE), (1, LARGE)])
def test_all_of_the_range_of_bfloat16(scale: tuple[float, float]) -> None:
    u, k = inputs(300, 300, torch.float32)
    against_double((u * scale[0]).bfloat16(), k * scale[1], some(5))


@on_host
def test_scales_whose_product_is_beyond_the_range() -> None:
    u, k = impulse()
    y = sparse_fft_conv(u, k, torch.ones(4, dtype=torch.bool), backend="cuda")
    assert_close(y, u.double().cumsum(-1), RELATIVE_L2[torch.bfloat16])


@on_host
@pytest.mark.parametrize("dtype", DTYPES)
def test_bad_numbers_stay_in_their_row(dtype: torch.dtype) -> None:
    u = torch.randn(4, 3, 70).to(dtype)
    u[1, 2, 50], u[2, 0, 3] = torch.nan, torch.inf
    y = sparse_fft_conv(u, torch.randn(3, 70), some(4), backend="cuda")
    bad = y.isfinite().logical_not().any(2)
    assert bad.nonzero().tolist() == [[1, 2], [2, 0]]


@on_host
def test_frequencies_that_are_left_out_may_be_beyond_the_range() -> None:
    """The product of spectra of constants at f = 0, which is in a row and in a column with others that are kept."""
    u, k, dy = torch.full((1, 1, 64), 5e18), torch.ones(1, 64, requires_grad=True), torch.full((1, 1, 64), 1e18)
    mask = torch.zeros(64, dtype=torch.bool)
    mask[[3, 20]] = True
    (dk,) = torch.autograd.grad(sparse_fft_conv(u, k, mask, backend="cuda"), k, dy)
    wide = k.detach().double().requires_grad_()
    (want,) = torch.autograd.grad(sparse_fft_conv(u.double(), wide, mask, backend="torch"), wide, dy.double())
    assert_close(dk / 1e38, want / 1e38, 1e-5)


@on_host
def test_a_call_reads_the_mask_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is on the GPU, and a copy waits."""
    read = mock.Mock(wraps=residues)
    monkeypatch.setattr(cuda, "residues", read)
    (u, k), mask = inputs(50, 50, torch.float32), some(4)
    y = sparse_fft_conv(u.requires_grad_(), k, mask, backend="cuda")
    assert read.call_count == 1
    y.sum().backward()
    assert read.call_count == 2
    mask.logical_not_()
    assert not torch.equal(sparse_fft_conv(u, k, mask, backend="cuda"), y)


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> Capture:
    """A graph is being captured, as far as the backend can see: it may neither read masks nor make plans."""
    monkeypatch.setattr(_cuda, "_of_graphs", {})

    @contextlib.contextmanager
    def capture() -> Iterator[None]:
        refused = mock.Mock(side_effect=AssertionError("waits for the GPU"))
        seen = mock.patch.object(_cuda, "capturing", return_value=True)
        with seen, mock.patch.multiple(cuda, residues=refused, _alive=refused):
            yield

    return capture


@on_host
def test_a_graph_takes_what_a_call_before_it_has_read(captured: Capture) -> None:
    """Forward and gradients; its tables stay when others take their place."""
    (u, k), mask = inputs(50, 50, torch.float32), some(4)
    leaves = [t.requires_grad_() for t in (u, k)]

    def call() -> list[Tensor]:
        y = sparse_fft_conv(u, k, mask, backend="cuda")
        return [y, *torch.autograd.grad(y.square().sum(), leaves)]

    want = call()
    with captured():
        assert all(torch.equal(got, one) for got, one in zip(call(), want, strict=True))
    (plan,) = cuda._plans.values()
    assert list(_cuda._of_graphs) == [plan.tables.data_ptr()]
    none = torch.zeros(4, dtype=torch.bool)
    sparse_fft_conv(u, k, none, backend="cuda")
    with captured():
        assert not sparse_fft_conv(u, k, none, backend="cuda").any()


@on_host
@pytest.mark.parametrize("change", ["another mask", "in place", "inference", "length", "dtype"])
def test_a_graph_refuses_what_no_call_before_it_has_read(change: str, captured: Capture) -> None:
    (u, k), mask = inputs(50, 50, torch.float32), some(4)
    with torch.inference_mode(change == "inference"):
        mask = mask.clone()
        sparse_fft_conv(u, k, mask, backend="cuda")
        if change == "another mask":
            mask = mask.clone()
        elif change == "in place":
            mask[0] = ~mask[0]
        elif change == "length":
            u = u[..., :40]
        elif change == "dtype":
            u = u.half()
        with captured(), pytest.raises(ValueError, match="before the capture call sparse_fft_conv"):
            sparse_fft_conv(u, k, mask, backend="cuda")


def test_compilers_are_told_that_the_mask_is_read() -> None:
    """The graphs that they capture leave the operators out."""
    for operator in (torch.ops.longconv.sparse_fft_conv, torch.ops.longconv.sparse_fft_conv_backward):
        assert torch.Tag.cudagraph_unsafe in operator.default.tags


@on_host
def test_strides() -> None:
    """Channels last, slices at odd addresses, filters of other strides."""
    k = torch.randn(300, 3).mT / 17
    for u in (torch.randn(2, 300, 3).mT, torch.randn(2, 3, 333)[..., 5:305], torch.randn(2, 1, 300).expand(2, 3, 300)):
        against_double(u.half(), k, some(3, 4))


@on_host
def test_refuses_what_it_cannot_and_says_why() -> None:
    mask = torch.ones(1, dtype=torch.bool)
    calls: list[tuple[Tensor, str]] = [
        (torch.ones(1, 1, 4).double(), "float64"),
        (torch.ones(1, 1, 40000), "40000 points"),
    ]
    for u, words in calls:
        with pytest.raises(ValueError, match=words):
            sparse_fft_conv(u, torch.ones(1, 4).to(u.dtype), mask, backend="cuda")
    with pytest.raises(ValueError, match="tables below"):
        sparse_fft_conv(torch.ones(1, 1, 4), torch.ones(1, 4), torch.ones(5003, dtype=torch.bool), backend="cuda")
    assert BACKENDS.choose("auto", torch.ones(1, 1, 4), torch.ones(1, 4), mask).name != "cuda"


@on_host
def test_opcheck() -> None:
    u, k = inputs(30, 20, torch.float32)
    arguments: tuple[Any, ...] = (u.requires_grad_(), k.requires_grad_(), some(3), "cuda")
    tests = "test_schema", "test_faketensor"  # the others are on operators, not backends
    torch.library.opcheck(torch.ops.longconv.sparse_fft_conv.default, arguments, test_utils=tests)
    dy = torch.randn_like(u).requires_grad_()
    backward = torch.ops.longconv.sparse_fft_conv_backward.default
    torch.library.opcheck(backward, (dy, *arguments[:3], [True, True], "cuda"), test_utils=tests)


@on_host
def test_tables_are_kept_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "CACHE_BYTES", 20000)
    for length in (10, 300, 700):
        sparse_fft_conv(torch.ones(1, 1, length), torch.ones(1, 4), some(2), backend="cuda")
    assert [key[1] for key in cuda._plans] == [720]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 97, 1000, 4096, 10007])
def test_on_a_gpu(dtype: torch.dtype, length: int) -> None:
    u, k = inputs(length, length, dtype)
    against_double(u.cuda(), k.cuda(), some(4, 3).cuda())


@pytest.mark.gpu
def test_a_graph_on_a_gpu() -> None:
    u, k, mask = (t.cuda() for t in (*inputs(1000, 1000, torch.float16), some(4, 3)))
    with torch.cuda.stream(torch.cuda.Stream()):
        sparse_fft_conv(u, k, mask, backend="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = sparse_fft_conv(u, k, mask, backend="cuda")
    u.normal_()
    graph.replay()
    assert torch.equal(y, sparse_fft_conv(u, k, mask, backend="cuda"))

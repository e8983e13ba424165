"""``transpose``: every backend and instruction set moves every element to its place, and nothing else."""

from __future__ import annotations

import ctypes
import random
import threading
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from longconv import _native
from longconv.ops import transpose
from longconv.ops.transpose.operator import BACKENDS
from tests.ops.cuda_host import cuda_on_host, host_library

__all__ = ["cuda_on_host", "host_library"]

DTYPES = (torch.int8, torch.bfloat16, torch.float32, torch.float64, torch.complex128)  # 1, 2, 4, 8 and 16 bytes
ISAS = [name for name, supported in _native.isas(_native.cpu()).items() if supported]
HERE = [name for name, reason in BACKENDS.status().items() if reason is None and name != "cuda"]
needs_library = pytest.mark.skipif(_native.cpu().handle is None, reason=f"no CPU library: {_native.cpu().reason}")


def numbered(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor whose neighbouring elements all differ, so that no misplaced element goes unseen."""
    count = torch.Size(shape).numel()
    return (torch.arange(count) % 127 + (torch.arange(count) // 127) % 64).to(dtype).reshape(shape)


def assert_transposed(x: Tensor, backend: str) -> None:
    y = transpose(x, backend=backend)
    assert y.is_contiguous()
    assert y.shape == (*x.shape[:-2], x.shape[-1], x.shape[-2])
    assert torch.equal(y, x.transpose(-1, -2))


@needs_library
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_instruction_set(isa: str, dtype: torch.dtype) -> None:
    for rows, cols in ((1, 1), (3, 5), (16, 64), (64, 16), (65, 67), (15, 300), (300, 15), (129, 257), (2100, 70)):
        assert_transposed(numbered(2, rows, cols, dtype=dtype), "cpu")


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(0, 70), min_size=2, max_size=4),
    dtype=st.sampled_from(DTYPES),
    backend=st.sampled_from(HERE),
)
def test_shapes(shape: list[int], dtype: torch.dtype, backend: str) -> None:
    shape[:-2] = [size % 4 for size in shape[:-2]]
    assert_transposed(numbered(*shape, dtype=dtype), backend)


@pytest.mark.parametrize("backend", HERE)
def test_strides(backend: str) -> None:
    x = numbered(4, 3, 40, 50)
    for view in (x[:, :, 3:37, 5:48], x[::2], x[:, 1], x.transpose(0, 1), x[..., :1, :], x[:1].expand(5, 3, 40, 50)):
        assert_transposed(view, backend)


def test_strides_that_the_library_refuses_go_to_torch() -> None:
    for view in (numbered(30, 40).T, numbered(30, 40)[:, ::2], numbered(1, 40).expand(30, 40).T):
        assert_transposed(view, "auto")
    with pytest.raises(ValueError, match="'cpu' can't serve this call: "):
        transpose(numbered(30, 40)[:, ::2], backend="cpu")


def test_lazy_conjugate_and_negative() -> None:
    z = torch.randn(5, 7, dtype=torch.complex64)
    assert torch.equal(transpose(z.conj()), z.mH.resolve_conj())
    assert torch.equal(transpose(z.conj().imag), -z.imag.mT)


def test_never_a_view() -> None:
    x = numbered(1, 8)
    transpose(x).zero_()
    assert torch.equal(x, numbered(1, 8))


@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize("shape", [(4, 6), (2, 3, 5), (0, 3)])
def test_opcheck(backend: str, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    torch.library.opcheck(torch.ops.longconv.transpose.default, (x, backend))


@pytest.mark.parametrize("backend", HERE)
def test_gradients(backend: str) -> None:
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda x: transpose(x, backend=backend) ** 2, x)
    torch.autograd.gradgradcheck(lambda x: transpose(x, backend=backend) ** 2, x)


def test_gradient_of_an_expanded_cotangent() -> None:
    x = torch.randn(3, 4, requires_grad=True)
    transpose(x, backend=HERE[0]).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones(3, 4))


def test_compile() -> None:
    x = numbered(2, 33, 17)
    compiled = torch.compile(lambda x: transpose(x) + 1, fullgraph=True, backend="aot_eager", dynamic=True)
    for rows in (33, 20):
        assert torch.equal(compiled(x[:, :rows]), x[:, :rows].mT + 1)


def test_vmap() -> None:
    x = numbered(5, 6, 7)
    assert torch.equal(torch.func.vmap(transpose)(x), x.mT)
    assert torch.equal(torch.func.vmap(transpose, in_dims=2)(x), x.permute(2, 1, 0))


Task = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
Pool = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, Task, ctypes.c_void_p)


@needs_library
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_obeys_set_num_threads(threads: int) -> None:
    """Torch's own pool runs the ranges, on as many threads as ``torch.set_num_threads`` says."""
    address = _native.torch_parallel_for()
    assert address is not None
    torch_pool, library = Pool(address), _native.cpu().handle
    assert library is not None
    ran: list[tuple[int, int, int]] = []

    def spy(begin: int, end: int, grain: int, task: Callable[..., None], context: int) -> int:
        def observed(first: int, last: int, context: int) -> None:
            ran.append((first, last, threading.get_ident()))
            task(first, last, context)

        return int(torch_pool(begin, end, grain, Task(observed), context))

    watched = Pool(spy)
    torch.set_num_threads(threads)
    library.longconv_cpu_threads(ctypes.cast(watched, ctypes.c_void_p))
    try:
        assert_transposed(numbered(16, 300, 300), "cpu")
    finally:
        library.longconv_cpu_threads(address)
        torch.set_num_threads(1)
    assert len({ident for _, _, ident in ran}) == threads
    edges = sorted((first, last) for first, last, _ in ran)
    assert edges[0][0] == 0
    assert all(last == first for (_, last), (first, _) in pairwise(edges))


def test_bad_arguments() -> None:
    with pytest.raises(TypeError, match="x is 3 "):
        transpose(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least two axes"):
        transpose(torch.ones(3))
    with pytest.raises(ValueError, match="expected one of"):
        transpose(torch.ones(3, 3), backend="gpu")
    with pytest.raises(ValueError, match="'cuda' can't serve this call"):
        transpose(torch.ones(3, 3), backend="cuda")


@pytest.mark.usefixtures("cuda_on_host")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cuda_on_the_host(dtype: torch.dtype) -> None:
    """Shapes around tiles, a long one that is new each run, and strides."""
    length = random.SystemRandom().randint(1, 70000)
    for shape in ((1, 1), (2, 31, 33), (3, 32, 64), (1, 100, 1), (0, 3, 4), (2, 0, 4), (length, 3), (3, length)):
        assert_transposed(numbered(*shape, dtype=dtype), "cuda")
    test_strides("cuda")
    with pytest.raises(ValueError, match="the last axis of x has stride 2"):
        transpose(numbered(30, 40)[:, ::2], backend="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cuda(dtype: torch.dtype) -> None:
    for shape in ((2, 1, 1), (3, 33, 65), (2, 1024, 70), (0, 3, 4)):
        assert_transposed(numbered(*shape, dtype=dtype).cuda(), "cuda")


@pytest.mark.gpu
def test_cuda_offsets_beyond_32_bits() -> None:
    x = torch.zeros(2, 70000, 32768, dtype=torch.int8, device="cuda")
    x[1, -1, -1] = 1
    assert transpose(x, backend="cuda").nonzero().tolist() == [[1, 32767, 69999]]

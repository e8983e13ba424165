"""The backend ``cuda`` of ``fft_conv`` by host execution of its kernels, see csrc/cuda/warp_host.h."""

from __future__ import annotations

import contextlib
import random
import weakref
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from longconv import _native
from longconv.ops import _cuda, fft_conv
from longconv.ops.fft_conv import cuda, cuda_passes, cuda_plan, operator
from longconv.ops.fft_conv import cuda_calls as calls
from longconv.ops.fft_conv.operator import BACKENDS
from tests.ops.comparison import each_length
from tests.ops.cuda_host import counted_reads, cuda_on_host, host_library
from tests.ops.test_fft_conv import make, run
from tests.tolerances import RELATIVE_L2, assert_close

__all__ = ["cuda_on_host", "host_library"]

on_host = pytest.mark.usefixtures("cuda_on_host")
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
TF32 = 1e-3
"""Relative L2 error with ``torch.set_float32_matmul_precision("high")``."""


@pytest.fixture
def tf32() -> Iterator[None]:
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision("highest")


def rounded(call: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Arguments in a dtype; filters stay float32."""
    return {n: t.to(torch.float32 if n in ("k", "k_reverse", "skip") else dtype) for n, t in call.items()}


def apply(call: dict[str, Tensor], **options: Any) -> Tensor:
    arguments: dict[str, Any] = {**call, **options}
    return fft_conv(**arguments)


def rms(x: Tensor) -> float:
    """The root mean square."""
    return x.double().square().mean().sqrt().item()


def against_double(
    call: dict[str, Tensor], tolerance: float, *, gradients: bool = True, dy_scale: float = 1, **options: Any
) -> None:
    """The output and all gradients against float64; a gradient of few numbers is as exact as the terms of its sums.

    Gates are of unit scale.
    """
    dtype = call["u"].dtype
    dy = (torch.randn(call["u"].shape, device=call["u"].device) * dy_scale).to(dtype).double()
    wide = {n: t.double() for n, t in call.items()}
    if not gradients:
        got = apply(call, backend="cuda", **options)
        assert got.dtype == dtype
        return assert_close(got, apply(wide, backend="torch", **options), tolerance)
    y, grads = run(call, dy, backend="cuda", **options)
    want, want_grads = run(wide, dy, backend="torch", **options)
    assert y.dtype == dtype
    assert_close(y, want, tolerance)
    for name, grad in grads.items():
        assert grad.dtype == call[name].dtype
        error, size = (grad.double() - want_grads[name]).norm().item(), want_grads[name].norm().item()
        if name in ("k", "k_reverse", "skip"):
            size = max(size, (dy.numel() * grad.shape[-1] / dy.shape[1]) ** 0.5 * rms(call["u"]) * rms(dy))
        assert error <= tolerance * size, f"{name}: {error / size:.3g}"
    return None


def test_is_refused_where_there_is_no_gpu() -> None:
    if cuda.available() is None:
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="'cuda' can't serve this call"):
        fft_conv(torch.ones(1, 1, 4), torch.ones(1, 4), backend="cuda")


@on_host
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 2, 255, 256, 257, 512, 768, 769, 1000, 1024, 3000, 4096, 4099, 8192])
def test_lengths(dtype: torch.dtype, length: int) -> None:
    call = rounded(make(length, length, gates=True, skip=True), dtype)
    against_double(call, RELATIVE_L2[dtype], gradients=length < 3000)


@on_host
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sample_of_lengths(dtype: torch.dtype) -> None:
    def check(draw: random.Random, length: int) -> None:
        call = rounded({"u": torch.randn(1, 1, length), "k": torch.randn(1, draw.randint(1, length)) / 8}, dtype)
        against_double(call, RELATIVE_L2[dtype], mode=draw.choice(["causal", "circular"]))

    most = cuda_plan.longest(_cuda.arithmetic(dtype), 0)
    each_length(check, (1, 1000), (1000, 5000), (5000, most), (most, 70000))


@on_host
@pytest.mark.parametrize("length", [100, 700, 2500])
def test_tf32(tf32: None, length: int) -> None:
    against_double(rounded(make(length, length, reverse=length - 1, gates=True, skip=True), torch.float32), TF32)


@on_host
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_option(data: st.DataObject) -> None:
    """Over shapes, modes, ranks, gates, lengths and dtypes."""
    length = data.draw(st.integers(1, 1500), label="L")
    mode = data.draw(st.sampled_from(["causal", "circular"]), label="mode")
    dtype = data.draw(st.sampled_from(DTYPES), label="dtype")
    call = make(
        length,
        data.draw(st.integers(1, length + 20), label="K"),
        rank=data.draw(st.sampled_from([2, 3]), label="rank"),
        reverse=data.draw(st.integers(0, length + 20), label="K reverse") if mode == "causal" else 0,
        reverse_rank=data.draw(st.sampled_from([2, 3]), label="rank reverse"),
        gates=data.draw(st.booleans(), label="gates"),
        skip=data.draw(st.booleans(), label="skip"),
    )
    lengths = torch.tensor([length, data.draw(st.integers(0, length))]) if data.draw(st.booleans()) else None
    with small_blocks() if data.draw(st.booleans(), label="blocks") else contextlib.nullcontext():
        against_double(rounded(call, dtype), RELATIVE_L2[dtype], mode=mode, lengths=lengths)


@contextlib.contextmanager
def small_blocks() -> Iterator[None]:
    """Blocks of 256 samples, and one channel at a time."""
    plan: dict[str, Any] = {"longest": lambda *_: 256, "limits": lambda *_: cuda_plan.Outer(0, 0), "SHORTEST": 1}
    plan["choose"] = cuda_plan.choose.__wrapped__
    with mock.patch.multiple(cuda_plan, **plan), mock.patch.object(cuda_passes, "WORK_BYTES", 1):
        yield


@on_host
@pytest.mark.parametrize("mode", ["causal", "circular"])
@pytest.mark.parametrize("blocks", [1, 2])
def test_lengths_outside_of_the_sequence_count_as_none_or_all(blocks: int, mode: str) -> None:
    """On a GPU nobody refuses them."""
    call = rounded(make(301, 301, gates=True, skip=True), torch.float16)
    unchecked = mock.patch.object(operator, "check_lengths")
    with unchecked, small_blocks() if blocks > 1 else contextlib.nullcontext():
        against_double(call, RELATIVE_L2[torch.float16], mode=mode, lengths=torch.tensor([310, -2]))


@on_host
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("taps", "reverse"), [(2000, 0), (300, 1999), (10, 300), (1, 0)])
def test_several_blocks(dtype: torch.dtype, taps: int, reverse: int) -> None:
    with small_blocks():
        against_double(rounded(make(2000, taps, reverse=reverse, skip=True), dtype), RELATIVE_L2[dtype])


@on_host
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_any_scale(dtype: torch.dtype, scale: float) -> None:
    """Half precision has a small range; sequences and filters needn't know."""
    call = {"u": torch.randn(2, 3, 600) * scale, "k": torch.randn(3, 600) / (24 * scale)}
    against_double(rounded(call, dtype), RELATIVE_L2[dtype], dy_scale=scale)


LARGE = 1e35
"""Numbers of this size are 2^16 times what a scale of 2^100 leaves in half precision."""


@on_host
@pytest.mark.parametrize("scale", [(LARGE, 1 / LARGE), (LARGE, 1), (1 / LARGE, 1), (1 / LARGE, LARGE), (1, LARGE)])
@pytest.mark.parametrize("blocks", [1, 3])
def test_all_of_the_range_of_bfloat16(blocks: int, scale: tuple[float, float]) -> None:
    """Near its ends sequences, filters and gradients are as right as in single precision."""
    call = {"u": torch.randn(2, 3, 600) * scale[0], "k": torch.randn(3, 600) / 24 * scale[1]}
    with small_blocks() if blocks > 1 else contextlib.nullcontext():
        against_double(
            rounded(call, torch.bfloat16), RELATIVE_L2[torch.bfloat16], gradients=blocks == 1 or scale[0] <= 1
        )


def impulse() -> tuple[Tensor, Tensor]:
    """A sequence and a filter of ones whose scales, each with the other's, are beyond the range; the output isn't."""
    u = torch.zeros(1, 1, 1024, dtype=torch.bfloat16)
    u[..., 3] = 1e38
    return u, torch.ones(1, 1024)


@on_host
def test_scales_whose_product_is_beyond_the_range() -> None:
    u, k = impulse()
    assert_close(fft_conv(u, k, backend="cuda"), u.double().cumsum(-1), RELATIVE_L2[torch.bfloat16])


def below_the_bound_of_spectra(ones: int) -> None:
    """The output and dk of an impulse, whose magnitude times the sum of so many ones is just below 2^127."""
    u, k = torch.zeros(1, 1, 768, dtype=torch.bfloat16), torch.ones(1, 768, requires_grad=True)
    u[..., 3] = 0.9 * 2.0**127 / ones
    y = fft_conv(u, k, backend="cuda")
    assert_close(y, u.double().cumsum(-1), RELATIVE_L2[torch.bfloat16])
    (dk,) = torch.autograd.grad(y, k, torch.ones_like(y))
    assert_close(dk, u.double().cumsum(-1)[0].flip(-1), RELATIVE_L2[torch.bfloat16])


@on_host
@pytest.mark.parametrize("blocks", [1, 3])
def test_products_of_spectra_reach_the_end_of_the_range(blocks: int) -> None:
    """As far as the docstring of the backend says: two of three blocks of 256 taps are in a spectrum."""
    with small_blocks() if blocks > 1 else contextlib.nullcontext():
        below_the_bound_of_spectra(768 if blocks == 1 else 512)


@on_host
def test_one_tap_near_the_end_of_the_range() -> None:
    """Its spectrum is no larger than it is, nor are the results."""
    u, k = torch.zeros(1, 2, 10000), torch.zeros(2, 10000)
    u[0, 0, 7], k[0, 5], u[0, 1, 5], k[1, 7] = 3e38, 0.5, 0.5, 3e38
    y = fft_conv(u.bfloat16(), k, backend="cuda").float()
    assert_close(y / 3e38, 0.5 * torch.nn.functional.one_hot(torch.tensor([[12, 12]]), 10000), 1e-2)


@on_host
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [70, 700])
def test_bad_numbers_stay_in_their_row(dtype: torch.dtype, length: int) -> None:
    """Those that are not finite, and finite ones whose sums are not; in one block and in three."""
    u = torch.randn(4, 3, length).to(dtype)
    u[1, 2, 50], u[2, 0, 3], u[3, 1] = torch.nan, torch.inf, torch.finfo(dtype).max
    with small_blocks():
        bad = fft_conv(u, torch.randn(3, length), backend="cuda").isfinite().logical_not().any(2)
    assert bad.nonzero().tolist() == [[1, 2], [2, 0], [3, 1]]


@on_host
@pytest.mark.parametrize("field", ["norms", "filter_norms"])
def test_norms_of_blocks_are_read_once(field: str, host_library: _native.Library) -> None:
    """By every block of the result those of the pairs that it is the sum of."""

    def size(call: calls.Blocks) -> int:
        return int(call.channels * (call.batch * call.blocks if field == "norms" else call.filter_blocks))

    with small_blocks(), counted_reads(host_library, "fft_blocks", field, size) as reads:
        fft_conv(torch.ones(2, 1, 1024).half(), torch.ones(1, 1024), backend="cuda")
    assert reads == [2 * (1 + 2 + 3 + 4)]


@on_host
@pytest.mark.parametrize("dtype", DTYPES)
def test_strides(dtype: torch.dtype) -> None:
    """Channels last, slices at odd addresses, filters of other strides."""
    u = torch.randn(2, 300, 3).to(dtype).mT
    sliced = torch.randn(2, 3, 333).to(dtype)[..., 5:305]
    k = torch.randn(300, 3).mT / 17
    for x, gate in ((u, sliced), (sliced, u)):
        against_double({"u": x, "k": k, "pre_gate": gate}, RELATIVE_L2[dtype])


@on_host
def test_it_serves_who_asks_for_it_and_refuses_what_it_cannot() -> None:
    assert BACKENDS.choose("cuda", torch.ones(1, 1, 4), None).name == "cuda"
    assert BACKENDS.choose("auto", torch.ones(1, 1, 4), None, None, None, None, None, None, "causal").name != "cuda"
    with pytest.raises(ValueError, match="float64"):
        fft_conv(torch.ones(1, 1, 4).double(), torch.ones(1, 4).double(), backend="cuda")


@on_host
@pytest.mark.parametrize("mode", ["causal", "circular"])
def test_opcheck(mode: str) -> None:
    call = rounded(make(30, 30, gates=True, skip=True), torch.float32)
    u, *tensors = (call[n].requires_grad_() for n in ("u", "k", "skip", "pre_gate", "post_gate"))
    arguments = (u, tensors[0], None, *tensors[1:], torch.tensor([30, 7]), mode)
    torch.library.opcheck(torch.ops.longconv.fft_conv.default, (*arguments, "cuda"))
    wanted = [True, True, False, True, True, True]
    dy = torch.randn_like(u).requires_grad_()
    torch.library.opcheck(torch.ops.longconv.fft_conv_backward.default, (dy, *arguments, wanted, "cuda"))


@on_host
def test_tables_are_kept_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_plan, "CACHE_BYTES", 20000)
    for length in (10, 300, 700):
        fft_conv(torch.ones(1, 1, length), torch.ones(1, length), backend="cuda")
    assert [key[0] for key in cuda_plan._plans] == [768]


@on_host
def test_tables_that_a_graph_reads_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were there when it was captured; those that were made then are its own."""
    monkeypatch.setattr(cuda_plan, "CACHE_BYTES", 20000)
    monkeypatch.setattr(_cuda, "_of_graphs", {})

    def call(length: int) -> None:
        fft_conv(torch.ones(1, 1, length), torch.ones(1, length), backend="cuda")

    call(10)
    (plan,) = cuda_plan._plans.values()
    tables, address = weakref.ref(plan.tables), plan.tables.data_ptr()
    del plan
    with mock.patch.object(_cuda, "capturing", return_value=True):
        call(10)
        call(300)
    assert list(_cuda._of_graphs) == [address]
    call(700)
    assert [key[0] for key in cuda_plan._plans] == [768]
    kept = tables()
    assert kept is not None and kept.data_ptr() == address


@on_host
@pytest.mark.parametrize(("mode", "share"), [("causal", 0.5), ("circular", 1)])
def test_filters_with_periods_have_spectra_a_sample(mode: str, share: float) -> None:
    """The cost of a way is told so."""
    with mock.patch.object(cuda_plan, "choose", wraps=cuda_plan.choose) as choose:
        fft_conv(torch.ones(2, 1, 9), torch.ones(1, 9), lengths=torch.tensor([9, 4]), mode=mode, backend="cuda")
    assert choose.call_args.args[3] == share


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 97, 256, 1000, 4096, 10007])
@pytest.mark.parametrize("mode", ["causal", "circular"])
def test_on_a_gpu(dtype: torch.dtype, length: int, mode: str) -> None:
    call = rounded(make(length, length, reverse=length * (mode == "causal"), gates=True, skip=True), dtype)
    against_double({n: t.cuda() for n, t in call.items()}, RELATIVE_L2[dtype], mode=mode)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_longest_on_a_gpu(dtype: torch.dtype) -> None:
    length = cuda_plan.longest(_cuda.arithmetic(dtype), 0)
    call = rounded({"u": torch.randn(2, 3, length), "k": torch.randn(3, length) / length**0.5}, dtype)
    against_double({n: t.cuda() for n, t in call.items()}, RELATIVE_L2[dtype])


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("taps", [1000, 200003])
def test_several_blocks_on_a_gpu(dtype: torch.dtype, taps: int) -> None:
    call = rounded({"u": torch.randn(2, 3, 200003), "k": torch.randn(3, taps) / taps**0.5}, dtype)
    against_double({n: t.cuda() for n, t in call.items()}, RELATIVE_L2[dtype])


@pytest.mark.gpu
def test_offsets_beyond_32_bits_on_a_gpu() -> None:
    u = torch.zeros(70000, 2, 16384, dtype=torch.float16, device="cuda")
    u[-1, -1] = torch.randn(16384)
    k = torch.randn(2, 16384, device="cuda") / 128
    got = fft_conv(u, k, backend="cuda")[-1:]
    assert_close(got, fft_conv(u[-1:].double(), k.double(), backend="torch"), RELATIVE_L2[torch.float16])

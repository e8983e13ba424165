"""The outer stage of the backend ``cuda`` of ``fft_conv``, for sequences that no block holds, by host execution."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from longconv import _native
from longconv.ops import _cuda, fft_conv
from longconv.ops.fft_conv import cuda_calls as calls
from longconv.ops.fft_conv import cuda_passes, cuda_plan
from longconv.ops.fft_conv.cuda_outer import OuterPasses, Work
from longconv.ops.fft_conv.cuda_plan import Cut, Outer, Tiles
from tests.ops.cuda_host import counted_reads, cuda_on_host, host_library, shared_memory
from tests.ops.test_fft_conv_cuda import (
    DTYPES,
    LARGE,
    TF32,
    against_double,
    below_the_bound_of_spectra,
    impulse,
    rounded,
    tf32,
)
from tests.tolerances import RELATIVE_L2, assert_close

__all__ = ["cuda_on_host", "host_library", "tf32"]

on_host = pytest.mark.usefixtures("cuda_on_host")


@contextlib.contextmanager
def outer(rows: int = 16, columns: int = 1024, work: int = cuda_passes.WORK_BYTES) -> Iterator[None]:
    """All sequences go that way, in a memory."""
    chosen = mock.patch.object(cuda_plan, "choose", return_value=Outer(rows, columns))
    with chosen, mock.patch.object(cuda_passes, "WORK_BYTES", work):
        yield


def make(length: int, taps: int, *, reverse: int = 0, samples: int = 1, gates: bool = False) -> dict[str, Tensor]:
    """Arguments of unit scale of one channel, filters a sample where there are several."""
    call = {"u": torch.randn(samples, 1, length), "skip": torch.randn(1)}
    call["k"] = torch.randn(*([samples] if samples > 1 else []), 1, taps) / taps**0.5
    if reverse:
        call["k_reverse"] = torch.randn(1, reverse) / reverse**0.5
    if gates:
        call["pre_gate"], call["post_gate"] = torch.randn(2, samples, 1, length)
    return call


@on_host
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("length", "taps", "reverse", "options"),
    [
        (16384, 16384, 0, {}),
        (2001, 77, 2000, {"gates": True}),
        (5003, 5003, 1, {"samples": 2, "gates": True, "lengths": [5003, 1300]}),
        (7919, 6001, 0, {"samples": 2, "gates": True, "lengths": [77, 6000], "mode": "circular"}),
    ],
)
def test_modes(dtype: torch.dtype, length: int, taps: int, reverse: int, options: dict[str, Any]) -> None:
    """Output and gradients of causal, bidirectional and circular filters, shared and a sample, with gates and skip."""
    how = {"mode": options.get("mode", "causal"), "lengths": options.get("lengths")}
    how["lengths"] = None if how["lengths"] is None else torch.tensor(how["lengths"])
    call = make(length, taps, reverse=reverse, **{n: v for n, v in options.items() if n not in how})
    with outer():
        against_double(rounded(call, dtype), RELATIVE_L2[dtype], **how)


@on_host
@pytest.mark.parametrize(("dtype", "rank"), [(torch.float32, 3), (torch.float16, 2)])
def test_channels_and_samples_in_turn(dtype: torch.dtype, rank: int) -> None:
    """Memory for one sequence at a time."""
    k = torch.randn(2, 2, 500)[: 2 if rank == 3 else 1] / 22
    call = {"u": torch.randn(2, 2, 3000), "k": k if rank == 3 else k[0], "post_gate": torch.randn(2, 2, 3000)}
    make = OuterPasses._work

    def of_one(self: OuterPasses, channels: int, batch: int, *rest: Any) -> Work:
        assert (channels, batch) == (1, 1)
        return make(self, channels, batch, *rest)

    with outer(work=1), mock.patch.object(OuterPasses, "_work", of_one):
        against_double(rounded(call, dtype), RELATIVE_L2[dtype])


@on_host
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_any_scale(dtype: torch.dtype, scale: float) -> None:
    call = {"u": torch.randn(1, 1, 9000) * scale, "k": torch.randn(1, 9000) / (95 * scale)}
    with outer():
        against_double(rounded(call, dtype), RELATIVE_L2[dtype], dy_scale=scale)


@on_host
@pytest.mark.parametrize("scale", [(LARGE, 1 / LARGE), (LARGE, 1), (1 / LARGE, 1), (1 / LARGE, LARGE), (1, LARGE)])
def test_all_of_the_range_of_bfloat16(scale: tuple[float, float]) -> None:
    call = {"u": torch.randn(1, 1, 9000) * scale[0], "k": torch.randn(1, 9000) / 95 * scale[1]}
    with outer():
        against_double(rounded(call, torch.bfloat16), RELATIVE_L2[torch.bfloat16], gradients=scale[0] <= 1)


@on_host
def test_scales_whose_product_is_beyond_the_range() -> None:
    u, k = impulse()
    with outer():
        y = fft_conv(u, k, backend="cuda")
    assert_close(y, u.double().cumsum(-1), RELATIVE_L2[torch.bfloat16])


@on_host
def test_products_of_spectra_reach_the_end_of_the_range() -> None:
    with outer():
        below_the_bound_of_spectra(768)


@on_host
@pytest.mark.parametrize("dtype", DTYPES)
def test_bad_numbers_stay_in_their_row(dtype: torch.dtype) -> None:
    u = torch.randn(2, 2, 2000).to(dtype)
    u[1, 0, 50], u[0, 1] = torch.nan, torch.finfo(dtype).max
    with outer():
        bad = fft_conv(u, torch.randn(2, 2000), backend="cuda").isfinite().logical_not().any(2)
    assert bad.nonzero().tolist() == [[0, 1], [1, 0]]


@on_host
@pytest.mark.parametrize(
    ("function", "field", "reads"),
    [
        ("fft_rows", "peaks", [16 * 32, 2 * 16 * 32]),
        ("fft_rows", "spectrum_peaks", [0, 2 * 16 * 2]),
        ("fft_columns_back", "peaks", [2 * 16 * 32]),
    ],
)
def test_peaks_are_read_once(function: str, field: str, reads: list[int], host_library: _native.Library) -> None:
    """By the row of 32 tiles, or the tile of 16 rows, whose scale they tell: of a filter and of two sequences."""

    def size(call: calls.InnerRows | calls.ColumnsBack) -> int:
        sequences = 1 if field == "spectrum_peaks" else call.batch
        return int(sequences * call.rows * call.columns // 1024)

    with outer(16, 2048), counted_reads(host_library, function, field, size) as counted:
        fft_conv(torch.ones(2, 1, 3000).half(), torch.ones(1, 9), backend="cuda")
    assert counted == reads


@on_host
@pytest.mark.parametrize(("rows", "columns", "length"), [(16, 3072, 49151), (272, 1024, 33001)])
def test_tf32(tf32: None, rows: int, columns: int, length: int) -> None:
    """Several stripes of a row; more rows than a block has room for with all columns of a tile."""
    call = {"u": torch.randn(1, 1, length), "k": torch.randn(1, length) / length**0.5}
    with outer(rows, columns):
        against_double(call, TF32, gradients=False)


@on_host
@pytest.mark.parametrize(("dtype", "samples"), [(torch.float32, 1), (torch.bfloat16, 3)])
def test_long_sequences_go_that_way(dtype: torch.dtype, samples: int) -> None:
    length = 65521
    call = rounded({"u": torch.randn(samples, 1, length), "k": torch.randn(1, length) / length**0.5}, dtype)
    with mock.patch.object(cuda_passes.BlockPasses, "filter", side_effect=AssertionError("cut into blocks")):
        against_double(call, RELATIVE_L2[dtype], gradients=samples == 1)


@on_host
@pytest.mark.parametrize("arithmetic", [_cuda.HALF, _cuda.TF32, _cuda.TF32X3])
def test_what_is_chosen(arithmetic: int) -> None:
    """One block, for filters of few taps tiles or a cut, for others up to 4M at least an outer transform of all."""

    def choose(length: int, taps: int, before: int = 0) -> Tiles | Cut | Outer:
        return cuda_plan.choose(length, before, taps, 1 / 8, arithmetic, torch.device("cpu"))

    longest = cuda_plan.longest(arithmetic, 0)
    assert choose(longest, longest) == Tiles(longest)
    few = choose(2**20, 1000)
    assert isinstance(few, Tiles) and few.points <= 8192
    if arithmetic != _cuda.HALF:
        assert choose(2**20, 4000) == Cut(4096, 256, 0, 2)
    for length in (100003, 2**18, 2**20 + 1, 2**22):
        for before in (0, length - 1):
            way = choose(length, length, before)
            assert isinstance(way, Outer) and length <= way.points < length + 16 * way.columns
    assert isinstance(choose(2**24, 2**24), Cut)
    assert not cuda_plan._plans, "a choice makes no tables"


@on_host
def test_blocks_of_half_precision_are_counted_with_their_columns() -> None:
    """They have 128 beyond 4096 points, so half the rows and a quarter of the matrices' bytes of 64."""
    way = cuda_plan.choose(41000, 0, 41000, 1, _cuda.HALF, torch.device("cpu"))
    assert way == Cut(22528, 2, 0, 2)


@on_host
@pytest.mark.parametrize(
    ("arithmetic", "longest"), [(_cuda.HALF, 14336), (_cuda.TF32, 7168), (_cuda.TF32X3, 7168)], ids=str
)
def test_limits_of_a_device_with_less_shared_memory(
    arithmetic: int, longest: int, host_library: _native.Library
) -> None:
    """All sizes up to the limits fit; no sequences are worked on."""
    with shared_memory(host_library, 101376):
        most = cuda_plan.limits(arithmetic, 0)
        assert most.rows >= 224 and most.columns >= 5120
        assert cuda_plan.longest(arithmetic, 0) == longest
        for length in (660352, 2**20):
            way = cuda_plan.choose(length, 0, length, 1, arithmetic, torch.device("cpu"))
            assert not isinstance(way, Outer) or (way.rows <= most.rows and way.columns <= most.columns)
        for rows in range(16, most.rows + 1, 16):
            columns = calls.Columns(rows=rows, columns=1024, arithmetic=arithmetic)
            _cuda.run("fft_columns", columns, torch.device("cpu"))
            back = calls.ColumnsBack(rows=rows, columns=1024, arithmetic=arithmetic)
            _cuda.run("fft_columns_back", back, torch.device("cpu"))
        for size in range(1024, most.columns + 1, 1024):
            inner = calls.InnerRows(rows=16, columns=size, arithmetic=arithmetic, forward=True, inverse=True)
            _cuda.run("fft_rows", inner, torch.device("cpu"))


@on_host
@pytest.mark.parametrize("shared", [101376, 166912, 232448])
def test_gradients_of_taps_fit_both_ways(shared: int, host_library: _native.Library) -> None:
    """Those of sequences in half precision come back in tf32, whose blocks hold fewer rows and columns."""
    device = torch.device("cpu")
    with shared_memory(host_library, shared):
        most = cuda_plan.limits(_cuda.TF32, 0)
        ways = [
            cuda_plan.choose(length, 0, length, 1 / 8, _cuda.HALF, device, tap_gradients=True)
            for length in (2**17 * i + 1 for i in range(32))
        ]
        outers = {way for way in ways if isinstance(way, Outer)}
        assert outers
        for way in outers:
            assert way.rows <= most.rows and way.columns <= most.columns
            inner = calls.InnerRows(rows=way.rows, columns=way.columns, arithmetic=_cuda.TF32, inverse=True)
            _cuda.run("fft_rows", inner, device)


@on_host
@pytest.mark.parametrize(("wanted", "counted"), [("u", False), ("k", True), ("skip", True)])
def test_gradients_of_taps_are_told_to_the_choice(wanted: str, counted: bool) -> None:
    call = {"u": torch.ones(1, 1, 9), "k": torch.ones(1, 9), "skip": torch.ones(1)}
    call[wanted].requires_grad_()
    with mock.patch.object(cuda_plan, "choose", wraps=cuda_plan.choose) as choose:
        fft_conv(call["u"], call["k"], skip=call["skip"], backend="cuda").sum().backward()
    assert [one.kwargs["tap_gradients"] for one in choose.call_args_list] == [False, counted]


@on_host
def test_fewer_columns_back_where_shared_memory_is_short(host_library: _native.Library) -> None:
    call = {"u": torch.randn(1, 1, 150000), "k": torch.randn(1, 100) / 10}
    with shared_memory(host_library, 101376), outer(192, 1024):
        against_double(call, RELATIVE_L2[torch.float32], gradients=False)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [65536, 200003, 2**20, 2**22])
@pytest.mark.parametrize("mode", ["causal", "circular"])
def test_on_a_gpu(dtype: torch.dtype, length: int, mode: str) -> None:
    call = make(length, length, reverse=length * (mode == "causal"), samples=2, gates=True)
    against_double({n: t.cuda() for n, t in rounded(call, dtype).items()}, RELATIVE_L2[dtype], mode=mode)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_longest_on_a_gpu(dtype: torch.dtype) -> None:
    """More than 2^31 numbers, of which the last row is looked at."""
    u = torch.zeros(129, 4, 2**22, dtype=dtype, device="cuda")
    u[-1, -1] = torch.randn(2**22, device="cuda")
    k = torch.randn(4, 2**22, device="cuda") / 2048
    got = fft_conv(u, k, backend="cuda")[-1:]
    assert_close(got, fft_conv(u[-1:].double(), k.double(), backend="torch"), RELATIVE_L2[dtype])

"""Short filters of long sequences on the backend ``cuda`` of ``fft_conv``: tiles that overlap, by host execution."""

from __future__ import annotations

import contextlib
import ctypes
import random
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import torch

from longconv import _native
from longconv.ops import _cuda, fft_conv
from longconv.ops.fft_conv import cuda_plan
from longconv.ops.fft_conv.cuda_passes import BlockPasses
from longconv.ops.fft_conv.cuda_plan import Tiles
from tests.ops.comparison import each_length
from tests.ops.cuda_host import cuda_on_host, host_library
from tests.ops.test_fft_conv import make
from tests.ops.test_fft_conv_cuda import DTYPES, against_double, rounded
from tests.tolerances import RELATIVE_L2

__all__ = ["cuda_on_host", "host_library"]

on_host = pytest.mark.usefixtures("cuda_on_host")
KINDS: dict[str, dict[str, Any]] = {
    "causal": {},
    "lengths": {"lengths": [301, 700]},
    "two_sided": {"reverse": 90, "lengths": [701, 13]},
    "anticausal": {"reverse": 100},
    "circular": {"mode": "circular"},
    "periods": {"mode": "circular", "lengths": [3, 555]},
    "no_period": {"mode": "circular", "lengths": [0, 257]},
}


@contextlib.contextmanager
def tiles() -> Iterator[None]:
    """All sequences of more than 256 samples go in tiles of that size."""

    def choose(length: int, before: int, after: int, _: float, *kind: Any, circular: bool = False, **__: bool) -> Tiles:
        return [*cuda_plan._tiles(length, 0 if circular else before, after, 256, *kind)][-1]

    with mock.patch.object(cuda_plan, "choose", choose):
        yield


def check_kind(kind: str, rank: int, dtype: torch.dtype) -> None:
    """Output and gradients with gates and skip of few taps."""
    options = {"mode": "causal", "lengths": None, "reverse": 0, **KINDS[kind]}
    reverse, lengths = options.pop("reverse"), options.pop("lengths")
    call = make(701, 1 if kind == "anticausal" else 77, rank=rank, reverse=reverse, gates=True, skip=True)
    with tiles():
        options["lengths"] = None if lengths is None else torch.tensor(lengths)
        against_double(rounded(call, dtype), RELATIVE_L2[dtype], **options)


@on_host
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind(kind: str, rank: int, dtype: torch.dtype) -> None:
    """Periods shorter than a filter are among them."""
    check_kind(kind, rank, dtype)


@on_host
@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_tiles_that_share_a_row_are_summed(kind: str, rank: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with many channels: all of a channel, or parts that end within a sample and are not all as large."""
    monkeypatch.setattr(_cuda, "_ROWS", rows)
    check_kind(kind, rank, torch.float16)


@on_host
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["causal", "circular"])
def test_a_sample_of_lengths(mode: str, dtype: torch.dtype) -> None:
    def check(draw: random.Random, length: int) -> None:
        taps, reverse = draw.randint(1, 120), draw.randint(0, 120) if mode == "causal" else 0
        call = make(length, taps, reverse=reverse, skip=True)
        with tiles():
            against_double(rounded(call, dtype), RELATIVE_L2[dtype], mode=mode)

    each_length(check, (257, 600), (600, 1500), (1500, 3000))


@on_host
@pytest.mark.parametrize("arithmetic", [_cuda.HALF, _cuda.TF32, _cuda.TF32X3])
@pytest.mark.parametrize("circular", [False, True])
def test_fewer_taps_never_take_more(arithmetic: int, circular: bool) -> None:
    """Within one block and beyond; a filter as long as a sequence that a block holds takes that block."""
    longest = cuda_plan.longest(arithmetic, 0)
    for length in (4096, 10007, longest, 10 * longest):
        before = length - 1 if circular else 0
        ways = [
            cuda_plan.choose(length, before, taps, 1 / 8, arithmetic, torch.device("cpu"), circular=circular)
            for taps in (64, 256, 1024, 4096, length)
        ]
        costs = [way.cost(arithmetic, 1 / 8) for way in ways]
        assert costs == sorted(costs) and costs[0] < 0.8 * costs[-1], length
        few = ways[0]
        assert isinstance(few, Tiles) and few.before == 64 and few.after == 0
        assert few.step * few.pieces >= length > few.step * (few.pieces - 1)
        if length <= longest:
            assert isinstance(ways[-1], Tiles) and ways[-1].pieces == 1


@on_host
@pytest.mark.parametrize(
    ("length", "dtype", "mode"),
    [
        (4096, torch.float32, "causal"),
        (4096, torch.float32, "circular"),
        (16384, torch.float16, "causal"),
        (65536, torch.float16, "causal"),
    ],
)
def test_work_and_memory_shrink_with_the_filter(
    length: int, dtype: torch.dtype, mode: str, host_library: _native.Library
) -> None:
    """Matrix instructions, and numbers of the spectra, of the output and of the gradients."""
    assert host_library.handle is not None
    count = host_library.handle.longconv_cuda_products
    count.restype = ctypes.c_int64

    def counted(step: Callable[[], Any]) -> tuple[int, int]:
        before = count()
        with mock.patch.object(torch, "empty", wraps=torch.empty) as empty:
            step()
        sizes = [call.args[0] for call in empty.call_args_list]
        return count() - before, sum(torch.Size(size).numel() for size in sizes if isinstance(size, tuple))

    def measured(taps: int) -> list[int]:
        u, k = torch.randn(1, 1, length).to(dtype).requires_grad_(), torch.randn(1, taps, requires_grad=True)
        y = fft_conv(u, k, mode=mode, backend="cuda")  # makes the tables, which are kept
        return [*counted(lambda: fft_conv(u, k, mode=mode, backend="cuda")), *counted(lambda: y.sum().backward())]

    few, some, every = (measured(taps) for taps in (64, 500, length))
    for smaller, larger in ((few, some), (some, every)):
        assert all(s <= m for s, m in zip(smaller, larger, strict=True)), (few, some, every)
    assert all(f < 0.7 * e for f, e in zip(few, every, strict=True)), (few, some, every)


@on_host
def test_bad_numbers_stay_in_their_row() -> None:
    u = torch.randn(2, 3, 700)
    u[1, 2, 300] = torch.nan
    with tiles():
        bad = fft_conv(u, torch.randn(3, 50), backend="cuda").isfinite().logical_not().any(2)
    assert bad.nonzero().tolist() == [[1, 2]]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["causal", "circular"])
@pytest.mark.parametrize("length", [4096, 10007, 300007])
def test_on_a_gpu(length: int, mode: str, dtype: torch.dtype) -> None:
    call = make(length, 300, reverse=200 * (mode == "causal"), gates=True, skip=True)
    with mock.patch.object(BlockPasses, "filter", side_effect=AssertionError("cut into blocks")):
        against_double({n: t.cuda() for n, t in rounded(call, dtype).items()}, RELATIVE_L2[dtype], mode=mode)

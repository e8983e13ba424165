"""Backend ``triton`` of ``fft_conv``, see triton_calls.py."""

from __future__ import annotations

import random
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from longconv import fft_conv
from longconv.ops import _cuda, _triton
from longconv.ops.fft_conv import triton_plan
from tests.ops.comparison import each_length
from tests.ops.native_calls import Call
from tests.ops.triton_calls import DEVICE, MARKS, compare, sizes
from tests.tolerances import assert_close

pytestmark = MARKS
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TENSORS = ("u", "k", "k_reverse", "skip", "pre_gate", "post_gate")


def arguments(batch: int, channels: int, length: int, taps: int = 0, names: tuple[str, ...] = TENSORS) -> Call:
    taps = taps or length
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("u", "pre_gate", "post_gate"), (batch, channels, length))
    shapes |= {"k": (channels, taps), "k_reverse": (channels, max(taps - 1, 1)), "skip": (channels,)}
    call = {name: torch.randn(shapes[name], dtype=torch.float64) for name in names}
    for name in {"k", "k_reverse"} & set(names):
        call[name] /= min(taps, length) ** 0.5
    return call


def convolved(call: Call, backend: str, lengths: Tensor | None = None) -> Tensor:
    """The result for arguments by name."""
    options: dict[str, Any] = {**call, "lengths": lengths, "backend": backend}
    return fft_conv(**options)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("length", sizes([1, 2, 100, 257, 1024], [2048, 4095, 4096]))
def test_two_sided_with_gates_and_skip(dtype: torch.dtype, length: int) -> None:
    names = TENSORS if length > 1 else tuple(name for name in TENSORS if name != "k_reverse")
    compare("fft_conv", arguments(2, 2, length, names=names), {}, dtype, exact="torch")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_sample_of_lengths(dtype: torch.dtype) -> None:
    def check(draw: random.Random, length: int) -> None:
        call = arguments(1, 1, length, draw.randint(1, length), ("u", "k"))
        compare("fft_conv", call, {"mode": draw.choice(["causal", "circular"])}, dtype, exact="torch")

    each_length(check, (1, 1000), (1000, 8192))


@pytest.mark.parametrize("names", [("u", "k"), ("u", "k", "pre_gate"), ("u", "k", "post_gate"), ("u", "k", "skip")])
@pytest.mark.parametrize("taps", [1, 37, 200, 400])
def test_causal(names: tuple[str, ...], taps: int) -> None:
    """Filters shorter and longer than the sequence, and every argument left out."""
    compare("fft_conv", arguments(2, 1, 200, taps, names), {}, torch.float32, exact="torch")


@pytest.mark.parametrize("taps", [1, 50, 131, 300])
@pytest.mark.parametrize("lengths", [None, (131, 1, 0, 77)])
def test_circular(taps: int, lengths: tuple[int, ...] | None) -> None:
    call = arguments(4, 2, 131, taps, ("u", "k", "skip", "pre_gate", "post_gate"))
    options: dict[str, Any] = {"mode": "circular"}
    if lengths is not None:
        options["lengths"] = torch.tensor(lengths)
    compare("fft_conv", call, options, torch.float32, exact="torch")


@pytest.mark.parametrize("mode", ["causal", "circular"])
@pytest.mark.parametrize("own", [("k",), ("k", "k_reverse"), ("k_reverse",)], ids=str)
def test_a_filter_a_sample(mode: str, own: tuple[str, ...]) -> None:
    call = arguments(3, 2, 90, 60)
    if mode == "circular":
        if own != ("k",):
            return
        del call["k_reverse"]
    call |= {name: torch.randn(3, *call[name].shape, dtype=torch.float64) / 8 for name in own}
    compare("fft_conv", call, {"mode": mode}, torch.float32, exact="torch")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_lengths_and_what_stands_in_the_padding(dtype: torch.dtype) -> None:
    call = arguments(4, 2, 131)
    options = {"lengths": torch.tensor([131, 1, 0, 77])}
    compare("fft_conv", call, options, dtype, exact="torch")
    there = {name: t.to(DEVICE, dtype) for name, t in call.items()}
    lengths = options["lengths"].to(DEVICE)
    clean = convolved(there, "triton", lengths)
    for name in ("u", "pre_gate", "post_gate"):
        there[name][3, :, 77:] = torch.nan
    assert torch.equal(convolved(there, "triton", lengths), clean)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_sixteen_bits_of_any_scale(scale: float) -> None:
    """Operands are scaled row by row: neither the sums nor the products leave the range of float16."""
    call = arguments(2, 2, 1000, names=("u", "k"))
    call["u"] *= scale
    call["u"][0] *= 0.01
    compare("fft_conv", call, {}, torch.bfloat16, exact="torch")


def test_numbers_that_are_not_finite_stay_in_their_row() -> None:
    u, k = torch.randn(2, 3, 100, device=DEVICE), torch.randn(3, 100, device=DEVICE)
    clean = fft_conv(u, k, backend="triton")
    u[1, 2, 50], k[0, 3] = torch.nan, torch.inf
    y = fft_conv(u, k, backend="triton")
    assert torch.equal(y[:, 1], clean[:, 1])
    assert torch.equal(y[0, 2], clean[0, 2])
    assert not y[1, 2].isfinite().all()
    assert not y[:, 0].isfinite().all()


@pytest.fixture
def _few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that take several samples each."""
    monkeypatch.setattr(_triton, "PROGRAMS", 4)


@pytest.mark.usefixtures("_few_programs")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sums_over_a_batch(dtype: torch.dtype) -> None:
    compare("fft_conv", arguments(5, 2, 60), {}, dtype, exact="torch")


@pytest.fixture
def _several_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of as many rows as their tile has room for, the last of them for fewer."""
    monkeypatch.setattr(_triton, "PROGRAMS", 1)


@pytest.mark.usefixtures("_several_rows")
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_several_rows_a_program(dtype: torch.dtype) -> None:
    shared, circular = arguments(2, 9, 70), arguments(5, 2, 70, names=("u", "k", "skip", "post_gate"))
    compare("fft_conv", shared, {"lengths": torch.tensor([70, 33])}, dtype, exact="torch")
    options = {"lengths": torch.tensor([70, 1, 0, 33, 69]), "mode": "circular"}
    compare("fft_conv", circular, options, dtype, exact="torch")
    test_numbers_that_are_not_finite_stay_in_their_row()


def test_any_strides() -> None:
    def strided(*shape: int) -> Tensor:
        room = torch.full((*shape[:-2], 3 * shape[-1], shape[-2] + 2), torch.nan, device=DEVICE)
        return room[..., ::3, 1:-1].mT.normal_()

    call = {"u": strided(2, 3, 90), "k": strided(3, 40), "k_reverse": strided(2, 3, 50), "pre_gate": strided(2, 3, 90)}
    want = convolved({name: t.double() for name, t in call.items()}, "reference")
    assert_close(convolved(call, "triton"), want)


def test_beyond_the_largest_tile() -> None:
    for dtype in DTYPES:
        largest = triton_plan.largest(triton_plan.operands(dtype), torch.device(DEVICE))
        u = torch.ones(1, 1, largest + 1, dtype=dtype, device=DEVICE)
        with pytest.raises(ValueError, match=f"L = {largest + 1} is more than {largest}, the largest tile"):
            fft_conv(u, u[0], backend="triton")
    with pytest.raises(ValueError, match="u is float64, products are taken in single precision"):
        fft_conv(u.double(), u[0].double(), backend="triton")


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_every_tile(dtype: torch.dtype) -> None:
    """Of order 2 and 3; on a smaller GPU than the tables are made for, as far as they go there."""
    kind = triton_plan.operands(dtype)
    tiles = {
        n: tile for n, tile in triton_plan.TILES[kind].items() if n <= triton_plan.largest(kind, torch.device(DEVICE))
    }
    assert {tile.N3 > 1 for tile in tiles.values()} == {False, True}
    for length, tile in tiles.items():
        assert length == tile.N1 * tile.N2 * tile.N3
        compare("fft_conv", arguments(1, 1, length - 1, names=TENSORS[:3]), {}, dtype, exact="torch")


@pytest.mark.parametrize("captured", [False, True])
def test_tables_are_there_before_other_streams_see_them(captured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """And those that a graph makes, seen by it alone, wait for nothing."""
    device, plans = torch.device("cuda", 1), dict[Any, Any]()
    monkeypatch.setattr(triton_plan, "_plans", plans)
    monkeypatch.setattr(triton_plan, "_make_plan", lambda *key: key)
    monkeypatch.setattr(_cuda, "capturing", lambda of: captured and of == device)
    kept = list[int]()
    with mock.patch.object(torch.cuda, "synchronize", side_effect=lambda of: kept.append(len(plans))) as synchronize:
        for _ in range(2):
            triton_plan.plan_of(300, torch.float32, device)
    assert [call.args for call in synchronize.call_args_list] == ([] if captured else [(device,)])
    assert kept == ([] if captured else [0]) and len(plans) == (not captured)

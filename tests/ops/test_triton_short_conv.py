"""Backend ``triton`` of ``short_conv``, see triton_calls.py."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from longconv.ops import short_conv
from longconv.ops.short_conv.activations import ACTIVATIONS
from tests.ops.comparison import each_length
from tests.ops.native_calls import Call
from tests.ops.triton_calls import DEVICE, FLOATS, MARKS, compare, sizes

pytestmark = MARKS


def arguments(batch: int, channels: int, length: int, taps: int) -> Call:
    shapes = {"u": (batch, channels, length), "w": (channels, taps), "bias": (channels,)}
    return {name: torch.randn(s) for name, s in {**shapes, "initial": (batch, channels, taps - 1)}.items()}


def channels_last(x: Tensor) -> Tensor:
    return x.mT.contiguous().mT


@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
def test_activations(activation: str | None) -> None:
    compare("short_conv", arguments(2, 3, 70, 4), {"activation": activation}, torch.float32)


def test_a_sample_of_lengths() -> None:
    each_length(
        lambda draw, length: compare("short_conv", arguments(1, 1, length, draw.randint(1, 9)), {}, torch.float32),
        (1, 3000),
        (3000, 70000),
    )


@pytest.mark.parametrize("taps", [1, 2, 37])
def test_taps(taps: int) -> None:
    compare("short_conv", arguments(2, 2, 20, taps), {}, torch.float32)


def test_more_taps_than_a_program_sums_up() -> None:
    call = arguments(1, 40, 20, 70)
    compare("short_conv", {**call, "u": channels_last(call["u"])}, {}, torch.float32)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels-last"])
@pytest.mark.parametrize("length", sizes([1, 133], [2048, 65537]))
def test_dtypes_and_layouts(dtype: torch.dtype, last: bool, length: int) -> None:
    for batch, channels in ((1, 1), (2, 20)):
        call = arguments(batch, channels, length, 4)
        if last:
            call["u"] = channels_last(call["u"])
        compare("short_conv", call, {"activation": "silu"}, dtype)


@pytest.mark.parametrize("left_out", [("bias",), ("initial",), ("bias", "initial")])
def test_optional_arguments(left_out: tuple[str, ...]) -> None:
    call = {name: t for name, t in arguments(2, 3, 40, 5).items() if name not in left_out}
    compare("short_conv", call, {}, torch.float32)


def test_any_strides() -> None:
    room = torch.full((4, 5, 90), torch.nan, device=DEVICE)
    u = room[::2, 1:4, 3::2]
    u.normal_()
    w = torch.randn(6, 3, device=DEVICE).mT[:, ::2]
    want = short_conv(u.double(), w.double(), backend="reference").float()
    torch.testing.assert_close(short_conv(u, w, backend="triton"), want)


def test_numbers_that_are_not_finite_stay_where_they_are() -> None:
    u, w = torch.randn(3, 5, 100, device=DEVICE), torch.randn(5, 4, device=DEVICE)
    clean = short_conv(u, w, backend="triton")
    u[1, 2, 50] = torch.nan
    y = short_conv(u, w, backend="triton")
    assert y[1, 2, 50:54].isnan().all()
    y[1, 2, 50:54] = clean[1, 2, 50:54]
    assert torch.equal(y, clean)


@pytest.mark.skipif(DEVICE == "cpu", reason="too much memory for the interpreter")
def test_offsets_beyond_32_bits() -> None:
    u = torch.zeros(2, 4, 2**29 + 1, dtype=torch.bfloat16, device=DEVICE)
    u[1, 3, -1] = 1
    y = short_conv(u, torch.ones(4, 1, dtype=u.dtype, device=DEVICE), backend="triton")
    assert y.nonzero().tolist() == [[1, 3, 2**29]]

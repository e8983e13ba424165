"""The backend ``cuda`` of ``short_conv`` by host execution of its kernels, see csrc/cuda/warp_host.h."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from longconv.ops import short_conv
from longconv.ops.short_conv import cuda
from longconv.ops.short_conv.operator import BACKENDS
from tests.ops.comparison import between_nans, compare, each_length
from tests.ops.cuda_host import cuda_on_host, host_library
from tests.ops.native_calls import Call
from tests.ops.test_short_conv import NAMES
from tests.ops.test_short_conv import test_nan_reaches_no_tap_that_does_not_meet_it as check_taps_beside_nan
from tests.tolerances import RELATIVE_L2, assert_close

__all__ = ["cuda_on_host", "host_library"]

on_host = pytest.mark.usefixtures("cuda_on_host")
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def arguments(batch: int, channels: int, length: int, taps: int, *, last: bool = False) -> Call:
    shapes = {"u": (batch, channels, length), "w": (channels, taps), "bias": (channels,)}
    shapes["initial"] = (batch, channels, taps - 1)
    call = {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}
    call["w"] /= taps**0.5
    return {**call, "u": call["u"].mT.contiguous().mT} if last else call


def test_is_refused_where_there_is_no_gpu() -> None:
    if cuda.available() is None:
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match="'cuda' can't serve this call"):
        short_conv(torch.ones(1, 1, 4), torch.ones(1, 2), backend="cuda")


@on_host
def test_auto_does_not_take_it() -> None:
    assert BACKENDS.choose("auto", torch.ones(1, 1, 4), torch.ones(1, 2), None, None, "none").name != "cuda"


@on_host
@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_every_option(data: st.DataObject) -> None:
    """Values and gradients over lengths, taps of more than a run or the length, layouts, and what may be left out."""
    dtype = data.draw(st.sampled_from(DTYPES), label="dtype")
    length, taps = data.draw(st.integers(1, 300), label="L"), data.draw(st.sampled_from([*range(1, 20), 40]), label="K")
    batch, channels = data.draw(st.integers(1, 3), label="B"), data.draw(st.sampled_from([1, 2, 3, 40]), label="H")
    call = arguments(batch, channels, length, taps, last=data.draw(st.booleans(), label="channels last"))
    for name in ("bias", "initial"):
        if data.draw(st.booleans(), label=f"no {name}"):
            del call[name]
    options = {"activation": data.draw(st.sampled_from(NAMES), label="activation")}
    smooth = options["activation"] != "relu" or dtype.itemsize > 2  # a slope may be on the other side of the step
    compare("short_conv", call, options if smooth else {}, dtype)


@on_host
@pytest.mark.parametrize("taps", [127, 256, 300])
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels-last"])
def test_many_taps(taps: int, last: bool) -> None:
    compare("short_conv", arguments(1, 33, 70, taps, last=last), {"activation": "silu"}, torch.float32)
    compare("short_conv", arguments(2, 1, 601, taps, last=last), {}, torch.float32)


@on_host
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_sample_of_lengths(dtype: torch.dtype) -> None:
    def check(draw: random.Random, length: int) -> None:
        call = arguments(1, 5, length, draw.randint(1, 9), last=draw.random() < 0.5)  # one bias may cancel to nothing
        compare("short_conv", call, {"activation": "gelu"}, dtype, exact="torch")

    each_length(check, (1, 3000), (3000, 70000))


@on_host
@pytest.mark.parametrize("wide", [("w", "bias"), ("w",)], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_taps_may_stay_wide(dtype: torch.dtype, wide: tuple[str, ...]) -> None:
    call = arguments(2, 5, 90, 4)
    u, initial = call["u"].to(dtype), call["initial"].to(dtype)
    w, bias = (call[n].to(torch.float32 if n in wide else dtype).requires_grad_() for n in ("w", "bias"))
    y = short_conv(u, w, bias, initial=initial, backend="cuda")
    want = short_conv(u.double(), w.double(), bias.double(), initial=initial.double(), backend="reference")
    assert_close(y, want)
    g = torch.randn_like(y)
    for got, expected in zip(*(torch.autograd.grad(z, (w, bias), g.to(z)) for z in (y, want)), strict=True):
        assert_close(got, expected)


@on_host
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_strides_and_addresses(dtype: torch.dtype) -> None:
    """Views with gaps and odd addresses, and negatives that are not yet taken."""
    sliced, gaps = torch.randn(3, 5, 99).to(dtype)[..., 3:93], between_nans(3, 5, 90, dtype=dtype)
    turned = torch.view_as_complex(torch.randn(3, 5, 90, 2)).conj().imag.to(dtype)
    w, initial = between_nans(5, 6, dtype=dtype), between_nans(3, 5, 5, dtype=dtype)
    for u in (sliced, gaps, turned, sliced[:, :, ::2].mT.contiguous().mT):
        want = short_conv(u.double(), w.double(), initial=initial.double(), backend="reference")
        assert_close(short_conv(u, w, initial=initial, backend="cuda"), want, RELATIVE_L2[dtype])


@on_host
def test_gradients_to_taps_and_bias_lie_apart() -> None:
    u, w = torch.randn(2, 1, 9, dtype=torch.float64), torch.randn(1, 3, dtype=torch.float64)
    dw, dbias = cuda.backward(u, u, w, w[:, 0], None, "none", [False, True, True, False])
    assert dw.untyped_storage().data_ptr() != dbias.untyped_storage().data_ptr()


@on_host
def test_the_gradient_to_the_past_of_no_sample_is_zero() -> None:
    u, w, past = torch.ones(1, 2, 0), torch.ones(2, 3), torch.full((1, 2, 2), torch.nan)
    cuda._convolve({"past_y": past, "x": u, "w": w}, u, w, "none", reverse=True)
    assert not past.any()


@on_host
def test_nan_stays_in_its_channel_and_under_the_taps() -> None:
    for taps in (4, 40):
        u, w = torch.randn(3, 20, 200), torch.randn(20, taps)
        clean = short_conv(u, w, backend="cuda")
        u[1, 7, 100] = torch.nan
        y = short_conv(u, w, backend="cuda")
        assert y[1, 7, 100 : 100 + taps].isnan().all()
        y[1, 7, 100 : 100 + taps] = clean[1, 7, 100 : 100 + taps]
        assert torch.equal(y, clean)


@on_host
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize(("length", "taps"), [(21, 4), (70, 20), (5, 9)])
@pytest.mark.parametrize("place", ["first cotangent", "last sample"])
@pytest.mark.parametrize("has_past", [False, True])
def test_nan_reaches_no_tap_that_does_not_meet_it(
    layout: str, length: int, taps: int, place: str, has_past: bool
) -> None:
    check_taps_beside_nan("cuda", layout, length, taps, place, has_past)


@on_host
def test_opcheck() -> None:
    call = {name: t.float().requires_grad_() for name, t in arguments(2, 3, 30, 4).items()}
    tensors: list[Tensor] = [call[name] for name in ("u", "w", "bias", "initial")]
    torch.library.opcheck(torch.ops.longconv.short_conv.default, (*tensors, "silu", "cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels-last"])
def test_on_a_gpu(dtype: torch.dtype, last: bool) -> None:
    for length, taps in ((1, 1), (1, 5), (37, 4), (1000, 17), (4099, 256), (65537, 4)):
        call = arguments(2, 33, length, taps, last=last)
        compare("short_conv", call, {"activation": "silu"}, dtype, device="cuda", exact="torch")


@pytest.mark.gpu
def test_offsets_beyond_32_bits_on_a_gpu() -> None:
    u = torch.zeros(2, 4, 2**29 + 1, dtype=torch.bfloat16, device="cuda")
    u[1, 3, -1] = 1
    y = short_conv(u, torch.ones(4, 1, dtype=u.dtype, device="cuda"), backend="cuda")
    assert y.nonzero().tolist() == [[1, 3, 2**29]]

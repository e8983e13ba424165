"""``short_conv``: the definition against ``nn.Conv1d``, backends against the definition, streaming, bad input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from longconv.ops import short_conv
from longconv.ops.short_conv.activations import ACTIVATIONS
from longconv.ops.short_conv.operator import BACKENDS
from tests.ops.native_calls import fast
from tests.tolerances import assert_close

FAST = fast(BACKENDS)
NAMES = [None, *ACTIVATIONS]


@pytest.mark.parametrize("taps", [1, 4])
def test_reference_is_a_depthwise_convolution(taps: int) -> None:
    layer = nn.Conv1d(3, 3, taps, groups=3, padding=taps - 1, dtype=torch.float64)
    u = torch.randn(2, 3, 9, dtype=torch.float64)
    y = short_conv(u, layer.weight[:, 0], layer.bias, activation="silu", backend="reference")
    assert_close(y, nn.functional.silu(layer(u)[..., :9]))


def definition(u: Tensor, w: Tensor, bias: Tensor | None, activation: str | None, initial: Tensor | None) -> Tensor:
    """The equation, sample by sample, in operations that autograd knows: the oracle of gradients."""
    past = u.new_zeros(*u.shape[:2], w.shape[1] - 1) if initial is None else initial
    x = torch.cat((past, u), -1)
    z = torch.stack([(w * x[..., t : t + w.shape[1]]).sum(-1) for t in range(u.shape[-1])], -1)
    z = z if bias is None else z + bias[:, None]
    functions = {"silu": nn.SiLU(), "gelu": nn.GELU(), "relu": nn.ReLU(), "tanh": nn.Tanh(), "sigmoid": nn.Sigmoid()}
    return z if activation is None else functions[activation](z)


@pytest.mark.parametrize("backend", [*FAST, "reference"])
@settings(max_examples=80, deadline=None, derandomize=True)
@given(data=st.data())
def test_values_and_gradients(backend: str, data: st.DataObject) -> None:
    """Taps from one to more than the length, with and without bias, activation and past samples."""
    length, taps = data.draw(st.integers(1, 20), label="L"), data.draw(st.integers(1, 24), label="K")
    activation = data.draw(st.sampled_from(NAMES), label="activation")
    has_bias, has_past = data.draw(st.tuples(st.booleans(), st.booleans()), label="bias, initial")
    u, w = torch.randn(2, 3, length, dtype=torch.float64), torch.randn(3, taps, dtype=torch.float64)
    bias = torch.randn(3, dtype=torch.float64) if has_bias else None
    initial = torch.randn(2, 3, taps - 1, dtype=torch.float64) if has_past else None
    inputs = [t.requires_grad_() for t in (u, w, bias, initial) if t is not None]
    y = short_conv(u, w, bias, activation=activation, initial=initial, backend=backend)
    want = definition(u, w, bias, activation, initial)
    assert y.is_contiguous()
    compare(y, want)
    g = torch.randn_like(want)
    for got, expected in zip(torch.autograd.grad(y, inputs, g), torch.autograd.grad(want, inputs, g), strict=True):
        compare(got, expected)


def compare(got: Tensor, want: Tensor) -> None:
    """Like ``assert_close``, but relu may leave nothing, and one tap has no past."""
    if want.any():
        assert_close(got, want)
    else:
        assert torch.equal(got, want)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("taps", [4, 40])
@pytest.mark.parametrize("wide_taps", [False, True])
def test_every_dtype(backend: str, dtype: torch.dtype, taps: int, wide_taps: bool) -> None:
    """Against the definition in double precision on the same numbers; taps may stay wide beside 16 bits."""
    w_dtype = torch.float32 if wide_taps and dtype.itemsize == 2 else dtype
    u, initial = torch.randn(2, 8, 500, dtype=dtype), torch.randn(2, 8, taps - 1, dtype=dtype)
    w, bias = torch.randn(8, taps, dtype=w_dtype), torch.randn(8, dtype=w_dtype)
    inputs = [t.requires_grad_() for t in (u, w, bias, initial)]
    wide = [t.detach().double().requires_grad_() for t in inputs]
    y = short_conv(u, w, bias, activation="gelu", initial=initial, backend=backend)
    want = definition(wide[0], wide[1], wide[2], "gelu", wide[3])
    assert y.dtype == dtype
    assert_close(y, want)
    g = torch.randn_like(y)
    grads = torch.autograd.grad(y, inputs, g), torch.autograd.grad(want, wide, g.double())
    for got, expected, like in zip(*grads, inputs, strict=True):
        assert got.dtype == like.dtype
        assert_close(got, expected)


@pytest.mark.parametrize("activation", NAMES)
def test_gradients_numerically(activation: str | None) -> None:
    shapes = ((2, 2, 4), (2, 3), (2,), (2, 2, 2))
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def convolve(u: Tensor, w: Tensor, bias: Tensor, initial: Tensor) -> Tensor:
        return short_conv(u, w, bias, activation=activation, initial=initial)

    assert torch.autograd.gradcheck(convolve, inputs)
    assert torch.autograd.gradgradcheck(convolve, inputs)


def test_chunks_of_a_stream_are_one_convolution() -> None:
    u, w, bias = torch.randn(2, 3, 30), torch.randn(3, 5), torch.randn(3)
    past, parts = torch.zeros(2, 3, 4), []
    for chunk in u.split([1, 2, 7, 20], -1):
        parts.append(short_conv(chunk, w, bias, activation="relu", initial=past))
        past = torch.cat((past, chunk), -1)[..., -4:]
    assert_close(torch.cat(parts, -1), short_conv(u, w, bias, activation="relu"))


def test_non_contiguous_input() -> None:
    u, w = torch.randn(2, 30, 6).transpose(1, 2)[..., ::2], torch.randn(4, 6).T
    assert_close(short_conv(u, w), short_conv(u, w, backend="reference"))


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("taps", [4, 40])
def test_nan_stays_in_its_channel_and_under_the_taps(backend: str, taps: int) -> None:
    u, w = torch.randn(3, 20, 200), torch.randn(20, taps)
    clean = short_conv(u, w, backend=backend)
    u[1, 7, 100] = torch.nan
    y = short_conv(u, w, backend=backend)
    assert y[1, 7, 100 : 100 + taps].isnan().all()
    y[1, 7, 100 : 100 + taps] = clean[1, 7, 100 : 100 + taps]
    assert torch.equal(y, clean)


@pytest.mark.parametrize("backend", [*FAST, "reference"])
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize(("length", "taps"), [(21, 4), (70, 20), (5, 9)])
@pytest.mark.parametrize("place", ["first cotangent", "last sample"])
@pytest.mark.parametrize("has_past", [False, True])
def test_nan_reaches_no_tap_that_does_not_meet_it(
    backend: str, layout: str, length: int, taps: int, place: str, has_past: bool
) -> None:
    """The last sample but one is under the current tap and the one before it; so is the second cotangent."""
    u, g = torch.randn(2, 9, length), torch.randn(2, 9, length)
    (u if place == "last sample" else g)[1, 4, -2 if place == "last sample" else 1] = torch.nan
    if layout == "columns":
        u, g = u.mT.contiguous().mT, g.mT.contiguous().mT
    w = torch.randn(9, taps, requires_grad=True)
    initial = torch.randn(2, 9, taps - 1) if has_past else None
    (dw,) = torch.autograd.grad(short_conv(u, w, initial=initial, backend=backend), w, g)
    spoilt = torch.zeros(9, taps, dtype=torch.bool)
    spoilt[4, 0 if has_past and place == "first cotangent" else -2 :] = True  # the past meets every tap
    assert torch.equal(dw.isnan(), spoilt)


@pytest.mark.parametrize("shape", [(2, 3, 0), (0, 3, 5), (2, 0, 5)])
def test_empty(shape: tuple[int, ...]) -> None:
    shapes = (shape, (shape[1], 4), (shape[1],), (*shape[:2], 3))
    inputs = [torch.ones(s, requires_grad=True) for s in shapes]
    y = short_conv(inputs[0], inputs[1], inputs[2], activation="silu", initial=inputs[3])
    y.sum().backward()
    assert y.shape == shape
    assert all(t.grad is not None and t.grad.count_nonzero() == 0 for t in inputs)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"u": 1.0}, TypeError, "u is 1.0"),
        ({"u": torch.ones(3, 9)}, ValueError, r"u is a \(3, 9\).*\(B, H, L\)"),
        ({"u": torch.ones(2, 3, 9, dtype=torch.complex64)}, TypeError, "u is .*complex64"),
        ({"w": torch.ones(4, 5)}, ValueError, r"w is a \(4, 5\).*\(3, any\)"),
        ({"w": torch.ones(3, 0)}, ValueError, "at least one tap"),
        ({"w": torch.ones(3, 5, dtype=torch.float64)}, TypeError, "w is .*float64"),
        ({"w": torch.ones(3, 5, device="meta")}, ValueError, "w is on meta"),
        ({"bias": torch.ones(1)}, ValueError, r"bias is a \(1,\).*\(3\)"),
        ({"initial": torch.ones(2, 3, 5)}, ValueError, r"initial is a \(2, 3, 5\).*\(2, 3, 4\)"),
        ({"initial": torch.ones(2, 3, 4).double()}, TypeError, "initial is .*float64"),
        ({"activation": "sliu"}, ValueError, "activation is 'sliu'.*did you mean 'silu'"),
        ({"backend": "fast"}, ValueError, "backend"),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Exception], words: str) -> None:
    call: dict[str, Any] = {"u": torch.ones(2, 3, 9), "w": torch.ones(3, 5), **change}
    with pytest.raises(error, match=words):
        short_conv(**call)

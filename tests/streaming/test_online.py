"""The online convolution: steps and chunks against the definition, its state, its gradients, bad input."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils import _pytree as pytree

from longconv import create_mixer, fft_conv
from longconv.streaming import OnlineConv
from tests.streaming.streams import CHAIN, KINDS, filters, samples, stream, unfolded
from tests.tolerances import assert_close


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.sampled_from([-1, -1, -1, 0, 1, 3, 8, 17, 50, 130]), min_size=1, max_size=14),
    channels=st.sampled_from([1, 2, 5, 8]),
    taps=st.sampled_from([1, 2, 9, 40, 300]),
    block=st.sampled_from([1, 2, 4]),
    folds=st.booleans(),
)
def test_any_cutting_is_the_convolution(
    kind: str, sizes: list[int], channels: int, taps: int, block: int, folds: bool
) -> None:
    length = sum(map(abs, sizes))
    conv, k = filters(kind, channels, taps, length, block)
    x, given_k = samples(channels, length), k if kind == "stream" else None
    with pytest.MonkeyPatch.context() as patch:
        if not folds:
            unfolded(patch)
        y, _ = stream(conv, x, sizes, given_k)
        assert y.shape == x.shape
        if length:
            assert_close(y, fft_conv(x, k, backend="reference"), CHAIN)
            stepped, _ = stream(conv, x, [-1] * length, given_k)
            assert_close(stepped, y, CHAIN)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "sizes",
    [
        [9, *[-1] * 40],
        [16, *[-1] * 70],
        [33, *[-1] * 110],
        [40, 3, 9, *[-1] * 30, 5, 64, *[-1] * 20],
        [3, 20, *[-1] * 5, 8, *[-1] * 60, 100, *[-1] * 9],
        [12, 12, 12, 12, *[-1] * 70, 30],
    ],
    ids=lambda sizes: f"{sizes[0]}-{len(sizes)}",
)
@pytest.mark.parametrize(("channels", "taps"), [(5, 300), (8, 20)])
def test_going_on_after_long_chunks(kind: str, sizes: list[int], channels: int, taps: int) -> None:
    """Until their tails end and beyond: what was taken as a whole goes over into levels."""
    length = sum(map(abs, sizes))
    conv, k = filters(kind, channels, taps, length, 1)
    x = samples(channels, length)
    y, _ = stream(conv, x, sizes, k if kind == "stream" else None)
    assert_close(y, fft_conv(x, k, backend="reference"), CHAIN)


@pytest.mark.parametrize("kind", ["taps", "function for ever", "stream"])
def test_float32_stream_of_16384_samples(kind: str) -> None:
    channels, length = 4, 16384
    conv, k = filters(kind, channels, length, length, 64)
    conv = (
        conv
        if kind == "stream"
        else OnlineConv(lambda n: k[..., :n].float(), length=length if kind == "taps" else None)
    )
    x = samples(channels, length, torch.float32)
    with torch.no_grad():
        y, state = stream(conv, x, [-1] * 9000 + [length - 9100, *[-1] * 100], k.float() if kind == "stream" else None)
    assert_close(y, fft_conv(x.double(), k.float().double()), 1e-6)
    assert all(leaf.dtype == torch.float32 for leaf in pytree.tree_leaves(state))


@pytest.mark.parametrize("kind", ["taps", "stream"])
@pytest.mark.parametrize("sizes", [[-1] * 21, [5, -1, 9, -1, 5]], ids=["steps", "chunks"])
def test_gradients(kind: str, sizes: list[int]) -> None:
    """Of the whole map, by autograd through steps and states."""
    x, k = samples(3, 21).requires_grad_(), torch.randn(*([2] if kind == "stream" else []), 3, 21).double()
    k.requires_grad_()

    def apply(x: Tensor, k: Tensor) -> Tensor:
        return (
            stream(OnlineConv(block=2), x, sizes, k)[0]
            if kind == "stream"
            else stream(OnlineConv(k, block=2), x, sizes)[0]
        )

    weight = torch.randn_like(x)
    got = torch.autograd.grad((apply(x, k) * weight).sum(), (x, k))
    want = torch.autograd.grad((fft_conv(x, k) * weight).sum(), (x, k))
    for gradient, expected in zip(got, want, strict=True):
        assert_close(gradient, expected, CHAIN)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_was_given_is_changed_or_kept(kind: str) -> None:
    """Every state of a stream still goes on as it did; inputs may be overwritten after the call."""
    length = 70
    conv, k = filters(kind, 3, 50, length, 4)
    x, taps = samples(3, length), (lambda t: k[..., t].clone()) if kind == "stream" else lambda t: None
    state, seen = conv.init_state(2, 3, dtype=torch.float64), []
    for t in range(length - 1):
        seen.append((state, copy.deepcopy(state)))
        given_x, given_k = x[..., t].clone(), taps(t)
        _, state = conv.step(given_x, state, given_k)
        given_x.fill_(torch.nan)
        if given_k is not None:
            given_k.fill_(torch.nan)
    for t, (before, kept) in enumerate(seen):
        y_t, _ = conv.step(x[..., t], before, taps(t))
        assert torch.equal(y_t, conv.step(x[..., t], kept, taps(t))[0])
        for one, other in zip(pytree.tree_leaves(before), pytree.tree_leaves(kept), strict=True):
            assert torch.equal(one, other)
    chunk, chunk_k = x.clone(), k.clone() if kind == "stream" else None
    _, state = conv.prefill(chunk[..., :60], None, None if chunk_k is None else chunk_k[..., :60])
    chunk.fill_(torch.nan)
    if chunk_k is not None:
        chunk_k.fill_(torch.nan)
    assert all(leaf.isfinite().all() for leaf in pytree.tree_leaves(state))


def test_nan_stays_in_its_sample_and_comes_no_earlier() -> None:
    conv, _ = filters("taps", 3, 60, 100, 4)
    x = samples(3, 100)
    clean, _ = stream(conv, x, [-1] * 100)
    x[1, :, 30] = torch.nan
    y, _ = stream(conv, x, [-1] * 50 + [50])
    assert torch.equal(y[0, :, :50], clean[0, :, :50]) and torch.equal(y[1, :, :30], clean[1, :, :30])
    assert y[0].isfinite().all() and y[1, :, 30:50].isnan().all()


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (1, 1)], ids=str)
@pytest.mark.parametrize("kind", ["taps", "stream"])
def test_smallest_sizes(kind: str, shape: tuple[int, int]) -> None:
    conv = OnlineConv(torch.ones(shape[1], 40), block=4) if kind == "taps" else OnlineConv(block=4)
    x = torch.ones(*shape, 50)
    for sizes in ([-1] * 50, [1, 19, 30], [0]):
        y, _ = stream(conv, x, sizes, None if kind == "taps" else torch.ones(*shape, 50))
        assert y.shape == (*shape, sum(map(abs, sizes)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    conv, k = filters("taps", 3, 60, 100, 4)
    conv = OnlineConv(k.to(dtype), block=4)
    x = samples(3, 100, dtype)
    state = conv.init_state(2)
    assert state.pending.dtype == torch.float32
    y, state = conv.prefill(x[..., :40], state)
    y_t, state = conv.step(x[..., 40], state)
    assert y.dtype == y_t.dtype == dtype
    want = fft_conv(x.double(), k.to(dtype).double())[..., :41]
    assert_close(torch.cat([y, y_t[..., None]], -1), want)


@pytest.mark.parametrize("name", ["sgconv", "long_conv"])
def test_mixers_with_long_filters(name: str) -> None:
    """Filters over many blocks, several channels, in float32: steps and chunks agree with forward."""
    torch.manual_seed(0)
    mixer, u = create_mixer(name, 6, l_max=700, channels=2), torch.randn(2, 1500, 6)
    with torch.no_grad():
        y, state = mixer.prefill(u[:, :333])
        outputs = [y]
        for u_t in u[:, 333:900].unbind(1):
            y_t, state = mixer.step(u_t, state)
            outputs.append(y_t[:, None])
        y, _ = mixer.prefill(u[:, 900:], state)
        assert_close(torch.cat([*outputs, y], 1), mixer(u), 1e-6)


X = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: OnlineConv(torch.ones(3)), ValueError, r"k is a \(3,\) float32 tensor, expected shape \(H, K\)"),
        (lambda: OnlineConv(torch.ones(3, 0)), ValueError, "k is .*at least one tap"),
        (lambda: OnlineConv(torch.ones(3, 2).long()), TypeError, "k is .*int64"),
        (lambda: OnlineConv(5), TypeError, r"k is 5 \(int\)"),  # type: ignore[arg-type]
        (lambda: OnlineConv(torch.ones(3, 2), block=12), ValueError, "block is 12, expected a power of two"),
        (lambda: OnlineConv(torch.ones(3, 2), length=2), ValueError, "length is 2"),
        (lambda: OnlineConv(torch.ones(3, 2), ranges=True), ValueError, "ranges is True"),
        (lambda: OnlineConv(lambda n: torch.ones(3, n), length=0), ValueError, "length is 0"),
        (lambda: OnlineConv().init_state(2), ValueError, "channels is None"),
        (lambda: OnlineConv(torch.ones(3, 2)).init_state(2, 4), ValueError, "channels is 4"),
        (lambda: OnlineConv(torch.ones(3, 2)).init_state(-1), ValueError, "batch_size is -1"),
        (lambda: OnlineConv(torch.ones(3, 2)).init_state(2, dtype=torch.int64), TypeError, "dtype is torch.int64"),
        (lambda: OnlineConv(torch.ones(4, 3, 2)).init_state(2), ValueError, "batch_size is 2, but k is"),
    ],
)
def test_bad_filters(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x_t": torch.zeros(2, 3, 1)}, ValueError, r"x_t is a \(2, 3, 1\)"),
        ({"x_t": X.long()}, TypeError, "x_t is .*int64"),
        ({"x_t": X.double()}, TypeError, "state.pending is .*dtype=torch.float64"),
        ({"x_t": torch.zeros(4, 3)}, ValueError, "state.pending is .*batch size 2 .*x_t is"),
        ({"x_t": torch.zeros(2, 5)}, ValueError, "state.pending is .*3 channels.*x_t is"),
        ({"x_t": X.to("meta")}, ValueError, "state.pending is on cpu, but x_t is on meta"),
        ({"state": None}, TypeError, "state is None"),
        ({"k_t": X}, ValueError, "k_t is .*known ahead"),
    ],
)
def test_bad_steps(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    conv = OnlineConv(torch.ones(3, 9))
    with pytest.raises(error, match=message):
        conv.step(**{"x_t": X, "state": conv.init_state(2), **arguments})


def test_taps_that_have_to_come_with_the_samples() -> None:
    conv = OnlineConv()
    state = conv.init_state(2, 3)
    with pytest.raises(TypeError, match="k_t is None"):
        conv.step(X, state)
    with pytest.raises(TypeError, match="state.pending is .*float32.*, but k_t is .*float64"):
        conv.step(X, state, X.double())
    with pytest.raises(ValueError, match=r"k_t is a \(2, 4\)"):
        conv.step(X, state, torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"k is a \(2, 3, 4\)"):
        conv.prefill(torch.zeros(2, 3, 5), state, torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match="state is of a filter"):
        OnlineConv(torch.ones(3, 9)).step(X, state)
    with pytest.raises(ValueError, match="state is of a filter"):
        conv.step(X, OnlineConv(torch.ones(3, 9)).init_state(2), X)


def test_functions_that_give_other_taps_are_named() -> None:
    """At the first call, and later."""
    with pytest.raises(ValueError, match=r"k\(5\) is a \(1, 200\)"):
        OnlineConv(lambda n: torch.ones(1, 200), length=5).init_state(1)
    with pytest.raises(ValueError, match=r"k\(0, 2\) is a \(3, 3\)"):
        OnlineConv(lambda start, stop: torch.ones(3, stop - start + 1), ranges=True, block=1).init_state(2)
    conv = OnlineConv(lambda n: torch.ones(3, n + (n > 2)), block=1)
    _, state = conv.prefill(torch.zeros(2, 3, 1), conv.init_state(2))
    with pytest.raises(ValueError, match=r"k\(32\) is a \(3, 33\)"):
        conv.prefill(torch.zeros(2, 3, 9), state)

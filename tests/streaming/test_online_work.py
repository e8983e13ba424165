"""The work and the memory of an online convolution, and how much of its filter it asks for."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from longconv import fft_conv
from longconv.streaming import OnlineConv, folded, products
from tests.streaming.streams import filters, samples, stream
from tests.tolerances import assert_close


def count_samples(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by the number of samples with every FFT convolution."""
    sizes: list[int] = []

    def counted(u: Tensor, k: Tensor, *, k_reverse: Tensor | None = None) -> Tensor:
        sizes.append(u.numel())
        return fft_conv(u, k, k_reverse=k_reverse)

    monkeypatch.setattr(products, "fft_conv", counted)
    return sizes


@pytest.mark.parametrize("kind", ["taps", "function of ranges", "stream"])
@pytest.mark.parametrize("length", [4096, 4000, 2100])
def test_work_of_a_long_chunk(kind: str, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes through two convolutions, and some of single channels; the steps after it have little to do each."""
    sizes = count_samples(monkeypatch)
    channels, block = 32, 16
    conv, k = filters(kind, channels, 4 * length, 2 * length, block)
    x = samples(channels, 2 * length)
    whole = channels * 2 * length
    with torch.no_grad():
        _, state = conv.prefill(x[..., :length], None, k[..., :length] if kind == "stream" else None)
        assert sizes[:2] == [2 * channels * (length // block * block)] * 2
        assert sum(sizes) <= 2.6 * whole
        assert sum(leaf.numel() for leaf in pytree.tree_leaves(state)) <= 8 * whole
        work = []
        for t in range(length, 2 * length):
            sizes.clear()
            _, state = conv.step(x[..., t], state, k[..., t] if kind == "stream" else None)
            work.append(sum(sizes))
    levels = int(math.log2(2 * length // block))
    assert max(work) <= 8 * levels * 2 * channels * 2 * block
    assert sum(work) <= 2.5 * levels * 2 * whole


@pytest.mark.parametrize("kind", ["taps", "function of ranges", "stream"])
def test_work_and_memory(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples that steps hand to FFTs: few at worst, of order L log L in all; numbers in the state: of order L.

    Taps that are asked for count as well.
    """
    sizes = count_samples(monkeypatch)
    channels, length, block = 64, 4096, 16
    conv, k = filters(kind, channels, length, length, block)
    if kind == "function of ranges":

        def taps(start: int, stop: int) -> Tensor:
            sizes.append((stop - start) * channels)
            assert stop - start <= 4 * block
            return k[..., start:stop]

        conv = OnlineConv(taps, ranges=True, block=block)
    x, state, work = samples(channels, length), conv.init_state(2, channels, dtype=torch.float64), []
    with torch.no_grad():
        for t in range(length):
            sizes.clear()
            _, state = conv.step(x[..., t], state, k[..., t] if kind == "stream" else None)
            work.append(sum(sizes))
    streams, levels = (2 if kind == "stream" else 1), int(math.log2(length // block))
    whole = streams * x.numel()
    assert sum(work) <= 2.5 * levels * whole
    assert max(work) <= 4 * levels * whole * block / length, "no more than a block of every level, or a channel of all"
    assert sum(leaf.numel() for leaf in pytree.tree_leaves(state)) <= 10 * whole


def work_at_most(channels: int, length: int, block: int) -> float:
    """The bound that the class states for every sample of a batch and a filter known ahead."""
    factors = 3 if channels < folded.FEW else 1
    of_levels = factors * channels * block * (2 * math.log2(length / block) + 3)
    return of_levels + 8 * (length / block if factors == 3 else length)


@pytest.mark.parametrize("kind", ["taps", "function of ranges", "stream"])
@pytest.mark.parametrize("channels", [1, 2, 4, 64])
def test_work_of_a_step(kind: str, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few channels, and though all levels are due at one time; numbers in the state: of order L."""
    sizes, length, block = count_samples(monkeypatch), 4096, 16
    conv, k = filters(kind, channels, length, length, block)
    k = k.float()
    if kind == "taps":
        conv = OnlineConv(k, block=block)
    x, state, most = samples(channels, length, torch.float32), conv.init_state(2, channels, dtype=torch.float32), 0
    with torch.no_grad():
        for t in range(length):
            sizes.clear()
            _, state = conv.step(x[..., t], state, k[..., t] if kind == "stream" else None)
            most = max(most, sum(sizes))
    assert bool(state.folded) == (channels < folded.FEW)
    assert 0 < most <= (4 if kind == "stream" else 2) * work_at_most(channels, length, block)
    assert sum(leaf.numel() for leaf in pytree.tree_leaves(state)) <= 20 * x.numel()


def test_a_filter_for_ever_is_asked_for_few_taps() -> None:
    asked: list[int] = []

    def taps(length: int) -> Tensor:
        asked.append(length)
        return torch.ones(1, length)

    conv = OnlineConv(taps, block=4)
    state = conv.init_state(1)
    for t in range(200):
        y_t, state = conv.step(torch.ones(1, 1), state)
        assert abs(y_t.item() - t - 1) < 1e-3
        assert max(asked) <= max(2 * 4, 4 * t)
    assert asked == sorted(set(asked)) and len(asked) <= 8


@pytest.mark.parametrize(
    "sizes", [[-1] * 1000, [7] * 140, [333, 1, 400, *[-1] * 200], [1000]], ids=lambda s: str(len(s))
)
def test_a_function_is_evaluated_at_doubling_lengths(sizes: list[int]) -> None:
    """However a stream is cut: a number of times of order log L, and of order L taps in all."""
    asked: list[int] = []

    def taps(length: int) -> Tensor:
        asked.append(length)
        return torch.ones(1, length, dtype=torch.float64)

    length, conv = sum(map(abs, sizes)), OnlineConv(taps, block=4)
    y, _ = stream(conv, torch.ones(1, 1, length, dtype=torch.float64), sizes)
    assert_close(y[0, 0], torch.arange(1.0, length + 1, dtype=torch.float64))
    assert all(2 * before <= after for before, after in pairwise(asked))
    assert max(asked) <= 4 * length

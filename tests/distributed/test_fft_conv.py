"""The convolution of sharded sequences is that of the whole, by every way and for every option."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

import longconv
from longconv import distributed
from longconv.distributed import Ranks, convolutions
from longconv.distributed.cost import METHODS
from tests.distributed.processes import Processes, check
from tests.distributed.sharded import compare

SIZES = {2: (9, 14), 3: (8, 17, 6), 4: (11, 8, 9, 1)}
"""Uneven, of lengths that the ranks don't divide."""

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "everything": {"skip": True, "pre_gate": True, "post_gate": True, "k_reverse": 5, "lengths": True},
    "bidirectional": {"k_reverse": 3},
    "a filter a sample": {"samples": True, "k_reverse": 4, "skip": True},
    "filters that are cut": {"cut": True, "k_reverse": 5, "skip": True, "post_gate": True},
}


def cuts_of_taps(taps: int, parts: int) -> tuple[int, ...]:
    """The first of several ranks has none of them, and the last one most."""
    each = taps // (parts + 1)
    return (taps,) if parts == 1 else (0, *[each] * (parts - 2), taps - each * (parts - 2))


def whole_and_sharded(ranks: Ranks, method: str, options: dict[str, Any], dtype: torch.dtype, **more: Any) -> None:
    sizes, batch = more.pop("sizes", SIZES.get(ranks.size)), 3
    channels, taps = more.pop("channels", 5), more.pop("taps", 7)
    length = sum(sizes)
    lead = (batch, channels) if options.get("samples") else (channels,)
    shards = {"u": torch.randn(batch, channels, length, dtype=dtype)}
    others = {"k": torch.randn(*lead, taps, dtype=dtype)}
    if options.get("k_reverse"):
        others["k_reverse"] = torch.randn(*lead, options["k_reverse"], dtype=dtype)
    if options.get("skip"):
        others["skip"] = torch.randn(channels, dtype=dtype)
    for gate in ("pre_gate", "post_gate"):
        if options.get(gate):
            shards[gate] = torch.randn(batch, channels, length, dtype=dtype)
    lengths = torch.tensor([length, length // 2, 0]) if options.get("lengths") else None
    same: dict[str, Any] = {"lengths": lengths, "mode": options.get("mode", "causal")}
    own_sizes = {}
    if options.get("cut"):
        more["filters"] = "sharded"
        for name in ("k", "k_reverse")[: len(others.keys() & {"k", "k_reverse"})]:
            shards[name] = others.pop(name)
            own_sizes[name] = cuts_of_taps(shards[name].shape[-1], ranks.size)

    def sharded(**tensors: Any) -> Tensor:
        return distributed.fft_conv(**tensors, **same, group=ranks, method=method, **more)

    def whole(**tensors: Any) -> Tensor:
        return longconv.fft_conv(**tensors, **same, backend="reference" if length < 1000 else "torch")

    compare(ranks, sharded, whole, sizes, shards, others, own_sizes=own_sizes)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", OPTIONS)
def test_it_is_that_of_the_whole(processes: Processes, size: int, method: str, name: str) -> None:
    check(processes, size, whole_and_sharded, method, OPTIONS[name], torch.float32)


def in_small_chunks(ranks: Ranks, *args: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolutions, "CHUNK_BYTES", 64)
        whole_and_sharded(ranks, *args)


def test_the_number_of_chunks_is_that_of_the_largest_shard(processes: Processes) -> None:
    check(processes, 3, in_small_chunks, "channels", OPTIONS["plain"], torch.float32)


LONG = {"sizes": (4500, 4000, 3788), "channels": 2}
CUT = {"cut": True, "k_reverse": 60}
CASES: dict[str, tuple[int, str, dict[str, Any], torch.dtype, dict[str, Any]]] = {
    "circular": (3, "channels", {"mode": "circular", "skip": True}, torch.float32, {}),
    "circular, a period a sample": (2, "auto", {"mode": "circular", "lengths": True}, torch.float32, {}),
    "fewer channels than ranks": (4, "channels", {"skip": True}, torch.float32, {"channels": 2}),
    "one channel": (4, "four_step", OPTIONS["everything"], torch.float32, {"channels": 1}),
    "in chunks": (2, "channels", OPTIONS["everything"], torch.float32, {"chunks": 2, "channels": 7}),
    "more taps than samples": (3, "channels", {"k_reverse": 60}, torch.float32, {"taps": 50}),
    "more taps than samples, in steps": (3, "four_step", {"k_reverse": 60}, torch.float32, {"taps": 50}),
    "as many taps as reach the neighbour": (3, "neighbours", {"k_reverse": 17}, torch.float32, {"taps": 18}),
    "empty shards": (3, "channels", OPTIONS["everything"], torch.float32, {"sizes": (0, 9, 0)}),
    "empty shards at the ends": (3, "neighbours", OPTIONS["everything"], torch.float32, {"sizes": (0, 9, 0)}),
    "empty shards, in steps": (3, "four_step", OPTIONS["everything"], torch.float32, {"sizes": (0, 9, 0)}),
    "one sample, in steps": (3, "four_step", {"skip": True}, torch.float32, {"sizes": (0, 1, 0)}),
    "a cut filter a sample, circular": (
        3,
        "channels",
        {"cut": True, "samples": True, "mode": "circular"},
        torch.float64,
        {},
    ),
    "cut filters of more taps than samples": (3, "channels", CUT, torch.float32, {"taps": 50}),
    "cut filters of more taps than samples, in steps": (3, "four_step", CUT, torch.float32, {"taps": 50}),
    "a cut filter a sample, in steps": (2, "four_step", {**CUT, "samples": True}, torch.float32, {}),
    "a cut filter a sample, by neighbours": (4, "neighbours", {"cut": True, "samples": True}, torch.float32, {}),
    "a cut filter without a shard of samples": (3, "auto", CUT, torch.float32, {"sizes": (0, 0, 2)}),
    **{
        f"cut filters, {method} in {dtype}": (2, method, {**OPTIONS["everything"], "cut": True}, dtype, {})
        for method in METHODS
        for dtype in (torch.float64, torch.bfloat16)
    },
    **{
        f"{method} of 12288 samples": (3, method, {**CUT, "skip": True}, torch.float32, LONG | {"taps": taps})
        for method, taps in (("channels", 12288), ("neighbours", 3500), ("four_step", 12288))
    },
    "on one rank": (1, "auto", {**OPTIONS["everything"], "cut": True}, torch.float32, {"sizes": (9,)}),
    **{
        f"{method} in {dtype}": (2, method, OPTIONS["everything"], dtype, {})
        for method in METHODS
        for dtype in (torch.float64, torch.bfloat16, torch.float16)
    },
}


@pytest.mark.parametrize("name", CASES)
def test_so_it_is_in_the_corners(processes: Processes, name: str) -> None:
    size, method, options, dtype, more = CASES[name]
    check(processes, size, functools.partial(whole_and_sharded, **more), method, options, dtype)

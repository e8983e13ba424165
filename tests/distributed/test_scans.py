"""Recurrences and short convolutions of sharded sequences are those of the whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from longconv import distributed, ops
from longconv.distributed import Ranks
from tests.distributed.processes import Processes, check
from tests.distributed.sharded import compare

SIZES = {2: (9, 4), 3: (8, 0, 6), 4: (1, 8, 2, 3)}


SCANS: dict[str, dict[str, Any]] = {
    "coefficients of all times": {"a": (2, 1, 3), "dtype": torch.complex64},
    "a number a feature": {"a": (3,), "start": True, "reverse": True},
    "coefficients that depend on time": {"a": (1, 0, 3), "start": True, "dtype": torch.complex64},
    "backwards": {"a": (2, 0, 1), "start": True, "reverse": True},
    "half precision": {"a": (2, 0, 3), "start": True, "dtype": torch.bfloat16},
}
"""Sizes of a, with 0 in the place of L, and options."""


def scan(ranks: Ranks, options: dict[str, Any]) -> None:
    sizes, dtype = SIZES[ranks.size], options.get("dtype", torch.float32)
    reverse, length = options.get("reverse", False), sum(sizes)
    varies = 0 in options["a"]
    b = torch.randn(2, length, 3, dtype=dtype)
    a = torch.randn([size or length for size in options["a"]], dtype=dtype) * 0.7
    others = {"initial": torch.randn(2, 3, dtype=dtype)} if options.get("start") else {}

    def sharded(**tensors: Any) -> Any:
        return distributed.linear_scan(**tensors, reverse=reverse, group=ranks)

    def whole(**tensors: Any) -> Any:
        return ops.linear_scan(**tensors, reverse=reverse, backend="reference")

    shards = {"b": b, "a": a} if varies else {"b": b}
    others = others if varies else {"a": a, **others}
    compare(ranks, sharded, whole, sizes, shards, others, axis=1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", SCANS)
def test_scans(processes: Processes, size: int, name: str) -> None:
    check(processes, size, scan, SCANS[name])


def overflowing(ranks: Ranks) -> None:
    """Products of coefficients beyond float32, of a state that is still 0."""
    b = torch.zeros(1, 400, 1)
    b[:, -1] = 1.0
    mine = b.chunk(ranks.size, 1)[ranks.rank]
    assert torch.equal(distributed.linear_scan(torch.tensor(2.0), mine, group=ranks), mine)


def test_products_that_overflow_leave_a_state_of_zero(processes: Processes) -> None:
    check(processes, 2, overflowing)


def twice(ranks: Ranks) -> None:
    u = torch.randn(1, 2, 8, requires_grad=True)
    y = distributed.fft_conv(u, torch.randn(2, 8), group=ranks, method="channels")
    with pytest.raises(NotImplementedError, match="gradients of gradients"):
        torch.autograd.grad(y.square().sum(), u, create_graph=True)


def test_gradients_of_gradients_are_refused_on_all_ranks(processes: Processes) -> None:
    check(processes, 3, twice)


SHORT: dict[str, dict[str, Any]] = {
    "plain": {},
    "all of it": {"bias": True, "initial": True, "activation": "silu"},
    "a halo of several shards": {"taps": 12, "initial": True},
    "one tap": {"taps": 1, "bias": True},
    "half precision": {"dtype": torch.float16, "bias": True},
}


def short(ranks: Ranks, options: dict[str, Any]) -> None:
    sizes, dtype = SIZES[ranks.size], options.get("dtype", torch.float32)
    taps, activation = options.get("taps", 4), options.get("activation")
    others = {"w": torch.randn(3, taps, dtype=dtype)}
    if options.get("bias"):
        others["bias"] = torch.randn(3, dtype=dtype)
    if options.get("initial"):
        others["initial"] = torch.randn(2, 3, taps - 1, dtype=dtype)

    def sharded(**tensors: Any) -> Any:
        return distributed.short_conv(**tensors, activation=activation, group=ranks)

    def whole(**tensors: Any) -> Any:
        return ops.short_conv(**tensors, activation=activation, backend="reference")

    shards = {"u": torch.randn(2, 3, sum(sizes), dtype=dtype)}
    compare(ranks, sharded, whole, sizes, shards, others)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", SHORT)
def test_short_convolutions(processes: Processes, size: int, name: str) -> None:
    check(processes, size, short, SHORT[name])

"""``longconv.distributed.fft_conv``: one sequence on several processes of this machine, by every way.

Each process has a thread, its shard of the sequence and its shard of the filter; ``P1`` is one that has all, and no
word to others. Times are those of the first process, which all wait for, bytes what it sends to the others in a call.
Results and gradients are checked, of the loss on the first shard alone.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from bench import ranks
from bench.case import OURS, Case, Problem, Work, both
from bench.cases.fft_conv import flops, padded

SHAPES = {
    "1x64x65536/K65536": ("channels", "four_step"),
    "1x64x65536/K8192": ("channels", "neighbours"),
    "1x2x1048576/K1048576": ("channels", "four_step"),
}
"""Shapes, and the ways that suit them."""

RANKS = (1, 2, 4)


def problem(shape: str, method: str, size: int, backward: bool) -> Problem:
    """The first shard of a sequence; one process alone takes its own way."""
    (batch, channels, length), taps = map(int, shape.split("/")[0].split("x")), int(shape.split("K")[1])
    it = ranks.Convolution(batch, channels, length, taps, method if size > 1 else "auto", size)
    with torch.device("cpu"):  # gloo
        (own, *rest), group = it.shards(), ranks.others(size)

    def exact(u: Tensor, k: Tensor) -> Tensor:
        us, ks = zip((u, k), *rest, strict=True)
        y = padded(torch.cat([x.to(u) for x in us], -1), torch.cat([x.to(k) for x in ks], -1))
        return y[..., : u.shape[-1]]

    work = Work(flops(batch, channels, length, backward) / size, batch * channels, own[0].shape[-1])
    return Problem(
        tuple(tensor.clone() for tensor in own),
        {OURS: functools.partial(group.convolve, it)},
        exact,
        backward=backward,
        work=work,
        sent=lambda: group.ranks.sent,
    )


def cases() -> list[Case]:
    """Those of one number of processes after the other: they are started once."""
    found = []
    for size in RANKS:
        for shape, methods in SHAPES.items():
            for method in methods if size > 1 else ("alone",):
                make = functools.partial(problem, shape, method, size)
                found += both(f"distributed/{method}/P{size}/{shape}", make, (1,))
    return found

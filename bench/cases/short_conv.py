"""Depthwise convolutions of a few taps beside ``conv1d`` of torch."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

import longconv
from bench.case import OURS, Case, Problem, Solve, Work, both
from bench.peers import causal_conv1d, cudnn_causal_conv1d, subquadratic_causal_conv1d

SHAPES = [(8, 256, 4096), (2, 256, 16384)]
TAPS = (3, 4, 64, 128)


def padding(u: Tensor, w: Tensor) -> Tensor:
    """A causal depthwise convolution as ``nn.Conv1d`` with padding on both sides makes it, the end cut off."""
    return F.conv1d(u, w[:, None], groups=w.shape[0], padding=w.shape[-1] - 1)[..., : u.shape[-1]]


def usual(u: Tensor, w: Tensor) -> Tensor:
    """The same of an input that is padded before, for which torch has another, faster algorithm."""
    taps = w.shape[-1]
    return F.conv1d(F.pad(u, (taps - 1, 0)), w[:, None], groups=w.shape[0])


def activated(u: Tensor, w: Tensor, bias: Tensor) -> Tensor:
    """The same with bias and activation."""
    return F.silu(usual(u, w) + bias[:, None])


def work(batch: int, channels: int, length: int, taps: int, backward: bool) -> Work:
    """A product and a sum a tap, for the gradients of u and w as well."""
    return Work(2.0 * batch * channels * length * taps * (3 if backward else 1), batch * channels, length)


def problem(batch: int, channels: int, length: int, taps: int, backward: bool) -> Problem:
    """Plain taps; small enough to be checked as it is."""
    inputs = torch.randn(batch, channels, length), torch.randn(channels, taps) / taps**0.5
    sample = torch.randn(2, 16, length), torch.randn(16, taps) / taps**0.5
    sides: dict[str, Solve | None] = {
        OURS: longconv.ops.short_conv,
        "torch conv1d": padding,
        "torch pad, conv1d": usual,
        "cudnn": cudnn_causal_conv1d(),
        "subquadratic-ops": subquadratic_causal_conv1d(),
    }
    if taps <= 4:
        sides["causal-conv1d"] = causal_conv1d()
    return Problem(inputs, sides, usual, sample, backward, work=work(batch, channels, length, taps, backward))


def problem_activated(batch: int, channels: int, length: int, backward: bool) -> Problem:
    """Four taps with bias and SiLU, as Hyena-like models have them."""

    def ours(u: Tensor, w: Tensor, bias: Tensor) -> Tensor:
        return longconv.ops.short_conv(u, w, bias, activation="silu")

    inputs = torch.randn(batch, channels, length), torch.randn(channels, 4) / 2, torch.randn(channels)
    sample = torch.randn(2, 16, length), torch.randn(16, 4) / 2, torch.randn(16)
    sides: dict[str, Solve | None] = {OURS: ours, "torch pad, conv1d": activated}
    sides |= {"causal-conv1d": causal_conv1d("silu"), "cudnn": cudnn_causal_conv1d("silu")}
    size = work(batch, channels, length, 4, backward)
    return Problem(inputs, sides, activated, sample, backward, work=size)


def cases() -> list[Case]:
    """Every shape with every number of taps."""
    found = []
    for batch, channels, length in SHAPES:
        shape = f"{batch}x{channels}x{length}"
        for taps in TAPS:
            found += both(f"short_conv/{shape}/K{taps}", functools.partial(problem, batch, channels, length, taps))
        make = functools.partial(problem_activated, batch, channels, length)
        found += both(f"short_conv/{shape}/K4-bias-silu", make)
    return found

"""``longconv.fft_conv`` by the kernels of csrc/cuda, in the shape in which FlashFFTConv was published, beside it."""

from __future__ import annotations

import dataclasses
import functools

import torch
from torch import Tensor

import longconv
from bench.case import OURS, Case, Problem, Solve, Work, both
from bench.cases.fft_conv import SMALL, circular, flops, gated, inputs
from bench.peers import flash_fft_conv

BATCH, CHANNELS = 64, 768
MOST = BATCH * CHANNELS * 8192
"""Numbers of a sequence in 16 bits: torch's transforms of these, with their gradients, fit in 80 GB."""
LENGTHS = [1 << n for n in range(8, 23)]


def shape(length: int) -> tuple[int, int, int]:
    """(B, H, L): 64 samples of 768 channels, or as many of them as there is room for; times grow as their product.

    >>> shape(8192), shape(1 << 16), shape(1 << 22)
    ((64, 768, 8192), (8, 768, 65536), (1, 96, 4194304))
    """
    batch = max(1, min(BATCH, MOST // (CHANNELS * length)))
    return batch, min(CHANNELS, MOST // (batch * length)), length


def gated_circular(u: Tensor, k: Tensor, pre: Tensor, post: Tensor) -> Tensor:
    """The usual way of a periodic convolution with gates."""
    return circular(u * pre, k) * post


def ours(mode: str, backend: str) -> Solve:
    """A backend of the library's convolution with gates."""
    call = functools.partial(longconv.fft_conv, mode=mode, backend=backend)
    return lambda u, k, pre, post: call(u, k, pre_gate=pre, post_gate=post)


def in_single(usual: Solve) -> Solve:
    """The usual way, for which torch has no FFT of 16 bits at most lengths, in float32."""
    return lambda u, *rest: usual(u.float(), *(t.float() for t in rest)).to(u.dtype)


def problem(
    batch: int, channels: int, length: int, kind: str, backward: bool, *, backends: tuple[str, str] = ("cuda", "triton")
) -> Problem:
    """Gated sequences in float16; "partial" has an eighth of the taps."""
    mode, usual = ("circular", gated_circular) if kind == "circular" else ("causal", gated)
    taps = length // 8 if kind == "partial" else length

    def make(batch: int, channels: int) -> tuple[Tensor, ...]:
        u, k, *gates = inputs(batch, channels, length, "gated")
        return u.half(), k[:, :taps] / taps**0.5, *(gate.half() for gate in gates)

    first, second = backends
    sides: dict[str, Solve | None] = {
        OURS: ours(mode, first),
        f"longconv {second}": ours(mode, second),
        "torch rfft": in_single(usual),
        "flashfftconv": flash_fft_conv(length if kind == "circular" else 2 * length, torch.float16),
    }
    work = Work(
        flops(batch, channels, length, backward, "circular" if kind == "circular" else "gated"),
        batch * channels,
        length,
    )
    sample = make(1, 2) if length >= SMALL else make(min(batch, 2), min(channels, 32))
    return Problem(make(batch, channels), sides, usual, sample, backward, 2e-3, work)


def cases() -> list[Case]:
    """Powers of two from 256 to 4M."""
    found = [
        both(
            f"fft_conv_gpu/{'x'.join(map(str, shape(length)))}/{kind}", functools.partial(problem, *shape(length), kind)
        )
        for kind in ("causal", "circular", "partial")
        for length in LENGTHS
    ]
    return [dataclasses.replace(case, device="cuda") for pair in found for case in pair]

"""``longconv.fft_conv`` beside the FFT convolution that users write in torch, the filters' spectra included."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

import longconv
from bench.case import OURS, Case, Problem, Solve, both

SHAPES = [
    (1, 768, 1024),
    (8, 256, 1024),
    (8, 256, 4096),
    (4, 256, 16384),
    (1, 256, 65536),
    (1, 64, 1 << 20),
    (1, 16, 1 << 22),
]
ODD_LENGTHS = (1009, 1500, 2187, 3001, 5000, 7919, 10007, 16385, 30030, 44100, 65537, 99991)
"""Primes among them, and lengths just beyond a power of two."""

NUMBERS = 1 << 21  # of an input of odd length, about
SMALL = 1 << 16  # length from which the result is checked on two channels alone


def next_smooth(n: int) -> int:
    """The least number >= n with no prime factor above 5, which suits an FFT.

    >>> next_smooth(1024), next_smooth(2017)
    (1024, 2025)
    """
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1


def padded(u: Tensor, k: Tensor, size: int | None = None) -> Tensor:
    """The usual way: real FFTs of twice the length, or of a ``size`` that is faster."""
    length = u.shape[-1]
    n = size or 2 * length
    return torch.fft.irfft(torch.fft.rfft(u, n=n) * torch.fft.rfft(k, n=n), n=n)[..., :length]


def gated(u: Tensor, k: Tensor, pre: Tensor, post: Tensor) -> Tensor:
    """The usual way with gates."""
    return padded(u * pre, k) * post


def circular(u: Tensor, k: Tensor) -> Tensor:
    """The usual way of a periodic convolution."""
    n = u.shape[-1]
    return torch.fft.irfft(torch.fft.rfft(u) * torch.fft.rfft(k), n=n)


def two_sided(u: Tensor, k: Tensor, k_reverse: Tensor) -> Tensor:
    """The usual way with taps on both sides, in one circular filter of twice the length."""
    n = 2 * u.shape[-1]
    whole = torch.cat((k, k.new_zeros(k.shape[0], 1), k_reverse.flip(-1)), -1)
    return torch.fft.irfft(torch.fft.rfft(u, n=n) * torch.fft.rfft(whole, n=n), n=n)[..., : u.shape[-1]]


def inputs(batch: int, channels: int, length: int, kind: str = "causal") -> tuple[Tensor, ...]:
    """Random u and k, and what else a kind of convolution takes."""
    u, k = torch.randn(batch, channels, length), torch.randn(channels, length)
    if kind == "gated":
        return u, k, torch.randn_like(u), torch.randn_like(u)
    return (u, k, torch.randn(channels, length - 1)) if kind == "two_sided" else (u, k)


def problem(batch: int, channels: int, length: int, backward: bool, kind: str = "causal") -> Problem:
    """One shape; beside the transform of twice the length, one of the next smooth size where that is smaller."""
    ours: dict[str, Solve] = {
        "causal": longconv.fft_conv,
        "gated": lambda u, k, pre, post: longconv.fft_conv(u, k, pre_gate=pre, post_gate=post),
        "circular": functools.partial(longconv.fft_conv, mode="circular"),
        "two_sided": lambda u, k, k_reverse: longconv.fft_conv(u, k, k_reverse=k_reverse),
    }
    usual: dict[str, Solve] = {"causal": padded, "gated": gated, "circular": circular, "two_sided": two_sided}
    sides = {OURS: ours[kind], "torch rfft": usual[kind]}
    size = next_smooth(2 * length - 1)
    if kind == "causal" and size < 2 * length:
        sides["torch rfft, smooth size"] = functools.partial(padded, size=size)
    sample = inputs(1, 2, length, kind) if length >= SMALL else inputs(min(batch, 2), min(channels, 32), length, kind)
    return Problem(inputs(batch, channels, length, kind), sides, usual[kind], sample, backward)


def cases() -> list[Case]:
    """Powers of two, other lengths, and the kinds of convolution."""
    found = []
    shapes = [(shape, "causal") for shape in SHAPES]
    shapes += [((2, max(1, NUMBERS // length // 2), length), "causal") for length in ODD_LENGTHS]
    shapes += [(shape, kind) for kind in ("gated", "two_sided", "circular") for shape in SHAPES[1:5]]
    for (batch, channels, length), kind in shapes:
        name = "fft_conv" if kind == "causal" else f"fft_conv_{kind}"
        make = functools.partial(problem, batch, channels, length, kind=kind)
        found += both(f"{name}/{batch}x{channels}x{length}", make)
    return found

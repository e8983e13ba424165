"""``longconv.fft_conv`` beside the FFT convolution that users write in torch, the filters' spectra included."""

from __future__ import annotations

import functools
import itertools
import math

import torch
from torch import Tensor
from torch.nn import functional as F

import longconv
from bench.case import OURS, Case, Problem, Solve, Work, both
from bench.cases.short_conv import usual as usual_short
from bench.peers import cudnn_fft_conv, flash_fft_conv, jax_fft_conv, scipy_fft_conv, subquadratic_fft_conv
from longconv.ops.sparse_fft_conv.blocks import next_smooth

SIZES = {
    256: (8, 256),
    512: (8, 256),
    1024: (8, 256),
    2048: (8, 256),
    4096: (8, 256),
    8192: (8, 256),
    16384: (4, 256),
    32768: (2, 256),
    65536: (1, 256),
    1 << 17: (1, 128),
    1 << 18: (1, 64),
    1 << 19: (1, 32),
    1 << 20: (1, 64),
    1 << 21: (1, 8),
    1 << 22: (1, 16),
}
"""Batch and channels at every length that is a power of two."""
LENGTHS_OF_KINDS = (1024, 4096, 16384, 65536, 1 << 19)
COMPILED = 4096
"""The length at which the usual way is also given to torch.compile, which takes seconds a case."""
ODD_LENGTHS = (1009, 1024, 1500, 2187, 3001, 5000, 7919, 10007, 16385, 30030, 44100, 65537, 99991)
"""Primes among them, lengths just beyond a power of two, and one to compare a length just below it with."""

SHORT = (16, 64, 96, 128)
"""Taps around those from which transforms are quicker."""
LENGTHS_OF_SHORT = LENGTHS_OF_KINDS[:4]
NUMBERS = 1 << 21  # of an input of odd length, about
SMALL = 1 << 16  # length from which the result is checked on two channels alone


def shapes(*lengths: int) -> list[tuple[int, int, int]]:
    """(B, H, L) at some of the lengths of the table.

    >>> shapes(4096, 16384)
    [(8, 256, 4096), (4, 256, 16384)]
    """
    return [(*SIZES[length], length) for length in lengths]


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


def narrow(u: Tensor, k: Tensor) -> Tensor:
    """The usual way of a sequence in 16 bits, for which torch has no FFT."""
    return padded(u.float(), k.float()).to(u.dtype)


def transposed_first(u: Tensor, k: Tensor) -> Tensor:
    """Ours of a copy that has the channels first."""
    return longconv.fft_conv(longconv.ops.transpose(u.mT), k)


def flops(batch: int, channels: int, length: int, backward: bool, kind: str = "causal") -> float:
    """Operations of the usual way: real FFTs of n = 2 L (circular: L) numbers at 5/2 n log2 n, products at 6 n / 2.

    >>> flops(1, 1, 1024, backward=False)  # u's, k's, y's
    175104.0
    """
    n = length if kind == "circular" else 2 * length
    filters = (batch if kind == "per_sample" else 1) * channels * (2 if kind == "two_sided" else 1)
    transforms = (2 * batch * channels + filters) * (2 if backward else 1)
    products = batch * channels * (3 if backward else 1)
    gates = 2 * batch * channels * length * (3 if backward else 1) if kind == "gated" else 0
    return transforms * 2.5 * n * math.log2(max(n, 2)) + products * 3 * n + gates


def inputs(batch: int, channels: int, length: int, kind: str = "causal") -> tuple[Tensor, ...]:
    """Random u and k, and what else a kind of convolution takes."""
    u, k = torch.randn(batch, channels, length), torch.randn(channels, length)
    if kind == "gated":
        return u, k, torch.randn_like(u), torch.randn_like(u)
    if kind == "two_sided":
        return u, k, torch.randn(channels, length - 1)
    if kind == "per_sample":
        return u, torch.randn(batch, channels, length)
    if kind == "channels_last":
        return u.mT.contiguous().mT, k
    if kind in DTYPES:
        return u.to(DTYPES[kind]), k.to(torch.promote_types(DTYPES[kind], torch.float32)) / length**0.5
    return (u, k[:, : length // 8]) if kind == "partial" else (u, k)


DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
KINDS: dict[str, tuple[Solve, Solve]] = {
    "causal": (longconv.fft_conv, padded),
    "gated": (lambda u, k, pre, post: longconv.fft_conv(u, k, pre_gate=pre, post_gate=post), gated),
    "circular": (functools.partial(longconv.fft_conv, mode="circular"), circular),
    "two_sided": (lambda u, k, k_reverse: longconv.fft_conv(u, k, k_reverse=k_reverse), two_sided),
    "per_sample": (longconv.fft_conv, padded),
    "partial": (longconv.fft_conv, padded),
    "channels_last": (longconv.fft_conv, padded),
    "bfloat16": (longconv.fft_conv, narrow),
    "float16": (longconv.fft_conv, narrow),
    "float64": (longconv.fft_conv, padded),
}
"""Ours and the usual way of every kind; "partial" has an eighth of the taps, "channels_last" the
sequences of modules, (B, L, H) with two axes exchanged."""


def problem(batch: int, channels: int, length: int, backward: bool, kind: str = "causal") -> Problem:
    """One shape; beside the transform of twice the length, one of the next smooth size where that is smaller."""
    ours, usual = KINDS[kind]
    sides: dict[str, Solve | None] = {OURS: ours, "torch rfft": usual}
    size = next_smooth(2 * length - 1)
    if kind == "causal" and size < 2 * length:
        sides["torch rfft, smooth size"] = functools.partial(padded, size=size)
    if kind == "causal":
        sides |= {"jax": jax_fft_conv()} | ({} if backward else {"scipy": scipy_fft_conv})
    if kind in ("causal", "gated") and (batch, channels, length) == (*SIZES[COMPILED], COMPILED):
        sides["torch.compile"] = torch.compile(usual)
    if kind in ("causal", "partial", *DTYPES):
        sides |= {"cudnn": cudnn_fft_conv(), "subquadratic-ops": subquadratic_fft_conv()}
    if kind == "channels_last":
        sides["longconv, transposed first"] = transposed_first
    if kind in ("bfloat16", "float16"):
        sides["flashfftconv"] = flash_fft_conv(2 * length, DTYPES[kind])
    sample = inputs(1, 2, length, kind) if length >= SMALL else inputs(min(batch, 2), min(channels, 32), length, kind)
    work = Work(flops(batch, channels, length, backward, kind), batch * channels, length)
    tolerance = {"bfloat16": 1e-2, "float16": 2e-3}.get(kind, 1e-6)
    exact = padded if kind in DTYPES else usual
    return Problem(inputs(batch, channels, length, kind), sides, exact, sample, backward, tolerance, work)


def by_transforms(u: Tensor, k: Tensor) -> Tensor:
    """Ours with zeros for taps up to the length, so that the filter is not taken for a short one."""
    return longconv.fft_conv(u, F.pad(k, (0, u.shape[-1] - k.shape[-1])))


def by_sums(u: Tensor, k: Tensor) -> Tensor:
    """Ours as a short convolution, at any number of taps."""
    return longconv.ops.short_conv(u, k.flip(-1))


def problem_short(batch: int, channels: int, length: int, taps: int, backward: bool) -> Problem:
    """A filter of few taps: where the choice between sums and transforms is made, beside both and torch's sums."""
    inputs = torch.randn(batch, channels, length), torch.randn(channels, taps) / taps**0.5
    sample = torch.randn(1, 2, length), torch.randn(2, taps) / taps**0.5
    sides: dict[str, Solve | None] = {
        OURS: longconv.fft_conv,
        "longconv by transforms": by_transforms,
        "longconv short_conv": by_sums,
        "torch rfft": padded,
        "torch pad, conv1d": lambda u, k: usual_short(u, k.flip(-1)),
    }
    flops = 2.0 * batch * channels * length * taps * (3 if backward else 1)
    return Problem(inputs, sides, padded, sample, backward, work=Work(flops, batch * channels, length))


def cases() -> list[Case]:
    """Powers of two, other lengths, and the kinds of convolution."""
    found = []
    made = [(shape, "causal") for shape in [*shapes(*SIZES), (1, 768, 1024)]]
    made += [((2, max(1, NUMBERS // length // 2), length), "causal") for length in ODD_LENGTHS]
    made += [(shape, kind) for kind in KINDS if kind != "causal" for shape in shapes(*LENGTHS_OF_KINDS)]
    for (batch, channels, length), kind in made:
        name = "fft_conv" if kind == "causal" else f"fft_conv_{kind}"
        make = functools.partial(problem, batch, channels, length, kind=kind)
        found += both(f"{name}/{batch}x{channels}x{length}", make)
    for (batch, channels, length), taps in itertools.product(shapes(*LENGTHS_OF_SHORT), SHORT):
        make = functools.partial(problem_short, batch, channels, length, taps)
        found += both(f"fft_conv_short/{batch}x{channels}x{length}/K{taps}", make)
    return found

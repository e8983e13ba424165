"""Which backend and how many threads suit a convolution on this machine: measured, not guessed."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import torch
from torch import Tensor

import longconv
from bench.case import OURS, Problem, Work
from bench.cases.fft_conv import flops, padded
from bench.cases.scaling import thread_counts
from bench.measure import WrongResultError, errors, summarize, thread_count, times


def advise(
    batch: int, channels: int, length: int, taps: int | None = None, *, dtype: torch.dtype = torch.float32,
    device: str = "cpu", backward: bool = True, seconds: float = 1.0,
) -> str:  # fmt: skip
    """Time every backend of ``fft_conv`` that serves such a call, on 1, 2, 4, ... threads, beside torch's own FFT.

    Args:
        batch: samples B.
        channels: features H.
        length: positions L.
        taps: taps K of the filter; L.
        dtype: of the sequence; the filter is float32, or float64 with it.
        device: "cpu" or "cuda".
        backward: time the gradients too.
        seconds: time for the rounds of a thread count.

    Returns:
        a table of all that was measured and the setting to use.
    """
    wide = torch.promote_types(dtype, torch.float32)
    u = torch.randn(batch, channels, length, device=device).to(dtype)
    k = torch.randn(channels, taps or length, device=device, dtype=wide) / (taps or length) ** 0.5
    sample = u[:1, :2].clone(), k[:2].clone()
    sides, refused = _candidates(sample, backward)
    found: dict[tuple[int, str], float] = {}
    work = Work(flops(batch, channels, length, backward), batch * channels, length)
    for threads in [1] if device == "cuda" else thread_counts(len(os.sched_getaffinity(0))):
        with thread_count(threads):
            problem = Problem((u, k), sides, _exact, sample, backward, work=work)
            for name, measured in times(problem, seconds).items():
                found[threads, name] = summarize(measured).median
    (threads, name), best = min(found.items(), key=lambda item: item[1])
    lines = [f"fft_conv, u ({batch}, {channels}, {length}) {str(dtype).removeprefix('torch.')}, {k.shape[-1]} taps, "
             f"forward{' + backward' * backward}, {device}", "", "| threads | way | ms |", "|---|---|---|"]  # fmt: skip
    lines += [f"| {n} | {way} | {1e3 * value:.4g} |" for (n, way), value in sorted(found.items(), key=lambda i: i[1])]
    lines += [f"\n{way}: {reason}" for way, reason in refused.items()]
    setting = f"torch.set_num_threads({threads}) and " if device == "cpu" else ""
    use = f'longconv.fft_conv(u, k, backend="{name}")' if name != "torch rfft" else "torch.fft.rfft of twice the length"
    return "\n".join([*lines, "", f"Use {setting}{use}: {1e3 * best:.4g} ms."])


def _candidates(
    sample: tuple[Tensor, Tensor], backward: bool
) -> tuple[dict[str, Callable[..., Tensor]], dict[str, str]]:
    """The ways that serve such a call with the exactness of its dtype, and why each other one does not."""
    refused: dict[str, str] = {}
    tolerance = max(1e-6, 2 * torch.finfo(sample[0].dtype).eps)
    sides: dict[str, Callable[..., Tensor]] = {"torch rfft": _usual}
    for name, reason in longconv.info().ops["fft_conv"].backends.items():
        if name == "reference":
            continue
        solve = functools.partial(longconv.fft_conv, backend=name)
        try:
            if reason is not None:
                raise ValueError(reason)
            errors(Problem(sample, {OURS: solve}, _exact, backward=backward, tolerance=tolerance))
        except (ValueError, NotImplementedError, RuntimeError, WrongResultError) as error:
            refused[name] = str(error)
        else:
            sides[name] = solve
    return sides, refused


def _exact(u: Tensor, k: Tensor) -> Tensor:
    return longconv.fft_conv(u, k, backend="torch")


def _usual(u: Tensor, k: Tensor) -> Tensor:
    return padded(u.to(k.dtype), k).to(u.dtype)

"""Times, errors and peak memory of the sides of a problem, side by side in one process."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bench.case import OURS, WHOLE, Problem, Solve
from bench.machine import cache_bytes

LEAST_ROUNDS, MOST_ROUNDS = 5, 200
MOST_COPIES = 16
PEER_TOLERANCE = 1e-3
"""Relative L2 error above which a side that is not ours is left out, or the case's if that is greater: it errs."""


class WrongResultError(RuntimeError):
    """A side's result is off: its time would mean nothing."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: the median, and the quartiles around it."""

    median: float
    low: float
    high: float


def summarize(seconds: Sequence[float]) -> Timing:
    """Median and quartiles.

    >>> summarize([4.0, 1.0, 2.0, 3.0, 5.0])
    Timing(median=3.0, low=2.0, high=4.0)
    """
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return Timing(median, low, high)


def relative_error(got: Tensor, want: Tensor) -> float:
    """|got - want| / |want| in the L2 norm; NaN where a number is missing.

    >>> relative_error(torch.tensor([0.0, 5.0]), torch.tensor([0.0, 4.0]))
    0.25
    """
    return ((got.to(want.dtype) - want).norm() / want.norm()).item()


def errors(problem: Problem) -> tuple[dict[str, float], dict[str, str]]:
    """The greatest relative error of the result and, where they are asked for, the gradients, of every side.

    Returns:
        The errors of the sides that are right, and for each peer that is refused, why: it is off, or it fails.

    Raises:
        WrongResultError: our error is above the tolerance, or our result has another shape.
    """
    sample = problem.sample or problem.inputs
    wide = [t.to(torch.promote_types(t.dtype, torch.float64)) if _moves(t) else t for t in sample]
    wants = _results(problem.exact, wide, problem.backward, seed=0)
    found, refused = {}, {}
    for name, solve in problem.installed.items():
        if name == WHOLE:
            continue
        try:
            gots = _results(solve, sample, problem.backward, seed=0)
        except Exception as failure:
            if name == OURS:
                raise
            refused[name] = f"{type(failure).__name__}: {str(failure).partition(chr(10))[0]}"
            continue
        limit = problem.tolerance if name == OURS else max(problem.tolerance, PEER_TOLERANCE)
        same = [g.shape for g in gots] == [w.shape for w in wants]
        each = [relative_error(*pair) for pair in zip(gots, wants, strict=True)] if same else [math.nan]
        error = math.nan if any(map(math.isnan, each)) else max(each)
        if error <= limit:
            found[name] = error
            continue
        reason = f"a relative error of {error:.2g}, more than {limit:g}" if same else f"shapes {_shapes(gots)}"
        if name == OURS:
            raise WrongResultError(f"{name} has {reason}")
        refused[name] = reason
    return found, refused


def least_bytes(problem: Problem) -> int:
    """Bytes of every tensor once: inputs and result, and with gradients the inputs, the cotangent and the gradients."""
    with torch.no_grad():
        result = problem.sides[OURS](*problem.inputs).nbytes  # type: ignore[misc]
    read, moving = sum(t.nbytes for t in problem.inputs), sum(t.nbytes for t in problem.inputs if _moves(t))
    return read + result + (read + result + moving if problem.backward else 0)


def sent_bytes(problem: Problem) -> int:
    """Bytes that one call of ours sends to other processes."""
    if problem.sent is None:
        return 0
    before = problem.sent()
    _results(problem.installed[OURS], problem.inputs, problem.backward, seed=None)
    return problem.sent() - before


def times(problem: Problem, budget: float) -> dict[str, list[float]]:
    """Seconds of the calls of every side, one after the other in rounds, until the budget of seconds is spent.

    The first round warms up and is dropped. Problems with a size take copies of their inputs in turn, which together
    are larger than the cache, and on a GPU its cache is overwritten before each call.
    """
    inputs = _rotation(problem)
    device = inputs[0][0].device
    with torch.no_grad():
        first = next(iter(problem.installed.values()))
        cotangent = torch.randn_like(first(*inputs[0])) if problem.backward else None
    clock = _cuda_clock(device) if device.type == "cuda" else _seconds
    found: dict[str, list[float]] = {name: [] for name in problem.installed}
    start = time.perf_counter()
    for turn in range(MOST_ROUNDS + 1):
        for name, solve in problem.installed.items():
            found[name].append(clock(solve, inputs[turn % len(inputs)], cotangent))
        if turn >= LEAST_ROUNDS and time.perf_counter() - start >= budget:
            break
    return {name: values[1:] for name, values in found.items()}


def peak_memory(problem: Problem, side: str) -> int:
    """Most bytes that one call of a side takes above its inputs, its results among them (CUDA, or Linux).

    Raises:
        OSError: there is no /proc/self/clear_refs, by which the peak is reset.
    """
    inputs = [t.detach().requires_grad_(problem.backward and _moves(t)) for t in problem.inputs]
    small = [t.requires_grad_(problem.backward and _moves(t)) for t in problem.sample]
    solve = problem.installed[side]
    if small:
        _results(solve, small, problem.backward, seed=0)  # what a first call loads is not the call's
    if inputs[0].is_cuda:
        torch.cuda.reset_peak_memory_stats(inputs[0].device)
        before = torch.cuda.memory_allocated(inputs[0].device)
        _results(solve, inputs, problem.backward, seed=None)
        return torch.cuda.max_memory_allocated(inputs[0].device) - before
    Path("/proc/self/clear_refs").write_text("5")
    before = _memory("VmRSS")
    _results(solve, inputs, problem.backward, seed=None)
    return _memory("VmHWM") - before


@contextmanager
def thread_count(threads: int) -> Iterator[None]:
    """``torch.set_num_threads`` for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _shapes(tensors: Sequence[Tensor]) -> list[tuple[int, ...]]:
    return [tuple(t.shape) for t in tensors]


def _moves(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _rotation(problem: Problem) -> list[list[Tensor]]:
    """The inputs, and as many copies as the cache does not hold twice."""
    size = sum(t.nbytes for t in problem.inputs)
    copies = 1 if problem.work is None else min(MOST_COPIES, 1 + 2 * cache_bytes() // max(size, 1))
    return [
        [t.detach().clone().requires_grad_(problem.backward and _moves(t)) for t in problem.inputs]
        for _ in range(copies)
    ]


def _seconds(solve: Solve, inputs: Sequence[Tensor], cotangent: Tensor | None) -> float:
    start = time.perf_counter()
    with torch.set_grad_enabled(cotangent is not None):
        y = solve(*inputs)
        if cotangent is not None:
            torch.autograd.grad(y, [t for t in inputs if t.requires_grad], cotangent)
    return time.perf_counter() - start


def _cuda_clock(device: torch.device) -> Callable[[Solve, Sequence[Tensor], Tensor | None], float]:
    """:func:`_seconds` by the events of a GPU, its cache filled with something else before."""
    flush = torch.empty(256 << 20, dtype=torch.uint8, device=device)

    def seconds(solve: Solve, inputs: Sequence[Tensor], cotangent: Tensor | None) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flush.zero_()
        start.record()
        _seconds(solve, inputs, cotangent)
        end.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(end) / 1e3

    return seconds


def _results(solve: Solve, inputs: Sequence[Tensor], backward: bool, seed: int | None) -> list[Tensor]:
    """The result, and with ``backward`` the gradients, for a cotangent by a seed, or of ones."""
    if not backward:
        with torch.no_grad():
            return [solve(*inputs)]
    leaves = [t.detach().requires_grad_(_moves(t)) for t in inputs]
    y = solve(*leaves)
    if seed is None:
        cotangent = torch.ones((), dtype=y.dtype, device=y.device).expand(y.shape)
    else:
        like = torch.float32 if not y.is_complex() else torch.complex64
        cotangent = torch.randn(y.shape, dtype=like, generator=torch.Generator().manual_seed(seed)).to(y)
    return [y.detach(), *torch.autograd.grad(y, [t for t in leaves if t.requires_grad], cotangent)]


def _memory(field: str) -> int:
    """Bytes of a field of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}")

"""``longconv.ops.linear_scan`` beside a loop over time and a scan by doubling, as users write them."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from bench.case import OURS, Case, Problem, Solve, Work, both
from bench.peers import jax_scan, mamba_scan
from longconv.ops import linear_scan

SHAPES = {256: (8, 256), 4096: (4, 256), 65536: (1, 64), 1 << 20: (1, 4), 1 << 22: (1, 4)}
"""Batch and states by length."""
LOOPED = 4096
"""Length up to which the loop is timed; it takes microseconds a step."""
DTYPES = {"float32": torch.float32, "complex64": torch.complex64, "bfloat16": torch.bfloat16, "float64": torch.float64}


def loop(a: Tensor, b: Tensor, dim: int = 1) -> Tensor:
    """The definition, a step at a time."""
    steps = b.unbind(dim)
    coefficients = a.expand_as(b).unbind(dim)
    h, states = torch.zeros_like(steps[0]), []
    for a_t, b_t in zip(coefficients, steps, strict=True):
        h = a_t * h + b_t
        states.append(h)
    return torch.stack(states, dim)


def doubling(a: Tensor, b: Tensor, dim: int = 1) -> Tensor:
    """log2 L passes over the whole: after the pass of a shift s every state holds its last 2 s inputs."""
    a, length, shift = a.expand_as(b), b.shape[dim], 1
    while shift < length:
        late, early = (shift, length - shift), (0, length - shift)
        before = [t.narrow(dim, *early) for t in (a, b)]
        b = torch.cat((b.narrow(dim, 0, shift), b.narrow(dim, *late) + a.narrow(dim, *late) * before[1]), dim)
        a = torch.cat((a.narrow(dim, 0, shift), a.narrow(dim, *late) * before[0]), dim)
        shift *= 2
    return b


def flops(batch: int, length: int, states: int, dtype: torch.dtype, backward: bool) -> float:
    """A product and a sum a state, 8 operations of complex numbers; backward the same recurrence, and a product for a.

    >>> [flops(1, 10, 1, dtype, backward=True) for dtype in (torch.float32, torch.complex64)]
    [50.0, 220.0]
    """
    recurrence, product = (8.0, 6.0) if dtype.is_complex else (2.0, 1.0)
    return batch * length * states * (2 * recurrence + product if backward else recurrence)


def problem(
    batch: int, length: int, states: int, dtype: torch.dtype, varying: bool, backward: bool, dim: int = 1
) -> Problem:
    """States of a recurrence along an axis, with coefficients of their own at all times or the same."""

    def inputs(batch: int, states: int) -> tuple[Tensor, Tensor]:
        a = 0.9 * torch.rand(batch if varying else 1, length if varying else 1, states)
        b = torch.randn(batch, length, states, dtype=dtype)
        return tuple(t.movedim(1, dim).contiguous() for t in (a.to(dtype), b))  # type: ignore[return-value]

    sides: dict[str, Solve | None] = {OURS: functools.partial(linear_scan, dim=dim)}
    if length <= LOOPED:
        sides["torch loop"] = functools.partial(loop, dim=dim)
    sides["torch doubling"] = functools.partial(doubling, dim=dim)
    if dtype in (torch.float32, torch.complex64):
        sides["jax"] = jax_scan(dim)
    if dim == 2 and dtype == torch.float32 and not varying:
        sides["mamba-ssm"] = mamba_scan()
    exact = functools.partial(linear_scan, dim=dim, backend="reference")
    work = Work(flops(batch, length, states, dtype, backward), batch * states, length)
    sample = inputs(1, min(states, 16 if length <= LOOPED else 2))
    tolerance = {torch.bfloat16: 1e-2, torch.float64: 1e-12}.get(dtype, 1e-6)
    return Problem(inputs(batch, states), sides, exact, sample, backward, tolerance, work)


def cases() -> list[Case]:
    """Lengths; dtypes, coefficients that stay the same, and time as the last axis at one length."""
    found = []
    for length, (batch, states) in SHAPES.items():
        make = functools.partial(problem, batch, length, states, torch.float32, True)
        found += both(f"linear_scan/{batch}x{length}x{states}/float32", make)
    batch, length, states = *SHAPES[4096][:1], 4096, SHAPES[4096][1]
    for name, dtype in DTYPES.items():
        for kind, varying in (("", True), ("-constant", False)):
            if (name, kind) != ("float32", ""):
                make = functools.partial(problem, batch, length, states, dtype, varying)
                found += both(f"linear_scan/{batch}x{length}x{states}/{name}{kind}", make)
    for length, (batch, states) in list(SHAPES.items())[1:3]:
        make = functools.partial(problem, batch, length, states, torch.float32, False, dim=2)
        found += both(f"linear_scan/{batch}x{states}x{length}/float32-constant-last", make)
    return found

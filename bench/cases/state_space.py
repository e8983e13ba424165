"""The kernels of state space filters: Vandermonde and Cauchy products, and the taps and steps of systems."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from bench.case import OURS, Case, Problem, Solve, Work, both
from bench.peers import installed
from longconv.ops import cauchy, dense_taps, state_space_step, state_space_taps, vandermonde, vandermonde_log

H, N = 256, 32
LENGTHS = {256: H, 1024: H, 4096: H, 16384: H, 65536: H, 1 << 18: 64}
"""Channels of Vandermonde products by length."""
CAUCHY_LENGTHS = {256: H, 1024: H, 4096: H, 16384: 64, 65536: 16}
DENSE = [(32, 1024), (64, 1024), (64, 4096), (64, 16384), (64, 65536)]
"""States and lengths."""
LOOPED = 4096
"""Length up to which a loop over time is timed."""


def factored(v: Tensor, log: Tensor, length: int) -> Tensor:
    """Re sum_n v_n exp(l log_n) with l = q T + r, as a batched product of two small tables of powers."""
    near, far = (log[..., None] * steps for log, steps in _tables(log, length))
    return torch.bmm((far.exp().to(v.dtype) * v[..., None]).mT, near.exp()).flatten(-2)[..., :length].real


def factored_real(v: Tensor, log: Tensor, length: int) -> Tensor:
    """The same with real tables, by the exponential, cosine and sine of real numbers."""

    def table(log: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        decay, angle = (log.real[..., None] * steps).exp(), log.imag[..., None] * steps
        return (decay * angle.cos()).to(v.real.dtype), (decay * angle.sin()).to(v.real.dtype)

    near, (re, im) = (table(log, steps) for log, steps in _tables(log, length))
    v_re, v_im = v.real[..., None], v.imag[..., None]
    far = torch.cat((v_re * re - v_im * im, -v_re * im - v_im * re), -2)
    return torch.bmm(far.mT, torch.cat(near, -2)).flatten(-2)[..., :length]


def _tables(log: Tensor, length: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Logarithms and steps of the two tables: r = 0, 1, ... and q T, in double precision since angles are large."""
    size = 1
    while size * size < length:
        size *= 2
    near = torch.arange(size, dtype=log.real.dtype, device=log.device)
    far = torch.arange(0, length, size, dtype=torch.float64, device=log.device)
    return (log, near), (log.to(torch.complex128), far)


def vandermonde_problem(
    length: int, backward: bool, channels: int = H, modes: int = N, logarithms: bool = False
) -> Problem:
    """The real taps of a diagonal state space, whose modes or their logarithms are given."""
    op = vandermonde_log if logarithms else vandermonde

    def inputs(count: int) -> tuple[Tensor, Tensor]:
        decay = torch.rand(count, modes) * 16 / length
        log = torch.complex(-decay, torch.pi * torch.rand(count, modes))
        return torch.randn(count, modes, dtype=torch.complex64), log if logarithms else log.exp()

    def by(way: Callable[[Tensor, Tensor, int], Tensor]) -> Solve:
        return lambda v, x: way(v, x if logarithms else x.log(), length)

    sides: dict[str, Solve | None] = {
        OURS: lambda v, x: op(v, x, length, real=True),
        "torch bmm": by(factored),
        "torch bmm, real": by(factored_real),
    }
    exact = functools.partial(op, length=length, real=True, backend="reference")
    # The real part of a complex product and sum a mode and tap; complex ones in each of two gradients.
    work = Work(4.0 * channels * modes * length * (5 if backward else 1), channels, length)
    return Problem(inputs(channels), sides, exact, inputs(2), backward, work=work)


def broadcast(v: Tensor, z: Tensor, w: Tensor) -> Tensor:
    """The definition, with the whole (H, N, L) tensor."""
    return (v[..., None] / (z - w[..., None])).sum(-2)


def cauchy_problem(length: int, backward: bool, channels: int = H) -> Problem:
    """Poles to the left of points on the imaginary axis."""

    def inputs(count: int) -> tuple[Tensor, Tensor, Tensor]:
        v = torch.randn(count, N, dtype=torch.complex64)
        w = torch.complex(-0.5 - torch.rand(count, N), 10 * torch.randn(count, N))
        return v, torch.complex(torch.zeros(length), torch.linspace(-20, 20, length)), w

    sides: dict[str, Solve | None] = {OURS: cauchy, "torch broadcasting": broadcast}
    sides["keops"] = functools.partial(cauchy, backend="keops") if installed("pykeops") else None
    # A difference (2), its reciprocal (6), a product and sum (8); gradients: two products and sums, and a square (6).
    work = Work((38.0 if backward else 16.0) * channels * N * length, channels, length)
    return Problem(inputs(channels), sides, broadcast, inputs(2), backward, work=work)


def dense_problem(states: int, length: int, backward: bool, channels: int = H // 4) -> Problem:
    """The taps of a rotation with decay; torch squares the matrix log2 L times."""

    def inputs(count: int) -> tuple[Tensor, Tensor, Tensor]:
        A = 0.999 * torch.linalg.qr(torch.randn(count, states, states, dtype=torch.float64))[0]
        return A, torch.randn(count, states, dtype=torch.float64), torch.randn(count, 1, states, dtype=torch.float64)

    sides: dict[str, Solve] = {
        OURS: lambda A, B, C: dense_taps(A, B, C, length),
        "torch bmm": lambda A, B, C: dense_taps(A, B, C, length, backend="torch"),
    }
    exact = functools.partial(dense_taps, length=length, backend="reference")
    # Squarings, rows and columns of about sqrt(L) powers each, and their products; every product has two gradients.
    products = states**3 * math.log2(length) + 2 * states**2 * length**0.5 + states * length
    work = Work(2.0 * channels * products * (3 if backward else 1), channels, length)
    return Problem(inputs(channels), sides, exact, inputs(2), backward, tolerance=1e-12, work=work)


def system(channels: int, modes: int = N, rank: int = 1) -> tuple[Tensor, ...]:
    """A, B, C, left and right of a contraction, diagonal plus low rank."""
    wide = torch.complex128
    decay, angle = torch.rand(channels, modes, dtype=torch.float64), torch.randn(channels, modes, dtype=torch.float64)
    A = torch.polar(0.9 + 0.09 * decay, angle)
    B, C = torch.randn(channels, modes, dtype=wide), torch.randn(1, channels, modes, dtype=wide)
    left, right = (0.1 * torch.randn(rank, channels, modes, dtype=wide) / modes**0.5 for _ in range(2))
    return A, B, C, left, right


def advance(x: Tensor, A: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """A state (..., H, N) one sample on, without input."""
    inner = (right * x[..., None, :, :]).sum(-1, keepdim=True).real
    return A * x + (left * inner).sum(-3)


def loop(A: Tensor, B: Tensor, C: Tensor, left: Tensor, right: Tensor, length: int) -> Tensor:
    """The definition, a tap at a time."""
    x, taps = B, []
    for _ in range(length):
        taps.append((C * x).sum(-1).real)
        x = advance(x, A, left, right)
    return torch.stack(taps, -1)


def by_matrix(A: Tensor, B: Tensor, C: Tensor, left: Tensor, right: Tensor, length: int) -> Tensor:
    """The same of a dense real matrix twice as large, which torch squares log2 L times."""
    column, row = torch.cat((left.real, left.imag), -1), torch.cat((right.real, -right.imag), -1)
    diagonal = torch.cat((torch.diag_embed(A.real), torch.diag_embed(-A.imag)), -1)
    below = torch.cat((torch.diag_embed(A.imag), torch.diag_embed(A.real)), -1)
    matrix = torch.cat((diagonal, below), -2) + torch.einsum("rhn,rhm->hnm", column, row)
    inputs, outputs = torch.cat((B.real, B.imag), -1), torch.cat((C.real, -C.imag), -1)
    return dense_taps(matrix, inputs, outputs.transpose(0, 1), length, backend="torch").transpose(0, 1)


def taps_problem(length: int, backward: bool, channels: int = H // 4) -> Problem:
    """Those of S4's filters."""
    sides: dict[str, Solve | None] = {
        OURS: functools.partial(state_space_taps, length=length),
        "torch bmm": functools.partial(by_matrix, length=length),
    }
    if length <= LOOPED:
        sides["torch loop"] = functools.partial(loop, length=length)
    exact = functools.partial(state_space_taps, length=length, backend="reference")
    # A product with A (6), with right (4), with left (4) and with C (4) a mode and tap.
    work = Work(18.0 * channels * N * length * (3 if backward else 1), channels, length)
    return Problem(system(channels), sides, exact, system(2), backward, tolerance=1e-10, work=work)


def two_steps(step: Callable[..., tuple[Tensor, Tensor]], x: Tensor, u: Tensor, *of: Tensor) -> Tensor:
    """The output of the second of two samples, which depends on all that the first one did."""
    return step(step(x, u, *of)[0], u, *of)[1]


def usual_step(
    x: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor, left: Tensor, right: Tensor
) -> tuple[Tensor, Tensor]:
    """As torch is written, in double precision as ours is."""
    after = advance(x.to(A.dtype), A, left, right) + B * u[..., None]
    return after.to(x.dtype), (C * after[:, None]).sum(-1).real.to(u.dtype)


def step_problem(batch: int, backward: bool) -> Problem:
    """Samples through the states of a layer."""

    def inputs(batch: int, channels: int) -> tuple[Tensor, ...]:
        x = torch.randn(batch, channels, N, dtype=torch.complex64)
        return x, torch.randn(batch, channels), *system(channels)

    sides: dict[str, Solve | None] = {
        OURS: functools.partial(two_steps, state_space_step),
        "torch": functools.partial(two_steps, usual_step),
    }
    # As above, and a product of B with a real number (4).
    work = Work(2 * 22.0 * batch * H * N * (3 if backward else 1), batch * H, 2)
    return Problem(inputs(batch, H), sides, functools.partial(two_steps, usual_step), inputs(2, 8), backward, work=work)


def cases() -> list[Case]:
    """Taps of many lengths, and steps of small and large batches."""
    found = []
    for kind, logarithms in (("vandermonde", False), ("vandermonde_log", True)):
        for length, channels in LENGTHS.items():
            make = functools.partial(vandermonde_problem, length, channels=channels, logarithms=logarithms)
            found += both(f"{kind}/{channels}x{N}x{length}", make)
    for length, channels in CAUCHY_LENGTHS.items():
        make = functools.partial(cauchy_problem, length, channels=channels)
        found += both(f"cauchy/{channels}x{N}x{length}", make)
    for states, length in DENSE:
        found += both(f"dense_taps/{H // 4}x{states}x{length}", functools.partial(dense_problem, states, length))
    for length in (1024, 4096, 16384, 65536):
        found += both(f"state_space_taps/{H // 4}x{N}x{length}", functools.partial(taps_problem, length))
    for batch in (1, 8, 64):
        found += both(f"state_space_step/{batch}x{H}x{N}", functools.partial(step_problem, batch))
    return found

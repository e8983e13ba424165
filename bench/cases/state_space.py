"""The kernels of state space filters: Vandermonde and Cauchy products, dense systems, and the scan."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from bench.case import OURS, Case, Problem, Solve, Work, both
from bench.peers import installed
from longconv.ops import cauchy, dense_taps, linear_scan, vandermonde

H, N = 256, 32
LENGTHS = (1024, 16384, 65536)


def factored(v: Tensor, x: Tensor, length: int) -> Tensor:
    """Re sum_n v_n x_n^l with l = q T + r, as a batched product of two small tables of powers."""
    near, far = (log[..., None] * steps for log, steps in _tables(x, length))
    return torch.bmm((far.exp().to(v.dtype) * v[..., None]).mT, near.exp()).flatten(-2)[..., :length].real


def factored_real(v: Tensor, x: Tensor, length: int) -> Tensor:
    """The same with real tables, by the exponential, cosine and sine of real numbers."""

    def table(log: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        decay, angle = (log.real[..., None] * steps).exp(), log.imag[..., None] * steps
        return (decay * angle.cos()).to(v.real.dtype), (decay * angle.sin()).to(v.real.dtype)

    near, (re, im) = (table(log, steps) for log, steps in _tables(x, length))
    v_re, v_im = v.real[..., None], v.imag[..., None]
    far = torch.cat((v_re * re - v_im * im, -v_re * im - v_im * re), -2)
    return torch.bmm(far.mT, torch.cat(near, -2)).flatten(-2)[..., :length]


def _tables(x: Tensor, length: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Logarithms and steps of the two tables: r = 0, 1, ... and q T, in double precision since angles are large."""
    size = 1
    while size * size < length:
        size *= 2
    wide, far = x.to(torch.complex128), torch.arange(0, length, size, dtype=torch.float64)
    return (x.log(), torch.arange(size, dtype=x.real.dtype)), (wide.log(), far)


def vandermonde_problem(length: int, backward: bool, channels: int = H) -> Problem:
    """The real taps of a diagonal state space."""

    def inputs(count: int) -> tuple[Tensor, Tensor]:
        decay = torch.rand(count, N) * 16 / length
        angle = torch.pi * torch.rand(count, N)
        return torch.randn(count, N, dtype=torch.complex64), torch.exp(torch.complex(-decay, angle))

    sides: dict[str, Solve] = {
        OURS: lambda v, x: vandermonde(v, x, length, real=True),
        "torch bmm": lambda v, x: factored(v, x, length),
        "torch bmm, real": lambda v, x: factored_real(v, x, length),
    }
    exact = functools.partial(vandermonde, length=length, real=True, backend="reference")
    # The real part of a complex product and sum a mode and tap; complex ones in each of two gradients.
    work = Work(4.0 * channels * N * length * (5 if backward else 1), channels, length)
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


def scan_problem(shape: tuple[int, int, int], dtype: torch.dtype, varying: bool) -> Problem:
    """States of a recurrence."""

    def inputs(batch: int) -> tuple[Tensor, Tensor]:
        a = 0.9 * torch.rand(batch, shape[1] if varying else 1, shape[2])
        return a.to(dtype), torch.randn(batch, *shape[1:], dtype=dtype)

    sides = {OURS: linear_scan}
    exact = functools.partial(linear_scan, backend="reference")
    work = Work((8.0 if dtype.is_complex else 2.0) * math.prod(shape), shape[0] * shape[2], shape[1])
    return Problem(inputs(shape[0]), sides, exact, inputs(1), work=work)


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


def cases() -> list[Case]:
    """Taps of many lengths."""
    found = []
    for length in LENGTHS:
        found += both(f"vandermonde/{H}x{N}x{length}", functools.partial(vandermonde_problem, length))
    for length in (1024, 4096):
        found += both(f"cauchy/{H}x{N}x{length}", functools.partial(cauchy_problem, length))
    for states, length in ((32, 1024), (64, 1024), (64, 16384)):
        found += both(f"dense_taps/{H // 4}x{states}x{length}", functools.partial(dense_problem, states, length))
    shape = (4, 4096, 256)
    for dtype in (torch.float32, torch.complex64):
        for kind, varying in (("", True), ("-constant", False)):
            name = f"linear_scan/{'x'.join(map(str, shape))}/{str(dtype).removeprefix('torch.')}{kind}"
            found.append(Case(name, functools.partial(scan_problem, shape, dtype, varying)))
    return found

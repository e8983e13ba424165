"""The fit of a few modes to many taps: poles by the Hankel matrix, residues by least squares, and refinement of both.

Symbols: R filters, L taps, n order, P modes stored, one of each conjugate pair.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

DENSE = 384
"""Hankel matrices of so many columns or fewer are decomposed as they are, larger ones through random vectors."""
OVERSAMPLING, POWERS = 10, 3
NUMBERS = 2**24
"""Bound on the numbers of one temporary array."""
LEAST_DECAY = 1e-8
RANKS = (0.0, 1e-13, 1e-10, 1e-7, 1e-5)
"""Singular values that are so much smaller than the largest may be no more than rounding of the taps."""
EXACT = 1e-9
"""Filters with smaller errors need no other poles."""
RIDGES = torch.logspace(-15, 0, 31, dtype=torch.float64)


class _Modes(NamedTuple):
    """Modes of filters (R, L)."""

    z: Tensor
    """(R, P) complex, logarithms of the poles, -1 for modes that aren't there."""
    mine: Tensor
    """(R, P), whether a mode is there."""
    real: Tensor
    """(R, 1, P), whether a pole is real, and with it its residue."""


def fit(k: Tensor, order: int, steps: int, bound: float) -> tuple[Tensor, Tensor]:
    """Logarithms of poles and residues (R, P) for filters k (R, L) float64, first tap aside.

    ``bound`` is that on the sum of the modes' sizes, relative to the filter's.
    """
    V, S = _singular(k[:, 1:], order)
    modes, c, error = _candidate(k, _shifts(V), bound)

    def tried(rows: Tensor, values: Tensor) -> None:
        """Take other poles (rows, n) for those of the filters ``rows`` that they fit better."""
        nonlocal modes, c, error
        if not len(rows):
            return
        other, residues, new = _candidate(k[rows], values, bound)
        better, count = new < 0.5 * error[rows], max(c.shape[1], residues.shape[1])
        parts = _widened((*modes, c), count)
        for part, replacement in zip(parts, _widened((*other, residues), count), strict=True):
            part[rows[better]] = replacement[better]
        modes, c, error = _Modes(*parts[:3]), parts[3], error.index_copy(0, rows[better], new[better])

    for least in RANKS:
        kept = least * S[:, :1] < S
        rows = ((error > EXACT) & (~kept.all(1) | (least == 0))).nonzero()[:, 0]
        values = _shifts(V[rows] * kept[rows, None])
        if least:
            tried(rows, values)
        close = _close(values, bound**-0.5)
        tried(rows[close], _apart(values[close], bound**-0.5))
    rows = (error > 0.5).nonzero()[:, 0]
    angle = 2 * math.pi * (torch.arange(order, dtype=torch.float64) + 0.5) / order
    circle = torch.polar(torch.full_like(angle, bound ** (-1 / order)), angle)
    circle = torch.where(circle.imag.abs() < 1e-12, circle.real + 0j, circle)
    tried(rows, circle.expand(len(rows), order))
    return _refined(k, modes, c, steps, bound) if steps else (modes.z, c)


def _widened(parts: tuple[Tensor, ...], count: int) -> list[Tensor]:
    """Modes and residues (..., P) with modes that aren't there up to ``count``."""
    values = (-1.0, False, False, 0.0)
    return [F.pad(part, (0, count - part.shape[-1]), value=v) for part, v in zip(parts, values, strict=True)]


def _close(values: Tensor, distance: float) -> Tensor:
    """Which filters (R,) have poles (R, n) that nearly coincide, as multiple ones do but for rounding."""
    size = values.abs()
    gap = (values[:, :, None] - values[:, None]).abs() + torch.eye(values.shape[1], dtype=torch.float64)
    return ((gap < distance * (1 - size).clamp(min=1e-8)[..., None]) & (size > 1e-6)[..., None]).flatten(1).any(1)


def _apart(values: Tensor, distance: float) -> Tensor:
    """Poles moved apart: real ones by their order, pairs near the real axis from it."""
    size, real = values.abs(), (values.imag == 0) & (values.abs() > 1e-6)
    decay = -size.clamp(1e-3, 1 - 1e-8).log() * distance
    rank = torch.where(real, values.real, torch.inf).argsort(dim=1).argsort(dim=1) - (real.sum(1, True) - 1) / 2
    pair = torch.complex(values.real, decay * size * values.imag.sign())
    near = (values.imag != 0) & (values.imag.abs() < decay * size)
    return torch.where(real, values * torch.exp(-decay * rank), torch.where(near, pair, values))


def _candidate(k: Tensor, values: Tensor, bound: float) -> tuple[_Modes, Tensor, Tensor]:
    """Modes of filters k (R, L) with poles (R, n), their residues (R, P), and relative errors (R,)."""
    mine = values.imag >= 0  # a pole is real, or beside its conjugate
    count = int(mine.sum(1).max())
    chosen = mine.int().argsort(dim=1, descending=True, stable=True)[:, :count]
    mine, values = mine.gather(1, chosen), values.gather(1, chosen)
    z = torch.where(values == 0, 1e-300, values).log()
    z = torch.where(mine, torch.complex(z.real.clamp(-math.log(bound), -LEAST_DECAY), z.imag), -1.0)
    modes = _Modes(z, mine, (values.imag == 0)[:, None])
    c, residual = _residues(k, modes, bound)
    return modes, c, residual / torch.where(residual == 0, 1.0, k[:, 1:].norm(dim=1))


def _sizes(log_modulus: Tensor, length: int) -> Tensor:
    """||2 exp(l z)|| over all taps."""
    x = 2 * log_modulus
    return 2 * (torch.expm1(length * x) / torch.expm1(x)).sqrt()


def _residues(k: Tensor, modes: _Modes, bound: float) -> tuple[Tensor, Tensor]:
    """Least squares with the smallest ridge for which the sizes of the modes keep the bound; and what is left."""
    powers, size = _powers(*modes, k.shape[1]), _sizes(modes.z.real, k.shape[1]).repeat(1, 2)
    matrix = torch.cat([powers.real, -powers.imag], 2)
    U, S, Vh = torch.linalg.svd(matrix / size[:, None], full_matrices=False)
    ridge = RIDGES[:, None, None] * S[:, :1]
    rank = k.shape[1] * torch.finfo(S.dtype).eps * S[:, :1] < S
    weights = torch.where(rank, S / torch.where(rank, S.square() + ridge.square(), 1.0), 0.0)
    found = ((weights * (U.mT @ k[:, 1:, None])[..., 0])[..., None, :] @ Vh)[..., 0, :]  # (ridges, R, 2 P), by size
    total = torch.complex(*found.chunk(2, 2)).abs().sum(2)
    first = (total <= bound * k.norm(dim=1)).int().argmax(0)
    x = found[first, torch.arange(len(k))]
    x = x / (total[first, torch.arange(len(k))] / (bound * k.norm(dim=1))).nan_to_num().clamp(min=1)[:, None]
    x = x / size
    residual = k[:, 1:] - (matrix @ x[..., None])[..., 0]
    c = torch.complex(*(x * (matrix != 0).any(1)).chunk(2, 1))
    return c, residual.norm(dim=1)


def _powers(z: Tensor, mine: Tensor, real: Tensor, length: int) -> Tensor:
    """2 exp(l z) for l = 1..L-1, (R, L - 1, P): a filter is Re sum_p c_p of these. Zero for modes that aren't mine."""
    l = torch.arange(1, length, dtype=torch.float64)[:, None]
    powers = torch.exp(l * z[:, None]) * (2.0 * mine[:, None])
    return torch.complex(powers.real, torch.where(real, 0.0, powers.imag))


def _shifts(V: Tensor) -> Tensor:
    """The poles (R, n) of the realisation with right singular vectors V (R, N, n): Kung's method.

    They go over into one another by a shift, V[1:] = V[:-1] A. A vector of zeros gives a pole 0.
    """
    return torch.linalg.eigvals(torch.linalg.lstsq(V[:, :-1], V[:, 1:], driver="gelsd").solution)


def _singular(h: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """Right singular vectors (R, M, n) of the Hankel matrices h[i + j] of h (R, N), and singular values (R, n)."""
    columns = (h.shape[1] + 1) // 2
    if columns <= DENSE:
        _, S, Vh = torch.linalg.svd(h.unfold(1, columns, 1), full_matrices=False)
        V = Vh.mT
    else:
        generator = torch.Generator().manual_seed(0)
        vectors = torch.randn(len(h), columns, order + OVERSAMPLING, generator=generator, dtype=h.dtype)
        for _ in range(POWERS):
            Q = torch.linalg.qr(_hankel(h, vectors)).Q
            vectors = torch.linalg.qr(_hankel(h, Q)).Q
        Q = torch.linalg.qr(_hankel(h, vectors)).Q
        V, S, _ = torch.linalg.svd(_hankel(h, Q), full_matrices=False)
    return V[:, :, :order], S[:, :order]


def _hankel(h: Tensor, vectors: Tensor) -> Tensor:
    """sum_j h[i + j] vectors[j] by FFT: (R, N) and (R, M, r) -> (R, N + 1 - M, r); what wraps around is left out."""
    count, size = vectors.shape[1], 1 << (h.shape[1] - 1).bit_length()
    product = torch.fft.rfft(h, size)[:, None] * torch.fft.rfft(vectors.mT.flip(2), size)
    return torch.fft.irfft(product, size)[..., count - 1 : h.shape[1]].mT


def _refined(k: Tensor, modes: _Modes, c: Tensor, steps: int, bound: float) -> tuple[Tensor, Tensor]:
    """Levenberg-Marquardt steps inside the bound on (log -Re z, Im z, Re c, Im c), each filter with its own damping.

    The filter is sum_p Re f_p with f_p[l] = 2 c_p exp(l z_p), so that df/dz = l f: its gradients are columns of J.
    """
    z, mine, real = modes
    l, most = torch.arange(1, k.shape[1], dtype=torch.float64)[:, None], math.log(math.log(bound))
    limit = bound * k.norm(dim=1)

    def evaluate(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        log_decay, frequency, re, im = x.chunk(4, 1)
        powers = _powers(torch.complex(-log_decay.exp(), frequency), mine, real, k.shape[1])
        terms = powers * torch.complex(re, im)[:, None]
        return powers, terms, k[:, 1:] - terms.real.sum(2)

    def chosen(better: Tensor, new: tuple[Tensor, ...], old: tuple[Tensor, ...]) -> list[Tensor]:
        return [torch.where(better.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(new, old, strict=True)]

    x = torch.cat([(-z.real).log(), z.imag, c.real, c.imag], 1)
    damping, found = torch.full((len(k),), 1e-3, dtype=torch.float64), list(evaluate(x))
    for _ in range(steps):
        powers, terms, residual = found
        decay = -l * terms.real * x[:, None, : z.shape[1]].exp()
        J = torch.cat([decay, -l * terms.imag, powers.real, -powers.imag], 2)
        G, g = J.mT @ J, J.mT @ residual[..., None]
        diagonal = G.diagonal(dim1=1, dim2=2)
        floor = torch.where(diagonal == 0, 1.0, 1e-12 * diagonal)
        step = torch.linalg.solve_ex(G + torch.diag_embed(damping[:, None] * diagonal + floor), g).result[..., 0]
        trial = x + step.nan_to_num()
        trial[:, : z.shape[1]].clamp_(math.log(LEAST_DECAY), most)
        new, (log_decay, _, re, im) = evaluate(trial), trial.chunk(4, 1)
        size = (_sizes(-log_decay.exp(), k.shape[1]) * torch.complex(re, im).abs()).sum(1)
        better = (new[2].square().sum(1) < residual.square().sum(1)) & (size <= limit)
        x, *found = chosen(better, (trial, *new), (x, *found))
        damping = torch.where(better, damping / 5, damping * 5).clamp(1e-14, 1e8)
    log_decay, frequency, re, im = x.chunk(4, 1)
    return torch.complex(-log_decay.exp(), frequency), torch.complex(re, im)

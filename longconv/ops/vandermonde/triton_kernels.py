"""Triton kernels of the Vandermonde products: with l = q T + r, x^l = x^(q T) x^r, and sums are small matrix products.

Powers are exponentials in float64, rounded once; a tile of q and a tile of r stay in registers, so the (N, L) table is
never formed. Complex numbers are pairs; nodes come as their logarithms, whose real parts are finite.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _powers(log_x: tl.tensor, n: tl.tensor, N: tl.tensor, exponent: tl.tensor) -> tl.tensor:
    """The nodes to the power of ``exponent``, in float64; 1 in the place of nodes from N on."""
    real = tl.load(log_x + 2 * n, mask=n < N, other=0.0)
    imag = tl.load(log_x + 2 * n + 1, mask=n < N, other=0.0)
    exponent = exponent.to(tl.float64)
    size, angle = tl.exp(real * exponent), imag * exponent
    return size * tl.cos(angle), size * tl.sin(angle)


@triton.jit
def forward(
    y: tl.tensor,
    v: tl.tensor,
    log_x: tl.tensor,
    M: tl.tensor,
    N: tl.tensor,
    L: tl.tensor,
    COMPLEX: tl.constexpr,
    BQ: tl.constexpr,
    BN: tl.constexpr,
    T: tl.constexpr,
) -> None:
    """Y (X, M, L) of v (X, M, N) and log_x (X, N)."""
    tiles = tl.cdiv(L, BQ * T)
    pid = tl.program_id(0).to(tl.int64)
    row, r = pid // tiles, tl.arange(0, T)
    q = (pid % tiles) * BQ + tl.arange(0, BQ)
    log_x += row // M * N * 2
    real, imag = tl.zeros((BQ, T), tl.float32), tl.zeros((BQ, T), tl.float32)
    for start in range(0, N, BN):
        n = start + tl.arange(0, BN)
        fine, fine_i = _powers(log_x, n[:, None], N, r[None, :])
        coarse, coarse_i = _powers(log_x, n[None, :], N, (q * T)[:, None])
        at = v + (row * N + n) * 2
        vr = tl.load(at, mask=n < N, other=0.0).to(tl.float64)[None, :]
        vi = tl.load(at + 1, mask=n < N, other=0.0).to(tl.float64)[None, :]
        cr, ci = (vr * coarse - vi * coarse_i).to(tl.float32), (vr * coarse_i + vi * coarse).to(tl.float32)
        fr, fi = fine.to(tl.float32), fine_i.to(tl.float32)
        real = tl.dot(cr, fr, real, input_precision="ieee")
        real = tl.dot(-ci, fi, real, input_precision="ieee")
        if COMPLEX:
            imag = tl.dot(cr, fi, imag, input_precision="ieee")
            imag = tl.dot(ci, fr, imag, input_precision="ieee")
    l = (q * T)[:, None] + r[None, :]
    at = y + (row * L + l) * (2 if COMPLEX else 1)
    tl.store(at, real, mask=l < L)
    if COMPLEX:
        tl.store(at + 1, imag, mask=l < L)


@triton.jit
def _cotangents(g: tl.tensor, l: tl.tensor, L: tl.tensor, SHIFT: tl.constexpr, WEIGHTED: tl.constexpr) -> tl.tensor:
    """The numbers g[l], or the weighted ones (l + SHIFT) g[l + SHIFT]."""
    if WEIGHTED:
        weight = (l + SHIFT).to(tl.float32)
        return weight * tl.load(g + (l + SHIFT), mask=l + SHIFT < L, other=0.0)
    else:
        return tl.load(g + l, mask=l < L, other=0.0)


@triton.jit
def _contracted(
    g: tl.tensor,
    g_imag: tl.tensor,
    l: tl.tensor,
    L: tl.tensor,
    fine: tl.tensor,
    fine_i: tl.tensor,
    coarse: tl.tensor,
    coarse_i: tl.tensor,
    SHIFT: tl.constexpr,
    WEIGHTED: tl.constexpr,
) -> tl.tensor:
    """The sum over a tile of (q, r) of g times the conjugates of both powers, for every node."""
    gr = _cotangents(g, l, L, SHIFT, WEIGHTED)
    real, imag = tl.dot(gr, fine, input_precision="ieee"), -tl.dot(gr, fine_i, input_precision="ieee")
    if g_imag is not None:
        gi = _cotangents(g_imag, l, L, SHIFT, WEIGHTED)
        real = tl.dot(gi, fine_i, real, input_precision="ieee")
        imag = tl.dot(gi, fine, imag, input_precision="ieee")
    sum_r = tl.sum(real * coarse + imag * coarse_i, 0)
    return sum_r.to(tl.float64), tl.sum(imag * coarse - real * coarse_i, 0).to(tl.float64)


@triton.jit
def backward(
    sums: tl.tensor,
    g: tl.tensor,
    g_imag: tl.tensor,
    log_x: tl.tensor,
    ROWS: tl.tensor,
    M: tl.tensor,
    N: tl.tensor,
    L: tl.tensor,
    SPLITS: tl.tensor,
    SHIFT: tl.constexpr,
    BQ: tl.constexpr,
    BN: tl.constexpr,
    T: tl.constexpr,
) -> None:
    """Parts of sum_l g[l] conj(x^l) and sum_l l g[l] conj(x^(l - SHIFT)), (splits, 2, X M, N) in float64."""
    pid = tl.program_id(0).to(tl.int64)
    tiles_n, split = tl.cdiv(N, BN), pid % SPLITS
    n = pid // SPLITS % tiles_n * BN + tl.arange(0, BN)
    row, r = pid // (SPLITS * tiles_n), tl.arange(0, T)
    log_x += row // M * N * 2
    fine, fine_i = _powers(log_x, n[None, :], N, r[:, None])
    fr, fi = fine.to(tl.float32), fine_i.to(tl.float32)
    g += row * L
    if g_imag is not None:
        g_imag += row * L
    dv, dv_i = tl.zeros((BN,), tl.float64), tl.zeros((BN,), tl.float64)
    dx, dx_i = tl.zeros((BN,), tl.float64), tl.zeros((BN,), tl.float64)
    for tile in range(split, tl.cdiv(L, BQ * T), SPLITS):
        q = tile * BQ + tl.arange(0, BQ)
        l = (q * T)[:, None] + r[None, :]
        coarse, coarse_i = _powers(log_x, n[None, :], N, (q * T)[:, None])
        cr, ci = coarse.to(tl.float32), coarse_i.to(tl.float32)
        real, imag = _contracted(g, g_imag, l, L, fr, fi, cr, ci, SHIFT, False)
        dv, dv_i = dv + real, dv_i + imag
        real, imag = _contracted(g, g_imag, l, L, fr, fi, cr, ci, SHIFT, True)
        dx, dx_i = dx + real, dx_i + imag
    at = sums + ((2 * split * ROWS + row) * N + n) * 2
    tl.store(at, dv, mask=n < N)
    tl.store(at + 1, dv_i, mask=n < N)
    at += ROWS * N * 2
    tl.store(at, dx, mask=n < N)
    tl.store(at + 1, dx_i, mask=n < N)

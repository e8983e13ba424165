"""Triton kernels of ``cauchy``: resolvents in registers, for a tile of points or of poles; complex numbers are pairs.

With z - w = a + ib and r = 1 / (a^2 + b^2), the resolvent is q = 1 / (z - w) = r a - i r b. The difference is formed in
the precision D of the points and poles, then rounded to S, that of the sums.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _pair(x: tl.tensor, place: tl.tensor, valid: tl.tensor, other: tl.constexpr, D: tl.constexpr) -> tl.tensor:
    real = tl.load(x + 2 * place, mask=valid, other=other).to(D)
    return real, tl.load(x + 2 * place + 1, mask=valid, other=0.0).to(D)


@triton.jit
def _resolvent(zr: tl.tensor, zi: tl.tensor, wr: tl.tensor, wi: tl.tensor, S: tl.constexpr) -> tl.tensor:
    a, b = (zr - wr).to(S), (zi - wi).to(S)
    r = 1.0 / (a * a + b * b)
    return r * a, -r * b


@triton.jit
def _values(
    v: tl.tensor,
    w: tl.tensor,
    rows: tl.tensor,
    valid: tl.tensor,
    zr: tl.tensor,
    zi: tl.tensor,
    N: tl.tensor,
    SQUARED: tl.constexpr,
    D: tl.constexpr,
    S: tl.constexpr,
    BM: tl.constexpr,
    BL: tl.constexpr,
) -> tl.tensor:
    """The sum over n of v q, or of v q^2, for rows of residues and a tile of points, (BM, BL)."""
    real, imag = tl.zeros((BM, BL), S), tl.zeros((BM, BL), S)
    for n in range(N):
        wr, wi = tl.load(w + 2 * n).to(D), tl.load(w + 2 * n + 1).to(D)
        qr, qi = _resolvent(zr, zi, wr, wi, S)
        if SQUARED:
            qr, qi = qr * qr - qi * qi, 2 * qr * qi
        vr, vi = _pair(v, rows * N + n, valid, 0.0, S)
        real += vr[:, None] * qr[None, :] - vi[:, None] * qi[None, :]
        imag += vr[:, None] * qi[None, :] + vi[:, None] * qr[None, :]
    return real, imag


@triton.jit
def forward(
    y: tl.tensor,
    v: tl.tensor,
    z: tl.tensor,
    w: tl.tensor,
    z_set: tl.tensor,
    w_set: tl.tensor,
    M: tl.tensor,
    N: tl.tensor,
    L: tl.tensor,
    D: tl.constexpr,
    S: tl.constexpr,
    BM: tl.constexpr,
    BL: tl.constexpr,
) -> None:
    """Y (X, M, L) of v (X, M, N), z (X or 1, L) and w (X or 1, N)."""
    pid = tl.program_id(0).to(tl.int64)
    tiles_l, tiles_m = tl.cdiv(L, BL), tl.cdiv(M, BM)
    l = pid % tiles_l * BL + tl.arange(0, BL)
    m, x = pid // tiles_l % tiles_m * BM + tl.arange(0, BM), pid // (tiles_l * tiles_m)
    zr, zi = _pair(z, x * z_set + l, l < L, 0.0, D)
    real, imag = _values(v, w + 2 * x * w_set, x * M + m, m < M, zr, zi, N, False, D, S, BM, BL)
    at = y + 2 * ((x * M + m[:, None]) * L + l[None, :])
    valid = (m[:, None] < M) & (l[None, :] < L)
    tl.store(at, real, mask=valid)
    tl.store(at + 1, imag, mask=valid)


@triton.jit
def points(
    dz: tl.tensor,
    g: tl.tensor,
    v: tl.tensor,
    z: tl.tensor,
    w: tl.tensor,
    z_set: tl.tensor,
    w_set: tl.tensor,
    M: tl.tensor,
    N: tl.tensor,
    L: tl.tensor,
    D: tl.constexpr,
    S: tl.constexpr,
    BM: tl.constexpr,
    BL: tl.constexpr,
) -> None:
    """Dz (X, L) in float64: -sum_m g[m, l] conj(sum_n v[m, n] q[n, l]^2)."""
    pid = tl.program_id(0).to(tl.int64)
    tiles_l = tl.cdiv(L, BL)
    x, l = pid // tiles_l, pid % tiles_l * BL + tl.arange(0, BL)
    zr, zi = _pair(z, x * z_set + l, l < L, 0.0, D)
    real, imag = tl.zeros((BL,), tl.float64), tl.zeros((BL,), tl.float64)
    for start in range(0, M, BM):
        m = start + tl.arange(0, BM)
        vr, vi = _values(v, w + 2 * x * w_set, x * M + m, m < M, zr, zi, N, True, D, S, BM, BL)
        valid = (m[:, None] < M) & (l[None, :] < L)
        gr, gi = _pair(g, (x * M + m[:, None]) * L + l[None, :], valid, 0.0, S)
        real -= tl.sum(gr * vr + gi * vi, 0)
        imag -= tl.sum(gi * vr - gr * vi, 0)
    tl.store(dz + 2 * (x * L + l), real, mask=l < L)
    tl.store(dz + 2 * (x * L + l) + 1, imag, mask=l < L)


@triton.jit
def poles(
    sums: tl.tensor,
    g: tl.tensor,
    z: tl.tensor,
    w: tl.tensor,
    z_set: tl.tensor,
    w_set: tl.tensor,
    ROWS: tl.tensor,
    M: tl.tensor,
    N: tl.tensor,
    L: tl.tensor,
    SPLITS: tl.tensor,
    D: tl.constexpr,
    S: tl.constexpr,
    BN: tl.constexpr,
    BL: tl.constexpr,
) -> None:
    """Parts of sum_l g conj(q) and of sum_l g conj(q)^2, (splits, 2, X M, N) in float64."""
    pid = tl.program_id(0).to(tl.int64)
    tiles_n, split = tl.cdiv(N, BN), pid % SPLITS
    n, row = pid // SPLITS % tiles_n * BN + tl.arange(0, BN), pid // (SPLITS * tiles_n)
    x = row // M
    wr, wi = _pair(w, x * w_set + n, n < N, 0.0, D)
    first, first_i = tl.zeros((BN,), tl.float64), tl.zeros((BN,), tl.float64)
    second, second_i = tl.zeros((BN,), tl.float64), tl.zeros((BN,), tl.float64)
    for tile in range(split, tl.cdiv(L, BL), SPLITS):
        l = tile * BL + tl.arange(0, BL)
        valid = (n[:, None] < N) & (l[None, :] < L)
        zr, zi = _pair(z, x * z_set + l, l < L, 0.0, D)
        qr, qi = _resolvent(zr[None, :], zi[None, :], wr[:, None], wi[:, None], S)
        qr, qi = tl.where(valid, qr, 0.0), tl.where(valid, qi, 0.0)
        gr, gi = _pair(g, row * L + l[None, :], l[None, :] < L, 0.0, S)
        first += tl.sum(gr * qr + gi * qi, 1)
        first_i += tl.sum(gi * qr - gr * qi, 1)
        sr, si = qr * qr - qi * qi, 2 * qr * qi
        second += tl.sum(gr * sr + gi * si, 1)
        second_i += tl.sum(gi * sr - gr * si, 1)
    at = sums + ((2 * split * ROWS + row) * N + n) * 2
    tl.store(at, first, mask=n < N)
    tl.store(at + 1, first_i, mask=n < N)
    at += ROWS * N * 2
    tl.store(at, second, mask=n < N)
    tl.store(at + 1, second_i, mask=n < N)

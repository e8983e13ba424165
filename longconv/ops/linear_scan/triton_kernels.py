"""Triton kernels of ``linear_scan``: tiles of time scanned in registers, with the state between tiles in float64.

Tensors are (outer, L, inner), complex numbers pairs side by side; in reverse, t counts from the last time. A tile's
states are products times the state before it plus sums from zero; only the product of all its coefficients, by which
errors would grow from tile to tile, is formed in float64. A product that overflows counts for nothing beside a 0.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _product(ar: tl.tensor, br: tl.tensor) -> tl.tensor:
    return ar * br


@triton.jit
def _complex_product(ar: tl.tensor, ai: tl.tensor, br: tl.tensor, bi: tl.tensor) -> tl.tensor:
    return ar * br - ai * bi, ar * bi + ai * br


@triton.jit
def _step(ar: tl.tensor, br: tl.tensor, cr: tl.tensor, dr: tl.tensor) -> tl.tensor:
    """The map h -> a h + b, and after it h -> c h + d."""
    return ar * cr, tl.where(br == 0, dr, cr * br + dr)


@triton.jit
def _complex_step(
    ar: tl.tensor,
    ai: tl.tensor,
    br: tl.tensor,
    bi: tl.tensor,
    cr: tl.tensor,
    ci: tl.tensor,
    dr: tl.tensor,
    di: tl.tensor,
) -> tl.tensor:
    zero = (br == 0) & (bi == 0)
    real, imag = cr * br - ci * bi + dr, cr * bi + ci * br + di
    return ar * cr - ai * ci, ar * ci + ai * cr, tl.where(zero, dr, real), tl.where(zero, di, imag)


@triton.jit
def _apply(
    pr: tl.tensor, pi: tl.tensor, hr: tl.tensor, hi: tl.tensor, sr: tl.tensor, si: tl.tensor, COMPLEX: tl.constexpr
) -> tl.tensor:
    """The number p h + s, and s where h is 0."""
    if COMPLEX:
        _, _, real, imag = _complex_step(pr, pi, hr, hi, pr, pi, sr, si)
        return real, imag
    else:
        _, real = _step(pr, hr, pr, sr)
        return real, real


@triton.jit
def _load(at: tl.tensor, valid: tl.tensor, other: tl.constexpr, W: tl.constexpr, COMPLEX: tl.constexpr) -> tl.tensor:
    """Real and imaginary parts, of a number that may be real alone."""
    real = tl.load(at, mask=valid, other=other).to(W)
    if COMPLEX:
        return real, tl.load(at + 1, mask=valid, other=0.0).to(W)
    else:
        return real, tl.zeros_like(real)


@triton.jit
def _scan_tile(
    a: tl.tensor,
    a_strides: tl.tuple,
    b: tl.tensor,
    b_strides: tl.tuple,
    o: tl.tensor,
    t: tl.tensor,
    i: tl.tensor,
    valid: tl.tensor,
    L: tl.tensor,
    REVERSE: tl.constexpr,
    COMPLEX: tl.constexpr,
    A_COMPLEX: tl.constexpr,
    B_COMPLEX: tl.constexpr,
    W: tl.constexpr,
) -> tl.tensor:
    """The products and sums up to every time of a tile (BI, BT), and the product of all its times."""
    t = (L - 1 - t) if REVERSE else t
    ar, ai = _load(a + o * a_strides[0] + t * a_strides[1] + i * a_strides[2], valid, 1.0, W, A_COMPLEX)
    br, bi = _load(b + o * b_strides[0] + t * b_strides[1] + i * b_strides[2], valid, 0.0, W, B_COMPLEX)
    if COMPLEX:
        pr, pi, sr, si = tl.associative_scan((ar, ai, br, bi), 1, _complex_step)
        qr, qi = tl.reduce((ar.to(tl.float64), ai.to(tl.float64)), 1, _complex_product)
        return pr, pi, sr, si, qr, qi
    else:
        pr, sr = tl.associative_scan((ar, br), 1, _step)
        qr = tl.reduce(ar.to(tl.float64), 1, _product)
        return pr, pr, sr, sr, qr, qr


@triton.jit
def _last(s: tl.tensor, BT: tl.constexpr) -> tl.tensor:
    """The last column in float64."""
    return tl.sum(tl.where(tl.arange(0, BT)[None, :] == BT - 1, s, 0.0), 1).to(tl.float64)


@triton.jit
def _place(INNER: tl.tensor, CHUNKS: tl.tensor, BI: tl.constexpr) -> tl.tensor:
    """This program's chunk, outer index, and inner ones (BI,)."""
    pid = tl.program_id(0).to(tl.int64)
    tiles = tl.cdiv(INNER, BI)
    i = (pid // CHUNKS % tiles) * BI + tl.arange(0, BI)
    return pid % CHUNKS, pid // (CHUNKS * tiles), i


@triton.jit
def summaries(
    a: tl.tensor,
    a_strides: tl.tuple,
    b: tl.tensor,
    b_strides: tl.tuple,
    products: tl.tensor,
    sums: tl.tensor,
    L: tl.tensor,
    INNER: tl.tensor,
    CHUNK: tl.tensor,
    CHUNKS: tl.tensor,
    REVERSE: tl.constexpr,
    COMPLEX: tl.constexpr,
    A_COMPLEX: tl.constexpr,
    B_COMPLEX: tl.constexpr,
    W: tl.constexpr,
    BI: tl.constexpr,
    BT: tl.constexpr,
) -> None:
    """The product and the sum from zero of every chunk, (outer, chunks, inner) in float64."""
    chunk, o, i = _place(INNER, CHUNKS, BI)
    hr, pr = tl.zeros((BI,), tl.float64), tl.full((BI,), 1.0, tl.float64)
    hi, pi = tl.zeros_like(hr), tl.zeros_like(hr)
    end = tl.minimum(L, (chunk + 1) * CHUNK)
    for start in range(chunk * CHUNK, end, BT):
        t = (start + tl.arange(0, BT))[None, :]
        valid = (i[:, None] < INNER) & (t < end)
        _, _, sr, si, qr, qi = _scan_tile(
            a, a_strides, b, b_strides, o, t, i[:, None], valid, L, REVERSE, COMPLEX, A_COMPLEX, B_COMPLEX, W
        )
        hr, hi = _apply(qr, qi, hr, hi, _last(sr, BT), _last(si, BT), COMPLEX)
        if COMPLEX:
            pr, pi = _complex_product(pr, pi, qr, qi)
        else:
            pr = pr * qr
    at, parts = (o * CHUNKS + chunk) * INNER + i, 2 if COMPLEX else 1
    tl.store(products + at * parts, pr, mask=i < INNER)
    tl.store(sums + at * parts, hr, mask=i < INNER)
    if COMPLEX:
        tl.store(products + at * 2 + 1, pi, mask=i < INNER)
        tl.store(sums + at * 2 + 1, hi, mask=i < INNER)


@triton.jit
def states(
    h: tl.tensor,
    h_strides: tl.tuple,
    a: tl.tensor,
    a_strides: tl.tuple,
    b: tl.tensor,
    b_strides: tl.tuple,
    initial: tl.tensor,
    initial_strides: tl.tuple,
    ends: tl.tensor,
    L: tl.tensor,
    INNER: tl.tensor,
    CHUNK: tl.tensor,
    CHUNKS: tl.tensor,
    REVERSE: tl.constexpr,
    COMPLEX: tl.constexpr,
    A_COMPLEX: tl.constexpr,
    B_COMPLEX: tl.constexpr,
    INITIAL_COMPLEX: tl.constexpr,
    W: tl.constexpr,
    BI: tl.constexpr,
    BT: tl.constexpr,
) -> None:
    """All states; ``ends`` (outer, chunks, inner) are those at the ends of chunks, if there are several."""
    chunk, o, i = _place(INNER, CHUNKS, BI)
    parts = 2 if COMPLEX else 1
    hr, hi = tl.zeros((BI,), tl.float64), tl.zeros((BI,), tl.float64)
    if initial is not None:
        at = initial + o * initial_strides[0] + i * initial_strides[2]
        hr, hi = _load(at, i < tl.where(chunk == 0, INNER, 0), 0.0, tl.float64, INITIAL_COMPLEX)
    if ends is not None:
        at = ends + ((o * CHUNKS + chunk - 1) * INNER + i) * parts
        er, ei = _load(at, i < tl.where(chunk == 0, 0, INNER), 0.0, tl.float64, COMPLEX)
        hr, hi = hr + er, hi + ei
    end = tl.minimum(L, (chunk + 1) * CHUNK)
    for start in range(chunk * CHUNK, end, BT):
        t = (start + tl.arange(0, BT))[None, :]
        valid = (i[:, None] < INNER) & (t < end)
        pr, pi, sr, si, qr, qi = _scan_tile(
            a, a_strides, b, b_strides, o, t, i[:, None], valid, L, REVERSE, COMPLEX, A_COMPLEX, B_COMPLEX, W
        )
        yr, yi = _apply(pr, pi, hr[:, None].to(W), hi[:, None].to(W), sr, si, COMPLEX)
        row = (L - 1 - t) if REVERSE else t
        to = h + o * h_strides[0] + row * h_strides[1] + i[:, None] * h_strides[2]
        tl.store(to, yr.to(h.dtype.element_ty), mask=valid)
        if COMPLEX:
            tl.store(to + 1, yi.to(h.dtype.element_ty), mask=valid)
        hr, hi = _apply(qr, qi, hr, hi, _last(sr, BT), _last(si, BT), COMPLEX)

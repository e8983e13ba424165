"""Triton kernels of ``fft_conv``: R sequences are one tile, transformed as triton_transform.py tells."""

from __future__ import annotations

import triton
import triton.language as tl

from longconv.ops.fft_conv.triton_transform import inverse, places, transform


@triton.jit
def _rows(R: tl.constexpr) -> tl.tensor:
    """The rows of a program, (1, R, 1)."""
    return tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)[None, :, None]


@triton.jit
def _row(x: tl.tensor, strides: tl.tuple, b: tl.tensor, h: tl.tensor, s: tl.tensor) -> tl.tensor:
    """Places in a tensor (B, H, L)."""
    return x + (b * strides[0] + h * strides[1] + s.to(tl.int64) * strides[2])


@triton.jit
def _end(lengths: tl.tensor, b: tl.tensor, L: tl.tensor, inside: tl.tensor) -> tl.tensor:
    """Where the sequences of samples end: at 0 for rows that are not there."""
    if lengths is None:
        return tl.where(inside, L, 0)
    else:
        return tl.minimum(tl.maximum(tl.load(lengths + b, mask=inside, other=0), 0), L)


@triton.jit
def _gated(
    x: tl.tensor,
    strides: tl.tuple,
    gate: tl.tensor,
    gate_strides: tl.tuple,
    b: tl.tensor,
    h: tl.tensor,
    s: tl.tensor,
    end: tl.tensor,
) -> tl.tensor:
    """The samples before ``end``, times their gates."""
    value = tl.load(_row(x, strides, b, h, s), mask=s < end, other=0.0).to(tl.float32)
    if gate is not None:
        value *= tl.load(_row(gate, gate_strides, b, h, s), mask=s < end, other=0.0).to(tl.float32)
    return value


@triton.jit
def _size(x: tl.tensor) -> tl.tensor:
    """The largest absolute value of every row, but no number without an inverse."""
    return tl.maximum(tl.max(tl.max(tl.abs(x), 2, keep_dims=True), 0, keep_dims=True), 1e-37)


@triton.jit
def _scaled_transform(
    x: tl.tensor,
    z: tl.tensor,
    matrices: tl.tensor,
    twiddles: tl.tensor,
    R: tl.constexpr,
    N1: tl.constexpr,
    N2: tl.constexpr,
    N3: tl.constexpr,
    C: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """The transform of x, or x + i z, over its size, and the size; in single precision of itself, and 1."""
    if tl.float16 == C:
        size = _size(x)
        if z is not None:
            size = tl.maximum(size, _size(z))
            z *= 1 / size
        real, imag = transform(x * (1 / size), z, matrices, twiddles, R, N1, N2, N3, C, PRECISION)
        return real, imag, size
    else:
        real, imag = transform(x, z, matrices, twiddles, R, N1, N2, N3, C, PRECISION)
        return real, imag, 1.0


@triton.jit
def spectrum(
    out: tl.tensor,
    scales: tl.tensor,
    k: tl.tensor,
    k_strides: tl.tuple,
    reverse: tl.tensor,
    reverse_strides: tl.tuple,
    skip: tl.tensor,
    periods: tl.tensor,
    matrices: tl.tensor,
    twiddles: tl.tensor,
    scale: tl.tensor,
    S: tl.tensor,
    H: tl.tensor,
    L: tl.tensor,
    K: tl.tensor,
    K_REVERSE: tl.tensor,
    CIRCULAR: tl.constexpr,
    R: tl.constexpr,
    N1: tl.constexpr,
    N2: tl.constexpr,
    N3: tl.constexpr,
    C: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """T(k) + conj(T(reverse delayed by one)) + skip, (S, H, 2, n), over its scale (S, H): S is the samples, or 1.

    Circular convolution of period P is two-sided, with the taps k[P - 1], k[P - 2], ... of the lags below zero. In the
    ring X^n - i the tap of a lag -l is -i times one of the lag n - l: both sides are one complex sequence.
    """
    row = _rows(R)
    b, h, inside = row // H, row % H, row < S * H
    s = places(N1, N2 * N3)
    end = _end(periods, b, L, inside)
    taps = tl.load(_row(k, k_strides, b, h, s), mask=s < tl.minimum(K, end), other=0.0).to(tl.float32)
    before = None
    if CIRCULAR or reverse is not None:
        lag = N1 * N2 * N3 - s
        if CIRCULAR:
            at, there = _row(k, k_strides, b, h, end - lag), (s > 0) & (lag < end) & (end - lag < K)
        else:
            at, there = _row(reverse, reverse_strides, b, h, lag - 1), (s > 0) & (lag < end) & (lag <= K_REVERSE)
        before = -tl.load(at, mask=there, other=0.0).to(tl.float32)
    real, imag, size = _scaled_transform(taps, before, matrices, twiddles, R, N1, N2, N3, C, PRECISION)
    real, imag = real * scale * size, imag * scale * size
    if skip is not None:
        real += tl.load(skip + h).to(tl.float32)
    if scales is not None:
        size = tl.maximum(_size(real), _size(imag))
        real, imag = real * (1 / size), imag * (1 / size)
        tl.store(scales + row, size, mask=inside)
    at = out + row * (2 * N1 * N2 * N3) + s
    tl.store(at, real.to(C), mask=inside)
    tl.store(at + N1 * N2 * N3, imag.to(C), mask=inside)


@triton.jit
def convolve(
    u: tl.tensor,
    u_strides: tl.tuple,
    gate: tl.tensor,
    gate_strides: tl.tuple,
    y: tl.tensor,
    y_strides: tl.tuple,
    y_gate: tl.tensor,
    y_gate_strides: tl.tuple,
    other: tl.tensor,
    other_strides: tl.tuple,
    other_gate: tl.tensor,
    other_gate_strides: tl.tuple,
    filters: tl.tensor,
    scales: tl.tensor,
    filter_sample: tl.tensor,
    lengths: tl.tensor,
    matrices: tl.tensor,
    twiddles: tl.tensor,
    B: tl.tensor,
    H: tl.tensor,
    L: tl.tensor,
    ADJOINT: tl.constexpr,
    R: tl.constexpr,
    N1: tl.constexpr,
    N2: tl.constexpr,
    N3: tl.constexpr,
    C: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Y = y_gate c and other = other_gate c, where they are given: c is the convolution of gate u, or its adjoint."""
    row = _rows(R)
    b, h, inside = row % B, row // B, row < H * B
    s = places(N1, N2 * N3)
    end = _end(lengths, b, L, inside)
    x = _gated(u, u_strides, gate, gate_strides, b, h, s, end)
    xr, xi, x_size = _scaled_transform(x, None, matrices, twiddles, R, N1, N2, N3, C, PRECISION)
    filter_row = b * filter_sample + h
    at = filters + filter_row * (2 * N1 * N2 * N3) + s
    kr = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    ki = tl.load(at + N1 * N2 * N3, mask=inside, other=0.0).to(tl.float32)
    if scales is not None:
        x_size *= tl.load(scales + filter_row, mask=inside, other=0.0)
    if ADJOINT:
        ki = -ki
    zr, zi = xr * kr - xi * ki, xr * ki + xi * kr
    c = inverse(zr, zi, matrices, twiddles, R, N1, N2, N3, C, PRECISION) * x_size
    c = tl.where(s < end, c, 0.0)
    written = (s < L) & inside
    if y is not None:
        value = c
        if y_gate is not None:
            value = c * tl.load(_row(y_gate, y_gate_strides, b, h, s), mask=s < end, other=0.0).to(tl.float32)
        tl.store(_row(y, y_strides, b, h, s), value.to(y.dtype.element_ty), mask=written)
    if other is not None:
        value = c * tl.load(_row(other_gate, other_gate_strides, b, h, s), mask=s < end, other=0.0).to(tl.float32)
        tl.store(_row(other, other_strides, b, h, s), value.to(other.dtype.element_ty), mask=written)


@triton.jit
def correlate(
    sums: tl.tensor,
    totals: tl.tensor,
    scratch: tl.tensor,
    u: tl.tensor,
    u_strides: tl.tuple,
    u_gate: tl.tensor,
    u_gate_strides: tl.tuple,
    g: tl.tensor,
    g_strides: tl.tuple,
    g_gate: tl.tensor,
    g_gate_strides: tl.tuple,
    lengths: tl.tensor,
    matrices: tl.tensor,
    twiddles: tl.tensor,
    B: tl.tensor,
    H: tl.tensor,
    L: tl.tensor,
    SPLITS: tl.tensor,
    R: tl.constexpr,
    N1: tl.constexpr,
    N2: tl.constexpr,
    N3: tl.constexpr,
    C: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Add conj(T(u_gate u)) T(g_gate g) of every SPLITS-th sample to ``sums`` (splits, H, 2, n), zeros before.

    The sums of the products of both, those of lag zero, are (splits, H) in float64, where they are wanted. Where a
    scratch as large as ``sums`` is given, T(u_gate u) waits there, not in registers.
    """
    row = _rows(R)
    h, there = row % H, row < SPLITS * H
    s = places(N1, N2 * N3)
    place = row * (2 * N1 * N2 * N3) + s
    at = sums + place
    total = tl.zeros((N1, R, 1), tl.float64)
    for begin in range(0, B, SPLITS):
        b = begin + row // H
        inside = there & (b < B)
        end = _end(lengths, b, L, inside)
        x = _gated(u, u_strides, u_gate, u_gate_strides, b, h, s, end)
        if totals is not None:
            y = _gated(g, g_strides, g_gate, g_gate_strides, b, h, s, end)
            total += tl.sum(x.to(tl.float64) * y.to(tl.float64), 2, keep_dims=True)
        xr, xi, x_size = _scaled_transform(x, None, matrices, twiddles, R, N1, N2, N3, C, PRECISION)
        xr, xi = xr.to(C), xi.to(C)
        if scratch is not None:
            tl.store(scratch + place, xr, mask=inside)
            tl.store(scratch + place + N1 * N2 * N3, xi, mask=inside)
            tl.debug_barrier()
        y = _gated(g, g_strides, g_gate, g_gate_strides, b, h, s, end)
        yr, yi, y_size = _scaled_transform(y, None, matrices, twiddles, R, N1, N2, N3, C, PRECISION)
        if scratch is not None:
            xr = tl.load(scratch + place, mask=inside, other=0.0)
            xi = tl.load(scratch + place + N1 * N2 * N3, mask=inside, other=0.0)
        size = x_size * y_size
        real = tl.load(at, mask=inside, other=0.0) + (xr * yr + xi * yi) * size
        imag = tl.load(at + N1 * N2 * N3, mask=inside, other=0.0) + (xr * yi - xi * yr) * size
        tl.store(at, real, mask=inside)
        tl.store(at + N1 * N2 * N3, imag, mask=inside)
        tl.debug_barrier()
    if totals is not None:
        tl.store(totals + row, tl.sum(total, 0, keep_dims=True), mask=there)


@triton.jit
def taps(
    out: tl.tensor,
    sums: tl.tensor,
    matrices: tl.tensor,
    twiddles: tl.tensor,
    scale: tl.tensor,
    S: tl.tensor,
    H: tl.tensor,
    K: tl.tensor,
    PARTS: tl.tensor,
    ANTICAUSAL: tl.constexpr,
    R: tl.constexpr,
    N1: tl.constexpr,
    N2: tl.constexpr,
    N3: tl.constexpr,
    C: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Sums over lags 0 .. K - 1, or -1 .. -K, (S, H, K), from PARTS parts of a spectrum: S is the samples, or 1."""
    row = _rows(R)
    inside = row < S * H
    s = places(N1, N2 * N3)
    real, imag = tl.zeros((N1, R, N2 * N3), tl.float32), tl.zeros((N1, R, N2 * N3), tl.float32)
    for part in range(PARTS):
        at = sums + ((row // H * PARTS + part) * H + row % H) * (2 * N1 * N2 * N3) + s
        real += tl.load(at, mask=inside, other=0.0)
        imag += tl.load(at + N1 * N2 * N3, mask=inside, other=0.0)
    if ANTICAUSAL:
        imag, s = -imag, s - 1
    if tl.float16 == C:
        size = tl.maximum(_size(real), _size(imag))
        real, imag = real * (1 / size), imag * (1 / size)
        scale *= size
    lags = inverse(real, imag, matrices, twiddles, R, N1, N2, N3, C, PRECISION) * scale
    tl.store(out + row * K + s, lags, mask=inside & (s >= 0) & (s < K))

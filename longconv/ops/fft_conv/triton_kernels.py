r"""Triton kernels of ``fft_conv``: a sequence is one tile, its transform four products of matrices.

In the ring X^n - i, with w[s] = exp(i pi s / 2n), T(x) = FFT_n(x w), and the real part of T^-1(T(x) T(k)) / w is the
causal convolution of sequences of up to n samples: nothing is padded to 2n. With n = N1 N2, s = s1 N2 + s2 and
f = f1 + N1 f2,

    T(x)[f1, f2] = sum_s2 (sum_s1 x[s1, s2] F1[f1, s1]) W[f1, s2] F2[s2, f2]
    F1[f1, s1] = exp(-2 pi i f1 s1 / N1) w[s1 N2],   W[f1, s2] = exp(-2 pi i f1 s2 / n) w[s2],   F2 the DFT of size N2

so that w costs nothing. F1 and F2 are divided by the roots of their sizes: transforms here are unitary. conj(T(k)) is
correlation: lags below zero come back times -i, and the real part is again exact. Operands of products are of type C.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _matrix(table: tl.tensor, SIZE: tl.constexpr, STEP: tl.constexpr) -> tl.tensor:
    """Real and imaginary part of a square matrix, STEP numbers apart in the table."""
    i = tl.arange(0, SIZE)
    at = table + i[:, None] * SIZE + i[None, :]
    return tl.load(at), tl.load(at + STEP)


@triton.jit
def _places(N1: tl.constexpr, N2: tl.constexpr) -> tl.tensor:
    return tl.arange(0, N1)[:, None] * N2 + tl.arange(0, N2)[None, :]


@triton.jit
def _transform(
    x: tl.tensor,
    matrices: tl.tensor,
    twiddles: tl.tensor,
    N1: tl.constexpr,
    N2: tl.constexpr,
    C: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """The unitary T of a real tile."""
    STEP: tl.constexpr = 2 * N1 * N1 + N2 * N2
    fr, fi = _matrix(matrices, N1, STEP)
    ar = tl.dot(fr, x.to(C), input_precision=PRECISION)
    ai = tl.dot(fi, x.to(C), input_precision=PRECISION)
    at = twiddles + _places(N1, N2)
    wr, wi = tl.load(at), tl.load(at + N1 * N2)
    br, bi = (ar * wr - ai * wi).to(C), (ar * wi + ai * wr).to(C)
    fr, fi = _matrix(matrices + 2 * N1 * N1, N2, STEP)
    real = tl.dot(br, fr, input_precision=PRECISION)
    imag = tl.dot(br, fi, input_precision=PRECISION)
    real = tl.dot(-bi, fi, real, input_precision=PRECISION)
    return real, tl.dot(bi, fr, imag, input_precision=PRECISION)


@triton.jit
def _inverse(
    real: tl.tensor,
    imag: tl.tensor,
    matrices: tl.tensor,
    twiddles: tl.tensor,
    N1: tl.constexpr,
    N2: tl.constexpr,
    C: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """The real part of the unitary inverse."""
    STEP: tl.constexpr = 2 * N1 * N1 + N2 * N2
    fr, fi = _matrix(matrices + 2 * N1 * N1, N2, STEP)
    zr, zi = real.to(C), imag.to(C)
    br = tl.dot(zr, fr, input_precision=PRECISION)
    bi = tl.dot(zi, fr, input_precision=PRECISION)
    br = tl.dot(zi, fi, br, input_precision=PRECISION)
    bi = tl.dot(-zr, fi, bi, input_precision=PRECISION)
    at = twiddles + _places(N1, N2)
    wr, wi = tl.load(at), tl.load(at + N1 * N2)
    cr, ci = (br * wr + bi * wi).to(C), (bi * wr - br * wi).to(C)
    fr, fi = _matrix(matrices + N1 * N1, N1, STEP)
    z = tl.dot(fr, cr, input_precision=PRECISION)
    return tl.dot(fi, -ci, z, input_precision=PRECISION)


@triton.jit
def _row(x: tl.tensor, strides: tl.tuple, b: tl.tensor, h: tl.tensor, s: tl.tensor) -> tl.tensor:
    """Places in a tensor (B, H, L)."""
    return x + (b * strides[0] + h * strides[1] + s.to(tl.int64) * strides[2])


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
    """The largest absolute value, or 1 for zeros."""
    size = tl.max(tl.max(tl.abs(x), 1), 0)
    return tl.where(size == 0, 1.0, size)


@triton.jit
def _scaled_transform(
    x: tl.tensor,
    matrices: tl.tensor,
    twiddles: tl.tensor,
    N1: tl.constexpr,
    N2: tl.constexpr,
    C: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """The transform of x over its size, and the size; in single precision of x itself, and 1."""
    if tl.float16 == C:
        size = _size(x)
        real, imag = _transform(x / size, matrices, twiddles, N1, N2, C, PRECISION)
        return real, imag, size
    else:
        real, imag = _transform(x, matrices, twiddles, N1, N2, C, PRECISION)
        return real, imag, 1.0


@triton.jit
def spectrum(
    out: tl.tensor,
    k: tl.tensor,
    k_strides: tl.tuple,
    reverse: tl.tensor,
    reverse_strides: tl.tuple,
    skip: tl.tensor,
    periods: tl.tensor,
    matrices: tl.tensor,
    twiddles: tl.tensor,
    scale: tl.tensor,
    H: tl.tensor,
    L: tl.tensor,
    K: tl.tensor,
    K_REVERSE: tl.tensor,
    CIRCULAR: tl.constexpr,
    N1: tl.constexpr,
    N2: tl.constexpr,
    C: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """T(k) + conj(T(reverse delayed by one)) + skip, (samples or 1, H, 2, n).

    Circular convolution of period P is two-sided, with the taps k[P - 1], k[P - 2], ... of the lags below zero.
    """
    pid = tl.program_id(0).to(tl.int64)
    b, h = pid // H, pid % H
    s = _places(N1, N2)
    end = tl.minimum(K, L)
    if periods is not None:
        L = tl.load(periods + b)
        end = tl.minimum(end, L)
    taps = tl.load(_row(k, k_strides, b, h, s), mask=s < end, other=0.0).to(tl.float32)
    real, imag, size = _scaled_transform(taps, matrices, twiddles, N1, N2, C, PRECISION)
    real, imag = real * size, imag * size
    if CIRCULAR:
        before = tl.load(_row(k, k_strides, b, h, L - s), mask=(s > 0) & (s < L) & (L - s < K), other=0.0)
        real_b, imag_b, size = _scaled_transform(before.to(tl.float32), matrices, twiddles, N1, N2, C, PRECISION)
        real, imag = real + real_b * size, imag - imag_b * size
    elif reverse is not None:
        inside = (s > 0) & (s < L) & (s <= K_REVERSE)
        before = tl.load(_row(reverse, reverse_strides, b, h, s - 1), mask=inside, other=0.0)
        real_b, imag_b, size = _scaled_transform(before.to(tl.float32), matrices, twiddles, N1, N2, C, PRECISION)
        real, imag = real + real_b * size, imag - imag_b * size
    real, imag = real * scale, imag * scale
    if skip is not None:
        real += tl.load(skip + h).to(tl.float32)
    at = out + pid * (2 * N1 * N2) + s
    tl.store(at, real)
    tl.store(at + N1 * N2, imag)


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
    filter_sample: tl.tensor,
    lengths: tl.tensor,
    matrices: tl.tensor,
    twiddles: tl.tensor,
    B: tl.tensor,
    H: tl.tensor,
    L: tl.tensor,
    ADJOINT: tl.constexpr,
    N1: tl.constexpr,
    N2: tl.constexpr,
    C: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Y = y_gate c and other = other_gate c, where they are given: c is the convolution of gate u, or its adjoint."""
    pid = tl.program_id(0).to(tl.int64)
    b, h = pid % B, pid // B
    s = _places(N1, N2)
    end = L
    if lengths is not None:
        end = tl.minimum(tl.maximum(tl.load(lengths + b), 0), L)
    x = _gated(u, u_strides, gate, gate_strides, b, h, s, end)
    xr, xi, x_size = _scaled_transform(x, matrices, twiddles, N1, N2, C, PRECISION)
    at = filters + (b * filter_sample + h) * (2 * N1 * N2) + s
    kr, ki = tl.load(at), tl.load(at + N1 * N2)
    if tl.float16 == C:
        k_size = tl.maximum(_size(kr), _size(ki))
        kr, ki = kr / k_size, ki / k_size
        x_size *= k_size
    if ADJOINT:
        ki = -ki
    c = _inverse(xr * kr - xi * ki, xr * ki + xi * kr, matrices, twiddles, N1, N2, C, PRECISION) * x_size
    c = tl.where(s < end, c, 0.0)
    if y is not None:
        value = c
        if y_gate is not None:
            value = c * tl.load(_row(y_gate, y_gate_strides, b, h, s), mask=s < end, other=0.0).to(tl.float32)
        tl.store(_row(y, y_strides, b, h, s), value.to(y.dtype.element_ty), mask=s < L)
    if other is not None:
        value = c * tl.load(_row(other_gate, other_gate_strides, b, h, s), mask=s < end, other=0.0).to(tl.float32)
        tl.store(_row(other, other_strides, b, h, s), value.to(other.dtype.element_ty), mask=s < L)


@triton.jit
def correlate(
    sums: tl.tensor,
    totals: tl.tensor,
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
    N1: tl.constexpr,
    N2: tl.constexpr,
    C: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Add conj(T(u_gate u)) T(g_gate g) of every SPLITS-th sample to ``sums`` (splits, H, 2, n), zeros before.

    The sums of the products of both, those of lag zero, are (splits, H) in float64, where they are wanted.
    """
    pid = tl.program_id(0).to(tl.int64)
    h = pid % H
    s = _places(N1, N2)
    at = sums + pid * (2 * N1 * N2) + s
    total = tl.zeros((N1,), tl.float64)
    for b in range(pid // H, B, SPLITS):
        end = L
        if lengths is not None:
            end = tl.minimum(tl.maximum(tl.load(lengths + b), 0), L)
        x = _gated(u, u_strides, u_gate, u_gate_strides, b, h, s, end)
        xr, xi, x_size = _scaled_transform(x, matrices, twiddles, N1, N2, C, PRECISION)
        y = _gated(g, g_strides, g_gate, g_gate_strides, b, h, s, end)
        yr, yi, y_size = _scaled_transform(y, matrices, twiddles, N1, N2, C, PRECISION)
        if totals is not None:
            total += tl.sum(x.to(tl.float64) * y.to(tl.float64), 1)
        size = x_size * y_size
        tl.store(at, tl.load(at) + (xr * yr + xi * yi) * size)
        tl.store(at + N1 * N2, tl.load(at + N1 * N2) + (xr * yi - xi * yr) * size)
        tl.debug_barrier()
    if totals is not None:
        tl.store(totals + pid, tl.sum(total, 0))


@triton.jit
def taps(
    out: tl.tensor,
    sums: tl.tensor,
    matrices: tl.tensor,
    twiddles: tl.tensor,
    scale: tl.tensor,
    H: tl.tensor,
    K: tl.tensor,
    PARTS: tl.tensor,
    ANTICAUSAL: tl.constexpr,
    N1: tl.constexpr,
    N2: tl.constexpr,
    C: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Sums over lags 0 .. K - 1, or -1 .. -K, (samples or 1, H, K), from PARTS parts of a spectrum."""
    pid = tl.program_id(0).to(tl.int64)
    s = _places(N1, N2)
    real, imag = tl.zeros((N1, N2), tl.float32), tl.zeros((N1, N2), tl.float32)
    for part in range(PARTS):
        at = sums + ((pid // H * PARTS + part) * H + pid % H) * (2 * N1 * N2) + s
        real += tl.load(at)
        imag += tl.load(at + N1 * N2)
    if ANTICAUSAL:
        imag, s = -imag, s - 1
    if tl.float16 == C:
        size = tl.maximum(_size(real), _size(imag))
        real, imag = real / size, imag / size
        scale *= size
    lags = _inverse(real, imag, matrices, twiddles, N1, N2, C, PRECISION) * scale
    tl.store(out + pid * K + s, lags, mask=(s >= 0) & (s < K))

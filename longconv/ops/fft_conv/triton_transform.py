r"""Transforms of the Triton kernels of ``fft_conv``: two or three stages of products of matrices for a tile.

In the ring X^n - i, with w[s] = exp(i pi s / 2n), T(x) = FFT_n(x w), and the real part of T^-1(T(x) T(k)) / w is the
causal convolution of sequences of up to n samples: nothing is padded to 2n. With n = N1 M, s = s1 M + t, f = f1 + N1 g,

    T(x)[f1, g] = sum_t (sum_s1 x[s1, t] F1[f1, s1]) W[f1, t] G[t, g]
    F1[f1, s1] = exp(-2 pi i f1 s1 / N1) w[s1 M],   W[f1, t] = exp(-2 pi i f1 t / n) w[t],   G the DFT of size M

so that w costs nothing. Of order 2, G is one matrix, of size M = N2. Of order 3 it is taken in two stages, with
M = N2 N3, t = s2 N3 + s3, g = f2 + N2 f3, and F2, F3 the DFTs of sizes N2, N3:

    sum_s3 (sum_s2 a[s2, s3] F2[s2, f2]) V[s3, f2] F3[s3, f3],   V[s3, f2] = exp(-2 pi i f2 s3 / M)

and W is W[f1, s2 N3] W[f1, s3]: all twiddles are small tables, and no tile of them has to be held. Every DFT is
divided by the root of its size: transforms here are unitary. conj(T(k)) is correlation: lags below zero come back times
-i, and the real part is again exact. Operands of products are of type C.

Tiles are (N1, R, M), in the order of memory in time, [f1, f2, f3] in frequency. N3 = 1 is order 2.
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
def places(ROWS: tl.constexpr, COLUMNS: tl.constexpr) -> tl.tensor:
    """Of a matrix in memory, (ROWS, 1, COLUMNS)."""
    return tl.arange(0, ROWS)[:, None, None] * COLUMNS + tl.arange(0, COLUMNS)[None, None, :]


@triton.jit
def _exchanged(x: tl.tensor, ROWS: tl.constexpr, A: tl.constexpr, B: tl.constexpr) -> tl.tensor:
    """(ROWS, A, B) as (ROWS, B, A)."""
    return tl.permute(tl.reshape(x, (ROWS, A, B)), (0, 2, 1))


@triton.jit
def _times(
    xr: tl.tensor,
    xi: tl.tensor,
    matrix: tl.tensor,
    ROWS: tl.constexpr,
    SIZE: tl.constexpr,
    STEP: tl.constexpr,
    INVERSE: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """The rows of x times a DFT's matrix, or its conjugate, (ROWS, SIZE)."""
    fr, fi = _matrix(matrix, SIZE, STEP)
    if INVERSE:
        fi = -fi
    xr, xi = tl.reshape(xr, (ROWS, SIZE)), tl.reshape(xi, (ROWS, SIZE))
    real = tl.dot(xr, fr, input_precision=PRECISION)
    imag = tl.dot(xr, fi, input_precision=PRECISION)
    real = tl.dot(-xi, fi, real, input_precision=PRECISION)
    return real, tl.dot(xi, fr, imag, input_precision=PRECISION)


@triton.jit
def _turned(
    xr: tl.tensor, xi: tl.tensor, table: tl.tensor, STEP: tl.constexpr, INVERSE: tl.constexpr, C: tl.constexpr
) -> tl.tensor:
    """The numbers x times those of a table, or their conjugates."""
    wr, wi = tl.load(table), tl.load(table + STEP)
    if INVERSE:
        wi = -wi
    return (xr * wr - xi * wi).to(C), (xr * wi + xi * wr).to(C)


@triton.jit
def _columns(x: tl.tensor, N1: tl.constexpr, R: tl.constexpr, N2: tl.constexpr, N3: tl.constexpr) -> tl.tensor:
    """A tile in the order of memory as the operand of the first product, (N1, R M)."""
    if N3 > 1:
        x = _exchanged(x, N1 * R, N2, N3)
    return tl.reshape(x, (N1, R * N2 * N3))


@triton.jit
def transform(
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
    """The unitary T of a tile x, real where z is None, else x + i z."""
    M: tl.constexpr = N2 * N3
    STEP: tl.constexpr = 2 * N1 * N1 + N2 * N2 + N3 * N3
    fr, fi = _matrix(matrices, N1, STEP)
    x = _columns(x.to(C), N1, R, N2, N3)
    ar, ai = tl.dot(fr, x, input_precision=PRECISION), tl.dot(fi, x, input_precision=PRECISION)
    if z is not None:
        z = _columns(z.to(C), N1, R, N2, N3)
        ar, ai = tl.dot(fi, -z, ar, input_precision=PRECISION), tl.dot(fr, z, ai, input_precision=PRECISION)
    ar, ai = tl.reshape(ar, (N1 * R, N3, N2)), tl.reshape(ai, (N1 * R, N3, N2))
    f1, two = tl.arange(0, N1 * R)[:, None, None] // R, tl.arange(0, N2)[None, None, :]
    if N3 > 1:
        three = tl.arange(0, N3)[None, :, None]
        ar, ai = _turned(ar, ai, twiddles + 2 * N1 * N2 + f1 * N3 + three, N1 * N3, False, tl.float32)
    br, bi = _turned(ar, ai, twiddles + f1 * N2 + two, N1 * N2, False, C)
    br, bi = _times(br, bi, matrices + 2 * N1 * N1, N1 * R * N3, N2, STEP, False, PRECISION)
    if N3 > 1:
        br, bi = tl.reshape(br, (N1 * R, N3, N2)), tl.reshape(bi, (N1 * R, N3, N2))
        br, bi = _turned(br, bi, twiddles + 2 * N1 * (N2 + N3) + three * N2 + two, M, False, C)
        br, bi = _exchanged(br, N1 * R, N3, N2), _exchanged(bi, N1 * R, N3, N2)
        br, bi = _times(br, bi, matrices + 2 * N1 * N1 + N2 * N2, N1 * R * N2, N3, STEP, False, PRECISION)
    return tl.reshape(br, (N1, R, M)), tl.reshape(bi, (N1, R, M))


@triton.jit
def inverse(
    real: tl.tensor,
    imag: tl.tensor,
    matrices: tl.tensor,
    twiddles: tl.tensor,
    R: tl.constexpr,
    N1: tl.constexpr,
    N2: tl.constexpr,
    N3: tl.constexpr,
    C: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """The real part of the unitary inverse."""
    M: tl.constexpr = N2 * N3
    STEP: tl.constexpr = 2 * N1 * N1 + N2 * N2 + N3 * N3
    br, bi = real.to(C), imag.to(C)
    if N3 > 1:
        br, bi = _times(br, bi, matrices + 2 * N1 * N1 + N2 * N2, N1 * R * N2, N3, STEP, True, PRECISION)
        br, bi = tl.reshape(br, (N1 * R, N2, N3)), tl.reshape(bi, (N1 * R, N2, N3))
        f2, s3 = tl.arange(0, N2)[None, :, None], tl.arange(0, N3)[None, None, :]
        br, bi = _turned(br, bi, twiddles + 2 * N1 * (N2 + N3) + s3 * N2 + f2, M, True, C)
        br, bi = _exchanged(br, N1 * R, N2, N3), _exchanged(bi, N1 * R, N2, N3)
    br, bi = _times(br, bi, matrices + 2 * N1 * N1, N1 * R * N3, N2, STEP, True, PRECISION)
    br, bi = tl.reshape(br, (N1 * R, N3, N2)), tl.reshape(bi, (N1 * R, N3, N2))
    f1, two = tl.arange(0, N1 * R)[:, None, None] // R, tl.arange(0, N2)[None, None, :]
    if N3 > 1:
        three = tl.arange(0, N3)[None, :, None]
        br, bi = _turned(br, bi, twiddles + 2 * N1 * N2 + f1 * N3 + three, N1 * N3, True, tl.float32)
    br, bi = _turned(br, bi, twiddles + f1 * N2 + two, N1 * N2, True, C)
    br, bi = tl.reshape(br, (N1, R * M)), tl.reshape(bi, (N1, R * M))
    fr, fi = _matrix(matrices + N1 * N1, N1, STEP)
    z = tl.dot(fr, br, input_precision=PRECISION)
    z = tl.dot(fi, -bi, z, input_precision=PRECISION)
    if N3 > 1:
        z = _exchanged(z, N1 * R, N3, N2)
    return tl.reshape(z, (N1, R, M))

"""Triton kernels of ``short_conv``: products and sums in registers, for tiles of channels and times.

Taps are in the precision of the arithmetic. A program's number counts tiles of time first, then of channels, then
samples; all places in memory are 64-bit numbers.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _tanh(z: tl.tensor) -> tl.tensor:
    """By exponentials, and near 0, where those cancel, by a Padé approximant."""
    s = z * z
    near = z * (10395 + s * (1260 + s * 21)) / (10395 + s * (4725 + s * (210 + s)))
    e = tl.exp(-2 * tl.abs(z))
    far = (1 - e) / (1 + e)
    return tl.where(tl.abs(z) < 0.5, near, tl.where(z < 0, -far, far))


@triton.jit
def _activate(z: tl.tensor, ACTIVATION: tl.constexpr) -> tl.tensor:
    if ACTIVATION == "silu":
        return z * tl.sigmoid(z)
    elif ACTIVATION == "gelu":
        return 0.5 * z * (1 + tl.erf(z * 0.7071067811865476))
    elif ACTIVATION == "relu":
        return tl.where(z < 0, 0.0, z)
    elif ACTIVATION == "tanh":
        return _tanh(z)
    elif ACTIVATION == "sigmoid":
        return tl.sigmoid(z)
    else:
        return z


@triton.jit
def _slope(z: tl.tensor, ACTIVATION: tl.constexpr) -> tl.tensor:
    """The derivative of the activation at z."""
    if ACTIVATION == "silu":
        s = tl.sigmoid(z)
        return s * (1 + z * (1 - s))
    elif ACTIVATION == "gelu":
        return 0.5 * (1 + tl.erf(z * 0.7071067811865476)) + z * tl.exp(-0.5 * z * z) * 0.3989422804014327
    elif ACTIVATION == "relu":
        return tl.where(z > 0, 1.0, 0.0)
    elif ACTIVATION == "tanh":
        e = tl.exp(-2 * tl.abs(z))
        return 4 * e / ((1 + e) * (1 + e))
    else:
        s = tl.sigmoid(z)
        return s * (1 - s)


@triton.jit
def _tile(H: tl.tensor, L: tl.tensor, BH: tl.constexpr, BT: tl.constexpr) -> tl.tensor:
    """This program's sample, channels (BH, 1) and times (1, BT)."""
    pid = tl.program_id(0).to(tl.int64)
    tiles_t, tiles_h = tl.cdiv(L, BT), tl.cdiv(H, BH)
    t = (pid % tiles_t) * BT + tl.arange(0, BT)
    h = (pid // tiles_t % tiles_h) * BH + tl.arange(0, BH)
    return pid // (tiles_t * tiles_h), h[:, None], t[None, :]


@triton.jit
def _at(x: tl.tensor, strides: tl.tuple, b: tl.tensor, h: tl.tensor, t: tl.tensor) -> tl.tensor:
    """Places in a tensor (B, H, L)."""
    return x + (b * strides[0] + h * strides[1] + t * strides[2])


@triton.jit
def _sample(
    u: tl.tensor,
    u_strides: tl.tuple,
    past: tl.tensor,
    past_strides: tl.tensor,
    b: tl.tensor,
    h: tl.tensor,
    s: tl.tensor,
    valid: tl.tensor,
    K: tl.tensor,
    W: tl.constexpr,
) -> tl.tensor:
    """Samples at the times s >= 1 - K; those below 0 from ``past``, or 0."""
    x = tl.load(_at(u, u_strides, b, h, s), mask=valid & (s >= 0), other=0.0).to(W)
    if past is not None:
        x += tl.load(_at(past, past_strides, b, h, s + (K - 1)), mask=valid & (s < 0), other=0.0).to(W)
    return x


@triton.jit
def convolve(
    y: tl.tensor,
    y_strides: tl.tuple,
    dy: tl.tensor,
    dy_strides: tl.tuple,
    u: tl.tensor,
    u_strides: tl.tuple,
    past: tl.tensor,
    past_strides: tl.tuple,
    w: tl.tensor,
    bias: tl.tensor,
    H: tl.tensor,
    L: tl.tensor,
    K: tl.tensor,
    ACTIVATION: tl.constexpr,
    W: tl.constexpr,
    BH: tl.constexpr,
    BT: tl.constexpr,
) -> None:
    """Write y = activation(z), z = bias + sum_k w[k] u[t - (K - 1) + k]; where dy is given, y = dy activation'(z)."""
    b, h, t = _tile(H, L, BH, BT)
    rows = h < H
    valid = rows & (t < L)
    z = tl.zeros((BH, BT), W)
    if bias is not None:
        z += tl.load(bias + h, mask=rows, other=0.0)
    for k in range(K):
        tap = tl.load(w + h * K + k, mask=rows, other=0.0)
        z += tap * _sample(u, u_strides, past, past_strides, b, h, t + (k - (K - 1)), valid, K, W)
    if dy is None:
        z = _activate(z, ACTIVATION)
    else:
        z = tl.load(_at(dy, dy_strides, b, h, t), mask=valid, other=0.0).to(W) * _slope(z, ACTIVATION)
    tl.store(_at(y, y_strides, b, h, t), z.to(y.dtype.element_ty), mask=valid)


@triton.jit
def correlate(
    dz: tl.tensor,
    dz_strides: tl.tuple,
    du: tl.tensor,
    du_strides: tl.tuple,
    dpast: tl.tensor,
    dpast_strides: tl.tuple,
    w: tl.tensor,
    H: tl.tensor,
    L: tl.tensor,
    K: tl.tensor,
    W: tl.constexpr,
    BH: tl.constexpr,
    BT: tl.constexpr,
) -> None:
    """dx[s] = sum_k w[k] dz[s + K - 1 - k], at s >= 0 into ``du``, below into ``dpast``, where they are given."""
    b, h, t = _tile(H, L + K - 1, BH, BT)
    rows, s = h < H, t - (K - 1)
    dx = tl.zeros((BH, BT), W)
    for k in range(K):
        tap, r = tl.load(w + h * K + k, mask=rows, other=0.0), t - k
        dx += tap * tl.load(_at(dz, dz_strides, b, h, r), mask=rows & (r >= 0) & (r < L), other=0.0).to(W)
    if du is not None:
        tl.store(_at(du, du_strides, b, h, s), dx.to(du.dtype.element_ty), mask=rows & (s >= 0) & (s < L))
    if dpast is not None:
        tl.store(_at(dpast, dpast_strides, b, h, t), dx.to(dpast.dtype.element_ty), mask=rows & (s < 0))


@triton.jit
def sums(
    dw: tl.tensor,
    dbias: tl.tensor,
    dz: tl.tensor,
    dz_strides: tl.tuple,
    u: tl.tensor,
    u_strides: tl.tuple,
    past: tl.tensor,
    past_strides: tl.tuple,
    B: tl.tensor,
    H: tl.tensor,
    L: tl.tensor,
    K: tl.tensor,
    SPLITS: tl.tensor,
    W: tl.constexpr,
    BH: tl.constexpr,
    BK: tl.constexpr,
    BT: tl.constexpr,
) -> None:
    """Partial sums of dz x, (splits, H, K), and of dz, (splits, H): each takes every SPLITS-th tile of times."""
    pid = tl.program_id(0).to(tl.int64)
    split, tiles, tiles_k = pid % SPLITS, tl.cdiv(L, BT), tl.cdiv(K, BK)
    h = (pid // (SPLITS * tiles_k) * BH + tl.arange(0, BH))[:, None]
    first = pid // SPLITS % tiles_k * BK
    k = first + tl.arange(0, BK)
    rows, taps = h < H, k[None, :] < K
    dw_sum, dbias_sum = tl.zeros((BH, BK), W), tl.zeros((BH,), W)
    for i in range(split, B * tiles, SPLITS):
        b, t = i // tiles, ((i % tiles) * BT + tl.arange(0, BT))[None, :]
        g = tl.load(_at(dz, dz_strides, b, h, t), mask=rows & (t < L), other=0.0).to(W)
        dbias_sum += tl.sum(g, 1)
        s = t[:, None, :] + (k[None, :, None] - (K - 1))
        valid = rows[:, None, :] & taps[:, :, None] & (t < L)[:, None, :]
        x = _sample(u, u_strides, past, past_strides, b, h[:, None, :], s, valid, K, W)
        dw_sum += tl.sum(g[:, None, :] * x, 2)
    tl.store(dw + (split * H + h) * K + k[None, :], dw_sum, mask=rows & taps)
    tl.store(dbias + split * H + h, dbias_sum[:, None], mask=h < tl.where(first == 0, H, 0))

"""``vandermonde_log`` by blocks: with l = q T + r, x^l = (x^T)^q x^r, and the sum over n is a matrix product.

    y[q, r] = sum_n (v[n] x[n]^(qT)) x[n]^r            (Q, N) times (N, T),  T about the square root of L

Only N (Q + T) powers are formed, each in double precision, and rounded once. The gradients need the products of the
cotangent g[q, r] with conj(x^r) and with r conj(x^r), again (Q, T) times (T, N); then

    dv[n]     = sum_q conj(x^(qT)) M1[q, n]                      M1 = g conj(x^r),   M2 = g r conj(x^r)
    dlog_x[n] = conj(v[n]) sum_q conj(x^(qT)) (qT M1 + M2)[q, n]

Where only the real part is wanted, or g is real, complex products are real ones on stacked real and imaginary parts.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from longconv.ops._library import reduce_like
from longconv.ops.vandermonde.reference import exponents, powers, result_dtype


def _block(length: int) -> int:
    """T: the power of two at or above the square root of L."""
    return 1 << max(0, math.ceil(math.log2(max(length, 1)) / 2))


def _complex_matmul(a: Tensor, b: Tensor) -> Tensor:
    """The matrix product a b of a real with a complex one as one real product, or of two of a kind."""
    if a.is_complex() == b.is_complex():
        return a @ b
    if a.is_complex():
        raise AssertionError("only the second factor may be complex alone")
    return torch.view_as_complex((a @ torch.view_as_real(b).flatten(-2)).unflatten(-1, (-1, 2)))


def forward(v: Tensor, log_x: Tensor, length: int, real: bool) -> Tensor:
    """The sum over n as a product of the coarse powers, weighted by v, with the fine powers."""
    dtype = result_dtype(v, log_x, real)
    block = _block(length)
    count = -(-length // block)
    working = dtype if not real or not (v.is_complex() or log_x.is_complex()) else dtype.to_complex()
    coarse = (v[..., None] * powers(log_x, exponents(count, v, block))).mT.to(working)  # (..., Q, N)
    fine = powers(log_x, exponents(block, v)).to(working if log_x.is_complex() else working.to_real())  # (..., N, T)
    if real and coarse.is_complex():
        fine = fine if fine.is_complex() else fine.to(working)
        coarse = torch.cat((coarse.real, -coarse.imag), -1)
        fine = torch.cat((fine.real, fine.imag), -2)
    y = coarse @ fine.to(coarse.dtype)
    return y.flatten(-2)[..., :length].contiguous()


def backward(g: Tensor, v: Tensor, log_x: Tensor, real: bool) -> list[Tensor]:
    """The gradients to v and to log_x."""
    length = int(g.shape[-1])
    block = _block(length)
    count = -(-length // block)
    g = torch.nn.functional.pad(g, (0, count * block - length)).unflatten(-1, (count, block))
    fine_exponents, coarse_exponents = exponents(block, v), exponents(count, v, block)
    working = g.dtype.to_complex() if log_x.is_complex() else g.dtype
    coarse = powers(log_x, coarse_exponents).conj_physical().mT.to(working)  # (..., Q, N)
    fine = powers(log_x, fine_exponents).conj_physical().mT  # (..., T, N)
    first = _complex_matmul(g, fine.to(working))
    second = _complex_matmul(g, (fine * fine_exponents[:, None]).to(working))
    dv = (coarse * first).sum(-2)
    scaled = coarse_exponents[:, None].to(g.dtype.to_real() if g.is_complex() else g.dtype)
    dlog_x = v.conj_physical() * (coarse * (scaled * first + second)).sum(-2)
    return [reduce_like(dv, v), reduce_like(dlog_x, log_x)]

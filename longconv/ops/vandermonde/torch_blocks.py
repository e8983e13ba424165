"""Vandermonde products by blocks: with l = q T + r, x^l = (x^T)^q x^r, and the sum over n is a matrix product.

    y[q, r] = sum_n (v[n] x[n]^(qT)) x[n]^r            (Q, N) times (N, T),  T about the square root of L

Only N (Q + T) powers are formed, each in double precision, and rounded once. The gradients need the products of the
cotangent g[q, r] with conj(x^r) and with the slopes conj(d/dx x^r), again (Q, T) times (T, N); then

    dv[n] = sum_q conj(x^(qT)) M1[q, n]                         M1 = g conj(x^r),   M2 = g conj(d/dx x^r)
    dx[n] = conj(v[n]) sum_q (conj(d/dx x^(qT)) M1 + conj(x^(qT)) M2)[q, n]

where for nodes that are given by their logarithms d/dx is that with respect to the logarithm. Where only the real part
is wanted, or g is real, complex products are real ones on stacked real and imaginary parts.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from longconv.ops._library import conjugate, reduce_like, square_blocks
from longconv.ops.vandermonde.reference import LOGARITHMS, Powers, exponents, result_dtype, widen

__all__ = ["LOGARITHMS", "NODES", "backward", "forward"]


def _squares(x: Tensor, step: int) -> list[Tensor]:
    """x, x^2, x^4, ..., x^step for a step that is a power of two."""
    squares = [widen(x)]
    for _ in range(step.bit_length() - 1):
        squares.append(squares[-1] * squares[-1])
    return squares


def _doubled(x: Tensor, count: int, step: int) -> Tensor:
    """Powers 0, step, ..., (count - 1) step of the nodes, twice as many with every product."""
    base = _squares(x, step)[-1][..., None]
    powers = torch.ones_like(base)
    while powers.shape[-1] < count:
        powers, base = torch.cat((powers, powers * base), -1), base * base
    return powers[..., :count]


def _doubled_slopes(x: Tensor, powers: Tensor, step: int) -> Tensor:
    """E x^(E - 1) for E = e step: from the power before it and x^(step - 1), so that nothing is divided by x."""
    rest = math.prod(_squares(x, step)[:-1], start=torch.ones_like(powers[..., 0]))
    slopes = powers[..., :-1] * rest[..., None]
    slopes = slopes * exponents(powers.shape[-1], powers, step)[1:]
    return torch.cat((torch.zeros_like(powers[..., :1]), slopes), -1)


NODES = Powers(_doubled, _doubled_slopes)
"""Powers of the nodes as they are, zeros and negative numbers included, by repeated squaring."""


def _complex_matmul(a: Tensor, b: Tensor) -> Tensor:
    """The matrix product a b of a real with a complex one as one real product, or of two of a kind."""
    if a.is_complex() == b.is_complex():
        return a @ b
    if a.is_complex():
        raise AssertionError("only the second factor may be complex alone")
    return torch.view_as_complex((a @ torch.view_as_real(b).flatten(-2)).unflatten(-1, (-1, 2)))


def forward(powers: Powers, v: Tensor, x: Tensor, length: int, real: bool) -> Tensor:
    """The sum over n as a product of the coarse powers, weighted by v, with the fine powers."""
    dtype = result_dtype(v, x, real)
    block, count = square_blocks(length)
    working = dtype if not real or not (v.is_complex() or x.is_complex()) else dtype.to_complex()
    coarse = (v[..., None] * powers.form(x, count, block)).mT.to(working)  # (..., Q, N)
    fine = powers.form(x, block, 1).to(working if x.is_complex() else working.to_real())  # (..., N, T)
    if real and coarse.is_complex():
        fine = fine if fine.is_complex() else fine.to(working)
        coarse = torch.cat((coarse.real, -coarse.imag), -1)
        fine = torch.cat((fine.real, fine.imag), -2)
    y = coarse @ fine.to(coarse.dtype)
    return y.flatten(-2)[..., :length].contiguous()


def backward(powers: Powers, g: Tensor, v: Tensor, x: Tensor, real: bool) -> list[Tensor]:
    """The gradients to v and to x."""
    length = int(g.shape[-1])
    block, count = square_blocks(length)
    rest = count * block - length
    g = (torch.nn.functional.pad(g, (0, rest)) if rest else g).unflatten(-1, (count, block))
    working = g.dtype.to_complex() if x.is_complex() else g.dtype

    def turned(table: Tensor) -> Tensor:
        return conjugate(table.mT.to(working))

    table = powers.form(x, block, 1)
    first, slopes = _complex_matmul(g, turned(table)), turned(powers.slopes(x, table, 1))
    second = _complex_matmul(g, slopes)
    table = powers.form(x, count, block)
    coarse = turned(table)  # (..., Q, N)
    dv = (coarse * first).sum(-2)
    dx = conjugate(v) * (turned(powers.slopes(x, table, block)) * first + coarse * second).sum(-2)
    return [reduce_like(dv, v), reduce_like(dx, x)]

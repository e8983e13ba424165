"""The definition of ``cauchy``, with the (..., N, L) tensor written out in double precision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from longconv.ops._library import reduce_like


def resolvent(z: Tensor, w: Tensor) -> Tensor:
    """1 / (z[..., l] - w[..., n]), (..., N, L), in double precision."""
    dtype = torch.complex128 if z.is_complex() or w.is_complex() else torch.float64
    return (z.to(dtype)[..., None, :] - w.to(dtype)[..., None]).reciprocal()


def result_dtype(v: Tensor, z: Tensor, w: Tensor) -> torch.dtype:
    """The dtype of y: v's precision, complex if an input is."""
    precision = v.dtype.to_real() if v.is_complex() else v.dtype
    return precision.to_complex() if any(t.is_complex() for t in (v, z, w)) else precision


def forward(v: Tensor, z: Tensor, w: Tensor) -> Tensor:
    """The sum over n as it stands."""
    return (v[..., None] * resolvent(z, w)).sum(-2).to(result_dtype(v, z, w))


def backward(g: Tensor, v: Tensor, z: Tensor, w: Tensor, wanted: Sequence[bool]) -> list[Tensor]:
    """The wanted ones of the gradients to v, z and w. With q = 1 / (z - w), dq/dw = q^2 = -dq/dz:

    dv[n] = sum_l g[l] conj(q[n, l]),   dw[n] = conj(v[n]) sum_l g[l] conj(q[n, l])^2,
    dz[l] = -g[l] sum_n conj(v[n] q[n, l]^2)
    """
    q = resolvent(z, w).conj_physical()
    g, v_conj = g[..., None, :], v.conj_physical()[..., None]
    slope = v_conj * g * q.square()
    grads = ((g * q).sum(-1), -slope.sum(-2), slope.sum(-1))
    return [reduce_like(grad, t) for grad, t, want in zip(grads, (v, z, w), wanted, strict=True) if want]

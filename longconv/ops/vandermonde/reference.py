"""The definition of ``vandermonde_log``, with the (..., N, L) tensor written out in double precision."""

from __future__ import annotations

import torch
from torch import Tensor

from longconv.ops._library import reduce_like


def powers(log_x: Tensor, exponents: Tensor) -> Tensor:
    """exp(e log_x[..., n]) for real exponents e, (..., N, E), in double precision."""
    wide = log_x.to(torch.complex128 if log_x.is_complex() else torch.float64)
    return torch.exp(wide[..., None] * exponents)


def exponents(count: int, like: Tensor, step: int = 1) -> Tensor:
    """0, step, 2 step, ... in double precision on the device of ``like``."""
    return torch.arange(count, dtype=torch.float64, device=like.device) * step


def result_dtype(v: Tensor, log_x: Tensor, real: bool) -> torch.dtype:
    """The dtype of y: v's precision, complex if an input is and not ``real``."""
    precision = v.dtype.to_real() if v.is_complex() else v.dtype
    return precision.to_complex() if (v.is_complex() or log_x.is_complex()) and not real else precision


def forward(v: Tensor, log_x: Tensor, length: int, real: bool) -> Tensor:
    """The sum over n as it stands."""
    y = (v[..., None] * powers(log_x, exponents(length, v))).sum(-2)
    y = y.real if real and y.is_complex() else y
    return y.to(result_dtype(v, log_x, real))


def backward(g: Tensor, v: Tensor, log_x: Tensor, real: bool) -> list[Tensor]:
    """The gradients to v and to log_x: sum_l g[l] conj(x^l) and conj(v) sum_l g[l] l conj(x^l)."""
    l = exponents(g.shape[-1], v)
    x = powers(log_x, l).conj_physical()
    dv = (g[..., None, :] * x).sum(-1)
    dlog_x = v.conj_physical() * (g[..., None, :] * l * x).sum(-1)
    return [reduce_like(dv, v), reduce_like(dlog_x, log_x)]

"""Backends ``keops`` of ``vandermonde_log`` and ``vandermonde``: sums of exponentials.

They are formed in complex128 whatever the dtypes: in single precision the phase l log_x would be wrong by l rounding
errors. Nodes that are given themselves go by their logarithms; one of 0 becomes 1e-300, whose powers from the second on
are 0, and whose slope is exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

from longconv.ops._keops import complex_sum, pairs
from longconv.ops._library import reduce_like
from longconv.ops.vandermonde.reference import exponents, result_dtype

_POWER = "ComplexExp(l*x)"
_BACK = f"ComplexMult(g,Conj({_POWER}))"


def forward(v: Tensor, log_x: Tensor, length: int, real: bool) -> Tensor:
    """The sum over n of v exp(l log_x)."""
    dtype = result_dtype(v, log_x, real)
    coefficients, logarithms = _variables(v, log_x)
    steps = _steps(length, coefficients)
    y = complex_sum("vandermonde", f"ComplexMult(v,{_POWER})", {"v": coefficients, "x": logarithms}, {"l": steps})
    y = y.reshape(*torch.broadcast_shapes(v.shape[:-1], log_x.shape[:-1]), length)
    return (y if dtype.is_complex else y.real).to(dtype).contiguous()


def backward(g: Tensor, v: Tensor, log_x: Tensor, real: bool) -> list[Tensor]:
    """The gradients to v and to log_x."""
    dv, dlog_x = _wide_gradients(g, v, log_x)
    return [reduce_like(dv, v), reduce_like(dlog_x, log_x)]


def forward_nodes(v: Tensor, x: Tensor, length: int, real: bool) -> Tensor:
    """The sum over n of v x^l."""
    return forward(v, _not_zero(x).log(), length, real or not (v.is_complex() or x.is_complex()))


def backward_nodes(g: Tensor, v: Tensor, x: Tensor, real: bool) -> list[Tensor]:
    """The gradients to v and to x."""
    x_wide = _not_zero(x)
    dv, dlog_x = _wide_gradients(g, v, x_wide.log())
    return [reduce_like(dv, v), reduce_like(dlog_x / x_wide.conj_physical(), x)]


def _wide_gradients(g: Tensor, v: Tensor, log_x: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients to v and to log_x (..., N) in complex128, before sums over broadcast axes."""
    lead = torch.broadcast_shapes(v.shape[:-1], log_x.shape[:-1])
    coefficients, logarithms = _variables(v, log_x)
    cotangents = pairs(g if g.ndim > 1 else g[None], torch.float64)
    steps = _steps(g.shape[-1], coefficients)
    formula = f"Concat({_BACK},l*{_BACK})"
    sums = complex_sum("vandermonde", formula, {"g": cotangents, "l": steps}, {"x": logarithms})
    slopes = torch.view_as_complex(coefficients).conj_physical() * sums[..., 1]
    return sums[..., 0].reshape(*lead, -1), slopes.reshape(*lead, -1)


def _variables(v: Tensor, log_x: Tensor) -> tuple[Tensor, Tensor]:
    """Both as pairs of one rank with at least one leading axis, (..., N, 2)."""
    rank = max(v.ndim, log_x.ndim, 2)
    aligned = [t.reshape(*(1,) * (rank - t.ndim), *t.shape) for t in (v, log_x)]
    coefficients, logarithms = (pairs(t, torch.float64) for t in aligned)
    return coefficients, logarithms


def _steps(length: int, like: Tensor) -> Tensor:
    """The exponents, (1, ..., L, 1), with the rank of ``like``."""
    return exponents(length, like).reshape(*(1,) * (like.ndim - 2), length, 1)


def _not_zero(x: Tensor) -> Tensor:
    return torch.where(x == 0, 1e-300, x.to(torch.complex128))

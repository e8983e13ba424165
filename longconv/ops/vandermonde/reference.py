"""The definition of ``vandermonde`` and ``vandermonde_log``, with the (..., N, L) tensor in double precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from longconv.ops._library import reduce_like


@dataclass(frozen=True)
class Powers:
    """How powers are formed from the argument that tells the nodes: the nodes themselves, or their logarithms.

    Attributes:
        form: ``(x, count, step) -> (..., N, count)``: powers 0, step, 2 step, ... in double precision.
        slopes: ``(x, powers, step)``: their derivatives with respect to x.
    """

    form: Callable[[Tensor, int, int], Tensor]
    slopes: Callable[[Tensor, Tensor, int], Tensor]


def widen(x: Tensor) -> Tensor:
    """The tensor in double precision."""
    return x.to(torch.complex128 if x.is_complex() else torch.float64)


def exponents(count: int, like: Tensor, step: int = 1) -> Tensor:
    """0, step, 2 step, ... in double precision on the device of ``like``."""
    return torch.arange(count, dtype=torch.float64, device=like.device) * step


def log_slopes(log_x: Tensor, powers: Tensor, step: int) -> Tensor:
    """d/d log_x x^e = e x^e."""
    return powers * exponents(powers.shape[-1], powers, step)


def _products(x: Tensor, count: int, step: int) -> Tensor:
    first, base = torch.ones_like(x)[..., None], x[..., None] ** step
    return widen(torch.cat((first, base.expand(*x.shape, count - 1)), -1)).cumprod(-1)


def _product_slopes(x: Tensor, powers: Tensor, step: int) -> Tensor:
    lower = torch.cat((torch.zeros_like(powers[..., :1]), powers[..., :-1]), -1)
    return exponents(powers.shape[-1], powers, step) * lower * widen(x)[..., None] ** (step - 1)


def _exponentials(log_x: Tensor, count: int, step: int) -> Tensor:
    log_x = widen(log_x)
    real = log_x.real.clamp(min=LOG_ZERO)
    finite = torch.complex(real, log_x.imag) if log_x.is_complex() else real
    return torch.exp(finite[..., None] * exponents(count, log_x, step))


LOG_ZERO = -1e9
"""The real part that stands for -inf, the logarithm of a node 0: its exp is 0, and its product with 0 is a number."""

LOGARITHMS = Powers(_exponentials, log_slopes)
"""Powers of nodes that are given by their logarithms."""

NODES = Powers(_products, _product_slopes)
"""Powers of the nodes as they are, one product after the other."""


def result_dtype(v: Tensor, x: Tensor, real: bool) -> torch.dtype:
    """The dtype of y: v's precision, complex if an input is and not ``real``."""
    precision = v.dtype.to_real() if v.is_complex() else v.dtype
    return precision.to_complex() if (v.is_complex() or x.is_complex()) and not real else precision


def forward(powers: Powers, v: Tensor, x: Tensor, length: int, real: bool) -> Tensor:
    """The sum over n as it stands."""
    y = (v[..., None] * powers.form(x, length, 1)).sum(-2)
    y = y.real if real and y.is_complex() else y
    return y.to(result_dtype(v, x, real))


def backward(powers: Powers, g: Tensor, v: Tensor, x: Tensor, real: bool) -> list[Tensor]:
    """The gradients to v and to x: sum_l g[l] conj(x^l) and conj(v) sum_l g[l] conj(d/dx x^l)."""
    table = powers.form(x, g.shape[-1], 1)
    g = g[..., None, :]
    dv = (g * table.conj_physical()).sum(-1)
    dx = v.conj_physical() * (g * powers.slopes(x, table, 1).conj_physical()).sum(-1)
    return [reduce_like(dv, v), reduce_like(dx, x)]

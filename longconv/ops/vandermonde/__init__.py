"""Sums of powers (Vandermonde products): the public function, its operator, its definition and its backends."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from longconv._checks import COMPLEX, broadcast_shapes, check_choice, check_device, check_int, check_tensor, describe
from longconv.ops.vandermonde.operator import LOGARITHMS, NODES, VandermondeOperator

__all__ = ["vandermonde", "vandermonde_log"]

_DTYPES = (torch.float64, torch.float32, *COMPLEX)
_RANKS = range(1, 9)


def vandermonde(v: Tensor, x: Tensor, length: int, *, real: bool = False, backend: str = "auto") -> Tensor:
    r"""Product with a Vandermonde matrix.

        y[..., l] = sum_n v[..., n] x[..., n]^l,    0 <= l < length,    0^0 = 1

    Powers are formed in double precision whatever the dtypes, by repeated squaring: nodes may be 0 or negative. The
    (..., N, length) tensor is never formed. Where the logarithms of the nodes are known, :func:`vandermonde_log` keeps
    what rounding exp(log_x) would lose.

    Args:
        v: coefficients (..., N), real or complex.
        x: nodes (..., N), real or complex; broadcasts with v over the leading axes. May be of higher precision than v.
        length: number of powers L >= 0.
        real: return the real part alone, for half the work.
        backend: ``"auto"``, or one of the names that ``longconv.info()`` prints.

    Returns:
        y (..., L) in v's precision; real if ``real`` or if both inputs are. Both inputs have gradients, and the
        gradients have gradients. Nothing is doubled: conjugate pairs are the caller's.

    Raises:
        TypeError: an argument is not a tensor, has a wrong dtype, or ``length`` is not an integer.
        ValueError: shapes that don't broadcast, different N or devices, a negative length, or a backend that can't
            serve the call.

    References:
        A. Gu, A. Gupta, K. Goel, C. Ré, "On the Parameterization and Initialization of Diagonal State Space Models",
        arXiv:2206.11893.

    >>> vandermonde(torch.tensor([1.0, 1.0]), torch.tensor([0.5, -1.0]), 4)
    tensor([ 2.0000, -0.5000,  1.2500, -0.8750])
    """
    y: Tensor = NODES.call.checked(_check_nodes, v, x, length, real, backend)
    return y


def vandermonde_log(v: Tensor, log_x: Tensor, length: int, *, real: bool = False, backend: str = "auto") -> Tensor:
    r"""Product with a Vandermonde matrix whose nodes are given by their logarithms.

        y[..., l] = sum_n v[..., n] exp(l log_x[..., n]),    0 <= l < length

    The filter of a diagonal state space is twice the real part of such a sum. Powers are formed in double precision
    whatever the dtypes, so that an error of log_x's own rounding is all that grows with l: pass a complex128 ``log_x``
    beside a complex64 ``v`` where that matters. The (..., N, length) tensor is never formed.

    Args:
        v: coefficients (..., N), real or complex.
        log_x: logarithms of the nodes (..., N), real or complex; broadcasts with v over the leading axes. May be of
            higher precision than v.
        length: number of powers L >= 0.
        real: return the real part alone, for half the work.
        backend: ``"auto"``, or one of the names that ``longconv.info()`` prints.

    Returns:
        y (..., L) in v's precision; real if ``real`` or if both inputs are. Both inputs have gradients, and the
        gradients have gradients. Nothing is doubled: conjugate pairs are the caller's.

    Raises:
        TypeError: an argument is not a tensor, has a wrong dtype, or ``length`` is not an integer.
        ValueError: shapes that don't broadcast, different N or devices, or a negative length.

    References:
        A. Gu, A. Gupta, K. Goel, C. Ré, "On the Parameterization and Initialization of Diagonal State Space Models",
        arXiv:2206.11893.

    >>> vandermonde_log(torch.tensor([1.0, 1.0]), torch.tensor([0.5, 0.25]).log(), 4)
    tensor([2.0000, 0.7500, 0.3125, 0.1406])
    """
    y: Tensor = LOGARITHMS.call.checked(_check_logarithms, v, log_x, length, real, backend)
    return y


def _check(
    operator: VandermondeOperator, name: str, v: Tensor, x: Tensor, length: int, real: bool, backend: str
) -> tuple[Any, ...]:
    check_tensor("v", v, "(..., N)", ndim=_RANKS, dtypes=_DTYPES)
    check_tensor(name, x, "(..., N)", ndim=_RANKS, dtypes=_DTYPES)
    check_int("length", length, least=0)
    check_choice("backend", backend, operator.backends.names())
    check_device(name, x, "v", v)
    if v.shape[-1] != x.shape[-1]:
        raise ValueError(f"{name} is {describe(x)}, expected the N = {v.shape[-1]} of v, {describe(v)}")
    try:
        if v.shape != x.shape:
            broadcast_shapes(v.shape[:-1], x.shape[:-1])
    except RuntimeError:
        raise ValueError(f"v is {describe(v)} and {name} is {describe(x)}: leading axes must broadcast") from None
    return v, x, length, real, backend


_check_nodes = functools.partial(_check, NODES, "x")
_check_logarithms = functools.partial(_check, LOGARITHMS, "log_x")

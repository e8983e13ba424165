"""Sums of simple poles (Cauchy products): the public function, its operator, its definition and its backends."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from longconv._checks import COMPLEX, broadcast_shapes, check_choice, check_device, check_tensor, describe
from longconv.ops.cauchy.operator import BACKENDS, OPERATOR

__all__ = ["cauchy"]

_DTYPES = (torch.float64, torch.float32, *COMPLEX)
_RANKS = range(1, 9)


def cauchy(v: Tensor, z: Tensor, w: Tensor, *, backend: str = "auto") -> Tensor:
    r"""Product with a Cauchy matrix: the value at the points z of the function with poles w and residues v.

        y[..., l] = sum_n v[..., n] / (z[l] - w[..., n])

    The generating function of a state space filter with a diagonal plus low-rank matrix is made of four such sums. The
    (..., N, L) tensor is never formed: memory is that of the inputs and the result, in the backward pass too. Axes
    along which w has size 1 share the poles, and their work: stack the residues of one set of poles in front.

    Args:
        v: residues (..., N), real or complex.
        z: points (L,), real or complex, none of them a pole (in single precision: at 1e-18 to 1e18 from all of them).
        w: poles (..., N), real or complex; broadcasts with v over the leading axes. z and w may be of higher precision
            than v: their difference is formed in it, then rounded, which keeps the points near a pole accurate.
        backend: ``"auto"``, or one of the names that ``longconv.info()`` prints.

    Returns:
        y (..., L) in v's precision; complex if an input is. Every argument has a gradient, and the gradients have
        gradients. Nothing is doubled: conjugate pairs are the caller's.

    Raises:
        TypeError: an argument is not a tensor or has a wrong dtype.
        ValueError: shapes that don't broadcast, different N or devices, or a backend that can't serve the call.

    References:
        A. Gu, K. Goel, C. Ré, "Efficiently Modeling Long Sequences with Structured State Spaces", arXiv:2111.00396.

    >>> cauchy(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0]), torch.tensor([-1.0, 3.0]))  # 1/(z+1) + 2/(z-3)
    tensor([ 0.3333, -0.5000])
    """
    y: Tensor = OPERATOR.call.checked(_check, v, z, w, backend)
    return y


def _check(v: Tensor, z: Tensor, w: Tensor, backend: str) -> tuple[Any, ...]:
    check_tensor("v", v, "(..., N)", ndim=_RANKS, dtypes=_DTYPES)
    check_tensor("z", z, "(L,)", ndim=1, dtypes=_DTYPES)
    check_tensor("w", w, "(..., N)", ndim=_RANKS, dtypes=_DTYPES)
    check_choice("backend", backend, BACKENDS.names())
    check_device("z", z, "v", v)
    check_device("w", w, "v", v)
    if v.shape[-1] != w.shape[-1]:
        raise ValueError(f"w is {describe(w)}, expected the N = {v.shape[-1]} of v, {describe(v)}")
    try:
        if v.shape != w.shape:
            broadcast_shapes(v.shape[:-1], w.shape[:-1])
    except RuntimeError:
        raise ValueError(f"v is {describe(v)} and w is {describe(w)}: leading axes must broadcast") from None
    return v, z, w, backend

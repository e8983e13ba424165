"""The transpose of the last two axes; its four short files are the pattern of an op with native backends."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from longconv._checks import check_choice, describe
from longconv.ops.transpose.operator import BACKENDS, call

__all__ = ["transpose"]


def transpose(x: Tensor, *, backend: str = "auto") -> Tensor:
    """Contiguous copy of x with its last two axes swapped: y[..., c, r] = x[..., r, c].

    It turns (B, L, D), the layout of modules, into (B, D, L), the layout of operators, and back. Elements are moved as
    bits, so the result is exact in every dtype.

    Args:
        x: tensor (..., R, C) of any dtype, with any strides and sizes, 0 included.
        backend: ``"auto"``, or one of the names that ``longconv.info()`` prints.

    Returns:
        y (..., C, R), contiguous, never a view of x. Its gradient is the transpose of the cotangent.

    Raises:
        TypeError: x is not a tensor.
        ValueError: x has fewer than two axes, or the named backend can't serve it.

    >>> import torch
    >>> transpose(torch.tensor([[1, 2, 3], [4, 5, 6]]))
    tensor([[1, 4],
            [2, 5],
            [3, 6]])
    """
    y: Tensor = call.checked(_check, x, backend)
    return y


def _check(x: Tensor, backend: str) -> tuple[Any, ...]:
    if not isinstance(x, Tensor):
        raise TypeError(f"x is {describe(x)}, expected a (..., R, C) tensor")
    if x.ndim < 2:
        raise ValueError(f"x is {describe(x)}, expected at least two axes, (..., R, C)")
    check_choice("backend", backend, BACKENDS.names())
    return x, backend

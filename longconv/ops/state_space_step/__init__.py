"""One sample through a state space: the public function, its operator, its definition and its backends."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from longconv._checks import check_choice, check_device, check_shape, check_tensor
from longconv.ops.state_space_step.operator import BACKENDS, call

__all__ = ["state_space_step"]

_PRECISIONS = {torch.complex64: torch.float32, torch.complex128: torch.float64}


def state_space_step(
    x: Tensor,
    u: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    left: Tensor | None = None,
    right: Tensor | None = None,
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    r"""One sample through a discrete state space of complex modes, diagonal plus low rank.

        x'[b, h, n] = A[h, n] x[b, h, n] + B[h, n] u[b, h] + sum_r left[r, h, n] Re sum_m right[r, h, m] x[b, h, m]
        y[b, c, h]  = Re sum_n C[c, h, n] x'[b, h, n]

    The arithmetic is in double precision, that of gradients in x's; x' is rounded to x's precision. The native backend
    reads and writes the state once. Nothing is doubled: where a mode stands for a conjugate pair, the caller puts the
    factor 2 into C and right.

    Args:
        x: the state before the sample (B, H, N), complex.
        u: the sample (B, H), real, of x's precision.
        A, B: (H, N) complex128.
        C: (C, H, N) complex128, one row an output.
        left, right: (R, H, N) complex128, the correction of rank R; both or none.
        backend: ``"auto"``, or one of the names that ``longconv.info()`` prints.

    Returns:
        x' (B, H, N) and y (B, C, H) in x's precision. Every tensor has gradients, and the gradients have gradients.

    Raises:
        TypeError: an argument is not a tensor or has a wrong dtype.
        ValueError: a wrong shape or device, one of left and right alone, or a backend that can't serve the call.

    >>> one = torch.ones(1, 1, dtype=torch.complex128)
    >>> state_space_step(torch.ones(1, 1, 1, dtype=torch.complex64), torch.ones(1, 1), one / 2, one, 3 * one[None])
    (tensor([[[1.5000+0.j]]]), tensor([[[4.5000]]]))
    """
    after, y = call.checked(_check, x, u, A, B, C, left, right, backend)
    return after, y


def _check(
    x: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor, left: Tensor | None, right: Tensor | None, backend: str
) -> tuple[Any, ...]:
    check_tensor("x", x, "(B, H, N)", ndim=3, dtypes=tuple(_PRECISIONS))
    batch, features, modes = x.shape
    check_tensor("u", u, "(B, H)", ndim=2, dtypes=(_PRECISIONS[x.dtype],))
    check_shape("u", u, (batch, features), "(B, H)")
    check_device("u", u, "x", x)
    if (left is None) != (right is None):
        raise ValueError("only one of left and right is given, expected both or none")
    for name, tensor in [("A", A), ("B", B)]:
        check_tensor(name, tensor, "(H, N)", ndim=2, dtypes=(torch.complex128,))
        check_shape(name, tensor, (features, modes), "(H, N)")
        check_device(name, tensor, "x", x)
    for name, rows in [("C", C), ("left", left), ("right", right)]:
        if rows is not None:
            check_tensor(name, rows, "(rows, H, N)", ndim=3, dtypes=(torch.complex128,))
            rank = left.shape[0] if name == "right" and left is not None else None
            check_shape(name, rows, (rank, features, modes), "(rows, H, N)")
            check_device(name, rows, "x", x)
    check_choice("backend", backend, BACKENDS.names())
    return x, u, A, B, C, left, right, backend

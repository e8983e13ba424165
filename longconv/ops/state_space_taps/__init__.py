"""All taps of a state space: the public function, its operator, its definition and its backends."""

from __future__ import annotations

import torch
from torch import Tensor

from longconv._checks import check_choice, check_device, check_int, check_shape, check_tensor
from longconv.ops.state_space_taps.operator import BACKENDS, OPERATOR

__all__ = ["state_space_taps"]


def state_space_taps(
    A: Tensor, B: Tensor, C: Tensor, left: Tensor, right: Tensor, length: int, *, backend: str = "auto"
) -> Tensor:
    r"""The impulse response of a discrete state space of complex modes, diagonal plus low rank.

        x[0] = B[h],    x[l+1, n] = A[h, n] x[l, n] + sum_r left[r, h, n] Re sum_m right[r, h, m] x[l, m]
        y[c, h, l] = Re sum_n C[c, h, n] x[l, n],    0 <= l < length

    In double precision, by blocks of about sqrt(length) taps: O(N (R + 1) sqrt(L) + N^2 (R + C) sqrt(L) + C N L) a
    feature. Where the matrix is a contraction nothing grows, rounding neither. Nothing is doubled: where a mode stands
    for a conjugate pair, the caller puts the factor 2 into C and right.

    Args:
        A, B: (H, N) complex128.
        C: (C, H, N) complex128, one row an output.
        left, right: (R, H, N) complex128, the part of rank R.
        length: L >= 0.
        backend: ``"auto"``, or one of the names that ``longconv.info()`` prints.

    Returns:
        (C, H, L) float64. Every tensor has gradients, and the gradients have gradients.

    Raises:
        TypeError: an argument is not a tensor, has a wrong dtype, or ``length`` is not an integer.
        ValueError: a wrong shape or device, a negative length, or a backend that can't serve the call.

    >>> one = torch.ones(1, 1, 1, dtype=torch.complex128)
    >>> state_space_taps(one[0] / 2, one[0], 3 * one, -one / 4, one, 4)  # a mode that decays by 1/2 - 1/4
    tensor([[[3.0000, 0.7500, 0.1875, 0.0469]]], dtype=torch.float64)
    """
    wide = (torch.complex128,)
    check_tensor("C", C, "(C, H, N)", ndim=3, dtypes=wide)
    sizes = C.shape[1:]
    for name, tensor in (("A", A), ("B", B)):
        check_tensor(name, tensor, "(H, N)", ndim=2, dtypes=wide)
        check_shape(name, tensor, sizes, "(H, N)")
        check_device(name, tensor, "C", C)
    for name, tensor in (("left", left), ("right", right)):
        check_tensor(name, tensor, "(R, H, N)", ndim=3, dtypes=wide)
        check_shape(name, tensor, (left.shape[0], *sizes), "(R, H, N)")
        check_device(name, tensor, "C", C)
    check_int("length", length, least=0)
    check_choice("backend", backend, BACKENDS.names())
    y: Tensor = OPERATOR.call(A, B, C, left, right, length, backend)
    return y

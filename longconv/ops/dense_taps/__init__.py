"""All taps of a dense state space: the public function, its operator, its definition and its backends."""

from __future__ import annotations

import torch
from torch import Tensor

from longconv._checks import check_choice, check_device, check_int, check_shape, check_tensor
from longconv.ops.dense_taps.operator import BACKENDS, OPERATOR

__all__ = ["dense_taps"]


def dense_taps(A: Tensor, B: Tensor, C: Tensor, length: int, *, backend: str = "auto") -> Tensor:
    r"""The impulse response of a discrete state space with a dense matrix, one system a feature.

        y[h, m, l] = C[h, m] A[h]^l B[h],    0 <= l < length

    With l = q T + r the taps are products of rows C A^(q T) with columns A^r B, and squarings give A^T: about
    N^3 log2 T + N^2 (T + M L / T) products a feature, in double precision whatever the dtype.

    Args:
        A: (H, N, N) float32 or float64.
        B: (H, N), of the same dtype as A, as is C.
        C: (H, M, N).
        length: L >= 0.
        backend: ``"auto"``, or one of the names that ``longconv.info()`` prints.

    Returns:
        (H, M, L). Every tensor has a gradient, and the gradients have gradients.

    Raises:
        TypeError: an argument is not a tensor, has a wrong dtype, or ``length`` is not an integer.
        ValueError: a wrong shape or device, a negative length, or a backend that can't serve the call.

    >>> A = torch.tensor([[[0.5, 1.0], [0.0, 0.5]]])
    >>> dense_taps(A, torch.tensor([[0.0, 1.0]]), torch.tensor([[[1.0, 0.0]]]), 5)  # l / 2^(l - 1)
    tensor([[[0.0000, 1.0000, 1.0000, 0.7500, 0.5000]]])
    """
    check_tensor("A", A, "(H, N, N)", ndim=3, dtypes=(torch.float64, torch.float32))
    check_tensor("B", B, "(H, N)", ndim=2, dtypes=(A.dtype,))
    check_tensor("C", C, "(H, M, N)", ndim=3, dtypes=(A.dtype,))
    H, _, N = C.shape
    check_shape("A", A, (H, N, N), "(H, N, N) with the H and N of C")
    check_shape("B", B, (H, N), "(H, N) with the H and N of C")
    check_device("A", A, "C", C)
    check_device("B", B, "C", C)
    check_int("length", length, least=0)
    check_choice("backend", backend, BACKENDS.names())
    y: Tensor = OPERATOR.call(A, B, C, length, backend)
    return y

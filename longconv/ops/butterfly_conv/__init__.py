"""The product of spectra under any transform of two stages: public function, operator, definition, backends."""

from __future__ import annotations

import torch
from torch import Tensor

from longconv import _sequence
from longconv._checks import check_bool, check_choice, check_device, check_shape, check_tensor
from longconv.ops.butterfly_conv.operator import BACKENDS, MATRICES, OPERATOR

__all__ = ["butterfly_conv"]


def butterfly_conv(
    x: Tensor,
    k: Tensor,
    analysis_1: Tensor,
    analysis_twiddles: Tensor,
    analysis_2: Tensor,
    synthesis_1: Tensor,
    synthesis_twiddles: Tensor,
    synthesis_2: Tensor,
    *,
    tail: bool = False,
    backend: str = "auto",
) -> Tensor:
    r"""The product of spectra under a butterfly, a transform of two stages with any matrices.

    With a column of N = N_1 N_2 numbers as an (N_1, N_2) matrix,

    .. math:: T(x) = ((E_1 x) \circ W)\, E_2, \qquad y = G_1 (((\sqrt N\, T(x)\, T(k))\, G_2) \circ V)

    where T(x) T(k) is number by number. The result is Re y, and below it, with a ``tail``, Im y. O(N^1.5) a column.

    Args:
        x: (B, N, H) float32 or float64.
        k: (N, H), the filters.
        analysis_1, synthesis_1: E_1, G_1 (N_1, N_1, 2), the last axis for real and imaginary part.
        analysis_twiddles, synthesis_twiddles: W, V (N_1, N_2, 2).
        analysis_2, synthesis_2: E_2, G_2 (N_2, N_2, 2).
        tail: whether the imaginary part is wanted.
        backend: ``"auto"``, or one of the names that ``longconv.info()`` prints.

    Returns:
        (B, N, H), with a tail (B, 2N, H). Every tensor has gradients, and the gradients have gradients. They keep
        nothing but the arguments.

    Raises:
        TypeError: an argument is not a tensor or has another dtype than x.
        ValueError: a wrong shape or device, or a backend that can't serve the call.

    >>> one, two = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[2.0, 0.0]]])
    >>> butterfly_conv(torch.full((1, 1, 1), 3.0), torch.full((1, 1), 5.0), one, one, one, one, two, one)
    tensor([[[30.]]])
    """
    _sequence.require_whole("a butterfly has whole columns")
    check_tensor("x", x, "(B, N, H)", ndim=3, dtypes=(torch.float32, torch.float64))
    check_tensor("k", k, "(N, H)", ndim=2, dtypes=(x.dtype,))
    check_shape("k", k, x.shape[1:], "(N, H)")
    check_tensor("analysis_twiddles", analysis_twiddles, "(N_1, N_2, 2)", ndim=3, dtypes=(x.dtype,))
    N1, N2, _ = analysis_twiddles.shape
    shapes = 2 * ((N1, N1, 2), (N1, N2, 2), (N2, N2, 2))
    matrices = (analysis_1, analysis_twiddles, analysis_2, synthesis_1, synthesis_twiddles, synthesis_2)
    for name, matrix, shape in zip(MATRICES, matrices, shapes, strict=True):
        symbols = {"1": "(N_1, N_1, 2)", "s": "(N_1, N_2, 2)", "2": "(N_2, N_2, 2)"}[name[-1]]
        check_tensor(name, matrix, symbols, ndim=3, dtypes=(x.dtype,))
        check_shape(name, matrix, shape, symbols)
        check_device(name, matrix, "x", x)
    check_device("k", k, "x", x)
    check_shape("x", x, (None, N1 * N2, None), "(B, N, H) with N = N_1 N_2")
    check_bool("tail", tail)
    check_choice("backend", backend, BACKENDS.names())
    y: Tensor = OPERATOR.call(x, k, *matrices, tail, backend)
    return y

"""The definition of ``butterfly_conv``, stage by stage on complex numbers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def forward(x: Tensor, k: Tensor, *rest: Any) -> Tensor:
    """Both transforms, their product, and the transform back."""
    *matrices, tail = rest
    E1, W, E2, G1, V, G2 = (torch.view_as_complex(matrix.contiguous()) for matrix in matrices)

    def analysed(t: Tensor) -> Tensor:
        """T(t) of (..., N, H), (..., N_1, N_2, H)."""
        z = torch.einsum("mn,...nph->...mph", E1, t.unflatten(-2, W.shape).to(E1.dtype))
        return torch.einsum("...mph,pq->...mqh", z * W[..., None], E2)

    z = torch.einsum("...mqh,qp->...mph", math.sqrt(W.numel()) * analysed(x) * analysed(k), G2)
    y = torch.einsum("nm,...mph->...nph", G1, z * V[..., None]).flatten(-3, -2)
    return torch.cat((y.real, y.imag), -2) if tail else y.real


def backward(g: Tensor, *rest: Any) -> list[Tensor]:
    """The gradients that are wanted, by autograd of the definition."""
    *tensors, tail, wanted = rest
    _, pull_back, *_ = torch.func.vjp(lambda *given: forward(*given, tail), *tensors)
    return [grad for grad, want in zip(pull_back(g), wanted, strict=True) if want]

"""Backend ``keops`` of ``cauchy``: sums that KeOps compiles, in the highest precision of the inputs.

Real inputs are taken as complex ones. Rows of residues that share poles are leading axes like any other, so that one
compiled sum serves all shapes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from longconv.ops._keops import complex_sum, pairs
from longconv.ops._layout import Layout
from longconv.ops._library import reduce_like
from longconv.ops.cauchy.reference import result_dtype

_DIFFERENCE = "ComplexSubtract(z,w)"
_CONJUGATE = f"Conj({_DIFFERENCE})"
_ONE = f"ComplexDivide(v,{_DIFFERENCE})"
_TWO = f"ComplexDivide({_ONE},{_DIFFERENCE})"
_BACK = f"ComplexDivide(g,{_CONJUGATE})"


def forward(v: Tensor, z: Tensor, w: Tensor) -> Tensor:
    """The sum over n."""
    layout, dtype = Layout.of(v, z, w), result_dtype(v, z, w)
    residues, points, poles = _variables(layout, v, z, w)
    y = complex_sum("cauchy", _ONE, {"v": residues, "w": poles}, {"z": points})[..., 0]
    return layout.unfold(y if dtype.is_complex else y.real).to(dtype).contiguous()


def backward(g: Tensor, v: Tensor, z: Tensor, w: Tensor, wanted: Sequence[bool]) -> list[Tensor]:
    """The wanted ones of the gradients to v, z and w."""
    layout = Layout.of(v, z, w)
    residues, points, poles = _variables(layout, v, z, w)
    cotangents = pairs(layout.fold(g), residues.dtype)
    grads: list[Tensor | None] = [None, None, None]
    if wanted[0] or wanted[2]:
        formula = f"Concat({_BACK},ComplexDivide({_BACK},{_CONJUGATE}))"
        sums = complex_sum("cauchy", formula, {"g": cotangents, "z": points}, {"w": poles})
        grads[0] = sums[..., 0]
        grads[2] = (torch.view_as_complex(residues).conj_physical() * sums[..., 1]).sum(1, keepdim=True)
    if wanted[1]:
        slope = complex_sum("cauchy", _TWO, {"v": residues, "w": poles}, {"z": points})[..., 0]
        grads[1] = -(torch.view_as_complex(cotangents) * slope.conj_physical()).sum(1, keepdim=True)
    kept = zip(grads, (v, z, w), wanted, strict=True)
    return [reduce_like(layout.unfold(t), like) for t, like, want in kept if want and t is not None]


def _variables(layout: Layout, v: Tensor, z: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Residues (X, M, N, 2), points (X or 1, 1, L, 2) and poles (X or 1, 1, N, 2)."""
    precision = functools.reduce(torch.promote_types, (v.dtype, z.dtype, w.dtype)).to_complex().to_real()
    points, poles = (pairs(layout.fold_shared(t)[:, None], precision) for t in (z, w))
    return pairs(layout.fold(v), precision), points, poles

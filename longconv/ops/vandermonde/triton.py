"""Backend ``triton`` of ``vandermonde`` and ``vandermonde_log``: powers in float64, products of tiles in float32.

Both take logarithms of the nodes. The gradient to a node itself is a sum of l x^(l - 1), which is formed as such, so
that nothing is divided by a node: nodes may be 0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from longconv.ops import _triton
from longconv.ops._layout import Layout, plain
from longconv.ops._library import reduce_like, square_blocks
from longconv.ops._sizes import blocks, power_of_two
from longconv.ops._triton import launch
from longconv.ops.vandermonde.reference import LOG_ZERO, result_dtype

_MODES = 16
"""Nodes of a tile."""


def supports(v: Tensor, *_: Any) -> str | None:
    """None if the backend can serve the call, else the reason why not."""
    if v.dtype in (torch.float64, torch.complex128):
        return f"v is {str(v.dtype).removeprefix('torch.')}, sums are taken in single precision"
    return _triton.refusal("v", v)


def forward(argument: str, v: Tensor, x: Tensor, length: int, real: bool) -> Tensor:
    """The sum over n; ``argument`` is the name of the one that tells the nodes, "x" or "log_x"."""
    from longconv.ops.vandermonde import triton_kernels

    layout, dtype = Layout.of(v, x), result_dtype(v, x, real)
    coefficients, logarithms = _coefficients(layout, v), _logarithms(layout, x, argument)
    sets, rows, modes, _ = coefficients.shape
    period, height = _tile(length)
    y = torch.empty((sets, rows, length), dtype=dtype, device=v.device)
    launch(
        triton_kernels.forward,
        sets * rows * blocks(length, period * height),
        torch.view_as_real(y) if dtype.is_complex else y,
        *(coefficients, logarithms, rows, modes, length),
        COMPLEX=dtype.is_complex,
        BQ=height,
        BN=_MODES,
        T=period,
    )
    return layout.unfold(y).contiguous()


def backward(argument: str, g: Tensor, v: Tensor, x: Tensor, real: bool) -> list[Tensor]:
    """The gradients to v and to x."""
    from longconv.ops.vandermonde import triton_kernels

    layout, length = Layout.of(v, x), g.shape[-1]
    logarithms = _logarithms(layout, x, argument)
    cotangents = layout.fold(plain(g))
    parts = (cotangents.real, cotangents.imag) if g.is_complex() else (cotangents, None)
    (sets, rows, _), modes = cotangents.shape, x.shape[-1]
    period, height = _tile(length)
    programs = sets * rows * blocks(modes, _MODES)
    splits = _triton.parts(programs, blocks(length, period * height))
    sums = torch.empty((splits, 2, sets, rows, modes), dtype=torch.complex128, device=g.device)
    launch(
        triton_kernels.backward,
        programs * splits,
        torch.view_as_real(sums),
        *(None if part is None else part.contiguous() for part in parts),
        *(logarithms, sets * rows, rows, modes, length, splits),
        SHIFT=int(argument == "x"),
        BQ=height,
        BN=_MODES,
        T=period,
    )
    dv, dx = sums.sum(0)
    dx = (layout.fold(v).conj_physical() * dx).sum(1, keepdim=True)
    return [reduce_like(layout.unfold(grad), like) for grad, like in ((dv, v), (dx, x))]


def _coefficients(layout: Layout, v: Tensor) -> Tensor:
    """Pairs (X, M, N, 2) in single precision."""
    return torch.view_as_real(layout.fold(plain(v)).to(torch.complex64).contiguous())


def _logarithms(layout: Layout, x: Tensor, argument: str) -> Tensor:
    """Pairs (X, N, 2) in double precision, the real part of log 0 finite."""
    wide = layout.fold_shared(x).to(torch.complex128)
    wide = wide.log() if argument == "x" else wide
    return torch.stack((wide.real.clamp(min=LOG_ZERO), wide.imag), -1)


def _tile(length: int) -> tuple[int, int]:
    """T, and how many times T a tile is long."""
    period = min(max(16, square_blocks(length)[0]), 128)
    return period, max(16, min(32, power_of_two(blocks(length, period))))

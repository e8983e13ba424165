"""Backend ``triton``: resolvents in registers, pole after pole for a tile of points, or tile after tile of points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from longconv.ops import _triton
from longconv.ops._layout import Layout, plain
from longconv.ops._library import reduce_like
from longconv.ops._sizes import blocks, power_of_two
from longconv.ops._triton import launch
from longconv.ops.cauchy.reference import result_dtype

_POINTS, _POLES = 128, 16
"""Points and poles of a tile."""


def supports(v: Tensor, *_: Any) -> str | None:
    """None if the backend can serve the call, else the reason why not."""
    return _triton.refusal("v", v)


def forward(v: Tensor, z: Tensor, w: Tensor) -> Tensor:
    """The sum over n."""
    from longconv.ops.cauchy import triton_kernels

    call, dtype = _Call(v, z, w), result_dtype(v, z, w)
    y = torch.empty((call.sets, call.rows, call.length), dtype=dtype.to_complex(), device=v.device)
    launch(
        triton_kernels.forward,
        call.sets * blocks(call.rows, call.height) * blocks(call.length, _POINTS),
        torch.view_as_real(y),
        *(call.v, *call.shared, call.rows, call.modes, call.length),
        BM=call.height,
        BL=_POINTS,
        **call.types,
    )
    return call.layout.unfold(y if dtype.is_complex else y.real).contiguous()


def backward(g: Tensor, v: Tensor, z: Tensor, w: Tensor, wanted: Sequence[bool]) -> list[Tensor]:
    """The wanted ones of the gradients to v, z and w."""
    call = _Call(v, z, w)
    cotangents = _pairs(call.layout.fold(g), call.dtype)
    dv = dw = dz = None
    if wanted[0] or wanted[2]:
        dv, slopes = _poles(call, cotangents)
        dw = (call.layout.fold(v).conj_physical() * slopes).sum(1, keepdim=True)
    if wanted[1]:
        dz = _points(call, cotangents)
        dz = (dz if z.shape[:-1].numel() > 1 else dz.sum(0, keepdim=True))[:, None]
    kept = zip((dv, dz, dw), (v, z, w), wanted, strict=True)
    return [reduce_like(call.layout.unfold(grad), like) for grad, like, want in kept if want and grad is not None]


class _Call:
    """The arguments as the kernels read them, and the sizes."""

    def __init__(self, v: Tensor, z: Tensor, w: Tensor) -> None:
        self.layout = Layout.of(v, z, w)
        self.dtype = result_dtype(v, z, w).to_complex()
        wide = torch.promote_types(torch.promote_types(z.dtype, w.dtype), self.dtype)
        self.v = _pairs(self.layout.fold(v), self.dtype)
        points, poles = (_pairs(self.layout.fold_shared(t), wide) for t in (z, w))
        self.sets, self.rows, self.modes, _ = self.v.shape
        self.length = z.shape[-1]
        self.shared = points, poles, *(s.shape[1] if len(s) > 1 else 0 for s in (points, poles))
        self.types = {"D": _triton.working(wide), "S": _triton.working(self.dtype)}
        self.height = min(8, power_of_two(self.rows))


def _poles(call: _Call, g: Tensor) -> tuple[Tensor, Tensor]:
    """sum_l g conj(q) and sum_l g conj(q)^2, (X, M, N) in double precision."""
    from longconv.ops.cauchy import triton_kernels

    programs = call.sets * call.rows * blocks(call.modes, _POLES)
    splits = _triton.parts(programs, blocks(call.length, _POINTS))
    shape = (splits, 2, call.sets, call.rows, call.modes)
    sums = torch.empty(shape, dtype=torch.complex128, device=g.device)
    launch(
        triton_kernels.poles,
        programs * splits,
        torch.view_as_real(sums),
        *(g, *call.shared, call.sets * call.rows, call.rows, call.modes, call.length, splits),
        BN=_POLES,
        BL=_POINTS,
        **call.types,
    )
    first, second = sums.sum(0)
    return first, second


def _points(call: _Call, g: Tensor) -> Tensor:
    """Dz (X, L) in double precision."""
    from longconv.ops.cauchy import triton_kernels

    dz = torch.empty((call.sets, call.length), dtype=torch.complex128, device=g.device)
    launch(
        triton_kernels.points,
        call.sets * blocks(call.length, _POINTS),
        torch.view_as_real(dz),
        *(g, call.v, *call.shared, call.rows, call.modes, call.length),
        BM=call.height,
        BL=_POINTS,
        **call.types,
    )
    return dz


def _pairs(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Contiguous pairs of a complex dtype."""
    return torch.view_as_real(plain(x.to(dtype)).contiguous())

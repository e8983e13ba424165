"""Backend ``cuda``: csrc/cuda/cauchy.cu, resolvents in registers, for some points of a lane or for its pole."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from longconv import _native
from longconv.ops import _cuda
from longconv.ops._layout import Layout, plain
from longconv.ops._library import reduce_like
from longconv.ops._sizes import blocks, power_of_two
from longconv.ops.cauchy.reference import result_dtype

_RUN, _ROWS = 32, 4
"""Points that a lane sums up at once, and rows that share its resolvents."""


class _Struct(ctypes.Structure):
    """``LongconvCudaCauchy`` of csrc/longconv.h."""

    _fields_ = [
        *[(name, _native.Numbers) for name in ("v", "z", "w", "y", "first", "second", "dz")],
        *[(name, ctypes.c_int64) for name in ("sets", "rows", "modes", "length", "splits")],
        *[(name, ctypes.c_int32) for name in ("wide", "lanes", "element")],
    ]


def available() -> str | None:
    """None if the CUDA library is loaded, has the sums, and torch sees a GPU, else the reason why not."""
    return _cuda.available("cauchy")


def supports(v: Tensor, *_: Any) -> str | None:
    """None if the backend can serve the call, else the reason why not."""
    return _cuda.refusal("v", v)


def forward(v: Tensor, z: Tensor, w: Tensor) -> Tensor:
    """The sum over n."""
    call = _Call(v, z, w)
    y = v.new_empty((*call.v.shape[:2], z.shape[-1]), dtype=result_dtype(v, z, w))
    call.run(y)
    return call.layout.unfold(y).contiguous()


def backward(g: Tensor, v: Tensor, z: Tensor, w: Tensor, wanted: Sequence[bool]) -> list[Tensor]:
    """The wanted ones of the gradients to v, z and w."""
    call = _Call(v, z, w)
    cotangents = call.layout.fold(plain(g))
    sets, rows, length = cotangents.shape
    dv = dw = dz = None
    if wanted[0] or wanted[2]:
        lanes, modes = min(32, power_of_two(w.shape[-1])), w.shape[-1]
        warps = sets * blocks(rows, _ROWS) * blocks(modes, lanes)
        splits = _cuda.splits(warps, blocks(length, 32 // lanes * _RUN))
        sums = v.new_empty((2, splits * 32 // lanes, sets * rows, modes), dtype=torch.complex128)
        call.run(cotangents, first=sums[0], second=sums[1], lanes=lanes, splits=splits)
        dv, slopes = sums.sum(1).view(2, sets, rows, modes)
        dw = (call.v.conj_physical() * slopes).sum(1, keepdim=True)
    if wanted[1]:
        dz = v.new_empty((sets, 1, length), dtype=torch.complex128)
        call.run(cotangents, dz=dz)
        dz = dz if z.shape[:-1].numel() > 1 else dz.sum(0, keepdim=True)
    kept = zip((dv, dz, dw), (v, z, w), wanted, strict=True)
    return [reduce_like(call.layout.unfold(grad), like) for grad, like, want in kept if want and grad is not None]


class _Call:
    """The arguments as the kernels read them."""

    def __init__(self, v: Tensor, z: Tensor, w: Tensor) -> None:
        self.layout = Layout.of(v, z, w)
        self.v = self.layout.fold(plain(v))
        self.points, self.poles = (self.layout.fold_shared(plain(t))[:, None] for t in (z, w))
        precision = torch.finfo(v.dtype).bits
        self.wide = any(torch.finfo(t.dtype).bits > precision for t in (z, w))
        self.element = _native.ELEMENTS[torch.float64 if precision == 64 else torch.float32]

    def run(self, y: Tensor, *, lanes: int = 1, splits: int = 1, **results: Tensor) -> None:
        """Queue the kernel for y, or its cotangents, (X, M, L)."""
        call = _Struct(*map(_native.Numbers.of, (self.v, self.points, self.poles, y)))
        for name, tensor in results.items():
            setattr(call, name, _native.Numbers.of(tensor))
        for name, tensor in {"z": self.points, "w": self.poles}.items():
            if len(tensor) == 1:  # for all sets
                getattr(call, name).set = 0
        call.sets, call.rows, call.length = y.shape
        call.modes, call.splits, call.lanes = self.v.shape[-1], splits, lanes
        call.wide, call.element = self.wide, self.element
        _cuda.run("cauchy", call, y.device)

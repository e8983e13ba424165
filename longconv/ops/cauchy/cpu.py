"""Backend ``cpu``: csrc/cpu/cauchy.cpp, near poles one by one, those far from some neighbouring points together."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from longconv import _native
from longconv.ops._layout import Layout, plain
from longconv.ops._library import reduce_like
from longconv.ops._short_way import memory, run, short_way
from longconv.ops.cauchy.reference import result_dtype


class _Call(ctypes.Structure):
    """``LongconvCauchy`` of csrc/longconv.h."""

    _fields_ = [
        *[(name, _native.Numbers) for name in ("v", "z", "w", "y", "dv", "dz", "dw")],
        ("work", ctypes.c_void_p),
        *[(name, ctypes.c_int64) for name in ("sets", "rows", "modes", "length")],
        *[(name, ctypes.c_int32) for name in ("wide", "backward", "threads", "element")],
    ]


def available() -> str | None:
    """None if the CPU library is loaded and has the sums, else the reason why not."""
    return _native.cpu().lacks("cauchy")


def supports(v: Tensor, *_: Any) -> str | None:
    """None if the backend can serve the call, else the reason why not."""
    return None if v.device.type == "cpu" else f"v is on {v.device}"


def forward(v: Tensor, z: Tensor, w: Tensor) -> Tensor:
    """The sum over n."""
    layout = Layout.of(v, z, w)
    y = torch.empty((*layout.lead, z.shape[-1]), dtype=result_dtype(v, z, w))
    target = layout.fold(y)
    call, used = _call(layout, v, z, w, target)
    run("cauchy", call, used, call.threads)
    return y if target.data_ptr() == y.data_ptr() else layout.unfold(target).contiguous()


def bind(v: Tensor, z: Tensor, w: Tensor) -> Callable[..., Tensor] | None:
    """The sum for all tensors laid out like these; None where they or the result have to be copied."""
    layout = Layout.of(v, z, w)
    y = torch.empty((*layout.lead, z.shape[-1]), dtype=result_dtype(v, z, w))
    target = layout.fold(y)
    if target.data_ptr() != y.data_ptr():
        return None
    call, used = _call(layout, v, z, w, target)
    return short_way("cauchy", call, (v, z, w), used, y, memory("cauchy", call, call.threads))


def backward(g: Tensor, v: Tensor, z: Tensor, w: Tensor, wanted: Sequence[bool]) -> list[Tensor]:
    """The wanted ones of the gradients to v, z and w; where v was broadcast, in double precision before the sum."""
    layout = Layout.of(v, z, w)
    cotangents = layout.fold(plain(g))
    if cotangents.stride(-1) != 1:
        cotangents = cotangents.contiguous()
    grads: dict[str, Tensor] = {}
    if wanted[0] or wanted[2]:
        dtype = v.dtype if v.shape[:-1] == layout.lead else torch.promote_types(v.dtype, torch.float64)
        grads["dv"] = torch.empty((*cotangents.shape[:2], v.shape[-1]), dtype=dtype)
        grads["dw"] = torch.empty((cotangents.shape[0], 1, w.shape[-1]), dtype=w.dtype)
    if wanted[1]:
        sets = 1 if z.shape[:-1].numel() == 1 else cotangents.shape[0]
        grads["dz"] = torch.empty((sets, 1, z.shape[-1]), dtype=z.dtype)
    call, used = _call(layout, v, z, w, cotangents, **grads)
    run("cauchy", call, used, call.threads)
    kept = [(name, like) for name, like, want in zip(("dv", "dz", "dw"), (v, z, w), wanted, strict=True) if want]
    return [reduce_like(layout.unfold(grads[name]), like) for name, like in kept]


def _call(
    layout: Layout, v: Tensor, z: Tensor, w: Tensor, y: Tensor, **grads: Tensor
) -> tuple[_Call, dict[str, Tensor | None]]:
    """The description of a call for y, or its cotangents, (X, M, L), and the arguments as it uses them."""
    sets, rows, length = y.shape
    coefficients, (points, poles) = layout.fold(plain(v)), (layout.fold_shared(plain(t))[:, None] for t in (z, w))
    call = _Call(*map(_native.Numbers.of, (coefficients, points, poles, y)))
    for name, tensor in grads.items():
        setattr(call, name, _native.Numbers.of(tensor))
    for name, tensor in {"z": points, "w": poles, **grads}.items():
        if len(tensor) == 1:  # for all sets
            getattr(call, name).set = 0
    precision = torch.finfo(y.dtype).bits
    call.sets, call.rows, call.modes, call.length = sets, rows, w.shape[-1], length
    call.wide = any(torch.finfo(t.dtype).bits > precision for t in (z, w))
    call.backward, call.threads = bool(grads), torch.get_num_threads()
    call.element = _native.ELEMENTS[y.dtype.to_real() if y.is_complex() else y.dtype]
    return call, {"v.data": coefficients, "z.data": points, "w.data": poles}

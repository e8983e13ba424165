"""Backend ``cpu``: csrc/cpu/vandermonde.cpp, powers in double precision, sums as small matrix products in registers."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from longconv import _native
from longconv.ops._layout import Layout, plain
from longconv.ops._library import reduce_like
from longconv.ops._short_way import memory, run, short_way
from longconv.ops.vandermonde.reference import result_dtype, widen


class _Call(ctypes.Structure):
    """``LongconvVandermonde`` of csrc/longconv.h."""

    _fields_ = [
        *[(name, _native.Numbers) for name in ("v", "x", "y", "dv", "dx")],
        ("work", ctypes.c_void_p),
        *[(name, ctypes.c_int64) for name in ("sets", "rows", "modes", "length")],
        *[(name, ctypes.c_int32) for name in ("logarithms", "backward", "threads", "element")],
    ]


def available() -> str | None:
    """None if the CPU library is loaded and has the sums, else the reason why not."""
    return _native.cpu().lacks("vandermonde")


def supports(v: Tensor, *_: Any) -> str | None:
    """None if the backend can serve the call, else the reason why not."""
    return None if v.device.type == "cpu" else f"v is on {v.device}"


def forward(argument: str, v: Tensor, x: Tensor, length: int, real: bool) -> Tensor:
    """The sum over n; ``argument`` is the name of the one that tells the nodes, "x" or "log_x"."""
    layout = Layout.of(v, x)
    y = torch.empty((*layout.lead, length), dtype=result_dtype(v, x, real))
    target, coefficients, nodes = layout.fold(y), layout.fold(plain(v)), _nodes(layout, x)
    call = _call(argument, coefficients, nodes, target)
    run("vandermonde", call, (coefficients, nodes), call.threads)
    return y if target.data_ptr() == y.data_ptr() else layout.unfold(target).contiguous()


def bind(argument: str, v: Tensor, x: Tensor, length: int, real: bool) -> Callable[..., Tensor] | None:
    """The sum for all tensors laid out like these; None where they or the result have to be copied."""
    layout = Layout.of(v, x)
    y = torch.empty((*layout.lead, length), dtype=result_dtype(v, x, real))
    target, coefficients, nodes = layout.fold(y), layout.fold(plain(v)), _nodes(layout, x)
    if not length or target.data_ptr() != y.data_ptr():
        return None
    call, used = _call(argument, coefficients, nodes, target), {"v.data": coefficients, "x.data": nodes}
    return short_way("vandermonde", call, (v, x), used, y, memory("vandermonde", call, call.threads))


def backward(argument: str, g: Tensor, v: Tensor, x: Tensor, real: bool) -> list[Tensor]:
    """The gradients to v and to x; where one was broadcast, in double precision before the sum."""
    layout = Layout.of(v, x)
    cotangents, coefficients, nodes = layout.fold(plain(g)), layout.fold(plain(v)), _nodes(layout, x)
    if cotangents.stride(-1) != 1:
        cotangents = cotangents.contiguous()
    dv = torch.empty(coefficients.shape, dtype=v.dtype if v.shape[:-1] == layout.lead else widen(v[:0]).dtype)
    dx = torch.empty(nodes.shape, dtype=x.dtype)
    call = _call(argument, coefficients, nodes, cotangents, dv, dx)
    run("vandermonde", call, (coefficients, nodes, cotangents), call.threads)
    return [reduce_like(layout.unfold(grad), like) for grad, like in ((dv, v), (dx, x))]


def _nodes(layout: Layout, x: Tensor) -> Tensor:
    """(X, 1, N)."""
    return layout.fold_shared(plain(x))[:, None]


def _call(argument: str, v: Tensor, x: Tensor, y: Tensor, dv: Tensor | None = None, dx: Tensor | None = None) -> _Call:
    """The description of a call for v (X, M, N), x (X, 1, N) and y, or its cotangents, (X, M, L)."""
    call = _Call(*map(_native.Numbers.of, (v, x, y)))
    if dv is not None and dx is not None:
        call.backward, call.dv, call.dx = 1, _native.Numbers.of(dv), _native.Numbers.of(dx)
    call.sets, call.rows, call.length = y.shape
    call.modes, call.logarithms, call.threads = x.shape[-1], argument == "log_x", torch.get_num_threads()
    call.element = _native.ELEMENTS[y.dtype.to_real() if y.is_complex() else y.dtype]
    return call

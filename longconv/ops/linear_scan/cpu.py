"""Backend ``cpu``: csrc/cpu/linear_scan.cpp, one step after the other with the state in double precision."""

from __future__ import annotations

import ctypes
import math

import torch
from torch import Tensor

from longconv import _native
from longconv.ops.linear_scan.reference import result_dtype, result_shape


def available() -> str | None:
    """None if the CPU library is loaded and has the scan, else the reason why not."""
    return _native.cpu().lacks("linear_scan")


def supports(a: Tensor, b: Tensor, initial: Tensor | None, dim: int, reverse: bool) -> str | None:
    """None if the backend can serve the call, else the reason why not."""
    return None if b.device.type == "cpu" else f"b is on {b.device}"


def forward(a: Tensor, b: Tensor, initial: Tensor | None, dim: int, reverse: bool) -> Tensor:
    """The states, in the result's dtype; 16-bit inputs are scanned in single precision."""
    dtype, shape = result_dtype(a, b, initial), result_shape(a, b, initial, dim)
    working, axis = torch.promote_types(dtype, torch.float32), len(shape) + dim
    outer, length, inner = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    state_shape = (*shape[:axis], 1, *shape[axis + 1 :])
    h = b.new_empty(shape, dtype=working)
    a, b = (_folded(t.to(working).expand(shape), outer, length, inner) for t in (a, b))
    start = None if initial is None else _folded(initial.to(working).expand(state_shape), outer, 1, inner)
    start_strides = (0, 0) if start is None else (start.stride(0), start.stride(2))
    _native.cpu().call(
        "linear_scan",
        h.data_ptr(),
        a.data_ptr(),
        b.data_ptr(),
        None if start is None else start.data_ptr(),
        *(outer, length, inner),
        *(_strides(s) for s in (a.stride(), b.stride(), start_strides)),
        int(reverse),
        torch.get_num_threads(),
        _native.ELEMENTS[working],
    )
    return h.to(dtype)


def _folded(x: Tensor, outer: int, length: int, inner: int) -> Tensor:
    """The tensor as (outer, length, inner) without lazy conjugates: a view where its strides allow it."""
    x = x.resolve_conj().resolve_neg()
    return x.reshape(outer, length, inner)


def _strides(strides: tuple[int, ...]) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(strides))(*strides)

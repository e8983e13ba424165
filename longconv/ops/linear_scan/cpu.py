"""Backend ``cpu``: csrc/cpu/linear_scan.cpp, one step after the other with the state in double precision."""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from longconv import _native
from longconv.ops._layout import plain
from longconv.ops._short_way import without_memory
from longconv.ops.linear_scan.reference import result_dtype, result_shape


def available() -> str | None:
    """None if the CPU library is loaded and has the scan, else the reason why not."""
    return _native.cpu().lacks("linear_scan")


def supports(a: Tensor, b: Tensor, initial: Tensor | None, dim: int, reverse: bool) -> str | None:
    """None if the backend can serve the call, else the reason why not."""
    return None if b.device.type == "cpu" else f"b is on {b.device}"


def forward(a: Tensor, b: Tensor, initial: Tensor | None, dim: int, reverse: bool) -> Tensor:
    """The states, in the result's dtype; 16-bit inputs are scanned in single precision."""
    layout, tensors = _lay_out(a, b, initial, dim, reverse)
    return _scan(layout)(*tensors)


def bind(a: Tensor, b: Tensor, initial: Tensor | None, dim: int, reverse: bool) -> Callable[..., Tensor] | None:
    """The scan of all tensors laid out like these; None where they have to be copied first."""
    layout, tensors = _lay_out(a, b, initial, dim, reverse)
    pairs = zip((a, b, initial), tensors, strict=True)
    views = all(t is None or o is None or t.data_ptr() == o.data_ptr() for t, o in pairs)
    return _scan(layout) if views else None


class _Layout(NamedTuple):
    """All of a call but its addresses."""

    shape: tuple[int, ...]
    working: torch.dtype
    dtype: torch.dtype
    numbers: tuple[Any, ...]
    element: int


def _lay_out(
    a: Tensor, b: Tensor, initial: Tensor | None, dim: int, reverse: bool
) -> tuple[_Layout, tuple[Tensor, Tensor, Tensor | None]]:
    """The layout, and the tensors in it."""
    dtype, shape = result_dtype(a, b, initial), result_shape(a, b, initial, dim)
    working, axis = torch.promote_types(dtype, torch.float32), len(shape) + dim
    sizes = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    a, b = _folded(a, working, shape, sizes), _folded(b, working, shape, sizes)
    start, start_strides = None, (0, 0)
    if initial is not None:
        start = _folded(initial, working, (*shape[:axis], 1, *shape[axis + 1 :]), (sizes[0], 1, sizes[2]))
        start_strides = start.stride(0), start.stride(2)
    strides = _strides(a.stride()), _strides(b.stride()), _strides(start_strides)
    return _Layout(shape, working, dtype, (*sizes, *strides, int(reverse)), _native.ELEMENTS[working]), (a, b, start)


def _scan(layout: _Layout) -> Callable[..., Tensor]:
    """The scan of tensors in a layout."""
    library, empty_like = _native.cpu(), torch.empty_like
    native, model = library.symbol("linear_scan"), without_memory(torch.empty(layout.shape, dtype=layout.working))
    rest, rounded = (*layout.numbers, torch.get_num_threads(), layout.element), layout.working != layout.dtype

    def scan(a: Tensor, b: Tensor, initial: Tensor | None, *_: Any) -> Tensor:
        h, start = empty_like(model), None if initial is None else initial.data_ptr()
        if status := native(h.data_ptr(), a.data_ptr(), b.data_ptr(), start, *rest):
            library.fail("linear_scan", status)
        return h.to(layout.dtype) if rounded else h

    return scan


def _folded(x: Tensor, working: torch.dtype, shape: Sequence[int], sizes: tuple[int, int, int]) -> Tensor:
    """The tensor as (outer, length, inner) in the dtype of the arithmetic: a view where its strides allow it."""
    x = plain(x.to(working))
    if x.shape != shape:
        x = x.expand(shape)
    return x if shape == sizes else x.reshape(sizes)


@functools.lru_cache(maxsize=1024)
def _strides(strides: tuple[int, ...]) -> ctypes.Array[ctypes.c_int64]:
    """Strides as the library reads them."""
    return (ctypes.c_int64 * len(strides))(*strides)

"""Backend ``cuda``: csrc/cuda/linear_scan.cu, one pass over memory, or chunks of times where rows are few."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from longconv import _native
from longconv.ops import _cuda
from longconv.ops._layout import plain
from longconv.ops._sizes import blocks, power_of_two
from longconv.ops.linear_scan.reference import result_dtype, result_shape

BLOCKS = 256
"""Fewer leave a GPU empty: then a row's time is cut into chunks, and the coefficients and inputs are read twice."""

LEAST = 4096
"""Fewest numbers that are worth a chunk."""

_CHUNK = 64
"""What the times of a chunk are a multiple of, so that lanes read whole vectors."""


class _Call(ctypes.Structure):
    """``LongconvCudaLinearScan`` of csrc/longconv.h."""

    _fields_ = [
        *[(name, _native.Numbers) for name in ("h", "a", "b", "initial", "ends", "products", "sums")],
        *[(name, ctypes.c_int64) for name in ("sets", "rows", "length", "chunk")],
        *[(name, ctypes.c_int32) for name in ("lanes", "reverse", "element")],
    ]


def available() -> str | None:
    """None if the CUDA library is loaded, has the scan, and torch sees a GPU, else the reason why not."""
    return _cuda.available("linear_scan")


def supports(a: Tensor, b: Tensor, *_: object) -> str | None:
    """None if the backend can serve the call, else the reason why not."""
    return _cuda.refusal("b", b)


def forward(a: Tensor, b: Tensor, initial: Tensor | None, dim: int, reverse: bool) -> Tensor:
    """The states, in the result's dtype; 16-bit inputs are scanned in single precision."""
    dtype, shape = result_dtype(a, b, initial), result_shape(a, b, initial, dim)
    axis = len(shape) + dim
    sizes = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    tensors = {"a": _rows(a, shape, sizes), "b": _rows(b, shape, sizes)}
    if initial is not None:
        tensors["initial"] = _rows(initial, (*shape[:axis], 1, *shape[axis + 1 :]), (sizes[0], 1, sizes[2]))
    h = torch.empty(shape, dtype=dtype, device=b.device)
    _scan(h.view(sizes).mT, tensors, reverse)
    return h


def _rows(x: Tensor, shape: Sequence[int], sizes: tuple[int, int, int]) -> Tensor:
    """The tensor as (outer, inner, length): a view where its strides allow it."""
    return plain(x).expand(shape).reshape(sizes).mT


def _scan(h: Tensor, tensors: dict[str, Tensor], reverse: bool) -> None:
    """The scan of (outer, inner, L) into h."""
    sets, rows, length = h.shape
    lanes = _lanes(rows, length, h.dtype)
    groups = blocks(sets * rows, lanes)
    chunks = max(1, min(BLOCKS // groups, length * lanes // LEAST))
    chunk = blocks(blocks(length, chunks), _CHUNK) * _CHUNK
    chunks = blocks(length, chunk)
    if chunks > 1:
        dtype = torch.complex128 if h.is_complex() else torch.float64
        products, sums, ends = (h.new_empty((sets, rows, chunks), dtype=dtype) for _ in range(3))
        maps = {"products": products, "sums": sums}
        _run(h, {"a": tensors["a"], "b": tensors["b"], **maps}, chunk, lanes, reverse)
        joined = {"h": ends, "a": products, "b": sums}
        if "initial" in tensors:
            joined["initial"] = tensors["initial"]
        _run(ends, joined, chunks, _lanes(rows, chunks, dtype), False)
        tensors = {**tensors, "ends": ends}
    _run(h, {"h": h, **tensors}, chunk, lanes, reverse)


def _lanes(rows: int, length: int, dtype: torch.dtype) -> int:
    """Rows that a warp takes side by side: neighbours in memory, or as many as leave no lane without a time."""
    steps = 8 if torch.promote_types(dtype, torch.float32) == torch.float32 else 4  # of a lane
    return max(min(32, power_of_two(rows)), _cuda.fewest_lanes(length, steps))


def _run(like: Tensor, tensors: dict[str, Tensor], chunk: int, lanes: int, reverse: bool) -> None:
    working = torch.promote_types(like.dtype, torch.float32)
    call = _Call(sets=like.shape[0], rows=like.shape[1], length=like.shape[2], chunk=chunk, lanes=lanes)
    call.reverse, call.element = reverse, _native.ELEMENTS[working]
    for name, tensor in tensors.items():
        setattr(call, name, _native.Numbers.of(tensor))
    _cuda.run("linear_scan", call, like.device)

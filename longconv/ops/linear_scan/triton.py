"""Backend ``triton``: tiles of time in registers, one program after a row's tiles, or several where rows are few."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from longconv.ops import _triton
from longconv.ops._layout import plain
from longconv.ops._sizes import blocks, power_of_two
from longconv.ops._triton import launch
from longconv.ops.linear_scan.reference import result_dtype, result_shape

LEAST = 4
"""Fewest tiles that are worth a chunk."""

TILE = 2048
"""Real numbers of a tile, from each of the tensors."""


def supports(a: Tensor, b: Tensor, *_: object) -> str | None:
    """None if the backend can serve the call, else the reason why not."""
    return _triton.refusal("b", b)


def forward(a: Tensor, b: Tensor, initial: Tensor | None, dim: int, reverse: bool) -> Tensor:
    """The states, in the result's dtype; 16-bit inputs are scanned in single precision."""
    dtype, shape = result_dtype(a, b, initial), result_shape(a, b, initial, dim)
    axis = len(shape) + dim
    sizes = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    tensors = [_folded(t, shape, sizes, axis) for t in (a, b)]
    if initial is not None:
        tensors.append(_folded(initial, (*shape[:axis], 1, *shape[axis + 1 :]), (sizes[0], 1, sizes[2]), axis))
    h = torch.empty(shape, dtype=dtype, device=b.device)
    if sizes[2] == 1:  # neighbours in a tile are rows, not numbers of a row
        tensors = [t.transpose(0, 2) for t in tensors]
        folded = h.view(sizes).transpose(0, 2)
    else:
        folded = h.view(sizes)
    _scan(folded, *tensors, reverse=reverse)
    return h


def _folded(x: Tensor, shape: Sequence[int], sizes: tuple[int, int, int], axis: int) -> Tensor:
    """The tensor as (outer, length, inner): a view where its strides allow it."""
    return plain(x).expand(shape).reshape(sizes)


def _scan(h: Tensor, a: Tensor, b: Tensor, initial: Tensor | None = None, *, reverse: bool) -> None:
    """The scan of (outer, L, inner) into h."""
    from longconv.ops.linear_scan import triton_kernels

    outer, length, inner = h.shape
    width, steps = _tile(b, h.is_complex())
    programs = outer * blocks(inner, width)
    chunks = _triton.parts(programs, length // (steps * LEAST))
    chunk = blocks(blocks(length, chunks), steps) * steps
    chunks = blocks(length, chunk)
    operands = (*_numbers(a), *_numbers(b))
    counts = (length, inner, chunk, chunks)
    options = {
        "REVERSE": reverse,
        "COMPLEX": h.is_complex(),
        "A_COMPLEX": a.is_complex(),
        "B_COMPLEX": b.is_complex(),
        "W": _triton.working(h.dtype),
        "BI": width,
        "BT": steps,
    }
    ends = None
    if chunks > 1:
        dtype = torch.complex128 if h.is_complex() else torch.float64
        products, sums, ends = (h.new_empty((outer, chunks, inner), dtype=dtype) for _ in range(3))
        launch(triton_kernels.summaries, programs * chunks, *operands, _real(products), _real(sums), *counts, **options)
        _scan(ends, products, sums, initial, reverse=False)
    launch(
        triton_kernels.states,
        programs * chunks,
        *_numbers(h),
        *operands,
        *_numbers(initial),
        None if ends is None else _real(ends),
        *counts,
        INITIAL_COMPLEX=initial is not None and initial.is_complex(),
        **options,
    )


def _tile(b: Tensor, is_complex: bool) -> tuple[int, int]:
    """Neighbours and times of a program."""
    _, length, inner = b.shape
    numbers = TILE // 2 if is_complex else TILE
    width = min(power_of_two(inner), 32 if b.stride(2) == 1 else 8)
    return width, min(power_of_two(length), numbers // max(width, 8))


def _real(x: Tensor) -> Tensor:
    return torch.view_as_real(x) if x.is_complex() else x


def _numbers(x: Tensor | None) -> tuple[Any, tuple[int, ...]]:
    """The real numbers of a tensor (outer, L, inner), and its strides in them; None and zeros where there is none."""
    return (None, (0, 0, 0)) if x is None else (_real(x), _real(x).stride()[:3])

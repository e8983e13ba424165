"""``linear_scan`` in chunks: a short loop over the place in a chunk, vectorised over all chunks.

With t = c T + r, every chunk is first scanned from zero for its end e[c] alone and for the product p[c] of its
coefficients; the states between chunks are the scan of e with the coefficients p, which is the same problem with
1/T of the steps, solved in double precision; then every chunk is scanned again from the state before it. Only sums and
products are formed, nothing is divided by a product of coefficients: zeros and underflow are harmless. A product of
coefficients may overflow where no state does: beside a state of 0 it counts for nothing, and on the CPU, where looking
at it costs no synchronisation, it sends the call through the steps as they are. Memory is that of the result.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import torch
from torch import Tensor

from longconv.ops.linear_scan.reference import result_dtype, result_shape, shifted
from longconv.ops.transpose import transpose

STEPS = 64
"""Steps that are taken one by one; a power of two, as is the quarter of it."""

SMALL = 2**18
"""For no more numbers than this a quarter of the steps, because a call costs as much as its numbers."""

NARROW = 16
"""Fewer neighbouring numbers than this at one time make slow steps: time is brought to the front."""


def forward(a: Tensor, b: Tensor, initial: Tensor | None, dim: int, reverse: bool) -> Tensor:
    """The states, in the result's dtype; 16-bit inputs are scanned in single precision."""
    dtype, shape = result_dtype(a, b, initial), result_shape(a, b, initial, dim)
    working = torch.promote_types(dtype, torch.float32)
    a, b = a.to(working), b.to(working).expand(shape)
    carry = None if initial is None else initial.to(working)
    axis = b.ndim + dim
    if math.prod(shape[axis + 1 :]) >= NARROW or b.ndim == 1:
        return _scan(a, b, carry, axis, reverse).to(dtype)
    a, b = _time_first(a, axis), _time_first(b, axis)
    h = _scan(a, b, None if carry is None else carry.movedim(axis, 0), 0, reverse)
    return _time_back(h, axis).to(dtype)


def _time_first(x: Tensor, axis: int) -> Tensor:
    """``x.movedim(axis, 0)``, contiguous."""
    if math.prod(x.shape[axis + 1 :]) != 1:
        return x.movedim(axis, 0).contiguous()
    return transpose(x.reshape(-1, x.shape[axis])).reshape(x.shape[axis], *x.shape[:axis], *x.shape[axis + 1 :])


def _time_back(h: Tensor, axis: int) -> Tensor:
    """The inverse of :func:`_time_first`."""
    if math.prod(h.shape[axis + 1 :]) != 1:
        return h.movedim(0, axis).contiguous()
    return transpose(h.reshape(len(h), -1)).reshape(*h.shape[1 : axis + 1], len(h), *h.shape[axis + 1 :])


def _scan(a: Tensor, b: Tensor, carry: Tensor | None, axis: int, reverse: bool, of_chunks: bool = False) -> Tensor:
    """The states of b's shape; a has b's length or 1 along ``axis``, and carry 1.

    Where the steps are those ``of_chunks``, a holds products, which may have overflowed.
    """
    length = b.shape[axis]
    chunk = _chunk(length, b.numel() // length)
    h = torch.empty_like(b, memory_format=torch.contiguous_format)
    whole = length // chunk * chunk
    parts = [(0, whole), (whole, length - whole)] if whole < length else [(0, length)]
    for start, size in reversed(parts) if reverse else parts:
        a_part = a if a.shape[axis] == 1 else a.narrow(axis, start, size)
        b_part, h_part = b.narrow(axis, start, size), h.narrow(axis, start, size)
        if size <= chunk:
            _steps(
                _coefficients(a_part, axis, reverse),
                _slices(b_part, axis, reverse),
                _slices(h_part, axis, reverse),
                carry,
                of_chunks,
            )
        else:
            _chunks(a_part, b_part, h_part, carry, axis, chunk, reverse, of_chunks)
        carry = h_part.narrow(axis, 0 if reverse else size - 1, 1)
    return h


def _chunk(length: int, width: int) -> int:
    """T: the whole length if it is short; fewer steps where they are too small to be worth a call each."""
    return length if length <= STEPS else STEPS if length * width > SMALL else STEPS // 4


def _slices(x: Tensor, axis: int, reverse: bool) -> Iterable[Tensor]:
    """The slices of size 1 along ``axis`` in the order of the scan."""
    slices = x.split(1, axis)
    return reversed(slices) if reverse else slices


def _coefficients(a: Tensor, axis: int, reverse: bool) -> Iterable[Tensor]:
    """Like :func:`_slices`, but one slice for ever if a has no time."""
    return itertools.repeat(a) if a.shape[axis] == 1 else _slices(a, axis, reverse)


def _step(a: Tensor, b: Tensor, state: Tensor, out: Tensor, of_chunks: bool) -> Tensor:
    """One step in place, a state + b; b where the state is 0, though a product of coefficients be infinite."""
    if not of_chunks:
        return torch.addcmul(b, a, state, out=out)
    return torch.where(state == 0, b, torch.addcmul(b, a, state), out=out)


def _steps(
    a: Iterable[Tensor], b: Iterable[Tensor], h: Iterable[Tensor], state: Tensor | None, of_chunks: bool = False
) -> None:
    """One step after the other: h = a state + b, written in place."""
    for a_t, b_t, h_t in zip(a, b, h, strict=False):
        state = h_t.copy_(b_t) if state is None else _step(a_t, b_t, state, h_t, of_chunks)


def _chunks(
    a: Tensor, b: Tensor, h: Tensor, carry: Tensor | None, axis: int, chunk: int, reverse: bool, of_chunks: bool
) -> None:
    """The scan of whole chunks into h."""
    timeless = a.shape[axis] == 1
    inner = axis + 1
    steps, into = (a, b), h
    a = a.unsqueeze(inner) if timeless else a.unflatten(axis, (-1, chunk))
    b, h = (x.unflatten(axis, (-1, chunk)) for x in (b, h))
    wide = torch.promote_types(b.dtype, torch.float64)
    products, ends = None, None
    for a_t, b_t in zip(_coefficients(a, inner, reverse), _slices(b, inner, reverse), strict=False):
        ends = b_t.clone() if ends is None else _step(a_t, b_t, ends, ends, of_chunks)
        if not timeless:
            products = a_t.to(wide, copy=True) if products is None else products.mul_(a_t)
    assert ends is not None
    products = _power(a.to(wide), chunk) if products is None else products
    if _overflowed(products):
        a, b = steps
        rows = _coefficients(a, axis, reverse), _slices(b, axis, reverse), _slices(into, axis, reverse)
        _steps(*rows, carry, of_chunks)
        return
    carry = None if carry is None else carry.to(wide)
    ends = _scan(products.squeeze(inner), ends.squeeze(inner).to(wide), carry, axis, reverse, True).unsqueeze(inner)
    starts = shifted(ends, None if carry is None else carry.unsqueeze(inner), axis, reverse).to(b.dtype)
    _steps(_coefficients(a, inner, reverse), _slices(b, inner, reverse), _slices(h, inner, reverse), starts, of_chunks)


def _overflowed(products: Tensor) -> bool:
    """Whether a product is infinite or NaN; not looked at where looking would wait for the device."""
    return products.device.type == "cpu" and not products.isfinite().all()


def _power(a: Tensor, exponent: int) -> Tensor:
    """The power of a whose exponent is a power of two."""
    for _ in range(exponent.bit_length() - 1):
        a = a * a
    return a

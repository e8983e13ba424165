"""Backend ``cpu``: csrc/cpu/fft_conv.cpp, one complex transform of its own length for every row.

Memory is that of a few rows a thread; the tables of a length are kept from call to call. Sequences whose rows don't lie
in one piece, as those with the channels last, are put in order some channels at a time.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from longconv import _native
from longconv.ops.fft_conv.plain import arithmetic

_CALL = struct.Struct("8q5i4x42q")
"""``LongconvFftConv`` of csrc/longconv.h: three pointers and five sizes, five switches, 14 ``LongconvRows``."""

_ABSENT = (0, 0, 0)
_GROUP = 2**18  # numbers of a sequence that are put in order at a time
_LINE = 16  # channels that are put in order together at least: a cache line


def available() -> str | None:
    """None if the CPU library is loaded and has the convolution, else the reason why not."""
    return _native.cpu().lacks("fft_conv")


def supports(u: Tensor, *_: Any) -> str | None:
    """None if the backend can serve the call, else the reason why not."""
    return None if u.device.type == "cpu" else f"u is on {u.device}"


def forward(
    u: Tensor,
    k: Tensor,
    k_reverse: Tensor | None,
    skip: Tensor | None,
    pre_gate: Tensor | None,
    post_gate: Tensor | None,
    lengths: Tensor | None,
    mode: str,
) -> Tensor:
    """The result y of the operator ``fft_conv``, contiguous."""
    call = _Call(u.shape, u.dtype, k, k_reverse, skip, lengths, mode)
    y = _empty(u.shape, u.dtype)
    call.run((u, pre_gate, post_gate), y=y)
    return y


def backward(
    dy: Tensor,
    u: Tensor | None,
    k: Tensor,
    k_reverse: Tensor | None,
    skip: Tensor | None,
    pre_gate: Tensor | None,
    post_gate: Tensor | None,
    lengths: Tensor | None,
    mode: str,
    wanted: Sequence[bool],
) -> list[Tensor]:
    """The wanted gradients, in the order of the operator's arguments; u may be None for du alone."""
    call = _Call(dy.shape, dy.dtype, k, k_reverse, skip, lengths, mode)
    given = (dy, k, k_reverse, skip, pre_gate, post_gate)
    grads = [
        call.room(place, t) if want and t is not None else None
        for place, (t, want) in enumerate(zip(given, wanted, strict=True))
    ]
    call.run((u, pre_gate, post_gate, dy), grads=grads)
    return [
        call.finished(t, grad) if 0 < place < 4 else grad
        for place, (t, grad) in enumerate(zip(given, grads, strict=True))
        if t is not None and grad is not None
    ]


class _Call:
    """What the passes of a call have in common: the filters in the precision of the arithmetic, (1 or B, H, taps)."""

    def __init__(
        self,
        shape: Sequence[int],
        dtype: torch.dtype,
        k: Tensor,
        k_reverse: Tensor | None,
        skip: Tensor | None,
        lengths: Tensor | None,
        mode: str,
    ) -> None:
        self.batch, self.channels, self.length = shape
        self.storage, self.dtype = dtype, arithmetic(dtype)
        self.circular = mode == "circular"
        self.lengths = None if lengths is None else lengths.to(torch.int64).contiguous()
        self.periods = self.lengths[:, None, None] if self.lengths is not None and self.circular else None
        self.per_sample = k.ndim == 3 or (k_reverse is not None and k_reverse.ndim == 3) or self.periods is not None
        self.k = self._taps(k, self.length)
        self.k_reverse = None if k_reverse is None or self.length == 1 else self._taps(k_reverse, self.length - 1)
        self.skip = None if skip is None else skip.resolve_neg().to(self.dtype)[None, :, None]

    def _taps(self, taps: Tensor, most: int) -> Tensor:
        if taps.shape[-1] > most:
            taps = taps[..., :most]
        if taps.ndim == 2:
            taps = taps[None]
        taps = taps.resolve_neg().to(self.dtype)
        if self.per_sample:
            taps = self._inside(taps.expand(self.batch, -1, -1))
        return taps if _is_straight(taps) else taps.contiguous()

    def _inside(self, taps: Tensor) -> Tensor:
        """The taps of each sample within its own period, zeros beyond."""
        if self.periods is None:
            return taps
        return torch.where(torch.arange(taps.shape[-1]) < self.periods, taps, taps.new_zeros(()))

    def room(self, place: int, given: Tensor) -> Tensor:
        """Memory for the gradient of argument number ``place``: the filters' own have the rank of the computation."""
        if place not in (1, 2, 3):
            return _empty(given.shape, self.storage)
        taps = given.shape[-1] if place < 3 else 1
        room = _empty((self.batch if self.per_sample else 1, self.channels, taps), self.dtype)
        beyond = place < 3 and taps > self.length + 1 - place
        return room.zero_() if beyond else room

    def finished(self, given: Tensor, grad: Tensor) -> Tensor:
        """A filter's gradient in the shape and dtype of its argument: summed over the samples that share it."""
        grad = self._inside(grad)
        if given.ndim < 3:
            grad = grad.sum(0) if self.per_sample else grad[0]
        return grad.view(given.shape).to(given.dtype)

    def run(
        self,
        sequences: Sequence[Tensor | None],
        *,
        y: Tensor | None = None,
        grads: Sequence[Tensor | None] = (None,) * 6,
    ) -> None:
        """The calls into the library: of ``sequences`` u, the gates and dy; what they fill is y or the gradients."""
        plan, threads = _plan(self.length, self.dtype), torch.get_num_threads()
        backward = len(sequences) == 4
        work = _empty((threads * (plan.backward if backward else plan.forward),), self.dtype)
        head = (
            plan.tables.data_ptr(),
            work.data_ptr(),
            0 if self.lengths is None else self.lengths.data_ptr(),
            self.batch,
        )
        taps = (self.length, self.k.shape[-1], 0 if self.k_reverse is None else self.k_reverse.shape[-1])
        switches = (self.per_sample, self.circular, backward, threads, _native.ELEMENTS[self.storage])
        call = _native.cpu().call
        rows = [None if t is None else t.resolve_neg() for t in (*sequences, None)[:4]]
        for group in self._groups(rows, threads):
            u, pre_gate, post_gate, dy = (t if t is None else _ordered(_part(t, group)) for t in rows)
            filters = [_part(t, group) for t in (self.k, self.k_reverse, self.skip)]
            results = [_part(t, group) for t in (y, *grads)]
            tensors = (u, *filters, pre_gate, post_gate, results[0], dy, *results[1:])
            numbers = [n for t in tensors for n in (_ABSENT if t is None else (t.data_ptr(), *t.stride()[:2]))]
            call("fft_conv", _CALL.pack(*head, group.stop - group.start, *taps, *switches, *numbers))

    def _groups(self, rows: Sequence[Tensor | None], threads: int) -> Iterator[slice]:
        """The channels that are done together: all of them, unless sequences must be put in order first."""
        size = self.channels
        if not all(t is None or _is_straight(t) for t in rows):
            lines = max(threads, _GROUP // (self.batch * self.length * _LINE))
            size = lines * _LINE
        return (slice(begin, min(begin + size, self.channels)) for begin in range(0, self.channels, size))


def _part(x: Any, channels: slice) -> Any:
    return x if x is None or channels.stop - channels.start == x.shape[1] else x[:, channels]


def _is_straight(x: Tensor) -> bool:
    return x.stride(-1) == 1 or x.shape[-1] == 1


def _ordered(x: Tensor) -> Tensor:
    """A tensor (B, channels, L) with rows in one piece: itself, or a copy."""
    if _is_straight(x):
        return x
    if x.stride(1) != 1:
        return x.contiguous()
    copy = _empty(x.shape, x.dtype)
    batch, channels, length = x.shape
    places = (*copy.stride()[:2], x.stride(0), x.stride(2))
    arguments = (copy.data_ptr(), x.data_ptr(), batch, length, channels, *places, x.element_size())
    _native.cpu().call("transpose", *arguments)
    return copy


def _empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    try:
        return torch.empty(shape, dtype=dtype)
    except RuntimeError as error:
        raise MemoryError(f"fft_conv: no memory for a {tuple(shape)} {dtype} tensor: {error}") from error


class _Size(ctypes.Structure):
    """``LongconvFftSize`` of csrc/longconv.h."""

    _fields_ = [(name, ctypes.c_int64) for name in ("size", "tables", "forward", "backward")]


class _Plan(NamedTuple):
    """The tables for a length, and the numbers that a worker takes."""

    tables: Tensor
    forward: int
    backward: int


CACHE_BYTES = 2**27
_plans: dict[tuple[int, torch.dtype, str | None], _Plan] = {}  # in the order in which they were made


def _plan(length: int, dtype: torch.dtype) -> _Plan:
    """The plan for a length in the chosen instruction set; the last ones are kept, as :data:`CACHE_BYTES` hold.

    Several threads may be here: each step on the dictionary is one operation of the interpreter, and of two that make
    the same plan the last is kept.
    """
    key = length, dtype, _native.chosen_isa(_native.cpu())
    plan = _plans.get(key)
    if plan is None:
        plan = _plans[key] = _make_plan(length, dtype)
        kept = list(_plans.items())
        surplus = sum(p.tables.nbytes for _, p in kept) - CACHE_BYTES
        for old, p in kept:
            if surplus > 0 and old != key:
                surplus -= p.tables.nbytes
                _plans.pop(old, None)
    return plan


def _make_plan(length: int, dtype: torch.dtype) -> _Plan:
    element, size = _native.ELEMENTS[dtype], _Size()
    _native.cpu().call("fft_plan", None, length, element, ctypes.byref(size))
    with torch.inference_mode(False):
        tables = _empty((size.tables,), dtype)
    _native.cpu().call("fft_plan", tables.data_ptr(), length, element, None)
    return _Plan(tables, size.forward, size.backward)

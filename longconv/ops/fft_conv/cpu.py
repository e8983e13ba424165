"""Backend ``cpu``: csrc/cpu/fft_conv.cpp, one complex transform of its own length for every row, or few taps directly.

Memory is that of a few rows a thread; the tables of a length are kept from call to call. Sequences whose rows don't lie
in one piece, as those with the channels last, are put in order some channels at a time.
"""

from __future__ import annotations

import bisect
import ctypes
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from longconv import _native
from longconv.ops._short_way import short_way
from longconv.ops.fft_conv.plain import Arguments, arithmetic

_GROUP = 2**18  # numbers of a sequence that are put in order at a time
_LINE = 16  # channels that are put in order together: a cache line
_LINES = 4  # neighbouring ones are read faster than one alone
_MOST = 2**22  # numbers that are put in order at a time for their sake

_LENGTHS = (2**8, 2**10, 2**12, 2**14)
_MOST_TAPS = {
    "x86-64-v4": {
        torch.float32: ((40, 40, 72, 80, 112), (8, 8, 16, 32, 80)),
        torch.float64: ((32, 40, 64, 64, 96), (16, 8, 32, 48, 80)),
    },
    "x86-64-v3": {
        torch.float32: ((64, 64, 72, 96, 128), (24, 24, 32, 48, 72)),
        torch.float64: ((64, 64, 80, 112, 128), (24, 16, 32, 56, 80)),
    },
    "x86-64-v2": {
        torch.float32: ((40, 56, 64, 72, 80), (24, 32, 40, 48, 64)),
        torch.float64: ((48, 56, 72, 80, 80), (24, 32, 40, 56, 64)),
    },
}
"""Taps, of both filters together, up to which sums over them are quicker than transforms: forward, and for the
gradients; each for sequences below the first of :data:`_LENGTHS`, between two of them, and from the last one on.

Measured on one thread of a Zen 4 core, medians of interleaved calls of both ways on 2^19 numbers, 8 samples, of powers
of two from 32 to 64K, with 8 to 160 taps (x86-64-v2: from 64 on, 16 to 128): an entry is about the number of taps up to
which the geometric mean of the ratios of their times over the lengths is in favour of the sums.
"""


class _Rows(ctypes.Structure):
    """``LongconvRows`` of csrc/longconv.h."""

    _fields_ = [("data", ctypes.c_void_p), ("batch", ctypes.c_int64), ("channel", ctypes.c_int64)]


_GRADIENTS = ("du", "dk", "dk_reverse", "dskip", "dpre_gate", "dpost_gate")
_FILTERS = ("dk", "dk_reverse", "dskip")


class _Call(ctypes.Structure):
    """``LongconvFftConv`` of csrc/longconv.h."""

    _fields_ = [
        *[(name, ctypes.c_void_p) for name in ("plan", "work", "lengths")],
        *[(name, ctypes.c_int64) for name in ("batch", "channels", "length", "taps", "reverse_taps")],
        *[(name, ctypes.c_int32) for name in ("per_sample", "circular", "backward", "threads")],
        *[(name, ctypes.c_int32) for name in ("element", "filter_element")],
        *[(name, _Rows) for name in ("u", "k", "k_reverse", "skip", "pre_gate", "post_gate", "y", "dy", *_GRADIENTS)],
    ]


def available() -> str | None:
    """None if the CPU library is loaded and has the convolution, else the reason why not."""
    return _native.cpu().lacks("fft_conv")


def supports(u: Tensor, *_: Any) -> str | None:
    """None if the backend can serve the call, else the reason why not."""
    return None if u.device.type == "cpu" else f"u is on {u.device}"


def forward(u: Tensor, *arguments: Any) -> Tensor:
    """The result y of the operator ``fft_conv``, contiguous; after u come :class:`Arguments`."""
    given = Arguments(*arguments)
    problem = _Problem(u.shape, u.dtype, given, backward=False)
    y = torch.empty(u.shape, dtype=u.dtype)
    problem.run({"u": u, "pre_gate": given.pre_gate, "post_gate": given.post_gate}, {"y": y})
    return y


def bind(u: Tensor, *arguments: Any) -> Callable[..., Tensor] | None:
    """The convolution for all tensors laid out like these; None where they have to be looked at or copied."""
    given = Arguments(*arguments)
    sequences = {"u": u, "pre_gate": given.pre_gate, "post_gate": given.post_gate}
    if given.lengths is not None or not all(t is None or _is_straight(t) for t in sequences.values()):
        return None
    problem = _Problem(u.shape, u.dtype, given, backward=False)
    y = torch.empty(u.shape, dtype=u.dtype)
    call, used = problem.describe({**sequences, "y": y}, slice(0, problem.channels))
    del used["y.data"]
    return short_way("fft_conv", call, (u, *given[:5]), used, y, _memory(call), keep=problem.tables)


def backward(dy: Tensor, u: Tensor | None, *rest: Any) -> list[Tensor]:
    """The wanted gradients, in the order of the operator's arguments; u may be None for du alone."""
    *arguments, wanted = rest
    given = Arguments(*arguments)
    problem = _Problem(dy.shape, dy.dtype, given, backward=True)
    tensors = (dy, *given[:5])
    grads = {
        name: problem.room(name, t)
        for name, t, want in zip(_GRADIENTS, tensors, wanted, strict=True)
        if want and t is not None
    }
    problem.run({"u": u, "pre_gate": given.pre_gate, "post_gate": given.post_gate, "dy": dy}, grads)
    return [
        problem.finished(t, grads[name]) if name in _FILTERS else grads[name]
        for name, t in zip(_GRADIENTS, tensors, strict=True)
        if t is not None and name in grads
    ]


class _Problem:
    """What the passes of a call have in common: the filters as the library takes them, (1 or B, H, taps)."""

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, given: Arguments, *, backward: bool) -> None:
        self.batch, self.channels, self.length = shape
        self.storage, self.dtype = dtype, arithmetic(dtype)
        k, k_reverse, skip, _, _, lengths, mode = given
        self.circular = mode == "circular"
        self.lengths = None if lengths is None else lengths.to(torch.int64).contiguous()
        self.periods = self.lengths[:, None, None] if self.lengths is not None and self.circular else None
        self.per_sample = k.ndim == 3 or (k_reverse is not None and k_reverse.ndim == 3) or self.periods is not None
        k_reverse = k_reverse if self.length > 1 else None
        self.stored = k.dtype if k_reverse is None or k_reverse.dtype == k.dtype else self.dtype
        self.k = self._taps(k, self.length)
        self.k_reverse = None if k_reverse is None else self._taps(k_reverse, self.length - 1)
        self.skip = None if skip is None else skip.resolve_neg().to(self.dtype)[None, :, None]
        self.taps, self.reverse_taps = (0 if t is None else t.shape[-1] for t in (self.k, self.k_reverse))
        few = self.taps + self.reverse_taps <= _most_taps(self.length, self.dtype, backward)
        periodic = self.circular and self.lengths is None
        self.tables = None if few else _plan(self.length, periodic, self.dtype)

    def _taps(self, taps: Tensor, most: int) -> Tensor:
        if taps.shape[-1] > most:
            taps = taps[..., :most]
        if taps.ndim == 2:
            taps = taps[None]
        taps = taps.resolve_neg().to(self.stored)
        if self.per_sample:
            taps = self._inside(taps.expand(self.batch, -1, -1))
        return taps if _is_straight(taps) else taps.contiguous()

    def _inside(self, taps: Tensor) -> Tensor:
        """The taps of each sample within its own period, zeros beyond."""
        if self.periods is None:
            return taps
        return torch.where(torch.arange(taps.shape[-1]) < self.periods, taps, taps.new_zeros(()))

    def room(self, name: str, given: Tensor) -> Tensor:
        """Memory for the gradient of an argument: the filters' own have the rank of the computation."""
        if name not in _FILTERS:
            return torch.empty(given.shape, dtype=self.storage)
        taps = 1 if name == "dskip" else given.shape[-1]
        written = {"dk": self.taps, "dk_reverse": self.reverse_taps, "dskip": 1}[name]
        make = torch.empty if taps == written else torch.zeros
        return make((self.batch if self.per_sample else 1, self.channels, taps), dtype=self.dtype)

    def finished(self, given: Tensor, grad: Tensor) -> Tensor:
        """A filter's gradient in the shape and dtype of its argument: summed over the samples that share it."""
        grad = self._inside(grad)
        if given.ndim < 3:
            grad = grad.sum(0) if self.per_sample else grad[0]
        return grad.view(given.shape).to(given.dtype)

    def describe(self, rows: Mapping[str, Tensor | None], channels: slice) -> tuple[_Call, dict[str, Tensor]]:
        """The description of a call for some channels, and by its fields the tensors that it has the addresses of."""
        call = _Call(batch=self.batch, channels=channels.stop - channels.start, length=self.length)
        call.taps, call.reverse_taps = self.taps, self.reverse_taps
        call.per_sample, call.circular, call.backward = self.per_sample, self.circular, "dy" in rows
        call.threads = torch.get_num_threads()
        call.element, call.filter_element = _native.ELEMENTS[self.storage], _native.ELEMENTS[self.stored]
        call.plan = None if self.tables is None else self.tables.data_ptr()
        call.lengths = None if self.lengths is None else self.lengths.data_ptr()
        filters = {"k": self.k, "k_reverse": self.k_reverse, "skip": self.skip}
        used = {}
        for name, tensor in (*rows.items(), *((name, _part(t, channels)) for name, t in filters.items())):
            if tensor is not None:
                setattr(call, name, _Rows(tensor.data_ptr(), *tensor.stride()[:2]))
                used[f"{name}.data"] = tensor
        return call, used

    def run(self, sequences: Mapping[str, Tensor | None], results: Mapping[str, Tensor]) -> None:
        """The calls into the library, that write the results."""
        rows = {name: None if t is None else t.resolve_neg() for name, t in sequences.items()}
        for group in self._groups(rows.values()):
            ordered = {name: t if t is None else _ordered(_part(t, group)) for name, t in rows.items()}
            written = {name: _part(t, group) for name, t in results.items()}
            call, _ = self.describe({**ordered, **written}, group)
            work = torch.empty(_memory(call), dtype=torch.uint8)
            call.work = work.data_ptr()
            _native.cpu().call("fft_conv", ctypes.byref(call), None)

    def _groups(self, rows: Iterable[Tensor | None]) -> Iterator[slice]:
        """The channels that are done together: all of them, unless sequences must be put in order first."""
        size = self.channels
        if not all(t is None or _is_straight(t) for t in rows):
            line = self.batch * self.length * _LINE
            size = _LINE * max(torch.get_num_threads(), _GROUP // line, min(_LINES, _MOST // line))
        return (slice(begin, min(begin + size, self.channels)) for begin in range(0, self.channels, size))


def _most_taps(length: int, dtype: torch.dtype, backward: bool) -> int:
    """The taps that are few; instruction sets that were not measured count as the narrowest."""
    table = _MOST_TAPS.get(_native.chosen_isa(_native.cpu()) or "", _MOST_TAPS["x86-64-v2"])
    return table[dtype][backward][bisect.bisect(_LENGTHS, length)]


def _memory(call: _Call) -> int:
    """Bytes that a call works in."""
    memory = ctypes.c_int64()
    _native.cpu().call("fft_conv", ctypes.byref(call), ctypes.byref(memory))
    return memory.value


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
    copy = torch.empty(x.shape, dtype=x.dtype)
    batch, channels, length = x.shape
    places = (*copy.stride()[:2], x.stride(0), x.stride(2))
    arguments = (copy.data_ptr(), x.data_ptr(), batch, length, channels, *places, x.element_size())
    _native.cpu().call("transpose", *arguments)
    return copy


CACHE_BYTES = 2**27
_plans: dict[tuple[int, bool, torch.dtype, str | None], Tensor] = {}  # in the order in which they were made


def _plan(length: int, periodic: bool, dtype: torch.dtype) -> Tensor:
    """The tables for a length in the chosen instruction set; the last ones are kept, as :data:`CACHE_BYTES` hold.

    Several threads may be here: each step on the dictionary is one operation of the interpreter, and of two that make
    the same tables the last are kept.
    """
    key = length, periodic, dtype, _native.chosen_isa(_native.cpu())
    tables = _plans.get(key)
    if tables is None:
        tables = _plans[key] = _make_plan(length, periodic, dtype)
        kept = list(_plans.items())
        surplus = sum(t.nbytes for _, t in kept) - CACHE_BYTES
        for old, t in kept:
            if surplus > 0 and old != key:
                surplus -= t.nbytes
                _plans.pop(old, None)
    return tables


def _make_plan(length: int, periodic: bool, dtype: torch.dtype) -> Tensor:
    arguments, size = (length, periodic, _native.ELEMENTS[dtype]), ctypes.c_int64()
    _native.cpu().call("fft_plan", None, *arguments, ctypes.byref(size))
    with torch.inference_mode(False):
        tables = torch.empty(size.value, dtype=torch.uint8)
    _native.cpu().call("fft_plan", tables.data_ptr(), *arguments, None)
    return tables

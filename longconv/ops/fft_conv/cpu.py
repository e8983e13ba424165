"""Backend ``cpu``: csrc/cpu/fft_conv.cpp, one complex transform of its own length for every row.

Memory is that of a few rows a thread; the tables of a length are kept from call to call.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from longconv import _native
from longconv.ops.fft_conv.plain import arithmetic


class _Size(ctypes.Structure):
    """``LongconvFftSize`` of csrc/longconv.h."""

    _fields_ = [(name, ctypes.c_int64) for name in ("size", "tables", "forward", "backward")]


class _Rows(ctypes.Structure):
    """``LongconvRows`` of csrc/longconv.h."""

    _fields_ = [("data", ctypes.c_void_p), ("batch", ctypes.c_int64), ("channel", ctypes.c_int64)]


_POINTERS = ("plan", "work", "lengths")
_NUMBERS = ("batch", "channels", "length", "taps", "reverse_taps")
_SWITCHES = ("per_sample", "circular", "backward", "threads", "element")
_INPUTS = ("u", "k", "k_reverse", "skip", "pre_gate", "post_gate")
_RESULTS = ("du", "dk", "dk_reverse", "dskip", "dpre_gate", "dpost_gate")


class _Call(ctypes.Structure):
    """``LongconvFftConv`` of csrc/longconv.h."""

    _fields_ = [
        *[(name, ctypes.c_void_p) for name in _POINTERS],
        *[(name, ctypes.c_int64) for name in _NUMBERS],
        *[(name, ctypes.c_int32) for name in _SWITCHES],
        *[(name, _Rows) for name in (*_INPUTS, "y", "dy", *_RESULTS)],
    ]


def available() -> str | None:
    """None if the CPU library is loaded and has the convolution, else the reason why not."""
    return _native.cpu().lacks("fft_conv")


def supports(u: Tensor, *_: Any) -> str | None:
    """None if the backend can serve the call, else the reason why not."""
    return None if u.device.type == "cpu" else f"u is on {u.device}"


def forward(u: Tensor, *rest: Any) -> Tensor:
    """The result y of the operator ``fft_conv``, contiguous."""
    call = _Prepared(u.shape, u.dtype, u, *rest)
    y = torch.empty(u.shape, dtype=u.dtype)
    call.run(y=y)
    return y


def backward(dy: Tensor, u: Tensor | None, *rest: Any) -> list[Tensor]:
    """The wanted gradients, in the order of the operator's arguments; u may be None for du alone."""
    *arguments, wanted = rest
    call = _Prepared(dy.shape, dy.dtype, u, *arguments)
    given = (dy, *arguments[:5])
    grads = [call.room(place, t) if want else None for place, (t, want) in enumerate(zip(given, wanted, strict=True))]
    call.run(dy=call.sequence(dy), **dict(zip(_RESULTS, grads, strict=True)))
    triples = zip(range(6), given, grads, strict=True)
    return [call.finished(place, t, grad) for place, t, grad in triples if grad is not None and t is not None]


class _Prepared:
    """The tensors of a call with contiguous rows, the filters in the precision of the arithmetic."""

    def __init__(
        self,
        shape: Sequence[int],
        dtype: torch.dtype,
        u: Tensor | None,
        k: Tensor,
        k_reverse: Tensor | None,
        skip: Tensor | None,
        pre_gate: Tensor | None,
        post_gate: Tensor | None,
        lengths: Tensor | None,
        mode: str,
    ) -> None:
        self.batch, self.channels, self.length = shape
        self.storage, self.dtype = dtype, arithmetic(dtype)
        self.circular = mode == "circular"
        self.lengths = None if lengths is None else lengths.to(torch.int64).contiguous()
        self.periods = self.lengths[:, None, None] if self.lengths is not None and self.circular else None
        self.per_sample = k.ndim == 3 or (k_reverse is not None and k_reverse.ndim == 3) or self.periods is not None
        self.inputs = {
            "u": self.sequence(u),
            "k": self._taps(k, self.length),
            "k_reverse": self._taps(k_reverse, self.length - 1),
            "skip": None if skip is None else skip.resolve_neg().to(self.dtype)[None, :, None],
            "pre_gate": self.sequence(pre_gate),
            "post_gate": self.sequence(post_gate),
        }

    def sequence(self, x: Tensor | None) -> Tensor | None:
        """A tensor of rows: a view where the last stride allows it."""
        if x is None:
            return None
        x = x.resolve_neg()
        return x if x.stride(-1) == 1 else x.contiguous()

    def _taps(self, taps: Tensor | None, most: int) -> Tensor | None:
        if taps is None or most == 0:
            return None
        taps = taps[..., :most] if taps.ndim == 3 else taps[None, :, :most]
        return self.sequence(self._inside(taps.to(self.dtype).expand(self.batch if self.per_sample else 1, -1, -1)))

    def _inside(self, taps: Tensor) -> Tensor:
        """The taps of each sample within its own period, zeros beyond."""
        if self.periods is None:
            return taps
        return torch.where(torch.arange(taps.shape[-1]) < self.periods, taps, taps.new_zeros(()))

    def room(self, place: int, given: Tensor | None) -> Tensor:
        """Memory for the gradient of argument number ``place``: the filters' own have the rank of the computation."""
        assert given is not None
        if place not in (1, 2, 3):
            return torch.empty(given.shape, dtype=self.storage)
        taps = given.shape[-1] if place < 3 else 1
        beyond = place < 3 and taps > self.length + 1 - place
        return (torch.zeros if beyond else torch.empty)(
            self.batch if self.per_sample else 1, self.channels, taps, dtype=self.dtype
        )

    def finished(self, place: int, given: Tensor, grad: Tensor) -> Tensor:
        """The gradient in the shape and dtype of its argument: summed over the samples that share a filter."""
        if place in (1, 2, 3):
            grad = self._inside(grad)
            if given.ndim < 3:
                grad = grad.sum(0) if self.per_sample else grad[0]
        return grad.view(given.shape).to(given.dtype)

    def run(self, *, dy: Tensor | None = None, **results: Tensor | None) -> None:
        """The call into the library; ``results`` by the names of its fields."""
        element, threads = _native.ELEMENTS[self.storage], torch.get_num_threads()
        plan, (_, _, *memory) = _plan(self.length, _native.ELEMENTS[self.dtype], _native.chosen_isa(_native.cpu()))
        work = torch.empty(threads * memory[dy is not None], dtype=self.dtype)
        call = _Call(plan.data_ptr(), work.data_ptr(), None if self.lengths is None else self.lengths.data_ptr())
        call.batch, call.channels, call.length = self.batch, self.channels, self.length
        for name in ("k", "k_reverse"):
            taps = self.inputs[name]
            setattr(call, "taps" if name == "k" else "reverse_taps", 0 if taps is None else taps.shape[-1])
        call.circular = self.circular
        call.per_sample, call.backward, call.threads, call.element = self.per_sample, dy is not None, threads, element
        for name, tensor in {**self.inputs, **results, "dy": dy}.items():
            if tensor is not None:
                setattr(call, name, _Rows(tensor.data_ptr(), tensor.stride(0), tensor.stride(1)))
        _native.cpu().call("fft_conv", ctypes.byref(call))


@functools.lru_cache(maxsize=32)
def _plan(length: int, element: int, isa: str | None) -> tuple[Tensor, tuple[int, int, int, int]]:
    """The tables for a length in an instruction set, and the fields of ``LongconvFftSize``."""
    size = _Size()
    _native.cpu().call("fft_plan", None, length, element, ctypes.byref(size))
    with torch.inference_mode(False):
        tables = torch.empty(size.tables, dtype=next(d for d, e in _native.ELEMENTS.items() if e == element))
    _native.cpu().call("fft_plan", tables.data_ptr(), length, element, None)
    return tables, (size.size, size.tables, size.forward, size.backward)

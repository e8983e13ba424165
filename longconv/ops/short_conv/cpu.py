"""Backend ``cpu``: csrc/cpu/short_conv.cpp, products and sums in registers, tile by tile of the sequence."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from longconv import _native
from longconv.ops._short_way import memory, run, short_way

_FEWEST_CHANNELS = 8
"""Fewer side by side leave vectors too empty: then rows are copied."""


class _Sequence(ctypes.Structure):
    """``LongconvSequence`` of csrc/longconv.h."""

    _fields_ = [("data", ctypes.c_void_p), *[(name, ctypes.c_int64) for name in ("batch", "channel", "time")]]


class _Call(ctypes.Structure):
    """``LongconvShortConv`` of csrc/longconv.h."""

    _fields_ = [
        *[(name, ctypes.c_void_p) for name in ("work", "w", "bias", "dw", "dbias")],
        *[(name, ctypes.c_int64) for name in ("batch", "channels", "length", "taps")],
        *[(name, ctypes.c_int32) for name in ("activation", "columns", "backward", "threads", "element")],
        *[(name, _Sequence) for name in ("u", "initial", "y", "dy", "du", "dinitial")],
    ]


def available() -> str | None:
    """None if the CPU library is loaded and has the convolution, else the reason why not."""
    return _native.cpu().lacks("short_conv")


def supports(u: Tensor, *_: object) -> str | None:
    """None if the backend can serve the call, else the reason why not."""
    return None if u.device.type == "cpu" else f"u is on {u.device}"


def forward(u: Tensor, w: Tensor, bias: Tensor | None, initial: Tensor | None, activation: str) -> Tensor:
    """The result y of the operator ``short_conv``, channels-last as u is."""
    columns = _in_columns(u)
    u, y = _side_by_side(u, columns), _empty(u.shape, u.dtype, columns)
    run("short_conv", *_call(u, w, bias, initial, activation, columns, y=y))
    return y


def bind(
    u: Tensor, w: Tensor, bias: Tensor | None, initial: Tensor | None, activation: str
) -> Callable[..., Tensor] | None:
    """The convolution for all tensors laid out like these; None where they or the result have to be copied."""
    columns = _in_columns(u)
    if u.stride(1) == 1 and u.stride(2) != 1 and not columns:
        return None  # the operator's result is channels-last here
    y = _empty(u.shape, u.dtype, columns)
    call, used = _call(_side_by_side(u, columns), w, bias, initial, activation, columns, y=y)
    return short_way("short_conv", call, (u, w, bias, initial), used, y, memory("short_conv", call))


def backward(
    dy: Tensor,
    u: Tensor,
    w: Tensor,
    bias: Tensor | None,
    initial: Tensor | None,
    activation: str,
    wanted: Sequence[bool],
) -> list[Tensor]:
    """The wanted gradients, in the order (u, w, bias, initial)."""
    columns, working = _in_columns(u), torch.promote_types(u.dtype, torch.float32)
    du = _empty(u.shape, u.dtype, columns) if wanted[0] else None
    dw, dbias = (
        torch.empty(t.shape, dtype=working) if t is not None and want else None
        for t, want in ((w, wanted[1]), (bias, wanted[2]))
    )
    dinitial = torch.empty(initial.shape, dtype=u.dtype) if initial is not None and wanted[3] else None
    dy, u = _side_by_side(dy, columns), _side_by_side(u, columns)
    results = {"dy": dy, "du": du, "dw": dw, "dbias": dbias, "dinitial": dinitial}
    run("short_conv", *_call(u, w, bias, initial, activation, columns, **results))
    pairs = zip((du, dw, dbias, dinitial), (u, w, bias, initial), strict=True)
    return [grad.to(t.dtype) for grad, t in pairs if grad is not None and t is not None]


def _call(
    u: Tensor,
    w: Tensor,
    bias: Tensor | None,
    initial: Tensor | None,
    activation: str,
    columns: bool,
    **results: Tensor | None,
) -> tuple[_Call, dict[str, Tensor | None]]:
    """The description of a call, ``results`` by the names of its fields, and the arguments as it uses them."""
    working = torch.promote_types(u.dtype, torch.float32)
    w = w.resolve_neg().to(working).contiguous()
    bias = None if bias is None else bias.resolve_neg().to(working).contiguous()
    initial = None if initial is None else initial.resolve_neg()
    call = _Call(batch=u.shape[0], channels=u.shape[1], length=u.shape[2], taps=w.shape[1])
    call.activation, call.columns, call.backward = _native.ACTIVATIONS[activation], columns, "dy" in results
    call.threads, call.element = torch.get_num_threads(), _native.ELEMENTS[u.dtype]
    for name, tensor in {"u": u, "w": w, "bias": bias, "initial": initial, **results}.items():
        if tensor is not None:
            pointer = tensor.data_ptr()
            setattr(call, name, pointer if tensor.ndim < 3 else _Sequence(pointer, *tensor.stride()))
    return call, {"u.data": u, "w": w, "bias": bias, "initial.data": initial}


def _in_columns(u: Tensor) -> bool:
    """Whether vectors lie across the channels, because those are side by side and times are not."""
    return u.stride(1) == 1 and u.shape[1] >= _FEWEST_CHANNELS and (u.stride(2) != 1 or u.shape[2] == 1)


def _side_by_side(x: Tensor, columns: bool) -> Tensor:
    """The sequences with the channels, or else the times, side by side: a view where the strides allow it."""
    x = x.resolve_neg()
    if columns:
        return x if x.stride(1) == 1 else x.mT.contiguous().mT
    return x if x.stride(2) == 1 else x.contiguous()


def _empty(shape: Sequence[int], dtype: torch.dtype, columns: bool) -> Tensor:
    batch, channels, length = shape
    if columns:
        return torch.empty((batch, length, channels), dtype=dtype).mT
    return torch.empty((batch, channels, length), dtype=dtype)

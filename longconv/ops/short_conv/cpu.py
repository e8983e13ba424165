"""Backend ``cpu``: csrc/cpu/short_conv.cpp, products and sums in registers, tile by tile of the sequence."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from longconv import _native

_ACTIVATIONS = {name: number for number, name in enumerate(("none", "silu", "gelu", "relu", "tanh", "sigmoid"))}
"""``LongconvActivation`` of csrc/longconv.h."""

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
    u, y = _side_by_side(u, columns), _empty(u, columns)
    _run(u, w, bias, initial, activation, columns, y=y)
    return y


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
    du = _empty(u, columns) if wanted[0] else None
    dw, dbias = (
        torch.empty(t.shape, dtype=working) if t is not None and want else None
        for t, want in ((w, wanted[1]), (bias, wanted[2]))
    )
    dinitial = torch.empty(initial.shape, dtype=u.dtype) if initial is not None and wanted[3] else None
    dy, u = _side_by_side(dy, columns), _side_by_side(u, columns)
    _run(u, w, bias, initial, activation, columns, dy=dy, du=du, dw=dw, dbias=dbias, dinitial=dinitial)
    pairs = zip((du, dw, dbias, dinitial), (u, w, bias, initial), strict=True)
    return [grad.to(t.dtype) for grad, t in pairs if grad is not None and t is not None]


def _run(
    u: Tensor,
    w: Tensor,
    bias: Tensor | None,
    initial: Tensor | None,
    activation: str,
    columns: bool,
    **results: Tensor | None,
) -> None:
    """The call into the library; ``results`` by the names of its fields."""
    working = torch.promote_types(u.dtype, torch.float32)
    parameters = {"w": w, "bias": bias}
    plain = {name: None if t is None else t.resolve_neg().to(working).contiguous() for name, t in parameters.items()}
    if initial is not None:
        initial = initial.resolve_neg()
    call = _Call(batch=u.shape[0], channels=u.shape[1], length=u.shape[2], taps=w.shape[1])
    call.activation, call.columns, call.backward = _ACTIVATIONS[activation], columns, "dy" in results
    call.threads, call.element = torch.get_num_threads(), _native.ELEMENTS[u.dtype]
    for name, tensor in {**plain, "u": u, "initial": initial, **results}.items():
        if tensor is not None:
            pointer = tensor.data_ptr()
            setattr(call, name, pointer if tensor.ndim < 3 else _Sequence(pointer, *tensor.stride()))
    memory = ctypes.c_int64()
    _native.cpu().call("short_conv", ctypes.byref(call), ctypes.byref(memory))
    work = torch.empty(memory.value, dtype=torch.uint8)
    call.work = work.data_ptr()
    _native.cpu().call("short_conv", ctypes.byref(call), None)


def _in_columns(u: Tensor) -> bool:
    """Whether vectors lie across the channels, because those are side by side and times are not."""
    return u.stride(1) == 1 and u.shape[1] >= _FEWEST_CHANNELS and (u.stride(2) != 1 or u.shape[2] == 1)


def _side_by_side(x: Tensor, columns: bool) -> Tensor:
    """The sequences with the channels, or else the times, side by side: a view where the strides allow it."""
    x = x.resolve_neg()
    if columns:
        return x if x.stride(1) == 1 else x.mT.contiguous().mT
    return x if x.stride(2) == 1 else x.contiguous()


def _empty(like: Tensor, columns: bool) -> Tensor:
    batch, channels, length = like.shape
    if columns:
        return torch.empty((batch, length, channels), dtype=like.dtype).mT
    return torch.empty((batch, channels, length), dtype=like.dtype)

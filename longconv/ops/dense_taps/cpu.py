"""Backend ``cpu``: csrc/cpu/dense_taps.cpp, in double precision, with matrix products in registers."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from longconv import _native
from longconv.ops._short_way import run


class _Call(ctypes.Structure):
    """``LongconvDenseTaps`` of csrc/longconv.h."""

    _fields_ = [
        *[(name, ctypes.c_void_p) for name in ("A", "B", "C", "y", "dA", "dB", "dC", "work")],
        *[(name, ctypes.c_int64) for name in ("sets", "rows", "states", "length")],
        *[(name, ctypes.c_int32) for name in ("backward", "threads")],
    ]


def available() -> str | None:
    """None if the CPU library is loaded and has the function, else the reason why not."""
    return _native.cpu().lacks("dense_taps")


def supports(A: Tensor, *_: Any) -> str | None:
    """None if the backend can serve the call, else the reason why not."""
    return None if A.device.type == "cpu" else f"A is on {A.device}"


def forward(A: Tensor, B: Tensor, C: Tensor, length: int) -> Tensor:
    """The taps, rounded at the end."""
    y = torch.empty(*C.shape[:2], length, dtype=torch.float64)
    _run(y, _wide(A, B, C))
    return y.to(A.dtype)


def backward(g: Tensor, A: Tensor, B: Tensor, C: Tensor) -> list[Tensor]:
    """The gradients, rounded at the end."""
    gradients = [torch.empty(part.shape, dtype=torch.float64) for part in (A, B, C)]
    _run(_wide(g)[0], _wide(A, B, C), gradients)
    return [gradient.to(A.dtype) for gradient in gradients]


def _wide(*tensors: Tensor) -> list[Tensor]:
    return [tensor.resolve_neg().double().contiguous() for tensor in tensors]


def _run(y: Tensor, system: list[Tensor], gradients: list[Tensor] | None = None) -> None:
    call = _Call(*(tensor.data_ptr() for tensor in (*system, y)))
    if gradients is not None:
        call.backward, (call.dA, call.dB, call.dC) = 1, (gradient.data_ptr() for gradient in gradients)
    call.sets, call.rows, call.length = y.shape
    call.states, call.threads = system[0].shape[-1], torch.get_num_threads()
    run("dense_taps", call, (system, y), call.threads)

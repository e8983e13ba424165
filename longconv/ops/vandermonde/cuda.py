"""Backend ``cuda`` of ``vandermonde`` and ``vandermonde_log``: csrc/cuda/vandermonde.cu, powers in registers alone.

The gradient to a node itself is a sum of l x^(l - 1), which is formed as such, so that nothing is divided by a node.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from longconv import _native
from longconv.ops import _cuda
from longconv.ops._layout import Layout, plain
from longconv.ops._library import reduce_like
from longconv.ops._sizes import blocks, power_of_two
from longconv.ops.vandermonde.reference import LOG_ZERO, result_dtype

_RUN, _SUMS = 64, 128
"""Times that a lane takes at once, half of them if they are complex, and those of a sum."""

_STRIDE, _STRIDES = 8, 4
"""Powers of a node that lead from one to the next, and those that lead from one such stride to the next."""


class _Call(ctypes.Structure):
    """``LongconvCudaVandermonde`` of csrc/longconv.h."""

    _fields_ = [
        *[(name, _native.Numbers) for name in ("v", "powers", "y", "first", "second")],
        *[(name, ctypes.c_int64) for name in ("sets", "rows", "modes", "length", "splits")],
        *[(name, ctypes.c_int32) for name in ("shift", "backward", "lanes")],
    ]


def available() -> str | None:
    """None if the CUDA library is loaded, has the sums, and torch sees a GPU, else the reason why not."""
    return _cuda.available("vandermonde")


def supports(v: Tensor, *_: Any) -> str | None:
    """None if the backend can serve the call, else the reason why not."""
    if v.dtype in (torch.float64, torch.complex128):
        return f"v is {str(v.dtype).removeprefix('torch.')}, sums are taken in single precision"
    return _cuda.refusal("v", v)


def forward(argument: str, v: Tensor, x: Tensor, length: int, real: bool) -> Tensor:
    """The sum over n; ``argument`` is the name of the one that tells the nodes, "x" or "log_x"."""
    layout = Layout.of(v, x)
    coefficients, powers = layout.fold(plain(v)), _powers(layout, x, argument)
    y = v.new_empty((*coefficients.shape[:2], length), dtype=result_dtype(v, x, real))
    lanes = _cuda.fewest_lanes(length, _RUN // 2 if y.is_complex() else _RUN)
    call = _call(coefficients, powers, y, lanes)
    _cuda.run("vandermonde", call, v.device)
    return layout.unfold(y).contiguous()


def backward(argument: str, g: Tensor, v: Tensor, x: Tensor, real: bool) -> list[Tensor]:
    """The gradients to v and to x."""
    layout, modes = Layout.of(v, x), x.shape[-1]
    cotangents, powers = layout.fold(plain(g)), _powers(layout, x, argument)
    coefficients = layout.fold(plain(v))
    (sets, rows, length), lanes = cotangents.shape, min(32, power_of_two(modes))
    splits = _cuda.splits(sets * rows * blocks(modes, lanes), blocks(length, 32 // lanes * _SUMS))
    shape = 2, splits * 32 // lanes, sets * rows, modes
    sums = torch.empty(shape, dtype=torch.complex128, device=g.device)
    call = _call(coefficients, powers, cotangents, lanes)
    call.first, call.second = map(_native.Numbers.of, sums)
    call.splits, call.shift, call.backward = splits, int(argument == "x"), 1
    _cuda.run("vandermonde", call, g.device)
    dv, dx = sums.sum(1).view(2, sets, rows, modes)
    dx = (coefficients.conj_physical() * dx).sum(1, keepdim=True)
    return [reduce_like(layout.unfold(grad), like) for grad, like in ((dv, v), (dx, x))]


def _powers(layout: Layout, x: Tensor, argument: str) -> Tensor:
    """(X or 1, N, 12): the logarithm of a node, its real part finite, and its powers 1, 2, ... 8, 16, 24, 32."""
    wide = layout.fold_shared(x).to(torch.complex128)
    logarithm = wide.log() if argument == "x" else wide
    logarithm = torch.complex(logarithm.real.clamp(min=LOG_ZERO), logarithm.imag)
    node = wide if argument == "x" else logarithm.exp()
    steps = node[..., None].expand(*node.shape, _STRIDE).cumprod(-1)
    strides = steps[..., -1:].expand(*node.shape, _STRIDES).cumprod(-1)
    return torch.cat((logarithm[..., None], steps[..., :-1], strides), -1)


def _call(v: Tensor, powers: Tensor, y: Tensor, lanes: int) -> _Call:
    call = _Call(*map(_native.Numbers.of, (v, powers, y)))
    if len(powers) == 1:  # for all sets
        call.powers.set = 0
    call.sets, call.rows, call.length = y.shape
    call.modes, call.splits, call.lanes = v.shape[-1], 1, lanes
    return call

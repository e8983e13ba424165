"""Backend ``cuda``: csrc/cuda/short_conv.cu, runs of samples in registers; sums of the backward pass in parts."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from longconv import _native
from longconv.ops import _cuda
from longconv.ops._sizes import blocks, power_of_two
from longconv.ops.short_conv.layout import like

_RUN = {torch.float32: 8, torch.float64: 4}
"""Times that a lane takes at once."""

_TENSORS = ("y", "past_y", "dy", "x", "past", "w", "bias")


class _Call(ctypes.Structure):
    """``LongconvCudaShortConv`` of csrc/longconv.h."""

    _fields_ = [
        *[(name, _native.Numbers) for name in _TENSORS],
        *[(name, ctypes.c_int64) for name in ("batch", "channels", "length", "taps")],
        *[(name, ctypes.c_int32) for name in ("activation", "reverse", "lanes", "element")],
    ]


class _Sums(ctypes.Structure):
    """``LongconvCudaShortConvSums`` of csrc/longconv.h."""

    _fields_ = [
        *[(name, _native.Numbers) for name in ("sums", "dz", "x", "past")],
        *[(name, ctypes.c_int64) for name in ("batch", "channels", "length", "taps", "splits")],
        *[(name, ctypes.c_int32) for name in ("lanes", "element")],
    ]


def available() -> str | None:
    """None if the CUDA library is loaded, has the convolution, and torch sees a GPU, else the reason why not."""
    return _cuda.available("short_conv")


def supports(u: Tensor, *_: object) -> str | None:
    """None if the backend can serve the call, else the reason why not."""
    return _cuda.refusal("u", u)


def forward(u: Tensor, w: Tensor, bias: Tensor | None, initial: Tensor | None, activation: str) -> Tensor:
    """The result y of the operator ``short_conv``, channels-last as u is."""
    u, w, bias, initial = u.resolve_neg(), w.resolve_neg(), _plain(bias), _plain(initial)
    y = like(u, u.dtype)
    _convolve({"y": y, "x": u, "past": initial, "w": w, "bias": bias}, u, w, activation)
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
    dz, u, w, bias, initial = dy.resolve_neg(), u.resolve_neg(), w.resolve_neg(), _plain(bias), _plain(initial)
    if activation != "none":
        dy, dz = dz, like(u, _working(u))
        _convolve({"y": dz, "dy": dy, "x": u, "past": initial, "w": w, "bias": bias}, u, w, activation)
    du = like(u, u.dtype) if wanted[0] else None
    dinitial = torch.empty(initial.shape, dtype=u.dtype, device=u.device) if initial is not None and wanted[3] else None
    if du is not None or (dinitial is not None and dinitial.numel()):
        _convolve({"y": du, "past_y": dinitial, "x": dz, "w": w}, u, w, "none", reverse=True)
    dw = dbias = None
    if wanted[1] or wanted[2]:
        sums = _sums(dz, u, w, initial)
        dw, dbias = sums[:, :-1], sums[:, -1].clone()  # of their own, should sums be in their dtype
    pairs = zip((du, dw, dbias, dinitial), (u, w, bias, initial), wanted, strict=True)
    return [grad.to(t.dtype) for grad, t, want in pairs if want and grad is not None and t is not None]


def _plain(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.resolve_neg()


def _working(u: Tensor) -> torch.dtype:
    return torch.promote_types(u.dtype, torch.float32)


def _lanes(u: Tensor) -> int:
    """Channels that a warp takes side by side: neighbours in memory, or as many as leave no lane without a time."""
    _, channels, length = u.shape
    together = min(32, power_of_two(channels)) if u.stride(1) == 1 and u.stride(2) != 1 else 1
    return max(together, _cuda.fewest_lanes(length, _RUN[_working(u)]))


def _convolve(tensors: dict[str, Tensor | None], u: Tensor, w: Tensor, activation: str, reverse: bool = False) -> None:
    call = _Call(*[_numbers(tensors.get(name)) for name in _TENSORS], *u.shape, w.shape[1])
    call.activation, call.reverse, call.lanes = _native.ACTIVATIONS[activation], reverse, _lanes(u)
    call.element = _native.ELEMENTS[_working(u)]
    _cuda.run("short_conv", call, u.device)


def _sums(dz: Tensor, u: Tensor, w: Tensor, initial: Tensor | None) -> Tensor:
    """The gradients to the taps and, in the last column, to the bias."""
    (batch, channels, length), taps = u.shape, w.shape[1]
    lanes, run = _lanes(u), _RUN[_working(u)]
    warps = blocks(channels, lanes) * blocks(taps, run)
    splits = _cuda.splits(warps, batch * blocks(length, 32 // lanes * run))
    sums = u.new_empty((splits, channels, taps + 1), dtype=torch.float64)
    call = _Sums(*map(_numbers, (sums, dz, u, initial)), batch, channels, length, taps, splits, lanes)
    call.element = _native.ELEMENTS[_working(u)]
    _cuda.run("short_conv_sums", call, u.device)
    return sums.sum(0)


def _numbers(x: Tensor | None) -> _native.Numbers:
    """A tensor (sets, rows, steps), (rows, steps) or (rows,); nothing for one that is not there."""
    if x is None or not x.numel():
        return _native.Numbers()
    return _native.Numbers.of(x[None, :, None] if x.ndim == 1 else x[None] if x.ndim == 2 else x)

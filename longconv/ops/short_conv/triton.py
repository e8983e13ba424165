"""Backend ``triton``: tiles of channels and times in registers; sums of the backward pass in parts, without atomics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from longconv.ops import _triton
from longconv.ops._sizes import blocks, power_of_two
from longconv.ops._triton import launch
from longconv.ops.short_conv.layout import like

_TILE = 1024
"""Numbers of a tile; a program's four warps hold eight of them a thread."""

_TAPS = 64
"""Most taps whose gradients a program sums up."""

_SPLITS = 512
"""Most parts that a channel's sums over samples and times are taken in."""


def supports(u: Tensor, *_: object) -> str | None:
    """None if the backend can serve the call, else the reason why not."""
    return _triton.refusal("u", u)


def forward(u: Tensor, w: Tensor, bias: Tensor | None, initial: Tensor | None, activation: str) -> Tensor:
    """The result y of the operator ``short_conv``, channels-last as u is."""
    y = like(u, u.dtype)
    _convolve(y, None, u, w, bias, initial, activation)
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
    dz = dy.resolve_neg()
    if activation != "none":
        dz = like(u, torch.promote_types(u.dtype, torch.float32))
        _convolve(dz, dy, u, w, bias, initial, activation)
    du = like(u, u.dtype) if wanted[0] else None
    dinitial = torch.empty(initial.shape, dtype=u.dtype, device=u.device) if initial is not None and wanted[3] else None
    if du is not None or dinitial is not None:
        _correlate(du, dinitial, dz, u, w)
    dw, dbias = _sums(dz, u, w, initial) if wanted[1] or wanted[2] else (None, None)
    grads = (du, dw, dbias, dinitial)
    pairs = zip(grads, (u, w, bias, initial), wanted, strict=True)
    return [grad.to(t.dtype) for grad, t, want in pairs if want and grad is not None and t is not None]


class _Tile(NamedTuple):
    """Channels and times of a program."""

    BH: int
    BT: int

    @classmethod
    def of(cls, u: Tensor, length: int, numbers: int = _TILE) -> _Tile:
        """As many channels as fit where these are side by side, else as many times."""
        _, channels, _ = u.shape
        if u.stride(1) == 1 and u.stride(2) != 1:
            height = min(64, power_of_two(channels))
            return cls(height, min(power_of_two(length), numbers // height))
        width = min(power_of_two(length), numbers)
        return cls(min(power_of_two(channels), max(1, numbers // width)), width)


def _convolve(
    y: Tensor,
    dy: Tensor | None,
    u: Tensor,
    w: Tensor,
    bias: Tensor | None,
    initial: Tensor | None,
    activation: str,
) -> None:
    from longconv.ops.short_conv import triton_kernels

    batch, channels, length = u.shape
    tile = _Tile.of(u, length)
    bias = None if bias is None else _parameter(bias, u)
    launch(
        triton_kernels.convolve,
        batch * blocks(channels, tile.BH) * blocks(length, tile.BT),
        *_strided(y, dy, u, initial),
        _parameter(w, u),
        bias,
        *(channels, length, w.shape[1]),
        ACTIVATION=activation,
        W=_triton.working(u.dtype),
        **tile._asdict(),
    )


def _correlate(du: Tensor | None, dinitial: Tensor | None, dz: Tensor, u: Tensor, w: Tensor) -> None:
    from longconv.ops.short_conv import triton_kernels

    batch, channels, length = u.shape
    extent = length + w.shape[1] - 1
    tile = _Tile.of(dz, extent)
    launch(
        triton_kernels.correlate,
        batch * blocks(channels, tile.BH) * blocks(extent, tile.BT),
        *_strided(dz, du, dinitial),
        _parameter(w, u),
        *(channels, length, w.shape[1]),
        W=_triton.working(u.dtype),
        **tile._asdict(),
    )


def _sums(dz: Tensor, u: Tensor, w: Tensor, initial: Tensor | None) -> tuple[Tensor, Tensor]:
    """The gradients to w and to the bias."""
    from longconv.ops.short_conv import triton_kernels

    (batch, channels, length), taps = u.shape, w.shape[1]
    width = min(power_of_two(taps), _TAPS)
    tile = _Tile.of(u, length, max(16, _TILE * 4 // width))
    splits = min(batch * blocks(length, tile.BT), _SPLITS)
    working = torch.promote_types(u.dtype, torch.float32)
    dw, dbias = (u.new_empty((splits, channels, size), dtype=working) for size in (taps, 1))
    launch(
        triton_kernels.sums,
        splits * blocks(channels, tile.BH) * blocks(taps, width),
        dw,
        dbias,
        *_strided(dz, u, initial),
        *(batch, channels, length, taps, splits),
        W=_triton.working(u.dtype),
        BK=width,
        **tile._asdict(),
    )
    return dw.sum(0), dbias.sum((0, 2))


def _parameter(w: Tensor, u: Tensor) -> Tensor:
    """Taps or bias in the precision of the arithmetic, contiguous."""
    return w.resolve_neg().to(torch.promote_types(u.dtype, torch.float32)).contiguous()


def _strided(*tensors: Tensor | None) -> list[Any]:
    """Every tensor and its strides, None and zeros for those that are not there."""
    return [x for t in tensors for x in ((None, (0, 0, 0)) if t is None else (t.resolve_neg(), t.stride()))]

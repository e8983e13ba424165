"""``short_conv`` by torch: one product of the shifted input a tap, or torch's convolution where that is quicker."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from longconv.ops.short_conv.activations import ACTIVATIONS
from longconv.ops.short_conv.reference import extended

SHIFTS = 8
"""Most taps that are quicker one by one on a CPU in single precision; in double precision all are."""


def forward(u: Tensor, w: Tensor, bias: Tensor | None, initial: Tensor | None, activation: str) -> Tensor:
    """The sum over the taps; in single precision at least, save where torch has a 16-bit convolution."""
    dtype = u.dtype
    native = dtype == torch.bfloat16 and all(t is None or t.dtype == dtype for t in (w, bias))
    working = dtype if native else torch.promote_types(dtype, torch.float32)
    u, w = u.to(working), w.to(working)
    bias, initial = (None if t is None else t.to(working) for t in (bias, initial))
    one_by_one = u.device.type == "cpu" and not native and (w.shape[1] <= SHIFTS or dtype == torch.float64)
    z = _shifts(u, w, bias, initial) if one_by_one else _convolution(u, w, bias, initial)
    return (z if activation == "none" else ACTIVATIONS[activation].function(z)).to(dtype)


def _convolution(u: Tensor, w: Tensor, bias: Tensor | None, initial: Tensor | None) -> Tensor:
    return F.conv1d(extended(u, initial, w.shape[1]), w[:, None], bias, groups=len(w))


def _shifts(u: Tensor, w: Tensor, bias: Tensor | None, initial: Tensor | None) -> Tensor:
    """Tap by tap, by the lag of the sample that it weighs."""
    length, past = u.shape[-1], w.shape[1] - 1
    y = u * w[:, past:] if bias is None else torch.addcmul(bias[:, None], u, w[:, past:])
    for lag in range(1, past + 1):
        tap = w[:, past - lag, None]
        if lag < length:
            y[..., lag:].addcmul_(u[..., : length - lag], tap)
        if initial is not None:
            early = min(lag, length)
            y[..., :early].addcmul_(initial[..., past - lag : past - lag + early], tap)
    return y

"""The gradients of ``short_conv`` in plain torch, by convolutions alone, so that they have gradients of any order.

With x the input after the past samples and z the sums before the activation, y = f(z) and dz = dy f'(z):

    dw[h, k] = sum_{b, t} dz[b, h, t] x[b, h, t + k],    dbias[h] = sum_{b, t} dz[b, h, t],
    dx[s]    = sum_k w[h, K - 1 - k] dz[s - k], the same convolution with the taps turned round
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from longconv.ops.short_conv.activations import ACTIVATIONS

Convolve = Callable[[Tensor, Tensor, Tensor | None, Tensor | None, str], Tensor]
"""``short_conv`` itself: u, w, bias, initial and the activation's name."""


def backward(
    convolve: Convolve,
    dy: Tensor,
    u: Tensor,
    w: Tensor,
    bias: Tensor | None,
    initial: Tensor | None,
    activation: str,
    wanted: Sequence[bool],
) -> list[Tensor]:
    """The wanted gradients, in the order (u, w, bias, initial)."""
    wide = torch.promote_types(dy.dtype, torch.float32)
    tensors = (u, w, bias, initial)
    u, w = u.to(wide), w.to(wide)
    bias, initial = (None if t is None else t.to(wide) for t in (bias, initial))
    taps = w.shape[1]
    dz = dy.to(wide)
    if activation != "none":
        dz = ACTIVATIONS[activation].pull_back(dz, convolve(u, w, bias, initial, "none"))
    grads: list[Tensor | None] = [None, None, dz.sum((0, 2)), None]
    if wanted[0] or wanted[3]:
        dx = convolve(F.pad(dz, (0, taps - 1)), w.flip(-1), None, None, "none")
        grads[0], grads[3] = dx[..., taps - 1 :], dx[..., : taps - 1]
    if wanted[1]:
        grads[1] = torch.stack([_tap_gradient(dz, u, initial, taps - 1 - k) for k in range(taps)], -1)
    pairs = zip(grads, tensors, wanted, strict=True)
    return [grad.to(t.dtype) for grad, t, want in pairs if want and grad is not None and t is not None]


def _tap_gradient(dz: Tensor, u: Tensor, initial: Tensor | None, lag: int) -> Tensor:
    """(H,): of the times that have a sample so long before them, for zeros in its place would keep no NaN out."""
    if initial is None:
        dz = dz[..., lag:]
        return torch.linalg.vecdot(u[..., : dz.shape[-1]], dz).sum(0)
    x = torch.cat([initial[..., initial.shape[-1] - lag :], u], -1)
    return torch.linalg.vecdot(x[..., : dz.shape[-1]], dz).sum(0)

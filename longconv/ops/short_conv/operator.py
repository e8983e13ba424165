"""The operator ``longconv::short_conv``: schema, fake, autograd, vmap.

With x the input after the past samples and z the sums before the activation, y = f(z) and dz = dy f'(z):

    dw[h, k] = sum_{b, t} dz[b, h, t] x[b, h, t + k],    dbias[h] = sum_{b, t} dz[b, h, t],
    dx[s]    = sum_k w[h, K - 1 - k] dz[s - k], the same convolution with the taps turned round

so that the gradients are written with the operator itself, and have gradients of any order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from longconv.ops._library import define
from longconv.ops._registry import Backend, Backends
from longconv.ops.short_conv import reference, torch_taps
from longconv.ops.short_conv.activations import ACTIVATIONS

BACKENDS = Backends(
    "short_conv", [Backend("torch", torch_taps.forward), Backend("reference", reference.forward, auto=False)]
)


def _fake(u: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(u, memory_format=torch.contiguous_format)


def _kernel(u: Tensor, w: Tensor, bias: Tensor | None, initial: Tensor | None, activation: str, backend: str) -> Tensor:
    if u.numel() == 0:
        return _fake(u)
    arguments = (u, w, bias, initial, activation)
    y: Tensor = BACKENDS.choose(backend, *arguments).forward(*arguments)
    return y


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.activation, ctx.backend = inputs
    ctx.wanted = ctx.needs_input_grad[:4]
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    tensors = ctx.saved_tensors
    wide = torch.promote_types(dy.dtype, torch.float32)
    u, w = (t.to(wide) for t in tensors[:2])
    bias, initial = (None if t is None else t.to(wide) for t in tensors[2:])
    length, taps = u.shape[-1], w.shape[1]
    dz = dy.to(wide)
    if ctx.activation != "none":
        dz = ACTIVATIONS[ctx.activation].pull_back(dz, call(u, w, bias, initial, "none", ctx.backend))
    grads: list[Tensor | None] = [None] * 4
    if ctx.wanted[0] or ctx.wanted[3]:
        dx = call(F.pad(dz, (0, taps - 1)), w.flip(-1), None, None, "none", ctx.backend)
        grads[0], grads[3] = dx[..., taps - 1 :], dx[..., : taps - 1]
    if ctx.wanted[1]:
        x = reference.extended(u, initial, taps)
        grads[1] = torch.stack([torch.linalg.vecdot(x[..., k : k + length], dz).sum(0) for k in range(taps)], -1)
    grads[2] = dz.sum((0, 2))
    pairs = zip(grads, tensors, ctx.wanted, strict=True)
    return (*(g.to(t.dtype) if g is not None and want else None for g, t, want in pairs), None, None)


def _vmap(operator: Callable[..., Any], info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, int]:
    """The mapped axis becomes part of the channels."""

    def front(value: Tensor, dim: int | None) -> Tensor:
        return value.unsqueeze(0).expand(info.batch_size, *value.shape) if dim is None else value.movedim(dim, 0)

    def fold(value: Any, dim: int | None) -> Any:
        if not isinstance(value, Tensor):
            return value
        value = front(value, dim)
        return value.movedim(0, 1).flatten(1, 2) if value.ndim == 4 else value.flatten(0, 1)

    y = operator(*(fold(a, d) for a, d in zip(args, in_dims, strict=True)))
    return y.unflatten(1, (info.batch_size, front(args[0], in_dims[0]).shape[2])).movedim(1, 0), 0


call = define(
    "short_conv",
    "(Tensor u, Tensor w, Tensor? bias, Tensor? initial, str activation, str backend) -> Tensor",
    _kernel,
    _fake,
    _save,
    _gradients,
    _vmap,
)

"""The operators ``longconv::vandermonde_log`` and its gradients: schema, fake, autograd, vmap."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from longconv.ops._library import align_mapped, define, gradients_of
from longconv.ops._registry import Backend, Backends
from longconv.ops.vandermonde import reference, torch_blocks

BACKENDS = Backends(
    "vandermonde_log",
    [
        Backend("torch", torch_blocks.forward, torch_blocks.backward),
        Backend("reference", reference.forward, reference.backward, auto=False),
    ],
)


def _shape(v: Tensor, log_x: Tensor, length: int) -> tuple[int, ...]:
    return (*torch.broadcast_shapes(v.shape[:-1], log_x.shape[:-1]), length)


def _forward(v: Tensor, log_x: Tensor, length: int, real: bool, backend: str) -> Tensor:
    shape = _shape(v, log_x, length)
    if 0 in shape or v.shape[-1] == 0:
        return v.new_zeros(shape, dtype=reference.result_dtype(v, log_x, real))
    y: Tensor = BACKENDS.choose(backend, v, log_x, length, real).forward(v, log_x, length, real)
    return y


def _fake_forward(v: Tensor, log_x: Tensor, length: int, real: bool, backend: str) -> Tensor:
    return v.new_empty(_shape(v, log_x, length), dtype=reference.result_dtype(v, log_x, real))


def _backward(g: Tensor, v: Tensor, log_x: Tensor, real: bool, backend: str) -> list[Tensor]:
    if g.numel() == 0 or v.shape[-1] == 0:
        return [torch.zeros_like(v), torch.zeros_like(log_x)]
    chosen = BACKENDS.choose(backend, v, log_x, g.shape[-1], real)
    assert chosen.backward is not None
    return [grad.contiguous() for grad in chosen.backward(g, v, log_x, real)]


def _fake_backward(g: Tensor, v: Tensor, log_x: Tensor, real: bool, backend: str) -> list[Tensor]:
    return [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (v, log_x)]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    v, log_x, _, ctx.real, ctx.backend = inputs
    ctx.save_for_backward(v, log_x)


def _gradients(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    return (*call_backward(g, *ctx.saved_tensors, ctx.real, ctx.backend), None, None, None)


def _save_second(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.real, _ = inputs
    ctx.save_for_backward(*tensors)


def _second_gradients(ctx: Any, cotangents: Sequence[Tensor | None]) -> tuple[Any, ...]:
    """The gradient of the gradients: autograd through the torch backend, whichever backend gave the first."""
    composite = functools.partial(torch_blocks.backward, real=ctx.real)
    return (*gradients_of(composite, ctx.saved_tensors, cotangents), None, None)


def _vmap(operator: Callable[..., Any], info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
    tensors = [(a, d) for a, d in zip(args, in_dims, strict=True) if isinstance(a, Tensor)]
    result = operator(*align_mapped(info, in_dims, args))
    if isinstance(result, Tensor):
        return result, 0
    ranks = [a.ndim - (d is not None) for a, d in tensors[-2:]]  # of v and log_x, whose shapes the gradients have
    return [r.reshape(r.shape[0], *r.shape[r.ndim - n :]) for r, n in zip(result, ranks, strict=True)], [0, 0]


call_forward = define(
    "vandermonde_log",
    "(Tensor v, Tensor log_x, SymInt length, bool real, str backend) -> Tensor",
    _forward,
    _fake_forward,
    _save,
    _gradients,
    _vmap,
)
call_backward = define(
    "vandermonde_log_backward",
    "(Tensor g, Tensor v, Tensor log_x, bool real, str backend) -> Tensor[]",
    _backward,
    _fake_backward,
    _save_second,
    _second_gradients,
    _vmap,
)

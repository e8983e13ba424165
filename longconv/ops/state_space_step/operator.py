"""The operator ``longconv::state_space_step``: schema, fake, autograd, vmap, backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from longconv.ops._library import define, mapped_first
from longconv.ops._registry import Backend, Backends
from longconv.ops.state_space_step import cpu, reference

BACKENDS = Backends(
    "state_space_step",
    [
        Backend("cpu", cpu.forward, available=cpu.available, supports=cpu.supports, bind=cpu.bind),
        Backend("torch", reference.forward),
    ],
)


def _kernel(*args: Any) -> tuple[Tensor, Tensor]:
    *arguments, backend = args
    after, y = BACKENDS.choose(backend, *arguments).forward(*arguments)
    return after.contiguous(), y.contiguous()


def _fake(x: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    after = torch.empty_like(x, memory_format=torch.contiguous_format)
    return after, u.new_empty(u.shape[0], C.shape[0], u.shape[1])


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.backend = inputs[-1]
    ctx.save_for_backward(*inputs[:-1])


def _gradients(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
    """In plain torch, so that they have gradients themselves."""
    system = ctx.saved_tensors

    def after() -> Tensor:
        state: Tensor = call(*system, ctx.backend)[0]
        return state

    arguments: tuple[Any, ...] = (*system, *cotangents, after, ctx.needs_input_grad[:7])
    grads = reference.backward(*arguments)
    return (*grads, None)


def _vmap(operator: Callable[..., Any], info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
    """Mapped samples are more samples; mapped systems, with their samples, are more features."""

    def fold(tensor: Tensor | None, dim: int | None, axis: int) -> Tensor | None:
        if tensor is None:
            return None
        return mapped_first(tensor, dim, info.batch_size).movedim(0, axis).flatten(axis, axis + 1)

    (x, u, *system, backend), dims = args, in_dims[2:-1]
    into, out = (0, 0), (0, 0)
    if any(dim is not None for dim in dims):
        into, out = (1, 1), (1, 2)  # H of x and u, of x' and y
        axes = (0, 0, 1, 1, 1)  # H of A, B, C, left, right
        system = [fold(part, dim, axis) for part, dim, axis in zip(system, dims, axes, strict=True)]
    samples = (fold(part, dim, axis) for part, dim, axis in zip((x, u), in_dims[:2], into, strict=True))
    results = operator(*samples, *system, backend)
    sizes = info.batch_size, mapped_first(x, in_dims[0], info.batch_size).shape[into[0] + 1]
    return tuple(part.unflatten(axis, sizes) for part, axis in zip(results, out, strict=True)), out


call = define(
    "state_space_step",
    "(Tensor x, Tensor u, Tensor A, Tensor B, Tensor C, Tensor? left, Tensor? right, str backend) -> (Tensor, Tensor)",
    _kernel,
    _fake,
    _save,
    _gradients,
    _vmap,
    BACKENDS.bind,
)

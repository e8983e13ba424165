"""The operator ``longconv::state_space_step``: schema, fake, autograd, vmap, backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from longconv.ops._library import define, gradients_of
from longconv.ops._registry import Backend, Backends
from longconv.ops.state_space_step import cpu, reference

BACKENDS = Backends(
    "state_space_step",
    [
        Backend("cpu", cpu.forward, available=cpu.available, supports=cpu.supports),
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
    ctx.save_for_backward(*inputs[:-1])


def _gradients(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
    """By autograd through the definition; plain torch, so that they have gradients themselves."""

    def composite(*tensors: Any) -> list[Tensor]:
        return list(reference.forward(*tensors))

    return (*gradients_of(composite, ctx.saved_tensors, cotangents, ctx.needs_input_grad[:-1]), None)


def _vmap(operator: Callable[..., Any], info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
    """One call a mapped index: whatever is mapped, the systems too."""
    calls = [
        operator(*(a if d is None else a.select(d, i) for a, d in zip(args, in_dims, strict=True)))
        for i in range(info.batch_size)
    ]
    return tuple(torch.stack(parts) for parts in zip(*calls, strict=True)), (0, 0)


call = define(
    "state_space_step",
    "(Tensor x, Tensor u, Tensor A, Tensor B, Tensor C, Tensor? left, Tensor? right, str backend) -> (Tensor, Tensor)",
    _kernel,
    _fake,
    _save,
    _gradients,
    _vmap,
)

"""The operator ``longconv::linear_scan``: schema, fake, autograd, vmap.

It takes a, b and initial of one rank, initial with size 1 along the axis of time, which is counted from the right.

The gradient is a scan the other way. For cotangents g of h, the cotangents l of the states with all their futures are

    l_t = g_t + conj(a_{t+1}) l_{t+1},    db_t = l_t,    da_t = l_t conj(h_{t-1}),    dinitial = conj(a_0) l_0

It is written with the operator itself, so gradients have gradients of any order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from longconv.ops import _triton
from longconv.ops._library import conjugate, define, reduce_like
from longconv.ops._registry import Backend, Backends
from longconv.ops.linear_scan import cpu, cuda, reference, torch_blocks, triton

BACKENDS = Backends(
    "linear_scan",
    [
        Backend("cpu", cpu.forward, available=cpu.available, supports=cpu.supports, bind=cpu.bind),
        Backend("cuda", cuda.forward, available=cuda.available, supports=cuda.supports, auto=False),
        Backend("triton", triton.forward, available=_triton.available, supports=triton.supports),
        Backend("torch", torch_blocks.forward),
        Backend("reference", reference.forward, auto=False),
    ],
)


def _fake(a: Tensor, b: Tensor, initial: Tensor | None, dim: int, reverse: bool, backend: str) -> Tensor:
    dtype, shape = reference.result_dtype(a, b, initial), reference.result_shape(a, b, initial, dim)
    return b.new_empty(shape, dtype=dtype)


def _kernel(a: Tensor, b: Tensor, initial: Tensor | None, dim: int, reverse: bool, backend: str) -> Tensor:
    if not a.numel() or not b.numel() or (initial is not None and not initial.numel()):
        return _fake(a, b, initial, dim, reverse, backend)
    h: Tensor = BACKENDS.choose(backend, a, b, initial, dim, reverse).forward(a, b, initial, dim, reverse)
    return h


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    a, b, initial, ctx.dim, ctx.reverse, ctx.backend = inputs
    ctx.wanted, ctx.b = ctx.needs_input_grad[:3], (b.shape, b.dtype)
    ctx.save_for_backward(a, initial, output)


def _gradients(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    a, initial, h = ctx.saved_tensors
    dim, like_b = ctx.dim, g.new_empty(ctx.b[0], dtype=ctx.b[1])
    if h.numel() == 0:
        tensors = (a, like_b, initial)
        zeros = [torch.zeros_like(t) if want else None for t, want in zip(tensors, ctx.wanted, strict=True)]
        return (*zeros, None, None, None)
    a_conj = conjugate(a)
    after = a_conj if a.shape[dim] == 1 else a_conj.roll(1 if ctx.reverse else -1, dim)
    l = call(after, g.to(torch.promote_types(g.dtype, torch.float32)), None, dim, not ctx.reverse, ctx.backend)
    da, db, dinitial = None, None, None
    if ctx.wanted[0]:
        previous = reference.shifted(h, initial, dim, ctx.reverse)
        da = reduce_like(l * conjugate(previous), a)
    if ctx.wanted[1]:
        db = reduce_like(l, like_b)
    if ctx.wanted[2]:
        first = -1 if ctx.reverse else 0
        dinitial = reduce_like((a_conj.select(dim, first) * l.select(dim, first)).unsqueeze(dim), initial)
    return da, db, dinitial, None, None, None


def _vmap(operator: Callable[..., Any], info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, int]:
    def front(value: Any, dim: int | None) -> Any:
        if not isinstance(value, Tensor):
            return value
        return value.unsqueeze(0) if dim is None else value.movedim(dim, 0)

    return operator(*(front(a, d) for a, d in zip(args, in_dims, strict=True))), 0


call = define(
    "linear_scan",
    "(Tensor a, Tensor b, Tensor? initial, int dim, bool reverse, str backend) -> Tensor",
    _kernel,
    _fake,
    _save,
    _gradients,
    _vmap,
    BACKENDS.bind,
)

"""The operators ``longconv::cauchy`` and ``longconv::cauchy_backward``: schema, fake, autograd, vmap.

They take points with leading axes too, (..., L), which broadcast with those of v and w: it is what ``vmap`` needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from longconv._checks import broadcast_shapes
from longconv.ops import _keops, _triton
from longconv.ops._library import align_mapped, define
from longconv.ops._registry import Backend, Backends
from longconv.ops.cauchy import cpu, keops, reference, torch_blocks, triton

BACKENDS = Backends(
    "cauchy",
    [
        Backend("cpu", cpu.forward, cpu.backward, cpu.available, cpu.supports, bind=cpu.bind),
        Backend("triton", triton.forward, triton.backward, _triton.available, triton.supports),
        Backend("torch", torch_blocks.forward, torch_blocks.backward),
        Backend("keops", keops.forward, keops.backward, _keops.available, _keops.supports, auto=False),
        Backend("reference", reference.forward, reference.backward, auto=False),
    ],
)


def _fake_forward(v: Tensor, z: Tensor, w: Tensor, backend: str) -> Tensor:
    lead = broadcast_shapes(v.shape[:-1], z.shape[:-1], w.shape[:-1])
    return v.new_empty((*lead, z.shape[-1]), dtype=reference.result_dtype(v, z, w))


def _forward(v: Tensor, z: Tensor, w: Tensor, backend: str) -> Tensor:
    y = _fake_forward(v, z, w, backend)
    if y.numel() == 0 or v.shape[-1] == 0:
        return y.zero_()
    y = BACKENDS.choose(backend, v, z, w).forward(v, z, w)
    return y


def _backward(g: Tensor, v: Tensor, z: Tensor, w: Tensor, wanted: list[bool], backend: str) -> list[Tensor]:
    if g.numel() == 0 or v.shape[-1] == 0:
        return [t.zero_() for t in _fake_backward(g, v, z, w, wanted, backend)]
    chosen = BACKENDS.choose(backend, v, z, w)
    assert chosen.backward is not None
    return [grad.contiguous() for grad in chosen.backward(g, v, z, w, wanted)]


def _fake_backward(g: Tensor, v: Tensor, z: Tensor, w: Tensor, wanted: list[bool], backend: str) -> list[Tensor]:
    tensors = [t for t, want in zip((v, z, w), wanted, strict=True) if want]
    return [torch.empty_like(t, memory_format=torch.contiguous_format) for t in tensors]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.backend = inputs
    ctx.wanted = list(ctx.needs_input_grad[:3])
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    if not any(ctx.wanted):
        return (None,) * 4
    grads = iter(call_backward(g, *ctx.saved_tensors, ctx.wanted, ctx.backend))
    return (*(next(grads) if want else None for want in ctx.wanted), None)


def _save_second(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.wanted, _ = inputs
    ctx.save_for_backward(*tensors)


def _second_gradients(ctx: Any, cotangents: Sequence[Tensor | None]) -> tuple[Any, ...]:
    """The gradient of the gradients, whichever backend gave the first."""
    return (*torch_blocks.second(ctx.saved_tensors, ctx.wanted, cotangents, ctx.needs_input_grad), None, None)


def _vmap(operator: Callable[..., Any], info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
    result = operator(*align_mapped(info, in_dims, args))
    if isinstance(result, Tensor):
        return result, 0
    ranks = [a.ndim - (d is not None) for a, d in zip(args[1:4], in_dims[1:4], strict=True)]
    ranks = [rank for rank, want in zip(ranks, args[4], strict=True) if want]
    return [r.reshape(r.shape[0], *r.shape[r.ndim - n :]) for r, n in zip(result, ranks, strict=True)], [0] * len(ranks)


call_forward = define(
    "cauchy",
    "(Tensor v, Tensor z, Tensor w, str backend) -> Tensor",
    _forward,
    _fake_forward,
    _save,
    _gradients,
    _vmap,
    BACKENDS.bind,
)
call_backward = define(
    "cauchy_backward",
    "(Tensor g, Tensor v, Tensor z, Tensor w, bool[] wanted, str backend) -> Tensor[]",
    _backward,
    _fake_backward,
    _save_second,
    _second_gradients,
    _vmap,
)

"""The operators ``longconv::dense_taps`` and its gradients: schema, fake, autograd, vmap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from longconv.ops._library import define, gradients_of
from longconv.ops._registry import Backend, Backends
from longconv.ops.dense_taps import cpu, reference, torch_blocks

BACKENDS = Backends(
    "dense_taps",
    [
        Backend("cpu", cpu.forward, cpu.backward, cpu.available, cpu.supports),
        Backend("torch", torch_blocks.forward, torch_blocks.backward),
        Backend("reference", reference.forward, reference.backward, auto=False),
    ],
)


def _forward(A: Tensor, B: Tensor, C: Tensor, length: int, backend: str) -> Tensor:
    if length == 0 or C.numel() == 0:
        return _fake_forward(A, B, C, length, backend).zero_()
    y: Tensor = BACKENDS.choose(backend, A, B, C, length).forward(A, B, C, length)
    return y.contiguous()


def _fake_forward(A: Tensor, B: Tensor, C: Tensor, length: int, backend: str) -> Tensor:
    return C.new_empty(*C.shape[:2], length)


def _backward(g: Tensor, A: Tensor, B: Tensor, C: Tensor, backend: str) -> list[Tensor]:
    if g.numel() == 0 or C.numel() == 0:
        return [torch.zeros_like(part, memory_format=torch.contiguous_format) for part in (A, B, C)]
    chosen = BACKENDS.choose(backend, A, B, C, g.shape[-1])
    assert chosen.backward is not None
    return [gradient.contiguous() for gradient in chosen.backward(g, A, B, C)]


def _fake_backward(g: Tensor, *system: Any) -> list[Tensor]:
    return [torch.empty_like(part, memory_format=torch.contiguous_format) for part in system[:-1]]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *system, _, ctx.backend = inputs
    ctx.save_for_backward(*system)


def _gradients(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    return (*call_backward(g, *ctx.saved_tensors, ctx.backend), None, None)


def _save_second(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:-1])


def _second_gradients(ctx: Any, cotangents: Sequence[Tensor | None]) -> tuple[Any, ...]:
    """The gradient of the gradients: autograd through the torch backend, whichever backend gave the first."""
    return (*gradients_of(torch_blocks.backward, ctx.saved_tensors, cotangents, ctx.needs_input_grad), None)


def _vmap(operator: Callable[..., Any], info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
    """Mapped systems are more features: the mapped axis is folded into H, the first axis of every tensor."""

    def fold(tensor: Tensor, dim: int | None) -> Tensor:
        tensor = tensor.unsqueeze(0).expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        return tensor.flatten(0, 1)

    def unfold(tensor: Tensor) -> Tensor:
        return tensor.unflatten(0, (info.batch_size, tensor.shape[0] // info.batch_size))

    result = operator(*(fold(a, d) if isinstance(a, Tensor) else a for a, d in zip(args, in_dims, strict=True)))
    if isinstance(result, Tensor):
        return unfold(result), 0
    return [unfold(gradient) for gradient in result], [0] * len(result)


call_forward = define(
    "dense_taps",
    "(Tensor A, Tensor B, Tensor C, SymInt length, str backend) -> Tensor",
    _forward,
    _fake_forward,
    _save,
    _gradients,
    _vmap,
)
call_backward = define(
    "dense_taps_backward",
    "(Tensor g, Tensor A, Tensor B, Tensor C, str backend) -> Tensor[]",
    _backward,
    _fake_backward,
    _save_second,
    _second_gradients,
    _vmap,
)

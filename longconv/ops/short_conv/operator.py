"""The operators ``longconv::short_conv`` and ``longconv::short_conv_backward``: schema, fake, autograd, vmap."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from longconv.ops import _triton
from longconv.ops._library import define, gradients_of, mapped_first
from longconv.ops._registry import Backend, Backends
from longconv.ops.short_conv import cpu, cuda, plain, reference, torch_taps, triton

_ARGUMENTS = "Tensor u, Tensor w, Tensor? bias, Tensor? initial, str activation"


def _plain(name: str, forward: plain.Convolve, *, auto: bool = True) -> Backend:
    return Backend(name, forward, functools.partial(plain.backward, forward), auto=auto)


BACKENDS = Backends(
    "short_conv",
    [
        Backend("cpu", cpu.forward, cpu.backward, cpu.available, cpu.supports, bind=cpu.bind),
        Backend("cuda", cuda.forward, cuda.backward, cuda.available, cuda.supports, auto=False),
        Backend("triton", triton.forward, triton.backward, _triton.available, triton.supports),
        _plain("torch", torch_taps.forward),
        _plain("reference", reference.forward, auto=False),
    ],
)


def _laid_out(x: Tensor, like: Tensor) -> Tensor:
    """The sequences in memory as ``like`` has them: channels-last, or else contiguous."""
    last = like.stride(1) == 1 and like.stride(2) != 1
    return x.mT.contiguous().mT if last else x.contiguous()


def _fake(u: Tensor, *_: Any) -> Tensor:
    return _laid_out(torch.empty_like(u), u)


def _forward(u: Tensor, *rest: Any) -> Tensor:
    *arguments, backend = rest
    if u.numel() == 0:
        return _fake(u)
    return _laid_out(BACKENDS.choose(backend, u, *arguments).forward(u, *arguments), u)


def _backward(dy: Tensor, *rest: Any) -> list[Tensor]:
    *arguments, wanted, backend = rest
    if dy.numel() == 0:
        return [torch.zeros_like(t) for t in _fake_backward(dy, *rest)]
    chosen = BACKENDS.choose(backend, *arguments)
    assert chosen.backward is not None
    grads = iter(chosen.backward(dy, *arguments, wanted))
    du = [_laid_out(next(grads), arguments[0])] if wanted[0] else []
    return [*du, *(grad.contiguous() for grad in grads)]


def _fake_backward(dy: Tensor, u: Tensor, *rest: Any) -> list[Tensor]:
    parameters, wanted = rest[:3], rest[-2]
    pairs = zip(parameters, wanted[1:], strict=True)
    grads = [torch.empty_like(t, memory_format=torch.contiguous_format) for t, want in pairs if want]
    return [_fake(u), *grads] if wanted[0] else grads


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.activation, ctx.backend = inputs
    ctx.wanted = list(ctx.needs_input_grad[:4])
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    if not any(ctx.wanted):
        return (None,) * 6
    grads = iter(call_backward(dy, *ctx.saved_tensors, ctx.activation, ctx.wanted, ctx.backend))
    return (*(next(grads) if want else None for want in ctx.wanted), None, None)


def _save_second(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.activation, ctx.first_wanted, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _second_gradients(ctx: Any, cotangents: Sequence[Tensor | None]) -> tuple[Any, ...]:
    """The gradient of the gradients: autograd through the operator, of which they are made."""

    def convolve(u: Tensor, w: Tensor, bias: Tensor | None, initial: Tensor | None, activation: str) -> Tensor:
        y: Tensor = call(u, w, bias, initial, activation, ctx.backend)
        return y

    composite = functools.partial(plain.backward, convolve, activation=ctx.activation, wanted=ctx.first_wanted)
    return (*gradients_of(composite, ctx.saved_tensors, cotangents, ctx.needs_input_grad), None, None, None)


def _vmap(operator: Callable[..., Any], info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
    """The mapped axis becomes part of the channels."""

    def fold(value: Any, dim: int | None) -> Any:
        if not isinstance(value, Tensor):
            return value
        value = mapped_first(value, dim, info.batch_size)
        return value.movedim(0, 1).flatten(1, 2) if value.ndim == 4 else value.flatten(0, 1)

    channels = mapped_first(args[0], in_dims[0], info.batch_size).shape[2]

    def unfold(value: Tensor) -> Tensor:
        axis = 1 if value.ndim == 3 else 0
        return value.unflatten(axis, (info.batch_size, channels)).movedim(axis, 0)

    result = operator(*(fold(a, d) for a, d in zip(args, in_dims, strict=True)))
    if isinstance(result, Tensor):
        return unfold(result), 0
    return [unfold(value) for value in result], [0] * len(result)


call = define(
    "short_conv", f"({_ARGUMENTS}, str backend) -> Tensor", _forward, _fake, _save, _gradients, _vmap, BACKENDS.bind
)
call_backward = define(
    "short_conv_backward",
    f"(Tensor dy, {_ARGUMENTS}, bool[] wanted, str backend) -> Tensor[]",
    _backward,
    _fake_backward,
    _save_second,
    _second_gradients,
    _vmap,
)

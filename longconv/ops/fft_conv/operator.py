"""The operators ``longconv::fft_conv`` and ``longconv::fft_conv_backward``: schema, fake, autograd, vmap."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from longconv._checks import check_lengths
from longconv.ops import _triton
from longconv.ops._library import define, gradients_of, mapped_first
from longconv.ops._registry import Backend, Backends
from longconv.ops.fft_conv import cpu, cuda, plain, triton
from longconv.ops.fft_conv.reference import MatrixConvolution
from longconv.ops.fft_conv.torch_fft import SpectralConvolution

TENSORS = ("u", "k", "k_reverse", "skip", "pre_gate", "post_gate")
"""The differentiable arguments, in the order of the schema; gradients come in the same order."""

_ARGUMENTS = "Tensor k, Tensor? k_reverse, Tensor? skip, Tensor? pre_gate, Tensor? post_gate, Tensor? lengths, str mode"


def _plain(name: str, make: plain.Make, *, auto: bool = True) -> Backend:
    return Backend(name, functools.partial(plain.forward, make), functools.partial(plain.backward, make), auto=auto)


# The kernels for GPUs have run on hosts alone: until a GPU has confirmed and timed them, they serve who asks for them.
BACKENDS = Backends(
    "fft_conv",
    [
        Backend("cuda", cuda.forward, cuda.backward, cuda.available, cuda.supports, auto=False),
        Backend("cpu", cpu.forward, cpu.backward, cpu.available, cpu.supports, bind=cpu.bind),
        Backend("triton", triton.forward, triton.backward, _triton.available, triton.supports, auto=False),
        _plain("torch", SpectralConvolution),
        _plain("reference", MatrixConvolution, auto=False),
    ],
)


def _forward(u: Tensor, *rest: Any) -> Tensor:
    *arguments, backend = rest
    check_lengths(arguments[5], u.shape[-1])
    if u.numel() == 0:
        return torch.empty_like(u, memory_format=torch.contiguous_format)
    y: Tensor = BACKENDS.choose(backend, u, *arguments).forward(u, *arguments)
    return y.contiguous()


def _backward(dy: Tensor, u: Tensor | None, *rest: Any) -> list[Tensor]:
    *arguments, wanted, backend = rest
    if dy.numel() == 0:
        tensors = (dy, *arguments[:5])
        return [
            torch.zeros_like(t, memory_format=torch.contiguous_format)
            for t, want in zip(tensors, wanted, strict=True)
            if want
        ]
    chosen = BACKENDS.choose(backend, dy if u is None else u, *arguments)
    assert chosen.backward is not None
    return [grad.contiguous() for grad in chosen.backward(dy, u, *arguments, wanted)]


def _fake_forward(u: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(u, memory_format=torch.contiguous_format)


def _fake_backward(dy: Tensor, u: Tensor | None, *rest: Any) -> list[Tensor]:
    tensors, wanted = (dy, *rest[:5]), rest[-2]
    return [
        torch.empty_like(t, memory_format=torch.contiguous_format)
        for t, want in zip(tensors, wanted, strict=True)
        if want
    ]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Keep the inputs that the wanted gradients need, and nothing computed: u serves all gradients but its own."""
    u, k, k_reverse, skip, pre_gate, post_gate, lengths, mode, backend = inputs
    wanted = list(ctx.needs_input_grad[:6])
    ctx.save_for_backward(u if any(wanted[1:]) else None, k, k_reverse, skip, pre_gate, post_gate, lengths)
    ctx.mode, ctx.backend, ctx.wanted = mode, backend, wanted


def _gradients(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    wanted = ctx.wanted
    if not any(wanted):
        return (None,) * 9
    grads = iter(call_backward(dy, *ctx.saved_tensors, ctx.mode, wanted, ctx.backend))
    return (*(next(grads) if want else None for want in wanted), None, None, None)


def _save_second(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, mode, wanted, _ = inputs
    ctx.save_for_backward(*tensors)
    ctx.mode, ctx.first_wanted = mode, wanted


def _second_gradients(ctx: Any, cotangents: Sequence[Tensor | None]) -> tuple[Any, ...]:
    """The gradient of the gradients: autograd through the torch backend, whichever backend gave the first."""

    def composite(*tensors: Any) -> list[Tensor]:
        return plain.backward(SpectralConvolution, *tensors, ctx.mode, ctx.first_wanted)

    return (*gradients_of(composite, ctx.saved_tensors, cotangents, ctx.needs_input_grad), None, None, None)


def map_channels(
    shared: int, call: Callable[..., Any], info: Any, in_dims: tuple[Any, ...], *args: Any
) -> tuple[Any, Any]:
    """Fold the mapped axis V into the channels: (V, B, H, L) becomes (B, V H, L), and a filter or skip (V H, ...).

    The argument of the number ``shared``, of lengths or a mask, is the same for all channels. Where it is mapped, the
    calls are made one by one.
    """
    size = info.batch_size
    if in_dims[shared] is not None and size > 0:
        samples = [
            [a if d is None else a.select(d, i) for a, d in zip(args, in_dims, strict=True)] for i in range(size)
        ]
        calls = [call(*sample) for sample in samples]
        if isinstance(calls[0], Tensor):
            return torch.stack(calls), 0
        return [torch.stack(c) for c in zip(*calls, strict=True)], [0] * len(calls[0])

    def fold(place: int, value: Any, dim: int | None) -> Any:
        if not isinstance(value, Tensor):
            return value
        if place == shared:
            return value if dim is None else value.new_zeros(value.movedim(dim, 0).shape[1:])  # V = 0: any will do
        value = mapped_first(value, dim, size)
        return value.movedim(0, 1).flatten(1, 2) if value.ndim == 4 else value.flatten(0, 1)

    channels = mapped_first(args[0], in_dims[0], size).shape[2]

    def unfold(value: Tensor) -> Tensor:
        axis = 1 if value.ndim == 3 else 0
        return value.unflatten(axis, (size, channels)).movedim(axis, 0)

    result = call(*(fold(i, a, d) for i, (a, d) in enumerate(zip(args, in_dims, strict=True))))
    if isinstance(result, Tensor):
        return unfold(result), 0
    return [unfold(value) for value in result], [0] * len(result)


call_forward = define(
    "fft_conv",
    f"(Tensor u, {_ARGUMENTS}, str backend) -> Tensor",
    _forward,
    _fake_forward,
    _save,
    _gradients,
    functools.partial(map_channels, 6),
    BACKENDS.bind,
)
call_backward = define(
    "fft_conv_backward",
    f"(Tensor dy, Tensor? u, {_ARGUMENTS}, bool[] wanted, str backend) -> Tensor[]",
    _backward,
    _fake_backward,
    _save_second,
    _second_gradients,
    functools.partial(map_channels, 7),
)

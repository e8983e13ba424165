"""The operators ``longconv::sparse_fft_conv`` and its gradients: schema, fake, autograd, vmap."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from longconv.ops._library import define
from longconv.ops._registry import Backend, Backends
from longconv.ops.fft_conv import cpu, plain
from longconv.ops.fft_conv.operator import map_channels
from longconv.ops.sparse_fft_conv import cuda, fft_conv_taps
from longconv.ops.sparse_fft_conv.fft_conv_taps import MaskedTaps
from longconv.ops.sparse_fft_conv.reference import MaskedMatrix
from longconv.ops.sparse_fft_conv.torch_blocks import MaskedSpectrum

_TAGS = (torch.Tag.cudagraph_unsafe,)
"""Every backend reads the mask on the CPU: the graphs of ``torch.compile`` are to leave it out."""

Make = Callable[[Tensor, plain.Filter], plain.Convolution]


def _forward_in(make: Make, u: Tensor, k: Tensor, block_mask: Tensor) -> Tensor:
    return plain.forward(functools.partial(make, block_mask), u, *plain.Arguments(k))


def _backward_in(
    make: Make, dy: Tensor, u: Tensor | None, k: Tensor, block_mask: Tensor, wanted: Sequence[bool]
) -> list[Tensor]:
    all_wanted = (*wanted, False, False, False, False)
    return plain.backward(functools.partial(make, block_mask), dy, u, *plain.Arguments(k), all_wanted)


def _plain(name: str, make: Make, **options: Any) -> Backend:
    return Backend(name, functools.partial(_forward_in, make), functools.partial(_backward_in, make), **options)


# The kernels for GPUs have run on hosts alone: until a GPU has confirmed and timed them, they serve who asks for them.
BACKENDS = Backends(
    "sparse_fft_conv",
    [
        Backend("cuda", cuda.forward, cuda.backward, cuda.available, cuda.supports, auto=False),
        _plain("fft_conv", MaskedTaps, available=cpu.available, supports=cpu.supports, slower=fft_conv_taps.slower),
        _plain("torch", MaskedSpectrum),
        _plain("reference", MaskedMatrix, auto=False),
    ],
)


def _forward(u: Tensor, k: Tensor, block_mask: Tensor, backend: str) -> Tensor:
    if u.numel() == 0:
        return _fake_forward(u)
    y: Tensor = BACKENDS.choose(backend, u, k, block_mask).forward(u, k, block_mask)
    return y.contiguous()


def _backward(
    dy: Tensor, u: Tensor | None, k: Tensor, block_mask: Tensor, wanted: Sequence[bool], backend: str
) -> list[Tensor]:
    if dy.numel() == 0:
        return [grad.zero_() for grad in _fake_backward(dy, u, k, block_mask, wanted, backend)]
    chosen = BACKENDS.choose(backend, dy if u is None else u, k, block_mask)
    assert chosen.backward is not None
    return [grad.contiguous() for grad in chosen.backward(dy, u, k, block_mask, wanted)]


def _fake_forward(u: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(u, memory_format=torch.contiguous_format)


def _fake_backward(
    dy: Tensor, u: Tensor | None, k: Tensor, block_mask: Tensor, wanted: Sequence[bool], backend: str
) -> list[Tensor]:
    return [_fake_forward(t) for t, want in zip((dy, k), wanted, strict=True) if want]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    u, k, block_mask, backend = inputs
    ctx.wanted, ctx.backend = [bool(needs) for needs in ctx.needs_input_grad[:2]], backend
    ctx.save_for_backward(u if ctx.wanted[1] else None, k, block_mask)


def _gradients(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    if not any(ctx.wanted):
        return (None,) * 4
    grads = iter(call_backward(dy, *ctx.saved_tensors, ctx.wanted, ctx.backend))
    return (*(next(grads) if want else None for want in ctx.wanted), None, None)


def _save_second(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.first_wanted, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _second_gradients(ctx: Any, cotangents: Sequence[Tensor | None]) -> tuple[Any, ...]:
    """The gradient of the gradients, by the operators themselves: what a mask keeps is not known where they are traced.

    With y = C_k u = C_u k, linear in both, and cotangents a of C_k^T dy and b of C_u^T dy, it is that of
    <a, C_k^T dy> + <b, C_u^T dy> = <C_k a + C_b u, dy>.
    """
    dy, u, k, block_mask = ctx.saved_tensors
    given = iter(cotangents)
    a, b = (next(given) if want else None for want in ctx.first_wanted)
    to_dy, to_u, to_k, *_ = ctx.needs_input_grad
    d_dy = d_u = d_k = None
    if to_dy:
        pairs = [(a, k)] * (a is not None) + [(u, b)] * (b is not None)
        images = [call_forward(x, taps, block_mask, ctx.backend) for x, taps in pairs]
        d_dy = images[0] + images[1] if len(images) == 2 else next(iter(images), None)
    if to_u and b is not None:
        d_u = call_backward(dy, None, b, block_mask, [True, False], ctx.backend)[0]
    if to_k and a is not None:
        d_k = call_backward(dy, a, k, block_mask, [False, True], ctx.backend)[0]
    return d_dy, d_u, d_k, None, None, None


call_forward = define(
    "sparse_fft_conv",
    "(Tensor u, Tensor k, Tensor block_mask, str backend) -> Tensor",
    _forward,
    _fake_forward,
    _save,
    _gradients,
    functools.partial(map_channels, 2),
    tags=_TAGS,
)
call_backward = define(
    "sparse_fft_conv_backward",
    "(Tensor dy, Tensor? u, Tensor k, Tensor block_mask, bool[] wanted, str backend) -> Tensor[]",
    _backward,
    _fake_backward,
    _save_second,
    _second_gradients,
    functools.partial(map_channels, 3),
    tags=_TAGS,
)

"""The operators of ``vandermonde`` and ``vandermonde_log`` and of their gradients: schema, fake, autograd, vmap."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from longconv._checks import broadcast_shapes
from longconv.ops import _keops, _triton
from longconv.ops._library import align_mapped, define, gradients_of
from longconv.ops._registry import Backend, Backends
from longconv.ops.vandermonde import cpu, keops, reference, torch_blocks, triton
from longconv.ops.vandermonde.reference import Powers


def _shape(v: Tensor, x: Tensor, length: int) -> tuple[int, ...]:
    return (*broadcast_shapes(v.shape[:-1], x.shape[:-1]), length)


def _fake_forward(v: Tensor, x: Tensor, length: int, real: bool, backend: str) -> Tensor:
    return v.new_empty(_shape(v, x, length), dtype=reference.result_dtype(v, x, real))


def _fake_backward(g: Tensor, v: Tensor, x: Tensor, real: bool, backend: str) -> list[Tensor]:
    return [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (v, x)]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    v, x, _, ctx.real, ctx.backend = inputs
    ctx.save_for_backward(v, x)


def _save_second(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.real, _ = inputs
    ctx.save_for_backward(*tensors)


def _vmap(operator: Callable[..., Any], info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
    tensors = [(a, d) for a, d in zip(args, in_dims, strict=True) if isinstance(a, Tensor)]
    result = operator(*align_mapped(info, in_dims, args))
    if isinstance(result, Tensor):
        return result, 0
    ranks = [a.ndim - (d is not None) for a, d in tensors[-2:]]  # of v and x, whose shapes the gradients have
    return [r.reshape(r.shape[0], *r.shape[r.ndim - n :]) for r, n in zip(result, ranks, strict=True)], [0, 0]


class VandermondeOperator:
    """``longconv::<name>`` and ``longconv::<name>_backward``.

    Args:
        name: the op's name.
        argument: the name of the argument that tells the nodes.
        blocks: how the torch backend forms powers.
        definition: how the definition forms them.
        further: more backends, best first, before the definition.
    """

    def __init__(self, name: str, argument: str, blocks: Powers, definition: Powers, *further: Backend) -> None:
        rows = [("torch", torch_blocks, blocks, True), ("reference", reference, definition, False)]
        torch_backend, last = (
            Backend(row, functools.partial(m.forward, powers), functools.partial(m.backward, powers), auto=auto)
            for row, m, powers, auto in rows
        )
        native = Backend(
            "cpu",
            functools.partial(cpu.forward, argument),
            functools.partial(cpu.backward, argument),
            cpu.available,
            cpu.supports,
            bind=functools.partial(cpu.bind, argument),
        )
        fused = Backend(
            "triton",
            functools.partial(triton.forward, argument),
            functools.partial(triton.backward, argument),
            _triton.available,
            triton.supports,
        )
        self.backends = Backends(name, [native, fused, torch_backend, *further, last])
        self.blocks = blocks
        self.call = define(
            name,
            f"(Tensor v, Tensor {argument}, SymInt length, bool real, str backend) -> Tensor",
            self._forward,
            _fake_forward,
            _save,
            self._gradients,
            _vmap,
            self.backends.bind,
        )
        self.call_backward = define(
            f"{name}_backward",
            f"(Tensor g, Tensor v, Tensor {argument}, bool real, str backend) -> Tensor[]",
            self._backward,
            _fake_backward,
            _save_second,
            self._second_gradients,
            _vmap,
        )

    def _forward(self, v: Tensor, x: Tensor, length: int, real: bool, backend: str) -> Tensor:
        y = _fake_forward(v, x, length, real, backend)
        if y.numel() == 0 or v.shape[-1] == 0:
            return y.zero_()
        y = self.backends.choose(backend, v, x, length, real).forward(v, x, length, real)
        return y

    def _backward(self, g: Tensor, v: Tensor, x: Tensor, real: bool, backend: str) -> list[Tensor]:
        if g.numel() == 0 or v.shape[-1] == 0:
            return [torch.zeros_like(v), torch.zeros_like(x)]
        chosen = self.backends.choose(backend, v, x, g.shape[-1], real)
        assert chosen.backward is not None
        return [grad.contiguous() for grad in chosen.backward(g, v, x, real)]

    def _gradients(self, ctx: Any, g: Tensor) -> tuple[Any, ...]:
        return (*self.call_backward(g, *ctx.saved_tensors, ctx.real, ctx.backend), None, None, None)

    def _second_gradients(self, ctx: Any, cotangents: Sequence[Tensor | None]) -> tuple[Any, ...]:
        """The gradient of the gradients: autograd through the torch backend, whichever backend gave the first."""
        composite = functools.partial(torch_blocks.backward, self.blocks, real=ctx.real)
        return (*gradients_of(composite, ctx.saved_tensors, cotangents, ctx.needs_input_grad), None, None)


def _keops_backend(forward: Callable[..., Tensor], backward: Callable[..., list[Tensor]]) -> Backend:
    return Backend("keops", forward, backward, _keops.available, _keops.supports, auto=False)


NODES = VandermondeOperator(
    "vandermonde",
    "x",
    torch_blocks.NODES,
    reference.NODES,
    _keops_backend(keops.forward_nodes, keops.backward_nodes),
)
LOGARITHMS = VandermondeOperator(
    "vandermonde_log",
    "log_x",
    torch_blocks.LOGARITHMS,
    reference.LOGARITHMS,
    _keops_backend(keops.forward, keops.backward),
)

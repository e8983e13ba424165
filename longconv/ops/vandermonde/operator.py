"""The operators of ``vandermonde`` and ``vandermonde_log`` and of their gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable

from torch import Tensor

from longconv._checks import broadcast_shapes
from longconv.ops import _keops, _triton
from longconv.ops._registry import Backend, Backends
from longconv.ops._with_gradients import WithGradients, by_autograd, vmap_leading
from longconv.ops.vandermonde import cpu, cuda, keops, reference, torch_blocks, triton
from longconv.ops.vandermonde.reference import Powers


def _fake(v: Tensor, x: Tensor, length: int, real: bool, backend: str) -> Tensor:
    shape = (*broadcast_shapes(v.shape[:-1], x.shape[:-1]), length)
    return v.new_empty(shape, dtype=reference.result_dtype(v, x, real))


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
        kernels = Backend(
            "cuda",
            functools.partial(cuda.forward, argument),
            functools.partial(cuda.backward, argument),
            cuda.available,
            cuda.supports,
            auto=False,
        )
        fused = Backend(
            "triton",
            functools.partial(triton.forward, argument),
            functools.partial(triton.backward, argument),
            _triton.available,
            triton.supports,
        )
        self.backends = Backends(name, [native, kernels, fused, torch_backend, *further, last])
        second = by_autograd(functools.partial(torch_blocks.backward, blocks))
        options = ["SymInt length", "bool real"]
        operator = WithGradients(self.backends, ["v", argument], options, _fake, second, vmap_leading)
        self.call = operator.call


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

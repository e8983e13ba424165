"""The operator ``longconv::transpose``: schema, fake, autograd, vmap, backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from longconv.ops._library import define
from longconv.ops._registry import Backend, Backends
from longconv.ops.transpose import cpu, cuda, reference

BACKENDS = Backends(
    "transpose",
    [
        Backend("cuda", cuda.forward, available=cuda.available, supports=cuda.supports),
        Backend("cpu", cpu.forward, available=cpu.available, supports=cpu.supports, bind=cpu.bind),
        Backend("torch", reference.forward),
    ],
)


def _kernel(x: Tensor, backend: str) -> Tensor:
    y: Tensor = BACKENDS.choose(backend, x).forward(x)
    return y


def _fake(x: Tensor, backend: str) -> Tensor:
    return x.new_empty(*x.shape[:-2], x.shape[-1], x.shape[-2])


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.backend = inputs[1] if inputs[1] == "torch" else "auto"


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
    # <dy, transpose(x)> = <transpose(dy), x>. dy may be laid out in a way that a named backend would refuse.
    return call(dy, ctx.backend), None


def _vmap(
    operator: Callable[..., Any], info: Any, in_dims: tuple[Any, ...], x: Tensor, backend: str
) -> tuple[Any, int]:
    return operator(x.movedim(in_dims[0], 0), backend), 0


call = define("transpose", "(Tensor x, str backend) -> Tensor", _kernel, _fake, _save, _gradients, _vmap, BACKENDS.bind)

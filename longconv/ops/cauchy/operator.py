"""The operators ``longconv::cauchy`` and ``longconv::cauchy_backward``.

They take points with leading axes too, (..., L), which broadcast with those of v and w: it is what ``vmap`` needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from longconv._checks import broadcast_shapes
from longconv.ops import _keops, _triton
from longconv.ops._registry import Backend, Backends
from longconv.ops._with_gradients import WithGradients, vmap_leading
from longconv.ops.cauchy import cpu, cuda, keops, reference, torch_blocks, triton

BACKENDS = Backends(
    "cauchy",
    [
        Backend("cpu", cpu.forward, cpu.backward, cpu.available, cpu.supports, bind=cpu.bind),
        Backend("cuda", cuda.forward, cuda.backward, cuda.available, cuda.supports, auto=False),
        Backend("triton", triton.forward, triton.backward, _triton.available, triton.supports),
        Backend("torch", torch_blocks.forward, torch_blocks.backward),
        Backend("keops", keops.forward, keops.backward, _keops.available, _keops.supports, auto=False),
        Backend("reference", reference.forward, reference.backward, auto=False),
    ],
)


def _fake(v: Tensor, z: Tensor, w: Tensor, backend: str) -> Tensor:
    lead = broadcast_shapes(v.shape[:-1], z.shape[:-1], w.shape[:-1])
    return v.new_empty((*lead, z.shape[-1]), dtype=reference.result_dtype(v, z, w))


def _second_gradients(
    inputs: Sequence[Tensor], options: Sequence[Any], cotangents: Sequence[Tensor | None], needed: Sequence[bool]
) -> list[Tensor | None]:
    return torch_blocks.second(inputs, options[-1], cotangents, needed)


OPERATOR = WithGradients(BACKENDS, "vzw", [], _fake, _second_gradients, vmap_leading, selective=True)

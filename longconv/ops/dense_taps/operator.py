"""The operators ``longconv::dense_taps`` and its gradients."""

from __future__ import annotations

from torch import Tensor

from longconv.ops._registry import Backend, Backends
from longconv.ops._with_gradients import WithGradients, by_autograd, vmap_features
from longconv.ops.dense_taps import cpu, reference, torch_blocks

BACKENDS = Backends(
    "dense_taps",
    [
        Backend("cpu", cpu.forward, cpu.backward, cpu.available, cpu.supports),
        Backend("torch", torch_blocks.forward, torch_blocks.backward),
        Backend("reference", reference.forward, reference.backward, auto=False),
    ],
)


def _fake(A: Tensor, B: Tensor, C: Tensor, length: int, backend: str) -> Tensor:
    return C.new_empty(*C.shape[:2], length)


OPERATOR = WithGradients(
    BACKENDS, "ABC", ["SymInt length"], _fake, by_autograd(torch_blocks.backward), vmap_features(0), factor=2
)

"""The operators ``longconv::state_space_taps`` and its gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from longconv.ops._registry import Backend, Backends
from longconv.ops._with_gradients import WithGradients, by_autograd, vmap_features
from longconv.ops.state_space_taps import reference, torch_blocks

BACKENDS = Backends(
    "state_space_taps",
    [
        Backend("torch", torch_blocks.forward, torch_blocks.backward),
        Backend("reference", reference.forward, reference.backward, auto=False),
    ],
)


def _fake(A: Tensor, B: Tensor, C: Tensor, left: Tensor, right: Tensor, length: int, backend: str) -> Tensor:
    return C.new_empty(*C.shape[:2], length, dtype=torch.float64)


OPERATOR = WithGradients(
    BACKENDS,
    ["a", "b", "c", "left", "right"],
    ["SymInt length"],
    _fake,
    by_autograd(torch_blocks.backward),
    vmap_features(-2),
    factor=2,
)

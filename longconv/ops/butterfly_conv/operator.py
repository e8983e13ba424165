"""The operators ``longconv::butterfly_conv`` and its gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from longconv.ops._registry import Backend, Backends
from longconv.ops._with_gradients import WithGradients, by_autograd
from longconv.ops.butterfly_conv import reference, torch_blocks

MATRICES = (
    "analysis_1",
    "analysis_twiddles",
    "analysis_2",
    "synthesis_1",
    "synthesis_twiddles",
    "synthesis_2",
)
"""In the order of the schema."""

BACKENDS = Backends(
    "butterfly_conv",
    [
        Backend("torch", torch_blocks.forward, torch_blocks.backward),
        Backend("reference", reference.forward, reference.backward, auto=False),
    ],
)


def _fake(x: Tensor, *rest: Any) -> Tensor:
    tail = rest[-2]
    return x.new_empty(x.shape[0], 2 * x.shape[1] if tail else x.shape[1], x.shape[2])


def _vmap(operator: Any, info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
    """One call after the other: samples may have matrices of their own."""

    def one(i: int) -> Any:
        pairs = zip(args, in_dims, strict=True)
        return operator(*(a if d is None or not isinstance(a, Tensor) else a.select(d, i) for a, d in pairs))

    if info.batch_size:
        results = [one(i) for i in range(info.batch_size)]
        if isinstance(results[0], Tensor):
            return torch.stack(results), 0
        return [torch.stack(parts) for parts in zip(*results, strict=True)], [0] * len(results[0])
    args = tuple(
        a if d is None or not isinstance(a, Tensor) else a.movedim(d, 0).new_zeros(1, *a.movedim(d, 0).shape[1:])
        for a, d in zip(args, in_dims, strict=True)
    )
    in_dims = tuple(d if d is None else 0 for d in in_dims)
    result = one(0)
    if isinstance(result, Tensor):
        return result.new_empty(0, *result.shape), 0
    return [t.new_empty(0, *t.shape) for t in result], [0] * len(result)


OPERATOR = WithGradients(
    BACKENDS,
    ["x", "k", *MATRICES],
    ["bool tail"],
    _fake,
    by_autograd(reference.backward),
    _vmap,
    selective=True,
)

"""The definition of ``linear_scan``, one step after the other in double precision."""

from __future__ import annotations

import torch
from torch import Tensor

from longconv._checks import broadcast_shapes


def result_dtype(a: Tensor, b: Tensor, initial: Tensor | None) -> torch.dtype:
    """The dtype that torch promotes the inputs to."""
    dtype = torch.promote_types(a.dtype, b.dtype)
    return dtype if initial is None else torch.promote_types(dtype, initial.dtype)


def result_shape(a: Tensor, b: Tensor, initial: Tensor | None, dim: int) -> tuple[int, ...]:
    """The shape of the states; all three have one rank, and ``initial`` has size 1 along ``dim``."""
    shape = broadcast_shapes(a.shape, b.shape)
    if initial is None:
        return shape
    length = shape[dim]
    lead = broadcast_shapes((*shape[:dim], 1, *shape[len(shape) + dim + 1 :]), initial.shape)
    return (*lead[:dim], length, *lead[len(shape) + dim + 1 :])


def shifted(h: Tensor, initial: Tensor | None, dim: int, reverse: bool) -> Tensor:
    """The state before every step: h one step later, with ``initial`` (or 0) in front."""
    first = h.narrow(dim, 0, 1)
    first = torch.zeros_like(first) if initial is None else initial.to(h.dtype).expand_as(first)
    kept = h.narrow(dim, 1 if reverse else 0, h.shape[dim] - 1)
    return torch.cat((kept, first) if reverse else (first, kept), dim)


def forward(a: Tensor, b: Tensor, initial: Tensor | None, dim: int, reverse: bool) -> Tensor:
    """The recurrence as it stands."""
    dtype, shape = result_dtype(a, b, initial), result_shape(a, b, initial, dim)
    wide = torch.promote_types(dtype, torch.float64)
    a, b = (t.to(wide).expand(shape).movedim(dim, 0) for t in (a, b))
    state = torch.zeros_like(b[0]) if initial is None else initial.to(wide).squeeze(dim).expand_as(b[0])
    states = []
    for t in reversed(range(len(b))) if reverse else range(len(b)):
        state = a[t] * state + b[t]
        states.append(state)
    return torch.stack(states[::-1] if reverse else states).movedim(0, dim).to(dtype).contiguous()

"""The definition, in plain torch: a backend for every device, and what the gradients are taken of."""

from __future__ import annotations

import torch
from torch import Tensor


def forward(
    x: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor, left: Tensor | None, right: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The state after the sample and the output, computed in double precision."""
    wide = x.to(torch.complex128)
    after = A * wide + B * u[..., None]
    if left is not None and right is not None:
        s = torch.einsum("rhn,bhn->brh", right, wide).real
        after = after + torch.einsum("rhn,brh->bhn", left, s.to(left.dtype))
    after = after.to(x.dtype)
    y = torch.einsum("chn,bhn->bch", C, after.to(torch.complex128)).real
    return after, y.to(u.dtype)

"""The definition, in plain torch: a backend for every device, and what the gradients are taken of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


def backward(
    x: Tensor,
    u: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    left: Tensor | None,
    right: Tensor | None,
    d_after: Tensor | None,
    d_y: Tensor | None,
    after: Callable[[], Tensor],
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of x, u, A, B, C, left and right that are wanted, computed in x's precision.

    With G = d_after + sum_c conj(C[c]) d_y[c], the cotangent of the new state in all, they are those of a sum of
    products: conj(A) G + sum_r conj(right[r]) t[r] for x, with t[r] = Re sum_n conj(left[r, n]) G[n], and so on.
    """
    a, b, c, *low_rank = (None if t is None else t.to(x.dtype) for t in (A, B, C, left, right))
    assert a is not None and b is not None and c is not None
    G = torch.zeros_like(x) if d_after is None else d_after
    if d_y is not None:
        G = G + (c.conj() * d_y[..., None]).sum(1)
    to_x, to_u, to_A, to_B, to_C, to_left, to_right = wanted
    dx = a.conj() * G if to_x else None
    du = _dots(b[None], G)[:, 0] if to_u else None
    dA = (x.conj() * G).sum(0) if to_A else None
    dB = (u[..., None] * G).sum(0) if to_B else None
    dC = (after().conj()[:, None] * d_y[..., None]).sum(0) if to_C and d_y is not None else None
    d_left = d_right = None
    if (left := low_rank[0]) is not None and (right := low_rank[1]) is not None:
        t = _dots(left, G)[..., None]
        if dx is not None:
            dx = dx + (right.conj() * t).sum(1)
        if to_left:
            d_left = (_dots(right.conj(), x)[..., None] * G[:, None]).sum(0)
        if to_right:
            d_right = (t * x.conj()[:, None]).sum(0)
    system = (None if grad is None else grad.to(torch.complex128) for grad in (dA, dB, dC, d_left, d_right))
    return [dx, du, *system]


def _dots(rows: Tensor, x: Tensor) -> Tensor:
    """Re sum_n conj(rows[r, h, n]) x[b, h, n], (B, R, H)."""
    return torch.einsum("rhk,bhk->brh", *(torch.view_as_real(t.resolve_conj()).flatten(-2) for t in (rows, x)))

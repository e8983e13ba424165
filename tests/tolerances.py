"""The only tolerance table: relative L2 errors against float64, by dtype and by kind of comparison."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

RELATIVE_L2 = {
    torch.float64: 1e-12,
    torch.complex128: 1e-12,
    torch.float32: 2e-6,
    torch.complex64: 2e-6,
    torch.float16: 2e-3,
    torch.bfloat16: 1e-2,
}
"""One op, forward or gradient, against its definition in float64 on inputs of unit scale."""

SHARDED_RELATIVE_L2 = {**RELATIVE_L2, torch.float32: 1e-6, torch.complex64: 1e-6}
"""The same of an op on a sequence that is cut among ranks."""


def relative_l2(got: Tensor, want: Tensor) -> float:
    """||got - want|| / ||want|| in double precision; a zero or non-finite ``want`` is a bad test and fails."""
    dtype = torch.complex128 if want.is_complex() or got.is_complex() else torch.float64
    got, want = got.detach().to(dtype), want.detach().to(dtype)
    assert got.shape == want.shape, f"shape {tuple(got.shape)}, expected {tuple(want.shape)}"
    norm = want.norm()
    assert norm > 0 and norm.isfinite(), "the reference is zero or not finite: this comparison proves nothing"
    return ((got - want).norm() / norm).item()


def assert_close(got: Tensor, want: Tensor, tolerance: float | None = None) -> None:
    """Fail unless the relative L2 error is within ``tolerance`` (default: the table's, for ``got``'s dtype)."""
    bound = RELATIVE_L2[got.dtype] if tolerance is None else tolerance
    error = relative_l2(got, want)
    assert error <= bound, f"relative L2 error {error:.3g} > {bound:.3g}"


def assert_same_state(got: Any, want: Any, tolerance: float) -> None:
    """Fail unless two pytrees of tensors agree leaf by leaf; where one is empty or zero, so has to be the other."""
    for one, other in zip(pytree.tree_leaves(got), pytree.tree_leaves(want), strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        if other.norm() > 0:
            assert_close(one, other, tolerance)
        else:
            assert not one.any()

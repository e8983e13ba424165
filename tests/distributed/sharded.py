"""A function of sharded sequences against the same function of whole ones: results and gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
import torch.distributed as dist
from torch import Tensor

from longconv.distributed import Ranks
from tests.tolerances import SHARDED_RELATIVE_L2

Function = Callable[..., Tensor]


def cut(x: Tensor, sizes: Sequence[int], rank: int, axis: int) -> Tensor:
    """A rank's shard, with a memory of its own."""
    return x.split(list(sizes), axis)[rank].clone()


def compare(
    ranks: Ranks,
    sharded: Function,
    whole: Function,
    sizes: Sequence[int],
    shards: Mapping[str, Tensor],
    others: Mapping[str, Tensor],
    *,
    axis: int = -1,
    tolerance: float | None = None,
    own_sizes: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> None:
    """Compare ``sharded`` of shards with ``whole`` of everything in double precision, and all gradients.

    Args:
        ranks: the ranks.
        sharded: takes the tensors by name, those of ``shards`` as shards.
        whole: takes them whole.
        sizes: the lengths of the shards.
        shards: the whole tensors that are cut along ``axis``.
        others: those that every rank has.
        axis: of time, in the result too.
        tolerance: relative; None: the table's.
        own_sizes: the lengths of the shards of those whose lengths are others.
    """
    cuts = {name: own_sizes.get(name, sizes) for name in shards}
    mine = {name: cut(x, cuts[name], ranks.rank, axis).requires_grad_() for name, x in shards.items()}
    same = {name: x.clone().requires_grad_() for name, x in others.items()}
    wide = {name: _wide(x).requires_grad_() for name, x in {**shards, **others}.items()}
    y, want = sharded(**mine, **same), whole(**wide)
    assert y.dtype == next(iter(shards.values())).dtype or y.is_complex()
    _near(y, cut(want, sizes, ranks.rank, axis), want, tolerance)
    target = torch.randn(want.shape, dtype=want.dtype)
    loss = (y * cut(target, sizes, ranks.rank, axis).to(y.dtype)).abs().square().sum()
    total = (want * target).abs().square().sum()
    names = [*mine, *same]
    got = torch.autograd.grad(loss, [*mine.values(), *same.values()])
    wanted = torch.autograd.grad(total, [wide[name] for name in names])
    for name, one, other in zip(names, got, wanted, strict=True):
        if name in mine:
            _near(one, cut(other, cuts[name], ranks.rank, axis), other, tolerance)
        else:
            one = one.detach().clone()
            dist.all_reduce(torch.view_as_real(one) if one.is_complex() else one, group=ranks.group)
            _near(one, other, other, tolerance)


def _wide(x: Tensor) -> Tensor:
    return x.detach().to(torch.complex128 if x.is_complex() else torch.float64)


def _near(got: Tensor, want: Tensor, whole: Tensor, tolerance: float | None) -> None:
    """Relative to the norm of the whole, as a shard by itself may be empty or zero."""
    norm = whole.detach().norm()
    assert got.shape == want.shape and got.isfinite().all() and norm > 0
    error = ((got.detach().to(want.dtype) - want.detach()).norm() / norm).item()
    bound = SHARDED_RELATIVE_L2[got.dtype] if tolerance is None else tolerance
    assert error <= bound, f"relative L2 error {error:.3g} > {bound:.3g}"

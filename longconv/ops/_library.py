"""The torch operator library that every op of longconv is defined in, and the one way to define one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

LIBRARY = torch.library.Library("longconv", "DEF")
"""Namespace ``torch.ops.longconv``."""


_AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU).add(torch._C.DispatchKey.AutocastCUDA)


def _without_autocast(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """The kernel with autocast off: the precision of its arithmetic is the op's own matter."""

    @functools.wraps(kernel)
    def run(*args: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
            return kernel(*args)

    return run


def define(
    name: str,
    schema: str,
    kernel: Callable[..., Any],
    fake: Callable[..., Any],
    save: Callable[..., None],
    gradients: Callable[..., Any],
    vmap: Callable[..., tuple[Any, Any]],
) -> Callable[..., Any]:
    """Define the operator ``torch.ops.longconv.<name>``; return the function that calls it.

    Under the transforms of ``torch.func`` the call goes through an ``autograd.Function`` of the same rules, because the
    rule that ``torch.library`` registers can't be transformed (torch 2.13).

    Args:
        name: the operator's name.
        schema: its arguments and results in torch's schema language, without the name.
        kernel: the computation for real tensors on any device; it chooses the backend.
        fake: the same for tensors without data: shapes, dtypes and devices of the results.
        save: ``setup_context(ctx, inputs, output)``, keeps what the gradients need.
        gradients: ``backward(ctx, *cotangents)``, a gradient or None for every argument.
        vmap: ``(operator, info, in_dims, *args) -> (results, out_dims)``.
    """
    LIBRARY.define(name + schema)
    qualified, operator = f"longconv::{name}", getattr(torch.ops.longconv, name)
    rule = functools.partial(vmap, operator)
    LIBRARY.impl(name, _without_autocast(kernel), "CompositeExplicitAutograd")
    torch.library.register_fake(qualified, fake, lib=LIBRARY)
    torch.library.register_autograd(qualified, gradients, setup_context=save, lib=LIBRARY)
    torch.library.register_vmap(qualified, rule, lib=LIBRARY)
    static = {"forward": operator, "setup_context": save, "backward": gradients, "vmap": rule}
    function: Any = type(name, (torch.autograd.Function,), {key: staticmethod(value) for key, value in static.items()})

    def call(*args: Any) -> Any:
        return function.apply(*args) if torch._C._are_functorch_transforms_active() else operator(*args)

    return call


def gradients_of(
    composite: Callable[..., list[Tensor]], inputs: Sequence[Tensor | None], cotangents: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """The gradients of <cotangents, composite(*inputs)> by autograd, for a composite of differentiable torch functions.

    It is how an operator gets its second derivative: the composite is its ``gradients`` in plain torch. Integer inputs
    and None have None.
    """
    with torch.enable_grad():
        leaves = [
            t if t is None else t.detach().requires_grad_(t.is_floating_point() or t.is_complex()) for t in inputs
        ]
        results = composite(*leaves)
        pairs = [(r, c) for r, c in zip(results, cotangents, strict=True) if c is not None and r.requires_grad]
        asked = [t for t in leaves if t is not None and t.requires_grad]
        if not pairs:
            return [None] * len(leaves)
        outputs, seeds = zip(*pairs, strict=True)
        grads = iter(torch.autograd.grad(outputs, asked, seeds, allow_unused=True, create_graph=True))
    return [None if t is None or not t.requires_grad else next(grads) for t in leaves]


def align_mapped(info: Any, in_dims: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """The arguments of a ``vmap`` rule for tensors whose leading axes broadcast from the right.

    Every tensor has the mapped axis in front, expanded if it was not mapped, so that each sample has its own gradient,
    and then as many leading axes as the longest one.
    """
    tensors = [(a, d) for a, d in zip(args, in_dims, strict=True) if isinstance(a, Tensor)]
    rank = max(a.ndim - (d is not None) for a, d in tensors)

    def align(tensor: Tensor, dim: int | None) -> Tensor:
        tensor = tensor.unsqueeze(0).expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        return tensor.reshape(tensor.shape[0], *(1,) * (rank + 1 - tensor.ndim), *tensor.shape[1:])

    return [align(a, d) if isinstance(a, Tensor) else a for a, d in zip(args, in_dims, strict=True)]


def reduce_like(gradient: Tensor, tensor: Tensor) -> Tensor:
    """A gradient summed over the axes along which ``tensor`` was broadcast, in its dtype (real part if real)."""
    gradient = gradient if tensor.is_complex() or not gradient.is_complex() else gradient.real
    return gradient.sum_to_size(tensor.shape).to(tensor.dtype)

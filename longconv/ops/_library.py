"""The torch operator library that every op of longconv is defined in, and the one way to define one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

LIBRARY = torch.library.Library("longconv", "DEF")
"""Namespace ``torch.ops.longconv``."""


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
    LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(qualified, fake, lib=LIBRARY)
    torch.library.register_autograd(qualified, gradients, setup_context=save, lib=LIBRARY)
    torch.library.register_vmap(qualified, rule, lib=LIBRARY)
    static = {"forward": operator, "setup_context": save, "backward": gradients, "vmap": rule}
    function: Any = type(name, (torch.autograd.Function,), {key: staticmethod(value) for key, value in static.items()})

    def call(*args: Any) -> Any:
        return function.apply(*args) if torch._C._are_functorch_transforms_active() else operator(*args)

    return call

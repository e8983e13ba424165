"""Linear recurrences along a sequence: the public function, its operator, its definition and its backends."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from longconv import _sequence
from longconv._checks import (
    COMPLEX,
    FLOATS,
    broadcast_shapes,
    check_bool,
    check_choice,
    check_device,
    check_tensor,
    describe,
)
from longconv.ops.linear_scan.operator import BACKENDS, call

__all__ = ["check_arguments", "linear_scan"]

_DTYPES = (*FLOATS, *COMPLEX)
_RANKS = range(1, 9)


def linear_scan(
    a: Tensor,
    b: Tensor,
    initial: Tensor | None = None,
    *,
    dim: int = 1,
    reverse: bool = False,
    backend: str = "auto",
) -> Tensor:
    r"""States of a first-order linear recurrence along one axis, all of them at once.

        h_t = a_t h_{t-1} + b_t,    h_{-1} = initial        (reverse: h_t = a_t h_{t+1} + b_t,    h_L = initial)

    It is the recurrence of a diagonal state space, whose coefficients may depend on time. The work is that of a few
    products a number, in chunks; it divides by nothing, so coefficients of 0 are as good as any. Memory is that of the
    result, in the backward pass too.

    Args:
        a: coefficients, broadcast with b from the right; of size 1 along ``dim``, or without that axis, they are the
            same at all times. Real or complex.
        b: inputs (..., L, ...), with L along ``dim``. Real or complex.
        initial: the state before the first step, b without the axis ``dim`` (or what broadcasts to it), or None for 0.
        dim: the axis of time, counted in b.
        reverse: run from the last time to the first.
        backend: ``"auto"``, or one of the names that ``longconv.info()`` prints.

    Returns:
        h: every state, in the shape that a and b broadcast to and in the dtype that torch promotes the inputs to. In
        16-bit types the states are formed in single precision and rounded at the end. Every tensor has a gradient, and
        the gradients have gradients.

    Raises:
        TypeError: an argument is not a tensor or has a wrong dtype, ``dim`` is not an integer, or ``reverse`` not a
            bool.
        ValueError: shapes that don't broadcast, a ``dim`` that b doesn't have, tensors on different devices, or a
            backend that can't serve the call.

    References:
        G. E. Blelloch, "Prefix Sums and Their Applications", CMU-CS-90-190.
        J. T. H. Smith, A. Warrington, S. W. Linderman, "Simplified State Space Layers for Sequence Modeling",
        arXiv:2208.04933.

    >>> import torch
    >>> linear_scan(torch.tensor(0.5), torch.tensor([1.0, 1.0, 1.0]), dim=0)
    tensor([1.0000, 1.5000, 1.7500])
    >>> linear_scan(torch.tensor([0.5, 0.0, 2.0]), torch.ones(3), torch.tensor(4.0), dim=0)
    tensor([3., 1., 3.])
    >>> linear_scan(torch.ones(2, 3, 4), torch.ones(2, 5, 4))
    Traceback (most recent call last):
        ...
    ValueError: a is a (2, 3, 4) float32 tensor and b is a (2, 5, 4) float32 tensor: they must broadcast
    """
    if (shard := _sequence.shard()) is not None:
        return shard.linear_scan(a, b, initial, dim=dim, reverse=reverse, backend=backend)
    h: Tensor = call.checked(check_arguments, a, b, initial, dim, reverse, backend)
    return h


def check_arguments(
    a: Tensor, b: Tensor, initial: Tensor | None, dim: int, reverse: bool, backend: str
) -> tuple[Any, ...]:
    """The arguments as the operator takes them: of one rank, the axis counted from the right."""
    check_tensor("b", b, "(..., L, ...)", ndim=_RANKS, dtypes=_DTYPES)
    check_tensor("a", a, "to broadcast with b", ndim=range(b.ndim + 1), dtypes=_DTYPES)
    check_choice("backend", backend, BACKENDS.names())
    check_device("a", a, "b", b)
    axis = _axis(dim, b)
    try:
        shape = a.shape if a.shape == b.shape else broadcast_shapes(a.shape, b.shape)
    except RuntimeError:
        raise ValueError(f"a is {describe(a)} and b is {describe(b)}: they must broadcast") from None
    if initial is not None:
        initial = _with_time(initial, b, (*shape[:axis], *shape[axis + 1 :]), axis)
    if a.ndim < b.ndim:
        a = a.reshape((1,) * (b.ndim - a.ndim) + a.shape)
    return a, b, initial, axis - b.ndim, check_bool("reverse", reverse), backend


def _axis(dim: int, b: Tensor) -> int:
    """``dim`` as a number from 0 on."""
    if isinstance(dim, bool) or not isinstance(dim, int):
        raise TypeError(f"dim is {describe(dim)}, expected an integer")
    if not -b.ndim <= dim < b.ndim:
        raise ValueError(f"dim is {dim}, expected an axis of b, {describe(b)}")
    return dim % b.ndim


def _with_time(initial: Tensor, b: Tensor, sizes: tuple[int, ...], axis: int) -> Tensor:
    """The initial state with an axis of time of size 1, once it is checked."""
    check_tensor("initial", initial, "b without the axis dim", ndim=range(b.ndim), dtypes=_DTYPES)
    check_device("initial", initial, "b", b)
    initial = initial.reshape((1,) * (len(sizes) - initial.ndim) + initial.shape)
    if any(got not in (1, want) for got, want in zip(initial.shape, sizes, strict=True)):
        raise ValueError(f"initial is {describe(initial)}, expected to broadcast to {tuple(sizes)}, a state of b")
    return initial.unsqueeze(axis)

"""The layouts that an op was called with, whose calls need neither be checked nor bound again."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from longconv import _native

_PLAIN = (Tensor, torch.nn.Parameter)


def _bits(*names: str) -> int:
    """The dispatch keys of these names as bits."""
    keys = (torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, name)).raw_repr() for name in names)
    return functools.reduce(operator.or_, keys)


_dispatch_keys = torch._C._dispatch_keys
_MORE_THAN_CPU = ~_bits("CPU", "AutogradCPU", "AutocastCPU", "ADInplaceOrView")
"""What torch dispatches on in tensors whose numbers don't lie in the CPU's memory as they are: those of other devices,
sparse ones, lazy conjugates, wrappers."""
_MORE_THAN_NUMBERS = _MORE_THAN_CPU & ~_bits("CUDA", "AutogradCUDA", "AutocastCUDA")

SMALL = 1 << 14
"""Numbers in the tensors of a call above which the computation outweighs the choice of its way."""

MOST_LAYOUTS = 512
"""Layouts that are kept for an op; then they are forgotten and collected anew."""

Found = tuple[Callable[..., Any], Sequence[Any], bool]


class Ways:
    """The layouts that an op was called with, each with the short way of ``bind`` and the options that it takes.

    Checks and choices look at shapes, strides and dtypes alone, so they end the same for a call of the same layout.

    Args:
        kernel: the way of a call that has no shorter one.
        bind: None, or what :func:`longconv.ops._library.define` says.
        count: of the tensors, which come first among the arguments; the others are options.
    """

    def __init__(
        self, kernel: Callable[..., Any], bind: Callable[..., Callable[..., Any] | None] | None, count: int
    ) -> None:
        self.kernel, self.bind, self.count = kernel, bind, count
        self.known: dict[Any, tuple[Callable[..., Any], tuple[Any, ...] | None]] = {}

    def find(self, check: Callable[..., Sequence[Any]], given: tuple[Any, ...]) -> Found | None:
        """What to run, its arguments, and whether autograd records the call.

        None where torch has more to do than autograd: for a subclass, a device that is neither a CPU nor CUDA, a lazy
        conjugate, zeros that have no memory. On CUDA every call is checked and goes to the kernel.
        """
        if self.bind is None:
            return self._meet(check, given, None)
        enabled, recording = torch.is_grad_enabled(), False
        tensors, options = given[: self.count], given[self.count :]
        key: list[Any] = [check, _native.selections, torch.get_num_threads(), options, *map(type, options)]  # 1 is True
        for value in tensors:
            if value is None:
                key.append(None)
                continue
            kind = type(value)
            if not (kind is Tensor or kind is torch.nn.Parameter) or _dispatch_keys(value).raw_repr() & _MORE_THAN_CPU:
                return self._meet(check, given, None)
            recording = recording or (enabled and value.requires_grad)
            key += (value.shape, value.stride(), value.dtype)
        layout = tuple(key)
        try:
            way = self.known.get(layout)
        except TypeError:  # an option that no check accepts
            return self._meet(check, given, None)
        if way is None:
            return self._meet(check, given, layout)
        run, taken = way
        return run, check(*given) if taken is None else tensors + taken, recording

    def _meet(self, check: Callable[..., Sequence[Any]], given: tuple[Any, ...], layout: Any) -> Found | None:
        """The same for a call whose layout is not known; it is from now on, unless it is None or tensors are large."""
        tensors = [value for value in given if isinstance(value, Tensor)]
        if any(type(t) not in _PLAIN or _dispatch_keys(t).raw_repr() & _MORE_THAN_NUMBERS for t in tensors):
            return None
        recording = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        args, run = check(*given), self.kernel
        counts = [t.numel() for t in tensors]
        if self.bind is not None and layout is not None and all(counts) and sum(counts) <= SMALL:
            run = self.bind(*args) or run
            if len(self.known) >= MOST_LAYOUTS:
                self.known.clear()
            same = all(g is a for g, a in zip(given[: self.count], args, strict=False))
            self.known[layout] = run, tuple(args[self.count :]) if same else None
        return run, args, recording

"""The layouts that an op was called with, whose calls need neither be checked nor bound again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from longconv import _native

_PLAIN = (Tensor, torch.nn.Parameter)

SMALL = 1 << 14
"""Numbers in the tensors of a call above which the computation outweighs the choice of its way."""

MOST_LAYOUTS = 512
"""Layouts that are kept for an op; then they are forgotten and collected anew."""

Found = tuple[Callable[..., Any], Sequence[Any], bool]


class Ways:
    """The layouts that an op was called with, each with the short way of ``bind`` and the options that it takes.

    Checks and choices look at shapes, strides and dtypes alone, so they end the same for a call of the same layout.
    """

    def __init__(self, kernel: Callable[..., Any], bind: Callable[..., Callable[..., Any] | None] | None) -> None:
        self.kernel, self.bind = kernel, bind
        self.known: dict[Any, tuple[Callable[..., Any], tuple[Any, ...] | None]] = {}

    def find(self, check: Callable[..., Sequence[Any]], given: Sequence[Any]) -> Found | None:
        """What to run, its arguments, and whether autograd records the call.

        None where torch has more to do than autograd: for a subclass, another device, a lazy conjugate, zeros that have
        no memory.
        """
        if self.bind is None:
            return self._meet(check, given, None)
        enabled, recording = torch.is_grad_enabled(), False
        key: list[Any] = [check, _native.selections(), torch.get_num_threads()]
        for value in given:
            kind = type(value)
            if value is None:
                key.append(None)
            elif kind is Tensor or kind is torch.nn.Parameter:
                if not value.is_cpu or value.is_conj() or value.is_neg() or value._is_zerotensor():
                    return self._meet(check, given, None)
                recording = recording or (enabled and value.requires_grad)
                key += (value.shape, value.stride(), value.dtype)
            else:
                key += (kind, value)  # for 1 is True
        layout = tuple(key)
        try:
            way = self.known.get(layout)
        except TypeError:  # a list, or what no check accepts
            return self._meet(check, given, None)
        if way is None:
            return self._meet(check, given, layout)
        run, options = way
        if options is None:
            return run, check(*given), recording
        return run, (*given[: len(given) - len(options)], *options), recording

    def _meet(self, check: Callable[..., Sequence[Any]], given: Sequence[Any], layout: Any) -> Found | None:
        """The same for a call whose layout is not known; it is from now on, unless it is None or tensors are large."""
        tensors = [value for value in given if isinstance(value, Tensor)]
        for t in tensors:
            if type(t) not in _PLAIN or not (t.is_cpu or t.is_cuda) or t.is_conj() or t.is_neg() or t._is_zerotensor():
                return None
        recording = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        args, run = check(*given), self.kernel
        counts = [t.numel() for t in tensors]
        if self.bind is not None and layout is not None and all(counts) and sum(counts) <= SMALL:
            run = self.bind(*args) or run
            if len(self.known) >= MOST_LAYOUTS:
                self.known.clear()
            self.known[layout] = run, _options(given, args)
        return run, args, recording


def _options(given: Sequence[Any], args: Sequence[Any]) -> tuple[Any, ...] | None:
    """What comes after the tensors of a call, or None where a check gave other tensors than it was given."""
    count = next((i for i, value in enumerate(args) if not (value is None or isinstance(value, Tensor))), len(args))
    same = len(given) == len(args) and all(g is a for g, a in zip(given[:count], args, strict=False))
    return tuple(args[count:]) if same else None

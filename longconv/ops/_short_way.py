"""A native call made again for tensors laid out as before: the same description with other addresses."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from longconv import _native

_ADDRESS = struct.Struct("P").pack_into


def short_way(
    function: str,
    call: ctypes.Structure,
    given: Sequence[Tensor | None],
    used: Mapping[str, Tensor | None],
    make: Callable[[], Tensor],
    work: int,
    *rest: object,
    keep: object = None,
) -> Callable[..., Tensor] | None:
    """A function of an op's arguments that does what one native call does, for tensors that are laid out alike.

    Args:
        function: of the CPU library; it takes the address of a structure first.
        call: the structure, filled in but for the addresses of the result, ``y``, and of the memory, ``work``.
        given: the op's arguments.
        used: the tensors whose addresses the structure takes, by their fields ("u", or "u.data" in a structure within).
        make: makes the result.
        work: bytes of memory that the call works in.
        rest: what the function takes after the structure.
        keep: what the structure has other addresses of; it lives as long as the function.

    Returns:
        The function, or None if a tensor in use is not one of those given, but a copy, or is several of them at once,
        for others need not be.
    """
    inputs = []
    for field, tensor in used.items():
        if tensor is not None:
            places = [i for i, t in enumerate(given) if t is not None and _is_view(tensor, t)]
            if len(places) != 1:
                return None
            inputs.append((_offset(type(call), field), places[0]))
    result = _offset(type(call), "y.data")
    memory = _offset(type(call), "work")
    template, kind = bytes(call), ctypes.c_char * ctypes.sizeof(call)
    library = _native.cpu()

    def run(*args: Any) -> Tensor:
        y, room = make(), torch.empty(work, dtype=torch.uint8)
        description = bytearray(template)
        for offset, place in inputs:
            _ADDRESS(description, offset, args[place].data_ptr())
        _ADDRESS(description, result, y.data_ptr())
        _ADDRESS(description, memory, room.data_ptr())
        library.call(function, kind.from_buffer(description), *rest)
        return y

    run.__dict__["keep"] = keep
    return run


def _is_view(used: Tensor, given: Tensor) -> bool:
    return used.data_ptr() == given.data_ptr() and used.dtype == given.dtype


def _offset(kind: Any, path: str) -> int:
    """Where a field lies in a structure, or "outer.inner" in a structure within."""
    offset = 0
    for name in path.split("."):
        offset += getattr(kind, name).offset
        kind = dict(kind._fields_)[name]
    return offset

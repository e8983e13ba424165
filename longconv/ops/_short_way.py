"""Native calls that a structure describes, and the same one again, with other addresses, for tensors laid out alike."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from longconv import _native

_ADDRESS = struct.Struct("P").pack_into


def memory(function: str, call: ctypes.Structure, workers: int = 1) -> int:
    """Bytes that a call works in: of one worker the function itself tells."""
    size = ctypes.c_int64()
    _native.cpu().call(function, ctypes.byref(call), ctypes.byref(size))
    return workers * size.value


def run(function: str, call: ctypes.Structure, used: object, workers: int = 1) -> None:
    """The call, in memory of its own; ``used`` keeps the tensors that it describes alive."""
    work = torch.empty(memory(function, call, workers), dtype=torch.uint8)
    call.work = work.data_ptr()
    _native.cpu().call(function, ctypes.byref(call), None)


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
    memory_place = _offset(type(call), "work")
    template, copy = bytes(call), (ctypes.c_char * ctypes.sizeof(call)).from_buffer_copy
    native = _native.cpu().function(function)

    def again(*args: Any) -> Tensor:
        y, room = make(), torch.empty(work, dtype=torch.uint8)
        description = copy(template)
        for offset, place in inputs:
            _ADDRESS(description, offset, args[place].data_ptr())
        _ADDRESS(description, result, y.data_ptr())
        _ADDRESS(description, memory_place, room.data_ptr())
        native(description, *rest)
        return y

    again.__dict__["keep"] = keep
    return again


def _is_view(used: Tensor, given: Tensor) -> bool:
    return used.data_ptr() == given.data_ptr() and used.dtype == given.dtype


def _offset(kind: Any, path: str) -> int:
    """Where a field lies in a structure, or "outer.inner" in a structure within."""
    offset = 0
    for name in path.split("."):
        offset += getattr(kind, name).offset
        kind = dict(kind._fields_)[name]
    return offset

"""Native calls that a structure describes, and the same one again, with other addresses, for tensors laid out alike."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from longconv import _native


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


ROOM = 1 << 20
"""Bytes of the memory that a call on a short way works in. A process keeps as many such rooms as such calls ever ran at
a time, and never returns them."""
_rooms: list[tuple[int, Tensor]] = []  # those that no call is in; taken and given back in one step each


def _room() -> tuple[int, Tensor]:
    """The address of memory of :data:`ROOM` bytes, which are the system's until they are written to."""
    with torch.inference_mode(False):
        memory = torch.empty(ROOM, dtype=torch.uint8)
    return memory.data_ptr(), memory


def without_memory(tensor: Tensor) -> Tensor:
    """The tensor, as a model for ``torch.empty_like``, which takes half as long as the reading of a shape."""
    tensor.untyped_storage().resize_(0)
    return tensor


def short_way(
    function: str,
    call: ctypes.Structure,
    given: Sequence[Tensor | None],
    used: Mapping[str, Tensor | None],
    y: Tensor,
    work: int,
    *,
    keep: object = None,
) -> Callable[..., Tensor] | None:
    """A function of an op's arguments that does what one native call does, for tensors that are laid out alike.

    Args:
        function: of the CPU library; it takes the address of a structure, then None.
        call: the structure, filled in but for the addresses of the result, ``y``, and of the memory, ``work``.
        given: the op's arguments.
        used: the tensors whose addresses the structure takes, by their fields ("u", or "u.data" in a structure within).
        y: a result, which loses its memory.
        work: bytes of memory that the call works in.
        keep: what the structure has other addresses of; it lives as long as the function.

    Returns:
        The function, or None if a tensor in use is not one of those given, but a copy, or is several of them at once,
        for others need not be, or if the call works in more than :data:`ROOM` bytes.
    """
    if work > ROOM:
        return None
    sources = {}
    for field, tensor in used.items():
        if tensor is not None:
            places = [i for i, t in enumerate(given) if t is not None and _is_view(tensor, t)]
            if len(places) != 1:
                return None
            sources[field] = places[0]
    pack, pieces, at = _packer(call, [*sources, "y.data", "work"])
    inputs = [(at[field], place) for field, place in sources.items()]
    result, memory_place = at["y.data"], at["work"]
    library, empty_like = _native.cpu(), torch.empty_like
    native, y = library.symbol(function), without_memory(y)

    def again(*args: Any) -> Tensor:
        made, values = empty_like(y), pieces.copy()
        try:
            room = _rooms.pop()
        except IndexError:
            room = _room()
        for index, place in inputs:
            values[index] = args[place].data_ptr()
        values[result], values[memory_place] = made.data_ptr(), room[0]
        status = native(pack(*values), None)
        _rooms.append(room)
        if status:
            library.fail(function, status)
        return made

    again.__dict__["keep"] = keep
    return again


def _packer(call: ctypes.Structure, fields: Sequence[str]) -> tuple[Callable[..., bytes], list[Any], dict[str, int]]:
    """``pack(*values)``, a structure like this one; the values, addresses among pieces; the places of the fields'."""
    image, end = bytes(call), 0
    form, values, places = "", list[Any](), {}
    for offset, field in sorted((_offset(type(call), field), field) for field in fields):
        form += f"{offset - end}sP"
        values += (image[end:offset], 0)
        places[field], end = len(values) - 1, offset + struct.calcsize("P")
    return struct.Struct(f"{form}{len(image) - end}s").pack, [*values, image[end:]], places


def _is_view(used: Tensor, given: Tensor) -> bool:
    return used.data_ptr() == given.data_ptr() and used.dtype == given.dtype


def _offset(kind: Any, path: str) -> int:
    """Where a field lies in a structure, or "outer.inner" in a structure within."""
    offset = 0
    for name in path.split("."):
        offset += getattr(kind, name).offset
        kind = dict(kind._fields_)[name]
    return offset

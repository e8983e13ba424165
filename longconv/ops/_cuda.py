"""What the backends of the CUDA library share: whether they can run here, how they cut work, the stream it goes to."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from longconv import _native
from longconv.ops._sizes import blocks, power_of_two

HALF, TF32, TF32X3 = 0, 1, 2
"""``LongconvArithmetic`` of csrc/longconv.h."""

_WARPS, _ROWS = 4096, 1024
"""Fewer of them, or fewer rows of a correlation, leave a GPU empty: then sums are taken in parts."""


def available(function: str) -> str | None:
    """None if the CUDA library is loaded, has the function, and torch sees a GPU, else the reason why not."""
    return _native.cuda_reason() or _native.cuda().lacks(function)


def refusal(name: str, tensor: Tensor) -> str | None:
    """None if kernels can read the tensor, the argument ``name``, else the reason why not."""
    return None if tensor.is_cuda else f"{name} is on {tensor.device}"


def fewest_lanes(length: int, run: int) -> int:
    """Rows that a warp takes side by side if no lane is to be without one of the runs of a length."""
    return 32 // min(32, power_of_two(blocks(length, run)))


def splits(warps: int, most: int) -> int:
    """Parts that each of the sums of some warps is taken in."""
    return min(blocks(_WARPS, max(1, warps)), most)


def correlation_parts(terms: int, filters: int) -> int:
    """Parts that the terms of each filter's correlation, samples or their tiles, are summed in."""
    return min(terms, blocks(_ROWS, filters))


def queue(device: torch.device) -> tuple[int, int]:
    """The device's number and its current stream."""
    return device.index or 0, torch.cuda.current_stream(device).cuda_stream


def run(function: str, call: ctypes.Structure, device: torch.device) -> None:
    """Queue the work of a call on the device's current stream."""
    _native.cuda().call(function, ctypes.byref(call), *queue(device))


def arithmetic(dtype: torch.dtype) -> int:
    """What products of matrices are taken in for sequences of a dtype."""
    if dtype != torch.float32:
        return HALF
    return TF32X3 if torch.get_float32_matmul_precision() == "highest" else TF32


def straight(x: Tensor | None) -> Any:
    """A sequence with rows in one piece: itself, or a copy."""
    if x is None:
        return None
    x = x.resolve_neg()
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def pointers(*tensors: Tensor | None) -> list[int | None]:
    """The addresses of tensors, None of those that are absent."""
    return [None if t is None else t.data_ptr() for t in tensors]


def finish(grad: Tensor, found: Tensor) -> None:
    """Put what was found into a gradient of taps: summed over the samples that share it, with 0 beyond."""
    size = found.shape[-1]
    grad[..., :size] = found if grad.ndim == 3 else found.sum(0)
    grad[..., size:] = 0


class Plan(Protocol):
    """What a transform of one kind needs, a tuple."""

    @property
    def tables(self) -> Tensor:
        """Most of its memory on the device."""

    def __iter__(self) -> Iterator[Any]: ...


P = TypeVar("P", bound=Plan)
K = TypeVar("K", bound=Hashable)

_of_graphs: dict[int, Plan] = {}  # by the address of the tables


def kept(plans: dict[K, P], key: K, make: Callable[[], P], device: torch.device, most_bytes: int) -> P:
    """The plan of a key, made if it is not there, and kept for all streams as long as there is room.

    A graph that is being captured has the addresses of a plan that was there for good, so that one is never given up;
    one that is made then is in the graph's own memory and not kept.
    """
    plan, of_graph = plans.get(key), capturing(device)
    if plan is None:
        with torch.inference_mode(False):
            plan = make()
        if not of_graph:
            _keep(plans, key, plan, most_bytes)
    elif of_graph:
        _of_graphs[plan.tables.data_ptr()] = plan
    elif device.type == "cuda":  # another thread may give it up before this stream has read it
        stream = torch.cuda.current_stream(device)
        for memory in (t for t in plan if isinstance(t, Tensor)):
            memory.record_stream(stream)
    return plan


def capturing(device: torch.device) -> bool:
    """Whether a graph is being captured on the current stream of a device."""
    if device.type != "cuda":
        return False
    with torch.cuda.device(device):
        return torch.cuda.is_current_stream_capturing()


def _keep(plans: dict[K, P], key: K, plan: P, most_bytes: int) -> None:
    """Keep a plan for all streams, which therefore wait for its tables; the oldest others go."""
    if plan.tables.is_cuda:
        torch.cuda.synchronize(plan.tables.device)
    plans[key] = plan
    surplus = sum(p.tables.nbytes for p in list(plans.values())) - most_bytes
    for old, p in list(plans.items()):
        if surplus > 0 and old != key:
            surplus -= p.tables.nbytes
            plans.pop(old, None)

"""What the backends of the CUDA library share: whether they can run here, how they cut work, the stream it goes to."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from longconv import _native
from longconv.ops._sizes import blocks, power_of_two

_WARPS = 4096
"""Fewer leave a GPU empty: then sums are taken in parts."""


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


def queue(device: torch.device) -> tuple[int, int]:
    """The device's number and its current stream."""
    return device.index or 0, torch.cuda.current_stream(device).cuda_stream


def run(function: str, call: ctypes.Structure, device: torch.device) -> None:
    """Queue the work of a call on the device's current stream."""
    _native.cuda().call(function, ctypes.byref(call), *queue(device))

"""What the backends of the CUDA library share: whether they can run here, and the stream they queue their work on."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from longconv import _native


def available(function: str) -> str | None:
    """None if the CUDA library is loaded, has the function, and torch sees a GPU, else the reason why not."""
    return _native.cuda_reason() or _native.cuda().lacks(function)


def refusal(name: str, tensor: Tensor) -> str | None:
    """None if kernels can read the tensor, the argument ``name``, else the reason why not."""
    return None if tensor.is_cuda else f"{name} is on {tensor.device}"


def queue(device: torch.device) -> tuple[int, int]:
    """The device's number and its current stream."""
    return device.index or 0, torch.cuda.current_stream(device).cuda_stream


def run(function: str, call: ctypes.Structure, device: torch.device) -> None:
    """Queue the work of a call on the device's current stream."""
    _native.cuda().call(function, ctypes.byref(call), *queue(device))

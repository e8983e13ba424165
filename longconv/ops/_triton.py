"""What the Triton backends share: whether they can run here, and the one way to launch a kernel.

Triton is imported when the first kernel is launched, never before. Where ``TRITON_INTERPRET=1`` stands in the
environment before that, kernels run in Triton's interpreter on tensors of the CPU: slow, and meant for tests alone.
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

import torch
from torch import Tensor

OLDEST = (3, 4)
"""The first version of Triton that the kernels are written for."""

PROGRAMS = 512
"""Fewer leave a GPU empty: then work is taken in parts."""

DEVICES = ("cuda", "xpu")
"""Types of devices that Triton compiles for; AMD's GPUs are called "cuda" by torch."""


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


@functools.cache
def available() -> str | None:
    """None if kernels can run here, else the reason why not."""
    if reason := _not_installed():
        return reason
    if interpreted():
        return None
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return "torch sees no GPU"
    return None if accelerator.type in DEVICES else f"Triton does not compile for {accelerator.type!r}"


def _not_installed() -> str | None:
    if not sys.platform.startswith("linux"):
        return f"Triton needs Linux, this is {sys.platform}"
    try:
        from triton import __version__ as version
    except ImportError as error:
        return f"triton can't be imported ({error}): pip install 'longconv[triton]'"
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        return f"triton is {version}, at least {'.'.join(map(str, OLDEST))} is needed"
    return None


def refusal(name: str, tensor: Tensor) -> str | None:
    """None if kernels can read the tensor, the argument ``name``, else the reason why not."""
    types = ("cpu",) if interpreted() else DEVICES
    return None if tensor.device.type in types else f"{name} is on {tensor.device}"


def launch(kernel: Any, programs: int, *args: Any, **options: Any) -> None:
    """Run a kernel on the device of its first argument, a tensor, and on that device's current stream."""
    with torch.accelerator.device_index(args[0].device.index):
        kernel[(programs,)](*args, **options)


def parts(programs: int, most: int) -> int:
    """Parts that the work of some programs is taken in."""
    return max(1, min(PROGRAMS // programs, most))


def working(dtype: torch.dtype) -> Any:
    """Triton's name of the precision of the arithmetic: float64 for float64 and complex128, else float32."""
    import triton.language as tl

    return tl.float64 if dtype in (torch.float64, torch.complex128) else tl.float32

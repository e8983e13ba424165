"""Backend ``cuda``: csrc/cuda/transpose.cu."""

from __future__ import annotations

import torch
from torch import Tensor

from longconv import _native
from longconv.ops.transpose.cpu import numbers, prepare


def available() -> str | None:
    """None if the CUDA library is loaded and torch sees a GPU, else the reason why not."""
    return _native.cuda_reason()


def supports(x: Tensor) -> str | None:
    """None if the backend can transpose x, else the reason why not."""
    if x.device.type != "cuda":
        return f"x is on {x.device}"
    if x.stride(-1) != 1:
        return f"the last axis of x has stride {x.stride(-1)}, not 1"
    return None


def forward(x: Tensor) -> Tensor:
    """y[..., c, r] = x[..., r, c], on the current stream."""
    y, x = prepare(x)
    stream = torch.cuda.current_stream(x.device).cuda_stream
    _native.cuda().call("transpose", y.data_ptr(), x.data_ptr(), *numbers(x), x.device.index, stream)
    return y

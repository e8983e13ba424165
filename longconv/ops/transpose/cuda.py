"""Backend ``cuda``: csrc/cuda/transpose.cu."""

from __future__ import annotations

from torch import Tensor

from longconv import _native
from longconv.ops import _cuda
from longconv.ops.transpose.cpu import numbers, prepare


def available() -> str | None:
    """None if the CUDA library is loaded and torch sees a GPU, else the reason why not."""
    return _cuda.available("transpose")


def supports(x: Tensor) -> str | None:
    """None if the backend can transpose x, else the reason why not."""
    if reason := _cuda.refusal("x", x):
        return reason
    if x.stride(-1) != 1:
        return f"the last axis of x has stride {x.stride(-1)}, not 1"
    return None


def forward(x: Tensor) -> Tensor:
    """y[..., c, r] = x[..., r, c], on the current stream."""
    y, x = prepare(x)
    _native.cuda().call("transpose", y.data_ptr(), x.data_ptr(), *numbers(x), *_cuda.queue(x.device))
    return y

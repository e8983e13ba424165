"""Backend ``cpu``: csrc/cpu/transpose.cpp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from longconv import _native
from longconv.ops._short_way import without_memory


def available() -> str | None:
    """None if the CPU library is loaded, else the reason why not."""
    return _native.cpu().reason


def supports(x: Tensor) -> str | None:
    """None if the backend can transpose x, else the reason why not."""
    if x.device.type != "cpu":
        return f"x is on {x.device}"
    if x.stride(-1) != 1:
        return f"the last axis of x has stride {x.stride(-1)}, not 1"
    return None


def forward(x: Tensor) -> Tensor:
    """y[..., c, r] = x[..., r, c]."""
    y, x = prepare(x)
    _native.cpu().call("transpose", y.data_ptr(), x.data_ptr(), *numbers(x))
    return y


def bind(x: Tensor) -> Callable[..., Tensor] | None:
    """The transpose of all tensors laid out like x; None where they have to be copied first."""
    y, view = prepare(x)
    if view.data_ptr() != x.data_ptr():
        return None
    library, empty_like = _native.cpu(), torch.empty_like
    native, model, rest = library.symbol("transpose"), without_memory(y), numbers(view)

    def run(x: Tensor, *_: Any) -> Tensor:
        y = empty_like(model)
        if status := native(y.data_ptr(), x.data_ptr(), *rest):
            library.fail("transpose", status)
        return y

    return run


def prepare(x: Tensor) -> tuple[Tensor, Tensor]:
    """An empty y (..., C, R), and x as (batch, R, C): a view where the strides of the leading axes allow it."""
    rows, cols = x.shape[-2:]
    y = x.new_empty(*x.shape[:-2], cols, rows)
    return y, x.reshape(x.numel() // max(rows * cols, 1), rows, cols)


def numbers(x: Tensor) -> tuple[int, ...]:
    """What the transpose of both libraries takes between the addresses of y and x and its own last arguments."""
    batch, rows, cols = x.shape
    return batch, rows, cols, rows * cols, rows, *x.stride()[:2], x.element_size()

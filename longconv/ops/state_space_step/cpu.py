"""Backend ``cpu``: csrc/cpu/state_space_step.cpp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from longconv import _native
from longconv.ops._layout import plain
from longconv.ops._short_way import without_memory

MOST_RANK = 16
"""``LONGCONV_MOST_RANK`` of csrc/longconv.h."""


def available() -> str | None:
    """None if the CPU library is loaded and has the function, else the reason why not."""
    return _native.cpu().lacks("state_space_step")


def supports(
    x: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor, left: Tensor | None, right: Tensor | None
) -> str | None:
    """None if the backend can take the step, else the reason why not."""
    if x.device.type != "cpu":
        return f"x is on {x.device}"
    if left is not None and left.shape[0] > MOST_RANK:
        return f"the rank is {left.shape[0]}, more than {MOST_RANK}"
    return None


def forward(*system: Tensor | None) -> tuple[Tensor, Tensor]:
    """The state after the sample and the output, in one pass over the state."""
    dense = [t if t is None else plain(t).contiguous() for t in system]
    return _step(*dense)(*dense)


def bind(*system: Tensor | None) -> Callable[..., tuple[Tensor, Tensor]] | None:
    """The step of all tensors laid out like these; None where they have to be copied first."""
    return _step(*system) if all(t is None or t.is_contiguous() for t in system) else None


def _step(x: Any, u: Any, A: Any, B: Any, C: Any, left: Any, right: Any) -> Callable[..., tuple[Tensor, Tensor]]:
    """The step of contiguous tensors of these shapes and dtypes."""
    batch, features, modes = x.shape
    library, empty_like = _native.cpu(), torch.empty_like
    native, state = library.symbol("state_space_step"), without_memory(torch.empty(x.shape, dtype=x.dtype))
    output = without_memory(torch.empty((batch, C.shape[0], features), dtype=u.dtype))
    rank = 0 if left is None else left.shape[0]
    sizes = batch, features, modes, C.shape[0], rank, u.element_size()

    def step(x: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor, *low_rank: Any) -> tuple[Tensor, Tensor]:
        after, y = empty_like(state), empty_like(output)
        left, right = (t.data_ptr() for t in low_rank[:2]) if rank else (None, None)
        arguments = x.data_ptr(), u.data_ptr(), A.data_ptr(), B.data_ptr(), C.data_ptr(), left, right, *sizes
        if status := native(after.data_ptr(), y.data_ptr(), *arguments):
            library.fail("state_space_step", status)
        return after, y

    return step

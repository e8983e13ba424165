"""Backend ``cpu``: csrc/cpu/state_space_step.cpp."""

from __future__ import annotations

import torch
from torch import Tensor

from longconv import _native

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


def forward(
    x: Tensor, u: Tensor, A: Tensor, B: Tensor, C: Tensor, left: Tensor | None, right: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The state after the sample and the output, in one pass over the state."""
    batch, features, modes = x.shape
    after, y = torch.empty(x.shape, dtype=x.dtype), torch.empty(batch, C.shape[0], features, dtype=u.dtype)
    inputs = [t if t is None else t.resolve_conj().contiguous() for t in (x, u, A, B, C, left, right)]
    _native.cpu().call(
        "state_space_step",
        after.data_ptr(),
        y.data_ptr(),
        *(None if t is None else t.data_ptr() for t in inputs),
        batch,
        features,
        modes,
        C.shape[0],
        0 if left is None else left.shape[0],
        u.element_size(),
    )
    return after, y

"""The law of mixers on any input (B, time, ...): looped steps = prefill in any chunks = forward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tests.tolerances import assert_close, assert_same_state


def step_through(mixer: Any, u: Tensor) -> tuple[Tensor, Any]:
    """All outputs by looped steps, and the last state."""
    state, outputs = mixer.init_state(u.shape[0]), []
    for u_t in u.unbind(1):
        y_t, state = mixer.step(u_t, state)
        outputs.append(y_t)
    return torch.stack(outputs, 1), state


def check_chunks(mixer: Any, u: Tensor, sizes: Sequence[int], tolerance: float) -> None:
    """Prefill in chunks of these sizes gives the outputs of forward and the state of one chunk."""
    with torch.no_grad():
        state, outputs = mixer.init_state(u.shape[0]), []
        for chunk in u.split(sizes, dim=1):
            y, state = mixer.prefill(chunk, state)
            outputs.append(y)
        whole = mixer(u)
        _, whole_state = mixer.prefill(u)
    assert torch.cat(outputs, 1).shape == whole.shape
    if u.shape[1]:
        assert_close(torch.cat(outputs, 1), whole, tolerance)
        assert_same_state(state, whole_state, tolerance)


def check_steps(mixer: Any, u: Tensor, tolerance: float) -> None:
    """Looped steps give the outputs of forward and the state of one chunk."""
    y, state = step_through(mixer, u)
    assert_close(y, mixer(u), tolerance)
    assert_same_state(state, mixer.prefill(u)[1], tolerance)

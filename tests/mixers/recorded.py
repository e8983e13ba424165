"""Layers recorded from the original authors' code: their parameters in ours, and their outputs and gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from longconv.mixers.base import Mixer
from tests.golden import Case
from tests.tolerances import assert_close

FORWARD = {torch.float64: 1e-12, torch.float32: 3e-6}
"""The recorded float32 layers carry the reference's own float32 error."""
GRADIENT = {torch.float64: 1e-11, torch.float32: 3e-4}
"""In float32 the recorded gradient of log dt loses three digits to cancellation in exp(z) - 1."""

Names = Mapping[str, tuple[str, Callable[[Tensor], Tensor]]]
"""Our parameter -> the recorded name, and the map from the recorded tensor to ours."""

UNUSED = {"multiplier", "kernel_norm_initialized"}
"""What is recorded and is an option of ours, or nothing."""


def same(recorded: Tensor) -> Tensor:
    return recorded


def linear_weight(recorded: Tensor) -> Tensor:
    return recorded.flatten(1)  # 1x1 convolutions are linear maps


def load(mixer: Mixer, names: Names, recorded: dict[str, Tensor], dtype: torch.dtype) -> None:
    """Copy the recorded parameters; ones that the reference lacks are left, recorded ones that we lack fail."""
    mixer.to(dtype)
    state = mixer.state_dict()
    left = set(recorded)
    for ours, (theirs, convert) in names.items():
        if ours in state and theirs in recorded:
            state[ours] = convert(recorded[theirs])
            left.discard(theirs)
    assert left <= UNUSED, f"recorded and not used: {sorted(left - UNUSED)}"
    mixer.load_state_dict(state)


def check_layer(mixer: Mixer, case: Case, names: Names, *, transposed: bool) -> Tensor:
    """Output and gradients of the recorded call; returns the input (B, L, D)."""

    def layout(recorded: Tensor) -> Tensor:
        return recorded.mT if transposed else recorded

    u = layout(case["u"]).clone().requires_grad_()
    y = mixer(u)
    assert_close(y, layout(case["y"]), FORWARD[u.dtype])
    if "grad_y" in case:
        y.backward(layout(case["grad_y"]))
        assert u.grad is not None
        assert_close(u.grad, layout(case["grad_u"]), GRADIENT[u.dtype])
        recorded, parameters = case.group("grad"), dict(mixer.named_parameters())
        compared = 0
        for ours, (theirs, convert) in names.items():
            if theirs in recorded and ours in parameters:
                grad = parameters[ours].grad
                assert grad is not None
                want = recorded[theirs]
                if want.any():
                    bound = max(GRADIENT[u.dtype], 1e-5 if want.dtype == torch.float32 else 0)
                    assert_close(grad, convert(want), bound)
                else:
                    assert not grad.any()
                compared += 1
        assert compared == len(recorded), "a recorded gradient was not compared"
    return u.detach()

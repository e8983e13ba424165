"""Mixers with an online convolution over 16384 samples in float32: steps and chunks agree with forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from longconv import create_mixer
from tests.mixers.law import step_through
from tests.tolerances import assert_close

LENGTH = 16384
CASES: list[tuple[str, dict[str, Any]]] = [
    ("sgconv", {}),
    ("long_conv", {}),
    ("hyena", {"order": 3, "w": 10.0, "emb_dim": 5, "shift": 0.1}),
    ("orchid", {"conditioning": "spectrum"}),
    ("orchid", {"conditioning": "correlation"}),
]


@pytest.mark.parametrize("d_model", [3, 20])
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_steps_within_a_long_stream(name: str, options: dict[str, Any], d_model: int) -> None:
    """Chunks, and steps at several places between them: at the beginning, where long levels are due, at the end."""
    torch.manual_seed(0)
    mixer, u = create_mixer(name, d_model, l_max=LENGTH, **options), torch.randn(1, LENGTH, d_model)
    with torch.no_grad():
        want = mixer(u)
        outputs, state, t = [], mixer.init_state(1), 0
        for chunk, steps in ((0, 140), (3900, 100), (4000, 130), (1000, 70), (LENGTH - 9470, 130)):
            y, state = mixer.prefill(u[:, t : t + chunk], state)
            outputs.append(y)
            t += chunk
            for u_t in u[:, t : t + steps].unbind(1):
                y_t, state = mixer.step(u_t, state)
                outputs.append(y_t[:, None])
            t += steps
        assert t == LENGTH
        assert_close(torch.cat(outputs, 1), want, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [*CASES, ("hyena", {"heads": 1, "outer_product": True})], ids=str)
def test_every_step_of_a_long_stream(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    mixer, u = create_mixer(name, 3, l_max=LENGTH, **options), torch.randn(1, LENGTH, 3)
    with torch.no_grad():
        y, _ = step_through(mixer, u)
        assert_close(y, mixer(u), 1e-5)

"""Mixers over 16384 samples in float32, those with an online convolution above all: steps and chunks are forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from longconv import create_mixer, distill
from longconv.mixers import Mixer, mixer_options
from tests.mixers.law import step_through
from tests.tolerances import assert_close

LENGTH = 16384
CASES: list[tuple[str, dict[str, Any]]] = [
    ("sgconv", {"channels": 2}),
    ("long_conv", {}),
    ("hyena", {"order": 3, "w": 10.0, "emb_dim": 5, "shift": 0.1}),
    ("hyena", {"heads": 1}),
    ("hyena", {"heads": 1, "outer_product": True}),
    ("orchid", {}),
    ("orchid", {"conditioning": "spectrum"}),
    ("orchid", {"conditioning": "correlation"}),
    ("distilled long_conv", {}),
    ("distilled hyena", {"order": 3, "heads": 1}),
    ("distilled hyena", {"heads": 1, "outer_product": True}),
    ("s4", {}),
    ("s4d", {}),
    ("lssl", {}),
    ("s5", {}),
    ("dss", {}),
]


def build(name: str, d_model: int, options: dict[str, Any]) -> Mixer:
    torch.manual_seed(0)
    *distilled, name = name.split()
    sizes = {"l_max": LENGTH} if "l_max" in mixer_options(name) else {}
    mixer = create_mixer(name, d_model, **sizes, **options)
    return distill(mixer, 8, length=1024, steps=0).mixer if distilled else mixer


@pytest.mark.parametrize("d_model", [3, 20])
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_steps_within_a_long_stream(name: str, options: dict[str, Any], d_model: int) -> None:
    """Chunks, and steps at several places between them: at the beginning, where long levels are due, at the end."""
    mixer, u = build(name, d_model, options), torch.randn(1, LENGTH, d_model)
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
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_every_step_of_a_long_stream(name: str, options: dict[str, Any]) -> None:
    mixer, u = build(name, 3, options), torch.randn(1, LENGTH, 3)
    with torch.no_grad():
        y, _ = step_through(mixer, u)
        assert_close(y, mixer(u), 1e-5)

"""Recorded implicit filters, turned into ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from longconv.filters import ImplicitFilter
from tests.tolerances import relative_l2

OPTIONS = ("shift", "fast_decay_pct", "slow_decay_pct", "target", "modulate", "normalized")
"""By the same names in what is known of a recorded case."""


def build(recorded: Mapping[str, Tensor], l_max: int, meta: Mapping[str, Any]) -> ImplicitFilter:
    """A filter of the recorded sizes, options, parameters and dtype."""
    weights = [value for key, value in recorded.items() if key.startswith("implicit_filter") and key.endswith("weight")]
    (width, emb_dim), dtype = weights[0].shape, weights[0].dtype
    options = {option: meta[option] for option in OPTIONS if option in meta}
    taps = ImplicitFilter(len(weights[-1]), emb_dim, width, len(weights) - 2, l_max, **options).to(dtype)
    load(taps, recorded)
    return taps


def feature_error(taps: ImplicitFilter, recorded: Mapping[str, Tensor]) -> float:
    """How much a filter may be off where the recorded features were computed in float32, with what sines add to it."""
    z = recorded["pos_emb.z"][0]
    gain = max(1.0, taps.freq.abs().max().item()) ** len(taps.layers)
    return 1e-6 + 20 * gain * relative_l2(taps.features(len(z)), z)


def names(taps: ImplicitFilter) -> dict[str, str]:
    """Our parameter -> the recorded name: layers and sines take turns, and all sines share their frequencies."""
    hidden = len(taps.layers)
    table = {
        f"layers.{i}.{kind}": f"implicit_filter.{2 * i}.{kind}" for i in range(hidden) for kind in ("weight", "bias")
    }
    return {**table, "output.weight": f"implicit_filter.{2 * hidden}.weight", "freq": "implicit_filter.1.freq"}


def load(taps: ImplicitFilter, recorded: Mapping[str, Tensor]) -> None:
    """Copy the recorded parameters."""
    table = names(taps)
    state = {ours: recorded[table[ours]].reshape(value.shape) for ours, value in taps.state_dict().items()}
    taps.load_state_dict(state)


def use_recorded_features(taps: ImplicitFilter, recorded: Mapping[str, Tensor]) -> Tensor:
    """Positional features and window from the recorded times and decays, which were computed in float32.

    Returns the features, (l_max, emb_dim), which take a gradient.
    """
    z = recorded["pos_emb.z"][0].clone().requires_grad_()
    t, deltas = recorded["pos_emb.t"][0, :, 0], recorded["modulation.deltas"].flatten()
    taps.features = lambda length, start=0: z[start:length]  # type: ignore[method-assign]
    window = torch.exp(-deltas.abs()[:, None] * t) + taps.shift
    taps.window = lambda length, start=0: window[:, start:length]  # type: ignore[method-assign]
    return z

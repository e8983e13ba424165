"""Pictures of a run: its learning curve and its filters."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from longconv.mixers import Mixer
from lra_tasks.files import write_atomic

_N_LAYERS = 6
_N_FEATURES = 6


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomic(path, lambda file: file.write(buffer.getvalue()))


def plot_learning_curve(history: Sequence[dict[str, float]], path: Path, *, title: str, chance: float) -> None:
    """Loss and accuracy of training and validation over the epochs.

    Args:
        history: a row an epoch.
        path: the PNG to write.
        title: what run it is.
        chance: accuracy of guessing, in [0, 1].
    """
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for stage, name in (("train", "training"), ("val", "validation")):
        left.plot(epochs, [row[f"{stage}/loss"] for row in history], marker=".", label=name)
        right.plot(epochs, [100 * row[f"{stage}/accuracy"] for row in history], marker=".", label=name)
    right.axhline(100 * chance, color="grey", linestyle=":", label="chance")
    left.set(xlabel="epoch", ylabel="cross-entropy (nats)")
    right.set(xlabel="epoch", ylabel="accuracy (%)", ylim=(0, 100))
    right.legend(frameon=False)
    figure.suptitle(title)
    save_figure(figure, path)


def plot_filters(model: nn.Module, length: int, path: Path, *, title: str) -> bool:
    """Some filters of each layer over the lag.

    Args:
        model: any module with time-invariant mixers.
        length: number of taps L to show.
        path: the PNG to write.
        title: what run it is.

    Returns:
        False, and no file, where the model has no mixer with a filter.
    """
    filters = []
    for mixer in (module for module in model.modules() if isinstance(module, Mixer)):
        try:
            with torch.no_grad():
                filters.append(mixer.filter(length).float().cpu())
        except NotImplementedError:  # the mixer is not time-invariant
            continue
    if not filters:
        return False
    shown = filters[:_N_LAYERS]
    figure = Figure(figsize=(9, 1.7 * len(shown) + 0.6), layout="constrained")
    axes: list[Axes] = list(figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0])
    for layer, (axis, kernel) in enumerate(zip(axes, shown, strict=True), start=1):
        n_channels, n_features = kernel.shape[:2]
        features = torch.linspace(0, n_features - 1, min(_N_FEATURES, n_features)).long()
        axis.plot(kernel[0, features].T.numpy(), linewidth=0.8)
        axis.axhline(0, color="grey", linewidth=0.4)
        axis.set_ylabel(f"layer {layer}")
    axes[-1].set_xlabel(f"lag (samples); {len(features)} of {n_features} features, channel 1 of {n_channels}")
    figure.suptitle(title)
    save_figure(figure, path)
    return True

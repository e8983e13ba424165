"""Pictures of a run: its learning curve and its filters."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from longconv.mixers import Mixer
from lra_tasks.files import write_atomic

_N_LAYERS = 6
_N_FEATURES = 6


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    content = figure_bytes(figure, "png", dpi=120)
    write_atomic(path, lambda file: file.write(content))


def figure_bytes(figure: Figure, form: str, **options: Any) -> bytes:
    """A figure as the content of a file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=form, **options)
    return buffer.getvalue()


def plot_learning_curve(
    history: Sequence[dict[str, float]], path: Path, *, title: str, loss: str, chance: float | None
) -> None:
    """Loss of training and validation over the epochs, and accuracy where there is one.

    Args:
        history: a row an epoch.
        path: the PNG to write.
        title: what run it is.
        loss: what the loss is, with its unit.
        chance: accuracy of guessing, in [0, 1]; None where there is no accuracy.
    """
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(9 if chance is not None else 5, 3.6), layout="constrained")
    axes = figure.subplots(1, 2 if chance is not None else 1, squeeze=False)[0]
    scales = {"loss": (loss, 1), "accuracy": ("accuracy (%)", 100)}
    for axis, (quantity, (label, scale)) in zip(axes, scales.items(), strict=False):
        for stage, name in (("train", "training"), ("val", "validation")):
            axis.plot(epochs, [scale * row[f"{stage}/{quantity}"] for row in history], marker=".", label=name)
        axis.set(xlabel="epoch", ylabel=label)
    if chance is not None:
        axes[1].axhline(100 * chance, color="grey", linestyle=":", label="chance")
        axes[1].set_ylim(0, 100)
    axes[-1].legend(frameon=False)
    figure.suptitle(title)
    save_figure(figure, path)


def plot_filters(model: nn.Module, length: int, path: Path, *, title: str, before: nn.Module | None = None) -> bool:
    """Some filters of each layer over the lag, beside those before training.

    Args:
        model: any module with time-invariant mixers.
        length: number of taps L to show.
        path: the PNG to write.
        title: what run it is.
        before: the same module as its training began; None leaves it out.

    Returns:
        False, and no file, where the model has no mixer with a filter.
    """
    columns = {"after training": _filters(model, length)}
    if before is not None:
        columns = {"before training": _filters(before, length), **columns}
    n_rows = len(columns["after training"])
    if not n_rows:
        return False
    figure = Figure(figsize=(9 if before else 5, 1.7 * n_rows + 0.6), layout="constrained")
    grid = figure.subplots(n_rows, len(columns), sharex=True, sharey="row", squeeze=False)
    for column, (when, filters) in enumerate(columns.items()):
        axes: list[Axes] = list(grid[:, column])
        for layer, (axis, kernel) in enumerate(zip(axes, filters, strict=True), start=1):
            n_channels, n_features = kernel.shape[:2]
            features = torch.linspace(0, n_features - 1, min(_N_FEATURES, n_features)).long()
            axis.plot(kernel[0, features].T.numpy(), linewidth=0.8)
            axis.axhline(0, color="grey", linewidth=0.4)
            axis.set_ylabel("" if column else f"layer {layer}")
        axes[0].set_title(when, fontsize="medium")
        axes[-1].set_xlabel("lag (samples)")
    shown = f"{len(features)} of {n_features} features, channel 1 of {n_channels}"
    figure.suptitle(f"{title}; {shown}", fontsize="medium")
    save_figure(figure, path)
    return True


def _filters(model: nn.Module, length: int) -> list[Tensor]:
    """The filters (C, H, length) of the first layers that have one."""
    filters: list[Tensor] = []
    for mixer in (module for module in model.modules() if isinstance(module, Mixer)):
        try:
            with torch.no_grad():
                filters.append(mixer.filter(length).float().cpu())
        except NotImplementedError:  # the mixer is not time-invariant
            continue
    return filters[:_N_LAYERS]

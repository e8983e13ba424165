"""Charts of several runs as SVG for a page: its colours are the page's, so that they follow its light or dark mode."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lra_tasks.data import TASKS
from lra_tasks.plots import figure_bytes
from lra_tasks.published import find_published
from lra_tasks.recipes import length_of
from lra_tasks.results import Run
from lra_tasks.tables import variant

N_COLOURS = 8
_MARKERS = "osD^vP*X"
# Colours that stand for properties of the page's style: matplotlib wants numbers.
_INK, _RULE = "#010203", "#040506"
_SERIES = [f"#0a0b{i:02x}" for i in range(N_COLOURS)]
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "longconv",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _RULE,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "lines.markersize": 4,
    "lines.linewidth": 1.6,
}
_PROPERTIES = {_INK: "currentColor", _RULE: "var(--rule)", **{c: f"var(--series-{i})" for i, c in enumerate(_SERIES)}}


@contextmanager
def _styled() -> Iterator[None]:
    with mpl.rc_context(_STYLE):
        yield


def series_of(runs: Sequence[Run]) -> dict[str, int]:
    """A number for each mixer and preset among the runs."""
    labels = sorted({label_of(run) for run in runs})
    return {label: number for number, label in enumerate(labels)}


def look_of(number: int) -> dict[str, Any]:
    """The colour and the marker of a number; 64 numbers have 64 pairs."""
    turn = number + number // N_COLOURS
    return {"color": _SERIES[number % N_COLOURS], "marker": _MARKERS[turn % len(_MARKERS)]}


def label_of(run: Run) -> str:
    """What a legend calls a run; the same for all seeds."""
    return f"{run.config.mixer} ({variant(run)})"


def accuracy_chart(runs: Sequence[Run], *, name: str) -> Markup:
    """Validation accuracy of the runs of one task over epochs, and over time.

    Args:
        runs: runs of one task.
        name: what begins every id in the chart.
    """
    series, chance = series_of(runs), 100 * TASKS[runs[0].config.task].info.chance
    with _styled():
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        by_epoch, by_time = figure.subplots(1, 2, sharey=True)
        for run in runs:
            history, number = run.history(), series[label_of(run)]
            accuracies = [100 * row["val/accuracy"] for row in history]
            minutes = [sum(row["seconds"] for row in history[: i + 1]) / 60 for i in range(len(history))]
            for axis, x in ((by_epoch, [row["epoch"] for row in history]), (by_time, minutes)):
                axis.plot(x, accuracies, label=label_of(run), **look_of(number))
        for axis, label in ((by_epoch, "epoch"), (by_time, "minutes")):
            axis.axhline(chance, color=_INK, linestyle=":", linewidth=1, label="chance")
            axis.set_xlabel(label)
        by_epoch.set_ylabel("validation accuracy (%)")
        by_epoch.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        _legend(figure, by_epoch)
        best = ", ".join(f"{run.name} {100 * run.metrics.get('val/accuracy', math.nan):.1f} %" for run in runs)
        return _svg(figure, name, f"Validation accuracy over epochs and over minutes; at the best epoch: {best}.")


def loss_chart(run: Run, *, name: str) -> Markup:
    """Loss of training and validation of a run over the epochs."""
    history = run.history()
    with _styled():
        figure = Figure(figsize=(4.5, 2.8), layout="constrained")
        axis = figure.subplots()
        for number, (stage, label) in enumerate((("train", "training"), ("val", "validation"))):
            losses = [row[f"{stage}/loss"] for row in history]
            epochs = [row["epoch"] for row in history]
            axis.plot(epochs, losses, label=label, **look_of(number))
        axis.set(xlabel="epoch", ylabel="loss")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        _legend(figure, axis)
        ends = (
            f"validation {history[0]['val/loss']:.3f} at first, {history[-1]['val/loss']:.3f} at last"
            if history
            else ""
        )
        return _svg(figure, name, f"Loss of {run.name} over the epochs: {ends}.")


def length_chart(runs: Sequence[Run], *, name: str) -> Markup:
    """Test accuracy against the length of the runs' sequences, with the published accuracies as hollow marks."""
    series = series_of(runs)
    with _styled():
        figure = Figure(figsize=(9, 3.8), layout="constrained")
        axis = figure.subplots()
        points = []
        for run in runs:
            config = run.config
            length = length_of(config.task, config.recipe.data)
            accuracy = 100 * run.metrics["test/accuracy"]
            points.append(f"{run.name} {accuracy:.1f} % at {length}")
            look = {**look_of(series[label_of(run)]), "linestyle": "none", "markersize": 7}
            axis.plot([length], [accuracy], label=label_of(run), **look)
            published = find_published(config.task, config.mixer, config.recipe.mixer_options, config.recipe.data)
            if published is not None:
                axis.plot([TASKS[config.task].info.length], [published.accuracy], markerfacecolor="none", **look)
        _name_tasks(axis, runs)
        axis.set_xscale("log", base=2)
        axis.margins(x=0.12)
        axis.set(xlabel="length (samples or tokens)", ylabel="test accuracy (%)", ylim=(0, 108))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        _legend(figure, axis)
        described = f"Test accuracy against length: {', '.join(points)}. Hollow marks are published."
        return _svg(figure, name, described)


def _name_tasks(axis: Axes, runs: Sequence[Run]) -> None:
    """The tasks' names beside their highest points, one under the other where lengths are equal."""
    highest: dict[int, dict[str, float]] = {}
    for run in runs:
        tasks = highest.setdefault(length_of(run.config.task, run.config.recipe.data), {})
        tasks[run.config.task] = max(tasks.get(run.config.task, 0.0), 100 * run.metrics["test/accuracy"])
    for length, tasks in highest.items():
        for task, accuracy in tasks.items():
            axis.annotate(task, (length, accuracy), (9, 0), textcoords="offset points", va="center", fontsize=9)


def _legend(figure: Figure, axis: Axes) -> None:
    """One entry a label, under the chart."""
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)


def _svg(figure: Figure, name: str, description: str) -> Markup:
    """A figure as an element of a page, with a description for those who cannot see it."""
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    text = figure_bytes(figure, "svg", transparent=True, metadata=nothing).decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<(metadata|title)>.*?</\1>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' (xmlns(:\w+)?|width|height)="[^"]*"', "", text[: text.index(">")]) + text[text.index(">") :]
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(url\(#|xlink:href="#)', rf"\g<1>{name}-", text).replace("xlink:href", "href")
    for colour, value in _PROPERTIES.items():
        text = text.replace(colour, value)
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1))

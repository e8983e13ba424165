"""A table of runs with the published accuracies beside ours, and one of the errors of video runs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Literal

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from lra_tasks.data import VIDEO_TASKS
from lra_tasks.published import find_published
from lra_tasks.results import Run

Format = Literal["text", "csv", "markdown"]
COLUMNS = {
    "run": "run",
    "task": "task",
    "mixer": "mixer",
    "preset": "preset",
    "parameters": "weights",
    "accuracy %": "test %",
    "published %": "paper %",
    "published model": "model",
    "wall time s": "seconds",
}
"""The columns, and their short names in the text form."""

_MSE = "test/mse@"
_VIDEO_SCORES = {"MSE": "mse", "SSIM": "ssim", "copy MSE": "copy_mse"}
_WIDEST = 1000
NOTE = (
    "Published accuracies are from full data sets and full-size models; a preset may use less of both.\n"
    "Where the very variant of a mixer has none for the task, S4's stands there."
)

VIDEO_NOTE = "Errors of the frames so far after the context of a rollout; copy is the context's last frame."


PRETRAINING_NOTE = "Losses on hidden or next inputs: of one task and one objective they can be compared."


def report(runs: Sequence[Run], form: Format) -> str:
    """The table of runs, sorted by task, then by accuracy; of video runs one of its own.

    Args:
        runs: finished runs.
        form: text (as wide as the table is, whatever the screen), csv or markdown.

    Returns:
        The table, with a line break at its end.
    """
    pretrained = [run for run in runs if run.config.recipe.pretraining is not None]
    videos = [run for run in runs if run.config.task in VIDEO_TASKS]
    others = [run for run in runs if run not in pretrained and run not in videos]
    parts = []
    if others:
        ordered = sorted(others, key=lambda run: (run.config.task, -run.metrics["test/accuracy"]))
        parts.append(_table(COLUMNS, [table_row(run) for run in ordered], form, NOTE))
    if videos:
        parts.append(_table(*_video_rows(videos), form, VIDEO_NOTE))
    if pretrained:
        parts.append(_table(*_pretraining_rows(pretrained), form, PRETRAINING_NOTE))
    return "\n".join(parts)


def _pretraining_rows(runs: Sequence[Run]) -> tuple[dict[str, str], list[tuple[str, ...]]]:
    """Columns and rows of runs of pretraining, sorted by task, then by loss."""
    names = [name for name in COLUMNS if not name.startswith(("accuracy", "published"))]
    columns = {name: COLUMNS[name] for name in names} | {"objective": "objective", "test loss": "test loss"}

    def row(run: Run) -> tuple[str, ...]:
        config, metrics = run.config, run.metrics
        cells = (run.name, config.task, config.mixer, config.preset, str(metrics["parameters"]))
        return (*cells, f"{metrics['wall_time_s']:.0f}", metrics["objective"], f"{metrics['test/loss']:.4f}")

    return columns, [row(run) for run in sorted(runs, key=lambda run: (run.config.task, run.metrics["test/loss"]))]


def _table(columns: Mapping[str, str], rows: Sequence[tuple[str, ...]], form: Format, note: str) -> str:
    """Rows as text under the short names of the columns, as CSV, or as Markdown."""
    right = [all(row[i].replace(".", "", 1).isdigit() or not row[i] for row in rows) for i in range(len(columns))]
    if form == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([tuple(columns), *rows])
        return text.getvalue()
    if form == "markdown":
        rule = tuple("---:" if number else "---" for number in right)
        lines = [tuple(columns), rule, *rows]
        return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines) + (
            f"\n{note}\n"
        )
    table = Table(box=SIMPLE, collapse_padding=True, pad_edge=False)
    for short, number in zip(columns.values(), right, strict=True):
        table.add_column(short, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console(file=io.StringIO(), width=_WIDEST)
    with console.capture() as captured:
        console.print(table)
    return "\n".join([*(line.rstrip() for line in captured.get().splitlines()), note, ""])


def _video_rows(runs: Sequence[Run]) -> tuple[dict[str, str], list[tuple[str, ...]]]:
    """Columns and rows of video runs, sorted by task, then by the error at the first horizon."""
    names = {name for run in runs for name in run.metrics if name.startswith(_MSE)}
    horizons = sorted(int(name.removeprefix(_MSE)) for name in names)
    columns = {name: COLUMNS[name] for name in ("run", "task", "mixer", "preset", "parameters", "wall time s")}
    scores = {f"{label}@{h}": f"test/{key}@{h}" for h in horizons for label, key in _VIDEO_SCORES.items()}

    def row(run: Run) -> tuple[str, ...]:
        config, metrics = run.config, run.metrics
        cells = (run.name, config.task, config.mixer, config.preset, str(metrics["parameters"]))
        found = (metrics.get(key) for key in scores.values())
        errors = ("" if value is None else f"{value:.4f}" for value in found)
        return (*cells, f"{metrics['wall_time_s']:.0f}", *errors)

    first = f"{_MSE}{horizons[0]}"
    ordered = sorted(runs, key=lambda run: (run.config.task, run.metrics.get(first, math.inf)))
    return {**columns, **{name: name for name in scores}}, [row(run) for run in ordered]


def table_row(run: Run) -> tuple[str, ...]:
    """The cells of a run; a task without a published accuracy has empty ones."""
    config, metrics = run.config, run.metrics
    published = find_published(config.task, config.mixer, config.recipe.mixer_options)
    return (
        run.name,
        config.task,
        config.mixer,
        config.preset,
        str(metrics["parameters"]),
        f"{100 * metrics['test/accuracy']:.2f}",
        f"{published.accuracy:.2f}" if published else "",
        published.model if published else "",
        f"{metrics['wall_time_s']:.0f}",
    )

"""A table of runs with the published accuracies beside ours."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Literal

from rich.console import Console
from rich.table import Table

from lra_tasks.published import find_published
from lra_tasks.results import Run

Format = Literal["text", "csv", "markdown"]
FORMATS: tuple[Format, ...] = ("text", "csv", "markdown")
COLUMNS = {
    "run": "left",
    "task": "left",
    "mixer": "left",
    "preset": "left",
    "parameters": "right",
    "accuracy %": "right",
    "published %": "right",
    "published model": "left",
    "wall time s": "right",
}
"""Name and alignment of each column."""

NOTE = "Published accuracies are from full data sets and full-size models; a preset may use less of both."


def report(runs: Sequence[Run], form: Format, console: Console) -> str:
    """The table of runs, sorted by task, then by accuracy.

    Args:
        runs: finished runs.
        form: text (as wide as the console), csv or markdown.
        console: gives the width of the text form.

    Returns:
        The table, with a line break at its end.
    """
    ordered = sorted(runs, key=lambda run: (run.config.task, -run.metrics["test/accuracy"]))
    rows = [table_row(run) for run in ordered]
    if form == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([tuple(COLUMNS), *rows])
        return text.getvalue()
    if form == "markdown":
        rule = tuple("---:" if side == "right" else "---" for side in COLUMNS.values())
        lines = [tuple(COLUMNS), rule, *rows]
        return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines) + (
            f"\n{NOTE}\n"
        )
    table = Table(caption=NOTE, caption_justify="left")
    for name, side in COLUMNS.items():
        table.add_column(name, justify="right" if side == "right" else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


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

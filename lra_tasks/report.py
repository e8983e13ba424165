"""A table of runs with the published accuracies beside ours."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Literal

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

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

_NUMBERS = ("parameters", "accuracy %", "published %", "wall time s")
_WIDEST = 1000
NOTE = (
    "Published accuracies are from full data sets and full-size models; a preset may use less of both.\n"
    "Where the very variant of a mixer has none for the task, S4's stands there."
)


def report(runs: Sequence[Run], form: Format) -> str:
    """The table of runs, sorted by task, then by accuracy.

    Args:
        runs: finished runs.
        form: text (as wide as the table is, whatever the screen), csv or markdown.

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
        rule = tuple("---:" if name in _NUMBERS else "---" for name in COLUMNS)
        lines = [tuple(COLUMNS), rule, *rows]
        return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines) + (
            f"\n{NOTE}\n"
        )
    table = Table(box=SIMPLE, collapse_padding=True, pad_edge=False)
    for name, short in COLUMNS.items():
        table.add_column(short, justify="right" if name in _NUMBERS else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console(file=io.StringIO(), width=_WIDEST)
    with console.capture() as captured:
        console.print(table)
    return "\n".join([*(line.rstrip() for line in captured.get().splitlines()), NOTE, ""])


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

"""A report of runs beside published accuracies, as text, CSV, Markdown, LaTeX, or one page of HTML."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import PurePath
from typing import Literal

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table as Screen

from lra_tasks.errors import UsageError
from lra_tasks.page import environment, page
from lra_tasks.results import Run
from lra_tasks.tables import Table, tables

Format = Literal["text", "csv", "markdown", "latex", "html"]
_FORMS: dict[str, Format] = {
    "": "text",
    ".txt": "text",
    ".csv": "csv",
    ".md": "markdown",
    ".markdown": "markdown",
    ".tex": "latex",
    ".html": "html",
    ".htm": "html",
}
_WIDEST = 1000


def form_of(path: str | None) -> Format:
    """The form that the name of a file asks for.

    >>> form_of("report.html"), form_of("report"), form_of(None)
    ('html', 'text', 'text')

    Raises:
        UsageError: it ends as that of no form.
    """
    ending = PurePath(path or "").suffix.lower()
    if ending not in _FORMS:
        known = ", ".join(filter(None, _FORMS))
        raise UsageError(f"--output is {path!r}, which ends as no form does ({known}): say which with --format")
    return _FORMS[ending]


def report(runs: Sequence[Run], form: Format) -> str:
    """The runs, sorted by task, then by accuracy, those of one configuration and several seeds in one row.

    Runs that pretrain, and those that predict video, have tables of their own, with a row a run.

    Args:
        runs: finished runs.
        form: text (as wide as the table is, whatever the screen), csv, markdown, latex (needs the package booktabs) or
            html (one file with curves and pictures that refers to no other).

    Returns:
        The report, with a line break at its end.
    """
    if form == "html":
        return page(runs)
    write = {"text": _text, "csv": _csv, "markdown": _markdown, "latex": _latex}[form]
    return "\n".join(write(table) for table in tables(runs))


def _csv(table: Table) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([tuple(table.columns), *table.rows])
    return text.getvalue()


def _markdown(table: Table) -> str:
    rule = tuple("---:" if number else "---" for number in table.numeric)
    lines = [tuple(table.columns), rule, *table.rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines) + (
        f"\n{table.note}\n"
    )


def _latex(table: Table) -> str:
    return environment().get_template("table.tex.j2").render(table=table) + "\n"


def _text(table: Table) -> str:
    screen = Screen(box=SIMPLE, collapse_padding=True, pad_edge=False)
    for short, number in zip(table.columns.values(), table.numeric, strict=True):
        screen.add_column(short, justify="right" if number else "left", no_wrap=True)
    for row in table.rows:
        screen.add_row(*row)
    console = Console(file=io.StringIO(), width=_WIDEST)
    with console.capture() as captured:
        console.print(screen)
    return "\n".join([*(line.rstrip() for line in captured.get().splitlines()), table.note, ""])

"""Runs as tables: rows of text that every form of a report shares.

Classifiers that differ in the seed alone are one row: the mean of their accuracies, and the standard deviation beside
it. Runs that pretrain or predict video have a row each.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from lra_tasks.data import VIDEO_TASKS
from lra_tasks.published import easier, find_published
from lra_tasks.results import Run

COLUMNS = {
    "run": "run",
    "task": "task",
    "mixer": "mixer",
    "preset": "preset",
    "parameters": "weights",
    "accuracy %": "test %",
    "deviation": "+-",
    "seeds": "seeds",
    "published %": "paper %",
    "published model": "model",
    "source": "source",
    "wall time s": "seconds",
    "memory MB": "MB",
    "samples/s": "samples/s",
}
"""The columns, and their short names in the text form."""
NOTE = (
    "Published accuracies are from full data sets and full-size models; a preset may use less of both.\n"
    "Where the very variant of a mixer has none for the task, S4's stands there."
)
VIDEO_NOTE = "Errors of the one frame so many steps after the context of a rollout; copy is the context's last frame."
PRETRAINING_NOTE = "Losses on hidden or next inputs: of one task and one objective they can be compared."

_ALIKE = (
    "seed",
    "data_dir",
    "trainer.accelerator",
    "trainer.log_every_n_steps",
    "data.num_workers",
    "data.processes",
)
"""The settings in which runs of one configuration may differ."""
_MSE = "test/mse@"
_VIDEO_SCORES = {"MSE": "mse", "SSIM": "ssim", "copy MSE": "copy_mse"}


@dataclass(frozen=True)
class Table:
    """Rows of text under named columns.

    Args:
        title: what the rows are.
        columns: the names of the columns, and their short names.
        rows: a cell a column.
        note: what to know of the numbers.
    """

    title: str
    columns: Mapping[str, str]
    rows: Sequence[tuple[str, ...]]
    note: str

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers alone."""
        cells = [[row[i] for row in self.rows] for i in range(len(self.columns))]
        return [all(not cell or re.fullmatch(r"-?\d*\.?\d+", cell) for cell in column) for column in cells]


def kind_of(run: Run) -> str:
    """What kind of result a run has: accuracy, video or pretraining."""
    if run.config.recipe.pretraining is not None:
        return "pretraining"
    return "video" if run.config.task in VIDEO_TASKS else "accuracy"


def group_seeds(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs of one configuration with different seeds, together; a second run of a seed begins a group of its own.

    The names of what they started from may differ in a seed.
    """
    groups: dict[tuple[str, int], list[Run]] = {}
    for run in runs:
        start = re.sub(r"(seed[-_. ]?)\d+", r"\1N", run.config.from_run or "")
        settings = {**run.config.settings(), "from_run": start}
        for name in _ALIKE:
            settings.pop(name, None)
        key, copy = json.dumps(settings, sort_keys=True, default=str), 0
        while any(it.config.seed == run.config.seed for it in groups.get((key, copy), [])):
            copy += 1
        groups.setdefault((key, copy), []).append(run)
    return list(groups.values())


def variant(run: Run) -> str:
    """The preset of a run, how its data is easier than the task's, whether it was pretrained, or tested in part."""
    limit = run.config.recipe.trainer.limit_test_batches
    facts = (
        run.config.preset,
        easier(run.config.recipe.data),
        "pretrained" if run.config.from_run is not None else "",
        "part of the test" if limit != 1 or isinstance(limit, int) else "",
    )
    return ", ".join(filter(None, facts))


def tables(runs: Sequence[Run]) -> list[Table]:
    """One table for each kind of result that the runs have."""
    kinds = {kind: [run for run in runs if kind_of(run) == kind] for kind in ("accuracy", "video", "pretraining")}
    found = []
    if kinds["accuracy"]:
        groups = group_seeds(kinds["accuracy"])
        groups.sort(key=lambda group: (group[0].config.task, -_mean(group, "test/accuracy")))
        found.append(Table("Test accuracy", COLUMNS, [table_row(group) for group in groups], NOTE))
    if kinds["video"]:
        found.append(Table("Errors of predicted video", *_video_rows(kinds["video"]), VIDEO_NOTE))
    if kinds["pretraining"]:
        found.append(Table("Self-pretraining", *_pretraining_rows(kinds["pretraining"]), PRETRAINING_NOTE))
    return found


def _mean(group: Sequence[Run], name: str) -> float:
    """The mean of a number over runs; NaN where none has it."""
    values = [float(run.metrics[name]) for run in group if name in run.metrics]
    return statistics.fmean(values) if values else math.nan


def _shown(value: float, digits: int = 0) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def _name(group: Sequence[Run]) -> str:
    """The name of a run, or what the names of several begin with."""
    names = [run.name for run in group]
    if len(names) == 1:
        return names[0]
    equal = (len(set(signs)) == 1 for signs in zip(*names, strict=False))
    common = "".join(sign for sign, same in zip(names[0], takewhile(bool, equal), strict=False) if same)
    if any(name[len(common) :][:1].isdigit() for name in names):  # a number that is cut in two is none
        common = common.rstrip("0123456789")
    return re.sub(r"(^|[-_. ]+)(seed)?[-_. ]*$", "", common) or f"{names[0]} ..."


def table_row(group: Sequence[Run]) -> tuple[str, ...]:
    """The cells of runs that differ in the seed; a task without a published accuracy has empty ones."""
    config = group[0].config
    published = find_published(config.task, config.mixer, config.recipe.mixer_options, config.recipe.data)
    accuracies = [100 * run.metrics["test/accuracy"] for run in group]
    return (
        _name(group),
        config.task,
        config.mixer,
        variant(group[0]),
        str(group[0].metrics["parameters"]),
        f"{statistics.fmean(accuracies):.2f}",
        f"{statistics.stdev(accuracies):.2f}" if len(group) > 1 else "",
        str(len(group)),
        f"{published.accuracy:.2f}" if published else "",
        published.model if published else "",
        published.source if published else "",
        _shown(_mean(group, "wall_time_s")),
        _shown(_mean(group, "peak_memory_mb")),
        _shown(_mean(group, "samples_per_s"), 1),
    )


def _facts(run: Run) -> tuple[str, ...]:
    """The cells that runs of every kind begin with."""
    config = run.config
    return run.name, config.task, config.mixer, variant(run), str(run.metrics["parameters"])


def _facts_columns() -> dict[str, str]:
    return {name: COLUMNS[name] for name in ("run", "task", "mixer", "preset", "parameters", "wall time s")}


def _video_rows(runs: Sequence[Run]) -> tuple[dict[str, str], list[tuple[str, ...]]]:
    """Columns and rows of video runs, sorted by task, then by the error at the first horizon."""
    names = {name for run in runs for name in run.metrics if name.startswith(_MSE)}
    horizons = sorted(int(name.removeprefix(_MSE)) for name in names)
    scores = {f"{label}@{h}": f"test/{key}@{h}" for h in horizons for label, key in _VIDEO_SCORES.items()}

    def row(run: Run) -> tuple[str, ...]:
        found = (run.metrics.get(key, math.nan) for key in scores.values())
        return (*_facts(run), _shown(run.metrics["wall_time_s"]), *(_shown(value, 4) for value in found))

    first = f"{_MSE}{horizons[0]}"
    ordered = sorted(runs, key=lambda run: (run.config.task, run.metrics.get(first, math.inf)))
    return {**_facts_columns(), **{name: name for name in scores}}, [row(run) for run in ordered]


def _pretraining_rows(runs: Sequence[Run]) -> tuple[dict[str, str], list[tuple[str, ...]]]:
    """Columns and rows of runs of pretraining, sorted by task, then by loss."""

    def row(run: Run) -> tuple[str, ...]:
        metrics = run.metrics
        return (*_facts(run), _shown(metrics["wall_time_s"]), metrics["objective"], _shown(metrics["test/loss"], 4))

    ordered = sorted(runs, key=lambda run: (run.config.task, run.metrics["test/loss"]))
    columns = _facts_columns() | {"objective": "objective", "test loss": "test loss"}
    return columns, [row(run) for run in ordered]

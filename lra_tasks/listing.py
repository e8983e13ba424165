"""What `lra-tasks list` shows: all tasks in a table, or the facts of one."""

from __future__ import annotations

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from longconv._checks import check_choice
from longconv.mixers import list_mixers
from longconv.models import SEQUENCE_BASELINES, VIDEO_MIXERS
from lra_tasks.data import TASKS, VIDEO_TASKS, VideoTask
from lra_tasks.errors import UsageError
from lra_tasks.recipes import DEFAULT_MIXERS, list_presets, sources_of


def show_tasks(name: str | None, console: Console) -> int:
    """Print the facts of one task, or of all where ``name`` is None; returns the exit code 0."""
    if name is None:
        _show_all(console)
    else:
        try:
            _show_one(check_choice("TASK", name, sorted(TASKS)), console)
        except ValueError as error:
            raise UsageError(str(error)) from error
    return 0


def _show_all(console: Console) -> None:
    table = Table(box=SIMPLE, collapse_padding=True, pad_edge=False)
    for column in ("task", "length", "classes", "chance %", "train/val/test", "presets"):
        table.add_column(column, no_wrap=True)
    for name, task in sorted(TASKS.items()):
        info = task.info
        sizes = "/".join(map(str, info.sizes))
        classes, chance = str(info.n_classes), f"{100 * info.chance:.1f}"
        if name in VIDEO_TASKS:
            classes, chance = "", ""
        table.add_row(name, str(info.length), classes, chance, sizes, " ".join(list_presets(name)))
    console.print(table)
    for name, task in sorted(TASKS.items()):
        lacking = task.lacks()
        note = f" ({lacking})" if lacking else ""
        console.print(f"{name}: {task.info.title}; default mixer {DEFAULT_MIXERS[name]}{note}", highlight=False)
    console.print(f"mixers: {' '.join(list_mixers(video=False))}", highlight=False)
    console.print(f"to compare with: {' '.join(SEQUENCE_BASELINES)}", highlight=False)
    console.print(f"mixers of video: {' '.join(VIDEO_MIXERS)}", highlight=False)


def _show_one(name: str, console: Console) -> None:
    info = TASKS[name].info
    task = TASKS[name]
    values = f"{info.d_input} channel{'s' * (info.d_input > 1)}" if info.d_input else f"vocabulary {info.n_tokens}"
    read = f"{'two sequences of ' * info.pair}length {info.length}, {values}"
    classes = f"{info.n_classes}; {info.metric} of guessing {100 * info.chance:.1f} %"
    if issubclass(task, VideoTask):
        read = f"videos, {task.channels} channel{'s' * (task.channels > 1)}"
        classes = "none: the next frames are predicted"
    rows = {
        "task": f"{name}: {info.title}",
        "source": info.source,
        "input": read,
        "classes": classes,
        "sizes": "/".join(map(str, info.sizes)) + " for train/val/test",
        "split": info.split,
        "protocol": info.protocol,
        "presets": " ".join(list_presets(name)),
        "mixer": f"{DEFAULT_MIXERS[name]} by default",
    }
    lacking = task.lacks()
    if lacking:
        rows["missing"] = lacking
    for key, text in [*rows.items(), *((f"{mixer}:", source) for mixer, source in sources_of(name).items())]:
        console.print(f"{key:<10} {text}", highlight=False, markup=False, soft_wrap=True)

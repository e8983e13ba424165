"""The command `lra-tasks`: list, prepare, train, evaluate and report.

Exit codes: 0 done; 1 a run could not go on, or a file is missing; 2 the command asks for what does not exist.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from jsonargparse import Namespace
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from longconv._checks import nearest
from longconv.mixers import list_mixers
from lra_tasks.config import RunConfig
from lra_tasks.data import TASKS, DataError, create_task
from lra_tasks.errors import RunError, UsageError
from lra_tasks.parser import COMMANDS, create_parser
from lra_tasks.recipes import DEFAULT_MIXERS, list_presets
from lra_tasks.report import report
from lra_tasks.results import Run, RunFolder, read_run
from lra_tasks.selection import Selection, default_run_dir, select
from lra_tasks.train import evaluate, train


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; an error that the user can mend is one line on stderr.

    Args:
        argv: the arguments, without the program's name; None takes the process's.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    console = Console()
    try:
        return _dispatch(arguments, console)
    except (UsageError, RunError, DataError) as error:
        Console(stderr=True, soft_wrap=True).print(f"lra-tasks: error: {error}", markup=False, highlight=False)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return 130


def _dispatch(arguments: list[str], console: Console) -> int:
    command = next((word for word in arguments[:1] if not word.startswith("-")), None)
    if command is not None and command not in COMMANDS:
        hint = nearest(command, COMMANDS)
        raise UsageError(f"there is no command {command!r} (commands: {', '.join(COMMANDS)}){hint}")
    selection = select(arguments[1:]) if command in ("prepare", "train") else None
    parser = create_parser(command, selection)
    options = parser.parse_args(arguments)
    commands = {
        "list": lambda: _list(console),
        "prepare": lambda: _prepare(options.prepare, console),
        "train": lambda: _train(options.train, selection, console),
        "evaluate": lambda: _evaluate(options.evaluate, console),
        "report": lambda: _report(options.report, console),
    }
    return commands[options.subcommand]()


def _list(console: Console) -> int:
    table = Table(box=SIMPLE, collapse_padding=True, pad_edge=False)
    for name in ("task", "length", "classes", "chance %", "train/val/test", "presets"):
        table.add_column(name, no_wrap=True)
    for name, task in sorted(TASKS.items()):
        info = task.info
        sizes = "/".join(str(size) for size in info.sizes)
        chance = f"{100 * info.chance:.1f}"
        presets = " ".join(list_presets(name))
        table.add_row(name, str(info.length), str(info.n_classes), chance, sizes, presets)
    console.print(table)
    for name, task in sorted(TASKS.items()):
        console.print(f"{name}: {task.info.title}; default mixer {DEFAULT_MIXERS[name]}", highlight=False)
    console.print(f"mixers: {' '.join(list_mixers())}", highlight=False)
    return 0


def _prepare(options: Namespace, console: Console) -> int:
    try:
        task = create_task(options.task, data_dir=options.data_dir, **options.data.as_dict())
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error
    task.prepare_data()
    console.print(f"{options.task} is ready in {task.folder}", highlight=False)
    return 0


def _train(options: Namespace, selection: Selection | None, console: Console) -> int:
    if selection is None:
        raise UsageError(f"train needs a TASK: one of {', '.join(sorted(TASKS))}")
    values = options.as_dict()
    resume, run_dir = values.pop("resume"), values.pop("run_dir")
    values.pop("config")
    config = RunConfig.from_dict({"mixer_options": {}, **values})
    if config.data_dir is not None:
        config = replace(config, data_dir=str(Path(config.data_dir).expanduser().absolute()))
    folder = selection.run_dir or (Path(run_dir) if run_dir else None)
    if folder is None:
        folder = default_run_dir(config.task, config.mixer, config.preset, config.seed)
    train(config, RunFolder(folder), resume=resume, console=console)
    return 0


def _evaluate(options: Namespace, console: Console) -> int:
    config, metrics = evaluate(Path(options.run), data_dir=options.data_dir, split=options.split)
    accuracy = metrics[f"{options.split}/accuracy"]
    name = "validation" if options.split == "val" else "test"
    console.print(f"{config.mixer} on {config.task}: {name} accuracy {100 * accuracy:.2f} %", highlight=False)
    return 0


def _report(options: Namespace, console: Console) -> int:
    runs: list[Run] = []
    problems: list[str] = []
    for path in options.runs:
        try:
            runs.append(read_run(Path(path)))
        except RunError as error:
            problems.append(str(error))
    for problem in problems:
        Console(stderr=True, soft_wrap=True).print(f"left out: {problem}", markup=False, highlight=False)
    if not runs:
        raise RunError("none of the runs has finished")
    sys.stdout.write(report(runs, options.format, console))
    return 0

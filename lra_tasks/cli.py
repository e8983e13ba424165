"""The command `lra-tasks`: list, prepare, pretrain, train, evaluate and report.

Exit codes: 0 done; 1 a run could not go on, or a file is missing; 2 the command asks for what does not exist; 130
stopped by Ctrl-C or a signal.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from jsonargparse import Namespace
from rich.console import Console

from longconv._checks import nearest
from lra_tasks.config import RunConfig
from lra_tasks.data import TASKS, DataError, create_task
from lra_tasks.errors import RunError, UsageError
from lra_tasks.evaluation import evaluate
from lra_tasks.files import write_text
from lra_tasks.listing import show_tasks
from lra_tasks.parser import COMMANDS, create_parser
from lra_tasks.pretraining import PREDICTED
from lra_tasks.report import form_of, report
from lra_tasks.results import Run, RunFolder, find_runs, read_run
from lra_tasks.selection import Selection, default_run_dir, select
from lra_tasks.train import train
from lra_tasks.video_module import score_table

_STOPPED = (KeyboardInterrupt, SystemExit)
"""What Ctrl-C and SIGTERM raise; the latter is Lightning's answer to them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; an error that the user can mend is one line on stderr.

    Args:
        argv: the arguments, without the program's name; None takes the process's.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        run = _parse(arguments, Console())
    except UsageError as error:
        return _complain(f"error: {error}", 2)
    except RunError as error:
        return _complain(f"error: {error}", 1)
    try:
        return run()
    except UsageError as error:
        return _complain(f"error: {error}", 2)
    except (RunError, DataError, OSError) as error:
        return _complain(f"error: {error}", 1)
    except _STOPPED:
        return _complain("stopped", 130)


def _complain(message: str, code: int) -> int:
    """Print a message on one line, whatever library it comes from."""
    message = re.sub(r"\s*\n\s*", " ", message.strip())
    Console(stderr=True, soft_wrap=True).print(f"lra-tasks: {message}", markup=False, highlight=False)
    return code


def _parse(arguments: list[str], console: Console) -> Callable[[], int]:
    """The command with its checked options, ready to run; ``--help`` and its like end the process."""
    command = next((word for word in arguments[:1] if not word.startswith("-")), None)
    if command is not None and command not in COMMANDS:
        hint = nearest(command, COMMANDS)
        raise UsageError(f"there is no command {command!r} (commands: {', '.join(COMMANDS)}){hint}")
    selection = None
    if command in ("prepare", "pretrain", "train"):
        selection = select(arguments[1:], pretrains=command == "pretrain")
    parser = create_parser(command, selection.config if selection else None)
    if not arguments:
        parser.print_help()
        return lambda: 0
    options = parser.parse_args([command, *selection.arguments] if command and selection else arguments)
    commands: dict[str, Callable[[Namespace], int]] = {
        "list": lambda options: show_tasks(options.task, console),
        "prepare": lambda options: _prepare(options, console),
        "pretrain": lambda options: _train(options, selection, console),
        "train": lambda options: _train(options, selection, console),
        "evaluate": lambda options: _evaluate(options, console),
        "report": lambda options: _report(options, console),
    }
    return lambda: commands[options.subcommand](options[options.subcommand])


def _prepare(options: Namespace, console: Console) -> int:
    try:
        task = create_task(options.task, data_dir=options.data_dir, **options.data.as_dict())
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error
    try:
        task.prepare_data()
    except _STOPPED:
        return _complain("stopped; the same command goes on", 130)
    console.print(f"{options.task} is ready in {task.folder}", highlight=False, soft_wrap=True)
    return 0


def _train(options: Namespace, selection: Selection | None, console: Console) -> int:
    if selection is None or selection.config is None:
        raise UsageError(f"training needs a TASK: one of {', '.join(sorted(TASKS))}")
    values = options.as_dict()
    resume = values.pop("resume")
    for name in ("config", "run_dir"):
        values.pop(name)
    config = RunConfig.from_dict({"mixer_options": {}, **values}).with_absolute_folders()
    for name in ("task", "mixer"):
        if getattr(config, name) != getattr(selection.config, name):
            raise UsageError(f"{name} is both {getattr(selection.config, name)!r} and {getattr(config, name)!r}")
    folder = RunFolder(selection.run_dir or default_run_dir(config))
    try:
        train(config, folder, resume=resume, console=console)
    except _STOPPED:
        begun = folder.config.is_file()
        how = f"go on with --resume --run-dir {shlex.quote(str(folder.path))}" if begun else "the same command goes on"
        return _complain(f"stopped; {how}", 130)
    return 0


def _evaluate(options: Namespace, console: Console) -> int:
    config, metrics = evaluate(
        Path(options.run),
        data_dir=options.data_dir,
        split=options.split,
        accelerator=options.accelerator,
        rate=options.rate,
    )
    name = "validation" if options.split == "val" else "test"
    name = name if options.rate == 1 else f"{name} (one in {options.rate} samples)"
    if config.recipe.pretraining is not None:
        what = PREDICTED[config.recipe.pretraining.objective]
        loss = metrics[f"{options.split}/loss"]
        console.print(f"{config.mixer} on {config.task}: {name} loss {loss:.4f} of {what}", highlight=False)
        return 0
    if f"{options.split}/accuracy" not in metrics:
        console.print(f"{config.mixer} on {config.task}: {name} rollouts", highlight=False)
        console.print(score_table(metrics, options.split), highlight=False)
        return 0
    accuracy = metrics[f"{options.split}/accuracy"]
    console.print(f"{config.mixer} on {config.task}: {name} accuracy {100 * accuracy:.2f} %", highlight=False)
    return 0


def _report(options: Namespace, console: Console) -> int:
    form = options.format or form_of(options.output)
    runs: list[Run] = []
    problems: list[str] = []
    for path in (found for given in options.runs for found in find_runs(Path(given))):
        try:
            runs.append(read_run(path))
        except (RunError, OSError) as error:
            problems.append(str(error))
    if runs:
        text = report(runs, form)
        if options.output is None:
            sys.stdout.write(text)
        else:
            _write(Path(options.output), text)
    for problem in problems:
        _complain(f"left out: {problem}", 1)
    return 1 if problems else 0


def _write(path: Path, text: str) -> None:
    """Write a report; where that fails there is no run to resume."""
    try:
        write_text(path, text)
    except RunError as error:
        raise RunError(f"cannot write {path}: {error.__cause__}") from error

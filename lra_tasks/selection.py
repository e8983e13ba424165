"""What a `train` command chooses before its options can be typed: task, mixer, preset, or the run to resume.

The options of `train` depend on the task and the mixer, so these few are read first; the full parser reads all of them
again and checks them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from longconv._checks import check_choice
from longconv.mixers import list_mixers
from lra_tasks.config import RunConfig
from lra_tasks.data import TASKS
from lra_tasks.errors import UsageError
from lra_tasks.recipes import DEFAULT_MIXERS, DEFAULT_PRESET, create_recipe
from lra_tasks.results import RunFolder


@dataclass(frozen=True)
class Selection:
    """The settings that the options of a command start from, and the folder they go to.

    Args:
        config: all settings before the command's own overrides.
        run_dir: folder of the run; None for the default one, which the seed decides.
    """

    config: RunConfig
    run_dir: Path | None


def default_run_dir(task: str, mixer: str, preset: str, seed: int) -> Path:
    """The folder of a run that names none.

    >>> default_run_dir("smnist", "s4d", "quick", 0).as_posix()
    'runs/smnist-s4d-quick-seed0'
    """
    return Path("runs") / f"{task}-{mixer}-{preset}-seed{seed}"


class _Scanner(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def select(argv: Sequence[str]) -> Selection | None:
    """Read the choices from a command line (without the subcommand).

    Returns:
        None where no task is named, neither as an argument nor in the file of ``--config``.

    Raises:
        UsageError: an unknown task, mixer or preset, or ``--resume`` with another one than the run's.
    """
    scanner = _Scanner(add_help=False, allow_abbrev=False)
    for option in ("--mixer", "--preset", "--run-dir", "--config", "--seed"):
        scanner.add_argument(option)
    scanner.add_argument("--resume", nargs="?", const="true", default="false")
    given, rest = scanner.parse_known_args(list(argv))
    in_file = _read_mapping(Path(given.config)) if given.config else {}
    chosen = {name: getattr(given, name) or in_file.get(name) for name in ("mixer", "preset", "seed")}
    chosen["task"] = _find_task(argv, rest) or in_file.get("task")
    run_dir = Path(given.run_dir) if given.run_dir else None
    if given.resume.lower() in ("true", "yes", "1"):
        saved = _find_saved(chosen, run_dir)
        if saved is not None:
            return saved
    if chosen["task"] is None:
        return None
    return Selection(_from_recipe(chosen), run_dir)


def _find_task(argv: Sequence[str], rest: Sequence[str]) -> str | None:
    """The first argument, unless it is an option; else a later one that is the name of a task."""
    if argv and not argv[0].startswith("-"):
        return argv[0]
    return next((word for word in rest if word in TASKS), None)


def _find_saved(chosen: dict[str, Any], run_dir: Path | None) -> Selection | None:
    """The settings of the run to resume: they, not the preset, are what overrides are compared with."""
    if run_dir is None:
        if chosen["task"] is None:
            raise UsageError("--resume needs the TASK or the --run-dir of the run")
        config = _from_recipe(chosen)
        run_dir = default_run_dir(config.task, config.mixer, config.preset, config.seed)
    folder = RunFolder(run_dir)
    if not folder.config.is_file():
        return None
    saved = RunConfig.load(folder.config)
    for name in ("task", "mixer", "preset"):
        if chosen[name] is not None and chosen[name] != getattr(saved, name):
            raise UsageError(
                f"{run_dir} holds a run with {name} {getattr(saved, name)!r}, so it cannot be resumed with "
                f"{chosen[name]!r}"
            )
    return Selection(saved, run_dir)


def _from_recipe(chosen: dict[str, Any]) -> RunConfig:
    try:
        task = check_choice("TASK", chosen["task"], sorted(TASKS))
        mixer = check_choice("--mixer", chosen["mixer"] or DEFAULT_MIXERS[task], list_mixers())
        preset = chosen["preset"] or DEFAULT_PRESET
        recipe = create_recipe(task, mixer, preset)
        seed = _read_seed(chosen["seed"])
    except ValueError as error:
        raise UsageError(str(error)) from error
    return RunConfig(task, mixer, preset, seed, None, recipe)


def _read_seed(value: Any) -> int:
    try:
        return int(value or 0)
    except (ValueError, TypeError):
        raise UsageError(f"--seed is {value!r}, expected an integer >= 0") from None


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read --config {path}: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"--config {path} is no mapping of settings")
    return values

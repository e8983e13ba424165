"""What a command that trains chooses before its options can be typed: task, mixer, preset, or the run to resume.

Their options depend on the task and the mixer, so these few are read first; the full parser reads all of them
again and checks them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import yaml

from longconv._checks import check_choice
from lra_tasks.config import RunConfig
from lra_tasks.data import TASKS
from lra_tasks.errors import UsageError
from lra_tasks.mixers import list_mixers_of
from lra_tasks.recipes import DEFAULT_MIXERS, DEFAULT_PRESET, create_recipe, for_pretraining
from lra_tasks.results import RunFolder


@dataclass(frozen=True)
class Selection:
    """What the options of a command start from.

    Args:
        arguments: the command line with ``--config`` in front, so that its other options win over the file.
        config: all settings before the command's own overrides; None where no task is named.
        run_dir: folder of the run; None for the default one, which the seed decides.
    """

    arguments: list[str]
    config: RunConfig | None
    run_dir: Path | None


def default_run_dir(config: RunConfig) -> Path:
    """The folder of a run that names none; pretraining, and training from a run, have others than training afresh.

    >>> default_run_dir(RunConfig("smnist", "s4d", "quick", 0, None, create_recipe("smnist", "s4d"))).as_posix()
    'runs/smnist-s4d-quick-seed0'
    """
    kind = "-pretraining" if config.recipe.pretraining else "-pretrained" if config.from_run else ""
    return Path("runs") / f"{config.task}-{config.mixer}-{config.preset}{kind}-seed{config.seed}"


class _Scanner(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def select(argv: Sequence[str], *, pretrains: bool = False) -> Selection:
    """Read the choices from a command line (without the subcommand).

    Args:
        argv: its words.
        pretrains: whether the run is one of pretraining.

    Raises:
        UsageError: an unknown task, mixer or preset, or another one than that of ``--config`` or of the run to resume.
    """
    scanner = _Scanner(add_help=False, allow_abbrev=False)
    scanner.add_argument("--config", action="append", default=[])
    configs, others = scanner.parse_known_args(list(argv))
    for option in ("--mixer", "--preset", "--run-dir", "--seed"):
        scanner.add_argument(option)
    scanner.add_argument("--from", dest="from_run")
    scanner.add_argument("--resume", action="store_true")
    given, rest = scanner.parse_known_args(others)
    chosen: dict[str, Any] = {"task": _find_task(rest)}
    chosen |= {name: getattr(given, name) for name in ("mixer", "preset", "seed", "run_dir", "from_run")}
    chosen["pretrains"] = pretrains
    for path in configs.config:
        _add_file(chosen, Path(path))
    arguments = [*(word for path in configs.config for word in ("--config", path)), *others]
    run_dir = Path(chosen["run_dir"]) if chosen["run_dir"] else None
    if given.resume:
        saved = _find_saved(chosen, run_dir)
        if saved is not None:
            return Selection(arguments, *saved)
    data = _find_data(rest, [Path(path) for path in configs.config])
    return Selection(arguments, None if chosen["task"] is None else _from_recipe(chosen, data), run_dir)


def _find_task(rest: Sequence[str]) -> str | None:
    """The first word that is neither an option nor, after one without ``=``, its value."""
    before = ""
    for word in rest:
        if not word.startswith("-") and (not before.startswith("--") or "=" in before or before == "--print_config"):
            return word
        before = word
    return None


def _find_data(rest: Sequence[str], files: Sequence[Path]) -> dict[str, Any]:
    """The options of the task's data, as far as they are given one by one: they decide on defaults of the mixer."""
    data: dict[str, Any] = {}
    for path in files:
        section = _read_mapping(path).get("data")
        data |= section if isinstance(section, dict) else {}
    for word, after in pairwise([*rest, ""]):
        name, equals, value = word.partition("=")
        if name.startswith("--data."):
            try:
                data[name.removeprefix("--data.")] = yaml.safe_load(value if equals else after)
            except yaml.YAMLError:  # the full parser names it
                continue
    return data


def _add_file(chosen: dict[str, Any], path: Path) -> None:
    """Take from a file of settings what the command line leaves open; they must not contradict each other."""
    values = _read_mapping(path)
    for name in chosen:
        if name in ("task", "mixer", "preset") and None not in (chosen[name], values.get(name)):
            if chosen[name] != values[name]:
                raise UsageError(
                    f"--config {path} has the {name} {values[name]!r}, so it does not go with {chosen[name]!r}"
                )
        elif chosen[name] is None:
            chosen[name] = values.get(name)


def _find_saved(chosen: dict[str, Any], run_dir: Path | None) -> tuple[RunConfig, Path] | None:
    """The settings of the run to resume: they, not the preset, are what overrides are compared with."""
    if run_dir is None:
        if chosen["task"] is None:
            raise UsageError("--resume needs the TASK or the --run-dir of the run")
        run_dir = default_run_dir(_from_recipe(chosen))
    folder = RunFolder(run_dir)
    if not folder.config.is_file():
        if chosen["task"] is None:
            raise UsageError(f"there is no run to resume in {run_dir}; with a TASK, train begins one")
        return None
    saved = RunConfig.load(folder.config)
    pretrained = saved.recipe.pretraining is not None
    if pretrained != chosen["pretrains"]:
        commands = ("train", "pretrain")
        raise UsageError(f"{run_dir} holds a run of `{commands[pretrained]}`: resume it with that")
    for name in ("task", "mixer", "preset"):
        if chosen[name] is not None and chosen[name] != getattr(saved, name):
            raise UsageError(
                f"{run_dir} holds a run with {name} {getattr(saved, name)!r}, so it cannot be resumed with "
                f"{chosen[name]!r}"
            )
    return saved, run_dir


def _from_recipe(chosen: dict[str, Any], data: dict[str, Any] | None = None) -> RunConfig:
    try:
        task = check_choice("TASK", chosen["task"], sorted(TASKS))
        mixer = check_choice("--mixer", chosen["mixer"] or DEFAULT_MIXERS[task], list_mixers_of(task))
        preset = chosen["preset"] or DEFAULT_PRESET
        recipe = create_recipe(task, mixer, preset, data)
        if chosen["pretrains"]:
            recipe = for_pretraining(task, recipe)
        seed = _read_seed(chosen["seed"])
    except ValueError as error:
        raise UsageError(str(error)) from error
    return RunConfig(task, mixer, preset, seed, None, recipe, chosen["from_run"])


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

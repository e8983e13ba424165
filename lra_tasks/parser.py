"""The parser of `lra-tasks`: typed options, from the settings and from the arguments of the task and the mixer."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any, Literal, NoReturn

from jsonargparse import ArgumentParser, Namespace

from longconv._checks import nearest
from longconv.mixers import MIXERS
from lra_tasks.config import flatten
from lra_tasks.data import TASKS
from lra_tasks.errors import UsageError
from lra_tasks.recipes import DEFAULT_PRESET, ModelSettings, OptimizerSettings, Recipe, TrainerSettings
from lra_tasks.report import Format
from lra_tasks.selection import Selection

COMMANDS = ("list", "prepare", "train", "evaluate", "report")
_TASK_HELP = f"name of a task: {', '.join(sorted(TASKS))}"


class Parser(ArgumentParser):
    """A parser that takes no abbreviations and whose errors are a UsageError with the nearest option names."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a UsageError."""
        raise UsageError(self._explain(str(message).strip())) from ex

    def _explain(self, message: str) -> str:
        found = re.search(r"unrecognized arguments: (--[\w.\-]+)", message)
        return message + nearest(found[1], self.option_names()) if found else message

    def option_names(self) -> list[str]:
        """Every option of this parser, as written on the command line."""
        return [text for action in self._actions for text in action.option_strings if text.startswith("--")]


def add_train(selection: Selection | None) -> Parser:
    """The parser of `train`, with the defaults of a selection; general where there is none."""
    parser = Parser(
        description="Train a model, test its best checkpoint and keep the run in a folder.",
        epilog="" if selection else "`lra-tasks train TASK --mixer NAME --help` adds the options of both.",
    )
    parser.add_argument("task", nargs="?", help=_TASK_HELP)
    parser.add_argument("--config", action="config", help="YAML file of settings, such as the config.yaml of a run")
    parser.add_argument("--mixer", type=str, help="name of the mixer; `lra-tasks list` shows all")
    parser.add_argument("--preset", type=str, default=DEFAULT_PRESET, help="settings to start from: quick or paper")
    parser.add_argument("--run-dir", type=str | None, help="folder of the run; runs/TASK-MIXER-PRESET-seedSEED")
    parser.add_argument("--data-dir", type=str | None, help="folder of prepared data")
    parser.add_argument("--seed", type=int, default=0, help="seed of parameters, data order and dropout")
    parser.add_argument("--resume", type=bool, nargs="?", const=True, default=False, help="continue the run")
    _add_settings(parser, selection)
    return parser


def add_prepare(selection: Selection | None) -> Parser:
    """The parser of `prepare`."""
    parser = Parser(description="Build the data of a task on disk.")
    parser.add_argument("task", help=_TASK_HELP)
    parser.add_argument("--preset", type=str, default=DEFAULT_PRESET, help="the preset whose data to build")
    parser.add_argument("--data-dir", type=str | None, help="folder of prepared data")
    if selection is not None:
        _add_data(parser, selection)
    return parser


def add_evaluate() -> Parser:
    """The parser of `evaluate`."""
    parser = Parser(description="Accuracy of a run's best checkpoint.")
    parser.add_argument("run", metavar="RUN", type=str, help="folder of a run, or a .ckpt file")
    parser.add_argument("--split", type=Literal["test", "val"], default="test", help="part of the data")
    parser.add_argument("--data-dir", type=str | None, help="folder of prepared data, where it has moved")
    return parser


def add_report() -> Parser:
    """The parser of `report`."""
    parser = Parser(description="A table of runs with the published accuracies beside ours.")
    parser.add_argument("runs", metavar="RUNS", type=str, nargs="+", help="folders of runs")
    parser.add_argument("--format", type=Format, default="text", help="form of the table")
    return parser


def create_parser(command: str | None, selection: Selection | None) -> Parser:
    """The parser of all commands; only the one in use has its options filled in."""
    parser = Parser(prog="lra-tasks", description="Long-range tasks: train, evaluate and compare sequence mixers.")
    commands = parser.add_subcommands()
    helps = {
        "list": "tasks, mixers and presets",
        "prepare": "build the data of a task on disk",
        "train": "train a model and test its best checkpoint",
        "evaluate": "accuracy of a run's best checkpoint",
        "report": "a table of runs beside published accuracies",
    }
    builders: dict[str, Any] = {
        "prepare": lambda: add_prepare(selection),
        "train": lambda: add_train(selection),
        "evaluate": add_evaluate,
        "report": add_report,
    }
    for name in COMMANDS:
        subparser = builders[name]() if name == command and name in builders else Parser()
        commands.add_subcommand(name, subparser, help=helps[name])
    return parser


def _add_data(parser: Parser, selection: Selection) -> None:
    parser.add_class_arguments(TASKS[selection.config.task], "data", skip={"data_dir", "seed"}, instantiate=False)
    parser.set_defaults({f"data.{name}": value for name, value in selection.config.recipe.data.items()})


def _add_settings(parser: Parser, selection: Selection | None) -> None:
    parser.add_class_arguments(ModelSettings, "model", instantiate=False)
    parser.add_class_arguments(OptimizerSettings, "optimizer", instantiate=False)
    parser.add_class_arguments(TrainerSettings, "trainer", instantiate=False)
    if selection is None:
        return
    config = selection.config
    _add_data(parser, selection)
    parser.add_class_arguments(MIXERS[config.mixer], "mixer_options", skip={"d_model"}, instantiate=False)
    recipe: Recipe = config.recipe
    defaults = {name: getattr(config, name) for name in ("task", "mixer", "preset", "seed", "data_dir")}
    sections = {"model": asdict(recipe.model), "optimizer": asdict(recipe.optimizer), "trainer": asdict(recipe.trainer)}
    options = {f"mixer_options.{name}": value for name, value in recipe.mixer_options.items()}
    parser.set_defaults({**defaults, **flatten(sections), **options})


def as_plain(namespace: Namespace | None) -> dict[str, Any]:
    """A group of parsed options as a dictionary of plain values."""
    return {} if namespace is None else dict(namespace.as_dict())

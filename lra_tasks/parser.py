"""The parser of `lra-tasks`: typed options, from the settings and from the arguments of the task and the mixer."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Literal, NoReturn

from jsonargparse import ArgumentParser

import longconv
from longconv._checks import nearest
from lra_tasks.config import OPTIONS_OF_RUNS, RunConfig, flatten
from lra_tasks.data import TASKS, VIDEO_TASKS
from lra_tasks.errors import UsageError
from lra_tasks.mixers import class_of, defaults_of
from lra_tasks.recipes import (
    DEFAULT_PRESET,
    ModelSettings,
    OptimizerSettings,
    PretrainingSettings,
    TrainerSettings,
    VideoSettings,
)
from lra_tasks.report import Format

COMMANDS = {
    "list": "tasks, mixers and presets, or the facts of one task",
    "prepare": "build the data of a task on disk",
    "pretrain": "train a backbone to predict the inputs of a task, for train --from",
    "train": "train a model and test its best checkpoint",
    "evaluate": "accuracy of a run's best checkpoint",
    "report": "runs beside published accuracies: a table, or a page with curves",
}
"""Every command, with its line of help."""

_IN_YAML = {"NoneType": "null", "tuple": "a list such as [1, 2]"}
"""What types are called where options are written."""
_TASK_HELP = f"name of a task: {', '.join(sorted(TASKS))}"


class Parser(ArgumentParser):
    """A parser that takes no abbreviations and whose errors are a UsageError with the nearest option names.

    Attributes:
        active: the parser of the command in use, where this is the parser of all.
    """

    active: Parser | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a UsageError."""
        raise UsageError(self._explain(str(message).strip())) from ex

    def add_class(self, kind: type, section: str, **options: Any) -> None:
        """An option ``--section.name`` for every argument of a class, with its docstring as the help."""
        self.add_class_arguments(kind, section, instantiate=False, **options)
        for action in self._actions:
            if action.help:
                action.help = re.sub(r":\w+:`~?([^`]*)`|``", r"\1", action.help)

    def _explain(self, message: str) -> str:
        """The message with the nearest options of the section, or all of the section where none is near."""
        message = _name_types(message)
        found = re.search(r"(unrecognized arguments:|not accept option) '?(--)?([\w.\-]+)", message)
        if found is None:
            return message
        dashes, (section, dot, name) = found[2] or "", found[3].rpartition(".")
        choices = {it.rpartition(".")[2]: dashes + it for it in self._options() if it.rpartition(".")[0] == section}
        close = difflib.get_close_matches(name, choices)
        if close:
            return f"{message}; did you mean {' or '.join(repr(choices[it]) for it in close)}?"
        if dot and not choices:
            return message + nearest(section, {it.rpartition(".")[0] for it in self._options()})
        return f"{message}; {section!r} has {', '.join(choices.values())}" if dot else message

    def _options(self) -> list[str]:
        """Every option of the parser in use, without its dashes."""
        names = (text for action in (self.active or self)._actions for text in action.option_strings)
        return [name.removeprefix("--") for name in names if name.startswith("--")]


def _name_types(message: str) -> str:
    """The message of a value of a wrong type as ``NAME is VALUE, expected TYPE``; others as they are."""
    name = re.match(r'Parser key "([^"]+)":', message)
    value = re.search(r"(?:Got|Given) value: (.*)", message)
    types = re.findall(r"Expected an? (.+?)(?:\. Got value|$)", message, re.MULTILINE)
    if not (name and value and types):
        return message
    plain = [re.sub(r"<class '(\w+)'>|typing\.\w+\[(.*)\]", r"\1\2", it) for it in types]
    return f"{name[1]} is {value[1]!r}, expected {' or '.join(_IN_YAML.get(it, it) for it in plain)}"


def create_parser(command: str | None, config: RunConfig | None) -> Parser:
    """The parser of all commands; only the one in use has its options filled in.

    Args:
        command: the command in use, if any.
        config: the settings that are the defaults of ``train`` and ``prepare``; None leaves out what the task and the
            mixer bring.
    """
    parser = Parser(
        prog="lra-tasks",
        description="Long-range tasks: train, evaluate and compare sequence mixers.",
        version=f"longconv {longconv.__version__}",
    )
    commands = parser.add_subcommands()
    builders: dict[str, Callable[[], Parser]] = {
        "list": _list,
        "prepare": lambda: _prepare(config),
        "pretrain": lambda: _train(config, pretrains=True),
        "train": lambda: _train(config),
        "evaluate": _evaluate,
        "report": _report,
    }
    for name, text in COMMANDS.items():
        subparser = builders[name]() if name == command else Parser()
        commands.add_subcommand(name, subparser, help=text)
        if name == command:
            parser.active = subparser
    return parser


def _list() -> Parser:
    parser = Parser(description="Tasks, mixers and presets.")
    parser.add_argument("task", nargs="?", help="name of a task, for its source, split and protocol")
    return parser


def _train(config: RunConfig | None, *, pretrains: bool = False) -> Parser:
    does = (
        "Train a backbone to predict the inputs of a task" if pretrains else "Train a model, test its best checkpoint"
    )
    command = "pretrain" if pretrains else "train"
    parser = Parser(
        description=f"{does} and keep the run in a folder.",
        epilog="" if config else f"`lra-tasks {command} TASK --mixer NAME --help` adds the options of both.",
    )
    parser.add_argument("task", nargs="?", help=_TASK_HELP)
    parser.add_argument(
        "--config", action="config", help="YAML file of settings, such as the config.yaml of a run; other options win"
    )
    parser.add_argument("--mixer", type=str, help="name of the mixer; `lra-tasks list` shows all")
    parser.add_argument(
        "--preset", type=str, default=DEFAULT_PRESET, help="settings to start from: quick, encoder or paper"
    )
    parser.add_argument("--run-dir", type=str | None, help="folder of the run; runs/TASK-MIXER-PRESET-seedSEED")
    parser.add_argument("--data-dir", type=str | None, help="folder of prepared data")
    parser.add_argument("--seed", type=int, default=0, help="seed of parameters, data order and dropout")
    if pretrains:
        parser.add_class(PretrainingSettings, "pretraining")
    else:
        parser.add_argument("--from", dest="from_run", type=str | None, help="run of pretrain or train to start from")
    parser.add_argument("--resume", action="store_true", help="continue the run, or begin it where there is none")
    parser.add_class(VideoSettings if config and config.task in VIDEO_TASKS else ModelSettings, "model")
    parser.add_class(OptimizerSettings, "optimizer")
    parser.add_class(TrainerSettings, "trainer")
    if config is not None:
        _add_data(parser, config)
        parser.add_class(class_of(config.mixer), "mixer_options", skip={"d_model"})
        recipe = config.recipe
        values = {name: getattr(config, name) for name in ("task", "mixer", "preset", "seed", "data_dir")}
        names = ("model", "optimizer", "trainer", *(["pretraining"] if recipe.pretraining else []))
        sections = {name: asdict(getattr(recipe, name)) for name in names}
        options = {**defaults_of(config.mixer), **recipe.mixer_options}
        if not pretrains:
            values["from_run"] = config.from_run
        parser.set_defaults({**values, **flatten(sections), **flatten({"mixer_options": options})})
    return parser


def _prepare(config: RunConfig | None) -> Parser:
    parser = Parser(description="Build the data of a task on disk.")
    parser.add_argument("task", help=_TASK_HELP)
    parser.add_argument("--preset", type=str, default=DEFAULT_PRESET, help="the preset whose data to build")
    parser.add_argument("--data-dir", type=str | None, help="folder of prepared data")
    if config is not None:
        _add_data(parser, config)
    return parser


def _evaluate() -> Parser:
    parser = Parser(description="Accuracy of a run's best checkpoint.")
    parser.add_argument("run", metavar="RUN", type=str, help="folder of a run, or a .ckpt file")
    parser.add_argument("--split", type=Literal["test", "val"], default="test", help="part of the data")
    parser.add_argument("--data-dir", type=str | None, help="folder of prepared data, where it has moved")
    parser.add_argument("--accelerator", type=str, default="auto", help="cpu, gpu or auto; the run's may be another")
    parser.add_argument(
        "--rate",
        type=int,
        default=1,
        help="read one in so many samples, with the step sizes of the model multiplied by it",
    )
    return parser


def _report() -> Parser:
    parser = Parser(description="A table of runs with the published accuracies beside ours, or a page with curves too.")
    parser.add_argument("runs", metavar="RUNS", type=str, nargs="+", help="folders of runs, or of folders of runs")
    parser.add_argument("--format", type=Format | None, help="form; text, or what the name of --output says")
    parser.add_argument("--output", type=str | None, help="file to write, such as report.html; the screen where none")
    return parser


def _add_data(parser: Parser, config: RunConfig) -> None:
    parser.add_class(TASKS[config.task], "data", skip=set(OPTIONS_OF_RUNS))
    parser.set_defaults(flatten({"data": config.recipe.data}))

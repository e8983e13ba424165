"""The configuration of a run: what it was asked to do, as plain data that is saved beside its results."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from longconv._checks import check_choice
from lra_tasks.data import TASKS, VIDEO_TASKS
from lra_tasks.errors import RunError, UsageError
from lra_tasks.files import load_checkpoint, write_text
from lra_tasks.mixers import list_mixers_of
from lra_tasks.recipes import (
    ModelSettings,
    OptimizerSettings,
    PretrainingSettings,
    Recipe,
    TrainerSettings,
    VideoSettings,
)

RESUME_MAY_CHANGE = (
    "data_dir",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.strategy",
    "trainer.sequence_parallel",
    "trainer.max_epochs",
    "trainer.early_stopping",
    "trainer.log_every_n_steps",
    "data.num_workers",
    "data.processes",
)
"""Fields that may differ when a run is resumed. A new max_epochs moves the end of the cosine from there on."""

OPTIONS_OF_RUNS = ("data_dir", "seed")
"""Arguments of a task that are settings of the run, not of its section ``data``."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the outcome of a run.

    Args:
        task: name of the task.
        mixer: name of the mixer.
        preset: the preset that the settings started from.
        seed: seed of the initial parameters, the order of the data and dropout.
        data_dir: folder of the data; None for the default of :class:`lra_tasks.data.Task`.
        recipe: all other settings.
        from_run: folder or checkpoint of the run whose weights this one starts from; None for a fresh one.
    """

    task: str
    mixer: str
    preset: str
    seed: int
    data_dir: str | None
    recipe: Recipe
    from_run: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Nested dictionaries of plain values, the layout of ``config.yaml``; without what only other runs have."""
        values = {name: getattr(self, name) for name in (*_TOP, "from_run")} | _plain(asdict(self.recipe))
        return {name: value for name, value in values.items() if name not in _OPTIONAL or value is not None}

    def settings(self) -> dict[str, Any]:
        """All settings under dotted names, with the defaults of the task's options that old runs leave out."""
        options = inspect.signature(TASKS[self.task]).parameters
        defaults = {f"data.{name}": option.default for name, option in options.items() if name not in OPTIONS_OF_RUNS}
        return _plain(defaults) | flatten(self.to_dict())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """The inverse of :meth:`to_dict`.

        Raises:
            UsageError: a section or a field is missing, unknown or of the wrong type, or the task or the mixer unknown.
        """
        known = {*_TOP, *_SECTIONS, *_OPTIONS}
        if not isinstance(values, Mapping):
            raise UsageError(f"the configuration is {values!r}, expected a mapping of settings")
        given = {name: value for name, value in values.items() if name not in _OPTIONAL}
        if set(given) != known:
            odd = ", ".join(sorted(map(str, known.symmetric_difference(given))))
            raise UsageError(f"the configuration lacks or does not know: {odd}")
        pretraining = values.get("pretraining")
        for name in (*_SECTIONS, *_OPTIONS, *(["pretraining"] if pretraining is not None else [])):
            if not isinstance(values[name], Mapping):
                raise UsageError(f"{name} is {values[name]!r}, expected a mapping of settings")
        for name, kinds in {**_TOP, "from_run": (str, type(None))}.items():
            if not isinstance(values.get(name), kinds):
                raise UsageError(f"{name} is {values[name]!r}, which is of the wrong type")
        try:
            check_choice("task", values["task"], sorted(TASKS))
            check_choice("mixer", values["mixer"], list_mixers_of(values["task"]))
            classes = {**_SECTIONS, **({"model": VideoSettings} if values["task"] in VIDEO_TASKS else {})}
            classes |= {} if pretraining is None else {"pretraining": PretrainingSettings}
            sections: dict[str, Any] = {name: kind(**values[name]) for name, kind in classes.items()}
        except (TypeError, ValueError) as error:
            raise UsageError(str(error)) from error
        recipe = Recipe(data=dict(values["data"]), mixer_options=dict(values["mixer_options"]), **sections)
        return cls(recipe=recipe, from_run=values.get("from_run"), **{name: values[name] for name in _TOP})

    def with_absolute_folders(self) -> RunConfig:
        """The same with ``data_dir``, ``data.official_dir`` and ``from_run`` absolute, to hold from anywhere."""
        official = self.recipe.data.get("official_dir")
        given = {"data_dir": self.data_dir, "official_dir": official, "from_run": self.from_run}
        folders = {name: str(Path(path).expanduser().absolute()) for name, path in given.items() if path is not None}
        data = {name: folder for name, folder in folders.items() if name == "official_dir"}
        recipe = self.recipe.override({"data": data})
        return replace(self, data_dir=folders.get("data_dir"), from_run=folders.get("from_run"), recipe=recipe)

    def with_folders_alike(self) -> RunConfig:
        """The same wherever its folders lie: given ones are called alike, as they may have moved since."""
        data = {} if self.recipe.data.get("official_dir") is None else {"official_dir": "given"}
        recipe = self.recipe.override({"data": data})
        return replace(self, data_dir=None, from_run=self.from_run and "given", recipe=recipe)

    def save(self, path: Path) -> None:
        """Write the configuration as YAML."""
        write_text(path, yaml.safe_dump(self.to_dict(), sort_keys=False))

    @classmethod
    def load(cls, path: Path) -> RunConfig:
        """Read what :meth:`save` wrote.

        Raises:
            RunError: the file is missing, not readable or no configuration of a run.
        """
        try:
            values = yaml.safe_load(path.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise RunError(f"cannot read {path}: {error}") from error
        try:
            return cls.from_dict(values)
        except UsageError as error:
            raise RunError(f"{path} is no configuration of a run: {error}") from error


def load_with_config(checkpoint: Path) -> tuple[dict[str, Any], RunConfig]:
    """Read a checkpoint of a run, and the configuration that it carries.

    Raises:
        RunError: the checkpoint is missing or damaged.
    """
    contents = load_checkpoint(checkpoint)
    try:
        return contents, RunConfig.from_dict(contents["run"].get("config"))
    except UsageError as error:
        raise RunError(f"{checkpoint} is no checkpoint of a run of lra-tasks: {error}") from error


_TOP: dict[str, tuple[type, ...]] = {
    "task": (str,),
    "mixer": (str,),
    "preset": (str,),
    "seed": (int,),
    "data_dir": (str, type(None)),
}
_OPTIONS = ("data", "mixer_options")
_OPTIONAL = ("from_run", "pretraining")
_SECTIONS: dict[str, type] = {"model": ModelSettings, "optimizer": OptimizerSettings, "trainer": TrainerSettings}


def _plain(value: Any) -> Any:
    """Tuples as lists, which YAML has."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple | list) else value


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one level with dotted names.

    >>> flatten({"seed": 0, "model": {"d_model": 64}})
    {'seed': 0, 'model.d_model': 64}
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        inner = flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
        flat.update(inner)
    return flat


def differences(saved: RunConfig, now: RunConfig) -> list[str]:
    """The fields in which a run on disk differs from what is asked now, without those a resumed run may change."""
    before, after = saved.settings(), now.settings()
    return [
        f"{name} is {before.get(name)!r} in the run, {after.get(name)!r} now"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name) and name not in RESUME_MAY_CHANGE
    ]

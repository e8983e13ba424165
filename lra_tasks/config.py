"""The configuration of a run: what it was asked to do, as plain data that is saved beside its results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from lra_tasks.errors import RunError, UsageError
from lra_tasks.files import write_text
from lra_tasks.recipes import ModelSettings, OptimizerSettings, Recipe, TrainerSettings

RESUME_MAY_CHANGE = (
    "data_dir",
    "trainer.max_epochs",
    "trainer.log_every_n_steps",
    "data.num_workers",
    "data.processes",
)
"""Fields that may differ when a run is resumed. A new max_epochs moves the end of the cosine from there on."""


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
    """

    task: str
    mixer: str
    preset: str
    seed: int
    data_dir: str | None
    recipe: Recipe

    def to_dict(self) -> dict[str, Any]:
        """Nested dictionaries of plain values, the layout of ``config.yaml``."""
        values = {name: getattr(self, name) for name in _TOP}
        return {**values, **asdict(self.recipe)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunConfig:
        """The inverse of :meth:`to_dict`.

        Raises:
            UsageError: a section or a field is missing or unknown.
        """
        known = {*_TOP, *_SECTIONS, "data", "mixer_options"}
        if set(values) != known:
            odd = ", ".join(sorted(known.symmetric_difference(values)))
            raise UsageError(f"the configuration lacks or does not know: {odd}")
        try:
            sections: dict[str, Any] = {name: kind(**values[name]) for name, kind in _SECTIONS.items()}
        except (TypeError, ValueError) as error:
            raise UsageError(str(error)) from error
        recipe = Recipe(data=dict(values["data"]), mixer_options=dict(values["mixer_options"] or {}), **sections)
        return cls(recipe=recipe, **{name: values[name] for name in _TOP})

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
        if not isinstance(values, dict):
            raise RunError(f"{path} is no configuration of a run")
        try:
            return cls.from_dict(values)
        except UsageError as error:
            raise RunError(f"{path}: {error}") from error


_TOP = tuple(field.name for field in fields(RunConfig) if field.name != "recipe")
_SECTIONS: dict[str, type] = {"model": ModelSettings, "optimizer": OptimizerSettings, "trainer": TrainerSettings}


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
    before, after = flatten(saved.to_dict()), flatten(now.to_dict())
    return [
        f"{name} is {before.get(name)!r} in the run, {after.get(name)!r} now"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name) and name not in RESUME_MAY_CHANGE
    ]
